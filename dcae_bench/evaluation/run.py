"""Reconstruction records of one autoencoder on every set of a profile."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import Progress

from dcae_bench.config import Profile
from dcae_bench.data.images import Crops, open_crops
from dcae_bench.device import choose, describe
from dcae_bench.evaluation import RECONSTRUCTION_CODE
from dcae_bench.evaluation.gallery import write_gallery
from dcae_bench.evaluation.noise import posterior_noise
from dcae_bench.evaluation.protocols import protocol_of
from dcae_bench.evaluation.reconstruction import Measured, ReconstructionEvaluator, Speed, reconstructor
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.evaluation.workers import Process, processes
from dcae_bench.evaluation_spec import EvaluationSet
from dcae_bench.files import sha256_json, write_bytes, write_with
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.opening import open_model
from dcae_bench.provenance import Provenance, Stopwatch, collect, fingerprint
from dcae_bench.records import Data, Record, Subject, WeightsSource, save
from dcae_bench.specs import AutoencoderSpec


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
    inception: Path | None = None,
) -> None:
    """Measure ``weights`` on ``sets``, by default those that the profile plans for the autoencoder.

    For each set ``output`` gets ``<set>.json``, the record; ``<set>.images.parquet``, the values of every image;
    ``<set>.samples.npy``, the first reconstructions; and ``<set>.gallery.npz``, the worst and the median ones. ``data``
    holds the prepared data sets. Without ``weights`` the autoencoder is measured as its class builds it. Interrupted,
    the same command goes on.

    Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    sets = profile.sets_of(autoencoder) if sets is None else sets
    crops = {item.label: open_crops(profile, item, data) for item in sets}
    with processes() as process:
        device = process.device(choose(profile))
        model, subject = load_subject(profile, autoencoder, phase, weights, weights_source)
        evaluation = Evaluation(profile, model.to(device), subject, device, process, inception)
        for item in sets:
            evaluation.run(item, crops[item.label], output)


class Evaluation:
    """One autoencoder on one device, measured set by set."""

    def __init__(
        self,
        profile: Profile,
        model: Autoencoder,
        subject: Subject,
        device: torch.device,
        process: Process,
        inception: Path | None = None,
    ):
        """Load the protocol's networks. Raises :class:`WeightsError`."""
        spec = profile.evaluation
        self.profile, self.subject, self.device, self.process = profile, subject, device, process
        self.settings = settings_of(profile, model, subject)
        self.reconstruct = reconstructor(model, _noise(profile, self.settings))
        self.suite = Suite.load(protocol_of(profile), device, inception)
        self.evaluator = ReconstructionEvaluator(
            self.suite,
            batch_size=spec.batch_size,
            tf32=self.settings.get("tf32") == "on",
            threads=spec.workers,
            process=process,
        )
        self.console = Console(stderr=True, quiet=not process.first)

    def run(self, item: EvaluationSet, crops: Crops, output: Path) -> None:
        """Measure one set and write its files; the record comes last, so that it never stands alone."""
        spec, clock = self.profile.evaluation, Stopwatch()
        state = output / f".{item.label}-{self._recipe(crops)[:12]}"
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(f"{self.subject.autoencoder} on {item.label}", total=len(crops))
            self.evaluator.progress = lambda done, total: bar.update(task, completed=done, total=total)
            measured = self.evaluator.measure(self.reconstruct, crops, state)
        if self.process.first:
            metrics = summarise(measured, self.suite, crops, resamples=spec.bootstrap, seed=self.profile.seed)
            record = Record(
                kind="reconstruction",
                profile=self.profile.name,
                protocol=spec.protocol,
                settings=self.settings,
                subject=self.subject,
                data=data_of(item, crops),
                metrics=metrics,
                provenance=self._provenance(crops, clock),
            )
            write_images(output / f"{item.label}.images.parquet", measured, crops)
            self._write_samples(output / f"{item.label}.samples.npy", crops, spec.samples)
            gallery = output / f"{item.label}.gallery.npz"
            write_gallery(gallery, measured, self.reconstruct, crops, self.device, spec.gallery)
            save(record, output / f"{item.label}.json")
            shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in metrics.values())
            self.console.print(
                f"{self.subject.autoencoder} on {item.label}: {shown}{_speed(measured.speed)}", soft_wrap=True
            )
        del measured
        self.process.wait()
        if self.process.first:
            self.evaluator.forget(state)

    def _recipe(self, crops: Crops) -> str:
        """Hash of all that shapes the per-image state: an interrupted pass of another recipe is not gone on with."""
        spec = self.profile.evaluation.model_dump(mode="json", exclude={"bootstrap", "gallery", "samples", "workers"})
        networks = {name: network.weights_sha256 for name, network in self.suite.networks.items()}
        code = fingerprint(*RECONSTRUCTION_CODE)
        return sha256_json([spec, crops.sha256, self.subject.weights_sha256, networks, self.settings, code])

    def _provenance(self, crops: Crops, clock: Stopwatch) -> Provenance:
        config = {**self.profile.evaluation_recipe(), "crops": crops.sha256}
        device = describe(self.device, self.profile, self.process.count)
        return collect(config=config, seed=self.profile.seed, device=device, clock=clock)

    def _write_samples(self, path: Path, crops: Crops, count: int) -> None:
        """The first images and their reconstructions, uint8 (k, 2, height, width, 3)."""
        indices = range(min(count, len(crops)))
        real = torch.stack([crops[index] for index in indices])
        with torch.inference_mode():
            parts = [
                self.reconstruct(real[index : index + 1].to(self.device), range(index, index + 1)).cpu()
                for index in indices
            ]
        pairs = torch.stack([real, torch.cat(parts)], dim=1).permute(0, 1, 3, 4, 2).contiguous()
        buffer = io.BytesIO()
        np.save(buffer, pairs.numpy())
        write_bytes(path, buffer.getvalue())


def settings_of(profile: Profile, model: Autoencoder, subject: Subject) -> dict[str, str]:
    """The protocol's switches as they were for one subject.

    There is none for a posterior where there is no posterior: in DC-AE, and in what the three phases train, where the
    mean is the latent and its spread was never trained.
    """
    settings = profile.evaluation.settings
    if model.has_posterior and subject.weights_source != "retrained":
        return settings
    return {key: value for key, value in settings.items() if key != "posterior"}


def write_images(path: Path, measured: Measured, crops: Crops) -> None:
    """Write the values of every image as Parquet: index, key and one column per metric, in the order of the set."""
    columns: dict[str, Any] = {
        "index": np.arange(len(crops)),
        "key": [crops.key(index) for index in range(len(crops))],
    }
    columns |= {name: measured.column(name) for name in measured.value_names}
    write_with(path, lambda file: pq.write_table(pa.table(columns), file))


def data_of(item: EvaluationSet, crops: Crops) -> Data:
    """What a record says of the images."""
    return Data(
        name=item.dataset,
        split=crops.split,
        resolution=item.resolution,
        images=len(crops),
        sha256=crops.manifest_sha256,
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
    return load_autoencoder(profile.autoencoders[autoencoder].model, autoencoder, phase, weights, weights_source)


def load_autoencoder(
    spec: AutoencoderSpec, autoencoder: str, phase: int | None, weights: Path | None, weights_source: WeightsSource
) -> tuple[Autoencoder, Subject]:
    """The same for an autoencoder that need not be one of a profile."""
    model, weights_sha256 = open_model(spec, weights, weights_source)
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
    return model, subject


def _noise(profile: Profile, settings: dict[str, str]) -> Callable[[range, torch.Size], torch.Tensor] | None:
    return partial(posterior_noise, profile.seed) if settings.get("posterior") == "sample" else None


def _speed(speed: Speed) -> str:
    if not speed.images:
        return ""
    waiting = speed.waited / speed.seconds
    return f" ({speed.images / speed.seconds:.3g} img/s, {waiting:.0%} of the time waiting for images)"
