"""Diffusion: the processes that denoisers are trained on, and the samplers that undo them."""
