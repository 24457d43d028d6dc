"""Generation: encode images to cached latents, and sample images from a denoiser."""
