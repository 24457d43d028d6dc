"""Training: one loop, for the three phases of an autoencoder and for denoisers."""

# The code whose change makes trained weights stale; the workflow's training rule watches these modules too. Metrics are
# left out: an edit there redoes evaluations, never a training. LPIPS as a loss is held by its weights' hash.
CODE = ("dcae_bench.models", "dcae_bench.training", "dcae_bench.data", "dcae_bench.specs", "dcae_bench.keyed_random")
# Beside those, what makes trained denoisers stale.
DIFFUSION_CODE = (*CODE, "dcae_bench.diffusion", "dcae_bench.diffusion_specs", "dcae_bench.denoiser_specs")
