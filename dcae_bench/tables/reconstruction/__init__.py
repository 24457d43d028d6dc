"""The reconstruction table (the paper's Table 2)."""
