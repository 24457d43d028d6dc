"""DC-AE Bench: benchmark and reproducibility harness for the Deep Compression Autoencoder (arXiv 2410.10733)."""

__version__ = "0.1.0"
