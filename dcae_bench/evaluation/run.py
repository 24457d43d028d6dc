"""Reconstruction records of one autoencoder on every set of a profile."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dcae_bench.config import Profile
from dcae_bench.data.crops import eval_crops
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.device import choose, describe
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation.reconstruction import PROTOCOL, ReconstructionEvaluator
from dcae_bench.evaluation_spec import EvaluationSet
from dcae_bench.files import sha256_json, write_bytes
from dcae_bench.metrics.features import efficientnet_lite0_extractor
from dcae_bench.metrics.lpips import LPIPS
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.zoo import build
from dcae_bench.provenance import Stopwatch, collect
from dcae_bench.records import Data, Record, Subject, WeightsSource, save


def evaluate_reconstruction(
    profile: Profile,
    autoencoder: str,
    phase: int | None,
    *,
    weights: Path | None,
    data: Path,
    output: Path,
    weights_source: WeightsSource = "retrained",
    sets: Sequence[EvaluationSet] | None = None,
) -> None:
    """Measure ``weights`` and write ``<set>.json`` and ``<set>.samples.npy`` into ``output`` for each set.

    ``sets`` are those of the profile's plan for the autoencoder, or some of them. ``data`` holds the packed data sets.
    Without ``weights`` the autoencoder is measured as its class builds it.
    Raises :class:`ConfigError` (also for a protocol that this version does not have), :class:`DataError`,
    :class:`WeightsError` and :class:`ResultsError`.
    """
    require_protocol(profile)
    device = choose(profile)
    sets = profile.sets_of(autoencoder) if sets is None else sets
    packs = {item.dataset: PackedPhotos.open(data / item.dataset / "eval.npy") for item in sets}
    model, subject = load_subject(profile, autoencoder, phase, weights, weights_source)
    model.to(device)
    evaluator = ReconstructionEvaluator(
        efficientnet_lite0_extractor(), LPIPS.load("alex"), batch_size=profile.evaluation.batch_size, device=device
    )
    console = Console(stderr=True)
    for item in sets:
        clock = Stopwatch()
        pack = packs[item.dataset]
        images = set_images(profile, item, pack)
        measured = evaluator.measure(model, images, samples=profile.evaluation.samples)
        record = Record(
            kind="reconstruction",
            profile=profile.name,
            protocol=profile.evaluation.protocol,
            subject=subject,
            data=Data(
                name=item.dataset,
                split="eval",
                resolution=item.resolution,
                images=len(images),
                sha256=pack.manifest_sha256,
            ),
            metrics=measured.metrics,
            provenance=collect(
                config={**profile.evaluation_recipe(), "pack": pack.sha256},
                seed=profile.seed,
                device=describe(device, profile),
                clock=clock,
            ),
        )
        buffer = io.BytesIO()
        np.save(buffer, measured.samples)
        write_bytes(output / f"{item.label}.samples.npy", buffer.getvalue())
        save(record, output / f"{item.label}.json")
        shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in measured.metrics.values())
        console.print(f"{autoencoder} on {item.label}: {shown}", soft_wrap=True)


def state_sha256(model: Autoencoder) -> str:
    """What stands for the hash of a weights file where a class brings its own: hash of its spec and of its state."""
    digest = hashlib.sha256(sha256_json(model.spec.model_dump(mode="json")).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(to_safetensors({key: value.detach().cpu().contiguous()}))
    return digest.hexdigest()


def require_protocol(profile: Profile) -> None:
    """Refuse a protocol that this version does not have. Raises :class:`ConfigError`."""
    if profile.evaluation.protocol != PROTOCOL:
        raise ConfigError(
            f"profile {profile.name}: protocol '{profile.evaluation.protocol}' is not in this version, which measures "
            f"'{PROTOCOL}'; evaluate with a version that has it"
        )


def load_subject(
    profile: Profile,
    autoencoder: str,
    phase: int | None,
    weights: Path | None,
    weights_source: WeightsSource = "retrained",
) -> tuple[Autoencoder, Subject]:
    """Build an autoencoder of the profile in evaluation mode and describe it for records.

    Without ``weights`` it is as its class builds it. Raises :class:`WeightsError`.
    """
    spec = profile.autoencoders[autoencoder].model
    model = build(spec)
    weights_sha256 = load_weights(model, weights) if weights is not None else state_sha256(model)
    subject = Subject(
        autoencoder=autoencoder,
        family=spec.family,
        compression=spec.compression,
        latent_channels=spec.latent_channels,
        weights_source=weights_source,
        phase=phase,
        parameters=model.count_parameters(),
        weights_sha256=weights_sha256,
    )
    return model.eval(), subject


def set_images(profile: Profile, item: EvaluationSet, pack: PackedPhotos) -> Tensor:
    """Images of one evaluation set, uint8 (n, 3, R, R). Raises :class:`DataError`."""
    # Windows are at least as large as the largest resolution, so that each resolution shows the same content.
    min_window = max(other.resolution for other in profile.evaluation.sets)
    return eval_crops(pack, profile.evaluation.crops_per_photo, profile.seed, item.resolution, min_window)
