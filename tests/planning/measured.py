"""Records of trainings on a processor."""

from typing import Any

from dcae_bench.records.record import Record


def measured(
    kind: str, autoencoder: str, *, phase: int, resolution: int, denoiser: dict[str, Any] | None = None
) -> Record:
    """A training of the demo that saw 20 images a second."""
    return Record.model_validate(
        {
            "kind": kind,
            "profile": "demo",
            "protocol": "training/three-phase-v1",
            "subject": {
                "autoencoder": autoencoder,
                "family": "dc-ae",
                "compression": 32,
                "latent_channels": 32,
                "weights_source": "retrained",
                "phase": phase,
                "parameters": 1,
                "weights_sha256": "0",
            },
            "denoiser": denoiser,
            "data": {"name": "x", "split": "train", "resolution": resolution, "images": 8000, "sha256": "0"},
            "metrics": {"images_per_s": {"label": "speed", "value": 20.0}},
            "provenance": {
                "commit": None,
                "dirty": None,
                "code_sha256": "0",
                "config_sha256": "0",
                "seed": 0,
                "versions": {},
                "device": {"kind": "cpu", "name": "a processor", "threads": 1, "precision": "fp32"},
                "command": "",
                "started": "2026-01-01T00:00:00Z",
                "finished": "2026-01-01T00:00:00Z",
                "seconds": 400,
            },
        }
    )
