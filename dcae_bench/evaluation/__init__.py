"""Evaluation: of reconstructions and of samples, and the latents and samples that come before."""

# The code whose change makes each result stale; commands and the workflow's rules both watch these modules.
RECONSTRUCTION_CODE = ("dcae_bench.evaluation", "dcae_bench.metrics", "dcae_bench.models", "dcae_bench.data")
GENERATION_CODE = ("dcae_bench.evaluation", "dcae_bench.metrics", "dcae_bench.data")
LATENTS_CODE = (
    "dcae_bench.models",
    "dcae_bench.data",
    "dcae_bench.evaluation.encode",
    "dcae_bench.evaluation.latents",
    "dcae_bench.evaluation.noise",
    "dcae_bench.evaluation.packing",
    "dcae_bench.keyed_random",
)
SAMPLES_CODE = (
    "dcae_bench.models",
    "dcae_bench.diffusion",
    "dcae_bench.diffusion_specs",
    "dcae_bench.evaluation.denoisers",
    "dcae_bench.evaluation.packing",
    "dcae_bench.evaluation.sampling",
    "dcae_bench.metrics.image",
    "dcae_bench.keyed_random",
)
