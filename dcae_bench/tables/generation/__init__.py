"""The generation table (the paper's Tables 3 and 1)."""
