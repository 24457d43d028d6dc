"""Measurements: of reconstructions, generated samples and latents, and checks of the evaluator itself."""
