"""What the processes of tests have before they start: reading the code for its fingerprints takes a second in each."""

from dcae_bench.records.fingerprint import fingerprint

for module in ("dcae_bench.training.run", "dcae_bench.training.diffusion_run"):
    fingerprint(module)
