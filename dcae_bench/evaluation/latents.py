"""Statistics of latents: mean, RMS and standard deviation, and the scaling factor 1/RMS (paper, appendix B)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from dcae_bench.config import Profile
from dcae_bench.data.crops import normalise
from dcae_bench.data.images import Crops, open_crops
from dcae_bench.device import choose, describe
from dcae_bench.errors import CheckError, DataError, WeightsError
from dcae_bench.evaluation.run import data_of, load_subject
from dcae_bench.evaluation.workers import batches_of, read_ahead
from dcae_bench.evaluation_spec import EvaluationSet
from dcae_bench.files import write_text
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.presets import Scaling
from dcae_bench.provenance import Stopwatch, collect
from dcae_bench.records import Metric, Record, WeightsSource, save

PROTOCOL = "latents/photos-v1"
TOLERANCE = 0.01
"""Relative deviation up to which a declared scaling factor is that of the latents; the authors print four digits."""


class ChannelStatistics(BaseModel):
    """Statistics of each latent channel, in order; stands beside the record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: tuple[float, ...]
    rms: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LatentStatistics:
    """Sums over all latents: float64, per channel, from one pass."""

    count: int
    """Values per channel."""
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(
        cls, model: Autoencoder, crops: Crops, *, batch_size: int, device: torch.device, threads: int = 0
    ) -> "LatentStatistics":
        """Encode every crop once. Raises :class:`DataError` when there are none."""
        if not len(crops):
            raise DataError("0 images have no latents; choose a data set with photographs")
        count, total, squares = 0, 0.0, 0.0
        with torch.inference_mode():
            for _, batch in read_ahead(crops, batches_of(len(crops), batch_size), threads):
                z = model.encode(normalise(batch.to(device))).double()
                count += z.numel() // z.shape[1]
                # Summed image by image, so that the batch size changes no bit of these sums.
                total = sum(z.sum(dim=(2, 3)).cpu().numpy(), start=total)
                squares = sum(z.square().sum(dim=(2, 3)).cpu().numpy(), start=squares)
        return cls(count, total, squares)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return float(self.total.mean() / self.count)

    @property
    def rms(self) -> float:
        """Root of the mean square of all values: sqrt(sum z^2 / count), the authors' definition."""
        return float(np.sqrt(self.squares.mean() / self.count))

    def rms_about(self, shift: float) -> float:
        """Root of the mean square of what is left when a shift is taken from all values."""
        return float(np.sqrt(max(self.rms**2 - 2 * shift * self.mean + shift**2, 0.0)))

    @property
    def std(self) -> float:
        """Standard deviation of all values about their common mean (population)."""
        return float(np.sqrt(max(self.rms**2 - self.mean**2, 0.0)))

    @property
    def channels(self) -> ChannelStatistics:
        """The same per channel, each about its own mean."""
        mean, square = self.total / self.count, self.squares / self.count
        std = np.sqrt(np.maximum(square - mean**2, 0.0))
        return ChannelStatistics(mean=tuple(mean), rms=tuple(np.sqrt(square)), std=tuple(std))


def check_declared(found: LatentStatistics, declared: Scaling) -> Metric:
    """Compare a declared scaling factor with 1/RMS, of the shifted latent where a shift is declared too.

    The first word of the metric's note is the verdict.
    """
    rms = found.rms_about(declared.shift)
    deviation = declared.factor * rms - 1
    verdict = "match" if abs(deviation) <= TOLERANCE else "deviates"
    shifted = f" after a shift of {declared.shift:g}" if declared.shift else ""
    note = f"{verdict}: {deviation:+.2%} from 1/RMS = {1 / rms:.5g}{shifted}, tolerance {TOLERANCE:.0%}"
    return Metric(label="declared scaling factor", value=declared.factor, notes=(note,))


def measure_latents(
    profile: Profile,
    autoencoder: str,
    phase: int | None,
    item: EvaluationSet,
    *,
    weights: Path | None,
    data: Path,
    output: Path,
    weights_source: WeightsSource = "retrained",
    declared: Scaling | None = None,
    strict: bool = False,
) -> Record:
    """Write the record ``output`` and ``<output>.channels.json`` beside it; returns the record.

    Without ``weights`` the autoencoder is measured as its class builds it.

    Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError`, and with ``strict`` :class:`CheckError` for
    a declared factor that deviates, after the record is written.
    """
    device, clock = choose(profile), Stopwatch()
    crops = open_crops(profile, item, data)
    model, subject = load_subject(profile, autoencoder, phase, weights, weights_source)
    spec = profile.evaluation
    found = LatentStatistics.of(
        model.to(device), crops, batch_size=spec.batch_size, device=device, threads=spec.workers
    )
    if not np.isfinite(found.rms):
        raise WeightsError(
            f"{autoencoder} on {item.label}: its latents hold values that are not finite; check the weights"
        )
    if found.rms == 0:
        raise DataError(f"{autoencoder} on {item.label}: every latent is 0, so there is no scaling factor")
    metrics = {
        "mean": Metric(label="mean", value=found.mean),
        "rms": Metric(label="RMS", value=found.rms),
        "std": Metric(label="standard deviation", value=found.std),
        "scaling_factor": Metric(label="scaling factor (1/RMS)", value=1 / found.rms),
    }
    if declared is not None:
        metrics["declared_scaling_factor"] = check_declared(found, declared)
    recipe = {**profile.evaluation_recipe(), "crops": crops.sha256, "set": item.label}
    recipe["declared"] = declared and declared.model_dump(mode="json")
    record = Record(
        kind="latents",
        profile=profile.name,
        protocol=PROTOCOL,
        subject=subject,
        data=data_of(item, crops),
        metrics=metrics,
        provenance=collect(config=recipe, seed=profile.seed, device=describe(device, profile), clock=clock),
    )
    write_text(output.with_suffix(".channels.json"), found.channels.model_dump_json(indent=2) + "\n")
    save(record, output)
    if strict and declared is not None:
        (note,) = metrics["declared_scaling_factor"].notes
        if not note.startswith("match"):
            factor = 1 / found.rms_about(declared.shift)
            raise CheckError(
                f"{autoencoder}: declared scaling factor {declared.factor:g} ({declared.source}) {note}; declare "
                f"{factor:.4f} or leave out --strict"
            )
    return record
