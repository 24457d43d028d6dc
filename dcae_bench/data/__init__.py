"""Images and latents on disk: data sets, their manifests and packs, crops, and the order in which they are read."""
