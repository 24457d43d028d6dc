"""The throughput table (the speeds of the paper's Table 3) and its figure."""
