"""Networks: DC-AE, SD-VAE, UViT and DiT, how they are built, and how their weights are loaded."""
