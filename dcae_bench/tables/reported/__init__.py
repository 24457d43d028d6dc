"""What the paper and its authors report, and how a measured number is judged against it."""
