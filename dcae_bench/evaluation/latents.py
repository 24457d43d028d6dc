"""Latent statistics as a record: mean, RMS, standard deviation, and the scaling factor 1/RMS (paper, appendix B)."""

from functools import partial
from pathlib import Path

import numpy as np

from dcae_bench.base.errors import CheckError, ConfigError, DataError, WeightsError
from dcae_bench.base.files import write_text
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.data.images import open_crops
from dcae_bench.evaluation.reconstruction_run import describe_data
from dcae_bench.generation.statistics import LatentStatistics
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import evaluation_recipe, reconstruction_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Stopwatch, collect
from dcae_bench.records.record import Metric, Record, save
from dcae_bench.running.device import choose, describe
from dcae_bench.specs.latent_scale import packing_of
from dcae_bench.specs.protocols import LATENTS
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.subjects.own_class import first_images, tokens_of
from dcae_bench.subjects.scaling import declared_scaling

TOLERANCE = 0.01
"""Largest relative deviation at which a declared scaling factor still matches; the authors print four digits."""


def check_declared(found: LatentStatistics, declared: Scaling) -> Metric:
    """Compare a declared scaling factor with 1/RMS of the latents, after the declared shift if there is one.

    Declared statistics by channel are compared with those of each channel instead. The first word of the metric's note
    is the verdict, ``match`` or ``deviates``.
    """
    if declared.std is not None:
        return _check_channels(found, declared.mean or (0.0,) * len(declared.std), declared.std)
    rms = found.rms_about(declared.shift)
    deviation = declared.factor * rms - 1
    verdict = "match" if abs(deviation) <= TOLERANCE else "deviates"
    shifted = f" after a shift of {declared.shift:g}" if declared.shift else ""
    note = f"{verdict}: {deviation:+.2%} from 1/RMS = {1 / rms:.5g}{shifted}, tolerance {TOLERANCE:.0%}"
    return Metric(label="declared scaling factor", value=declared.factor, notes=(note,))


def _check_channels(found: LatentStatistics, mean: tuple[float, ...], std: tuple[float, ...]) -> Metric:
    """The largest deviation of a channel's mean or standard deviation, in units of the declared deviation."""
    measured = found.channels
    away = np.abs(np.subtract(measured.mean, mean)) / std, np.abs(np.subtract(measured.std, std)) / std
    worst = int(np.argmax(np.maximum(*away)))
    value = float(max(away[0][worst], away[1][worst]))
    verdict = "match" if value <= TOLERANCE else "deviates"
    note = (
        f"{verdict}: channel {worst} has mean {measured.mean[worst]:.4g} and standard deviation "
        f"{measured.std[worst]:.4g}, declared are {mean[worst]:.4g} and {std[worst]:.4g}, {value:.2%} of the latter "
        f"apart, tolerance {TOLERANCE:.0%}"
    )
    return Metric(label="largest deviation from the declared channel statistics", value=value, notes=(note,))


def measure_latents(
    profile: Profile,
    chosen: ChosenAutoencoder,
    item: EvaluationSet,
    *,
    data: Path,
    output: Path,
    declared: Scaling | None = None,
    strict: bool = False,
) -> Record:
    """Measure the latents of one evaluation set and return the record.

    Writes the record to ``output`` and the statistics of each channel to ``<output>.channels.json``; ``data`` is the
    folder of the prepared data sets. ``declared`` is by default what is declared for the weights. Raises
    :class:`ConfigError`, :class:`DataError` and :class:`WeightsError`. With ``strict``, raises :class:`CheckError` for
    declared numbers that deviate, after writing the record, and :class:`ConfigError` where none are declared.
    """
    device, clock = choose(profile), Stopwatch()
    crops = open_crops(profile, item, data)
    model, subject = open_autoencoder(chosen, partial(first_images, crops, device))
    declared = declared_scaling(chosen, model) if declared is None else declared
    if strict and declared is None:
        raise ConfigError("--strict: there is nothing to compare with; add --declared FACTOR")
    spec = profile.evaluation
    packing = packing_of(declared.std, subject.latent_channels) if declared and declared.std else 1
    found = LatentStatistics.of(
        model.to(device), crops, batch_size=spec.batch_size, device=device, threads=spec.workers, packing=packing
    )
    if not np.isfinite(found.rms):
        raise WeightsError(
            f"{chosen.name} on {item.label}: its latents hold values that are not finite; check the weights"
        )
    if found.rms == 0:
        raise DataError(f"{chosen.name} on {item.label}: every latent is 0, so there is no scaling factor")
    subject = subject.model_copy(update={"tokens": tokens_of(model, crops, device)})
    metrics = {
        "mean": Metric(label="mean", value=found.mean),
        "rms": Metric(label="RMS", value=found.rms),
        "std": Metric(label="standard deviation", value=found.std),
        "scaling_factor": Metric(label="scaling factor (1/RMS)", value=1 / found.rms),
    }
    if declared is not None:
        key = "declared_scaling_factor" if declared.std is None else "declared_statistics"
        metrics[key] = check_declared(found, declared)
    recipe = {**evaluation_recipe(profile), "crops": crops.sha256, "set": item.label}
    recipe["declared"] = declared and declared.model_dump(mode="json")
    record = Record(
        kind="latents",
        profile=profile.name,
        protocol=LATENTS,
        subject=subject,
        data=describe_data(item, crops),
        metrics=metrics,
        provenance=collect(
            code=fingerprint(__name__),
            config=recipe,
            recipe=reconstruction_recipe(profile, subject.autoencoder, subject.weights_source, subject.phase, item),
            seed=profile.seed,
            device=describe(device, profile),
            clock=clock,
        ),
    )
    write_text(output.with_suffix(".channels.json"), found.channels.model_dump_json(indent=2) + "\n")
    save(record, output)
    if strict and declared is not None:
        (note,) = metrics[key].notes
        if not note.startswith("match") and declared.std is not None:
            raise CheckError(
                f"{chosen.name}: declared channel statistics ({declared.source}) {note}; declare those of "
                f"{output.with_suffix('.channels.json')} or leave out --strict"
            )
        if not note.startswith("match"):
            factor = 1 / found.rms_about(declared.shift)
            raise CheckError(
                f"{chosen.name}: declared scaling factor {declared.factor:g} ({declared.source}) {note}; declare "
                f"{factor:.4f} or leave out --strict"
            )
    return record
