"""Records of results: their content, their provenance, the fingerprint of the code behind them, and their paths."""
