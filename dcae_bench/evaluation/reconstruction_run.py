"""Reconstruction run: measures one autoencoder on evaluation sets of a profile and writes a record of each."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dcae_bench.base.errors import ConfigError, ResultsError
from dcae_bench.base.files import sha256_json, write_bytes
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.data.images import Crops, open_crops
from dcae_bench.data.native import NativeCrops
from dcae_bench.evaluation.gallery import on_one_canvas, pair_of, write_gallery
from dcae_bench.evaluation.per_image import write_images
from dcae_bench.evaluation.pngs import missing_png, require_pngs_fit, writing_pngs
from dcae_bench.evaluation.protocols import protocol_of
from dcae_bench.evaluation.reconstruction import (
    IndexNoise,
    ReconstructionEvaluator,
    Speed,
    reconstruct_part,
    reconstructor,
)
from dcae_bench.evaluation.store import remove_other_states
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.evaluation.tiling import measure_tiling
from dcae_bench.execution.half import HalfPrecision, in_precision
from dcae_bench.execution.inference import error_of, fast_autoencoder
from dcae_bench.execution.path import EAGER, choose_path
from dcae_bench.execution.tiles import Tiled
from dcae_bench.generation.posterior import posterior_noise
from dcae_bench.models.autoencoder import Autoencoder, images_at_once
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.profile.evaluation import EvaluationSet, TilesSpec
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import evaluation_recipe, reconstruction_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.path import ComputePath, PathRequest
from dcae_bench.records.provenance import Provenance, Stopwatch, collect
from dcae_bench.records.record import Data, Record, save
from dcae_bench.records.subject import Subject
from dcae_bench.running.device import choose, describe
from dcae_bench.running.kept_clock import kept_clock
from dcae_bench.running.output_lock import sole_writers
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker, join_processes
from dcae_bench.specs.autoencoders import CustomSpec, DiffusersSpec, unfolded
from dcae_bench.specs.protocols import NATIVE
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.subjects.own_class import first_images, tokens_of


def evaluate_reconstruction(
    profile: Profile,
    chosen: ChosenAutoencoder,
    *,
    data: Path,
    output: Path,
    sets: Sequence[EvaluationSet] | None = None,
    inception: Path | None = None,
    path: PathRequest | None = None,
    png: Path | None = None,
) -> None:
    """Measure the chosen autoencoder on ``sets``, by default all sets that the profile gives this autoencoder.

    Writes four files per set into the folder ``output``: ``<set>.json``, the record; ``<set>.images.parquet``, the
    values of every image; ``<set>.samples.npy``, the first images with their reconstructions; and
    ``<set>.gallery.npz``, the worst and the median reconstructions. ``data`` is the folder of the prepared data sets,
    ``inception`` a file of Inception weights. ``path`` is by default the profile's. With
    ``png``, every original and its reconstruction are also written as ``<png>/<set>/originals/<index>.png`` and
    ``<png>/<set>/reconstructions/<index>.png``. A second call after an interruption resumes the work.

    Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    sets = profile.sets_of(chosen.name) if sets is None else sets
    crops = {item.label: open_crops(profile, item, data) for item in sets}
    with join_processes() as process:
        device = process.device(choose(profile))
        model, subject = open_autoencoder(chosen, partial(first_images, crops[sets[0].label], device))
        if subject.weights_source == "retrained" and subject.phase is not None:
            seen = subject.training_images or profile.images_seen(subject.autoencoder, subject.phase)
            subject = subject.model_copy(update={"trained_images": seen})
        evaluation = Evaluation(profile, model.to(device), subject, device, process, inception, path, png)
        for item in sets:
            evaluation.run(item, crops[item.label], output)


class Evaluation:
    """Measures one autoencoder on one device, set by set."""

    def __init__(
        self,
        profile: Profile,
        model: Autoencoder,
        subject: Subject,
        device: torch.device,
        process: Worker,
        inception: Path | None = None,
        path: PathRequest | None = None,
        png: Path | None = None,
    ):
        """Load the protocol's networks. Raises :class:`WeightsError`."""
        spec = profile.evaluation
        self.profile, self.subject, self.device, self.process = profile, subject, device, process
        self.settings = settings_of(profile, model, subject)
        self.gmacs = _gmacs(profile, subject)
        self.half = in_precision(model, spec.precision)
        self.tiled = None if spec.tiles is None else _tiled(self.half, spec.tiles)
        self.model: Autoencoder = self.tiled or self.half
        self.noise, self.request = _noise(profile, self.settings), path or profile.path
        self.reconstruct = reconstructor(self.model, self.noise, spec.precision)
        self.path: ComputePath = EAGER
        self.png = png
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
        """Measure one set and write its files. The record is written last, so a record never lacks its other files.

        Raises :class:`ConfigError` where the fast path was asked for and cannot be taken, and :class:`ResultsError`
        where PNG files of other images are in the way.
        """
        if self.png is not None:
            require_pngs_fit(self.png / item.label, len(crops))
        self._choose_path(crops)
        state = output / f".{item.label}-{self._recipe(crops)[:12]}"
        with (
            sole_writers(output / f"{item.label}.json", self.process),
            kept_clock(state, keep=self.process.first) as clock,
        ):
            self._run(item, crops, output, state, clock)
            self.process.wait()
            if self.process.first:
                self.evaluator.forget(state)

    def _run(self, item: EvaluationSet, crops: Crops, output: Path, state: Path, clock: Stopwatch) -> None:
        spec = self.profile.evaluation
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(f"{self.subject.autoencoder} on {item.label}", total=len(crops))
            self.evaluator.progress = lambda done, total: bar.update(task, completed=done, total=total)
            reconstruct = self.reconstruct
            if self.png is not None:
                reconstruct = writing_pngs(reconstruct, self.png / item.label, threads=spec.workers)
            if self.process.first:
                remove_other_states(state)
            measured = self.evaluator.measure(reconstruct, crops, state)
        if self.process.first and self.png is not None and (gone := missing_png(self.png / item.label, len(crops))):
            self.evaluator.forget(state)
            raise ResultsError(f"{gone}: was removed while the pass was interrupted; run the same command again")
        if self.process.first:
            tiling = None
            if self.tiled is not None and spec.tiles is not None:
                tiling = measure_tiling(self.tiled, spec.tiles, self.noise, crops, self.device)
                self.console.print(f"{self.subject.autoencoder} on {item.label}: {tiling.described}", soft_wrap=True)
            metrics = summarise(measured, self.suite, crops, resamples=spec.bootstrap, seed=self.profile.seed)
            record = Record(
                kind="reconstruction",
                profile=self.profile.name,
                protocol=spec.protocol,
                settings=self.settings | (crops.settings if isinstance(crops, NativeCrops) else {}),
                subject=self._described(item, crops),
                data=describe_data(item, crops),
                metrics=metrics,
                path=self.path,
                tiling=tiling,
                provenance=self._provenance(item, crops, clock),
            )
            write_images(output / f"{item.label}.images.parquet", measured, crops)
            self._write_samples(output / f"{item.label}.samples.npy", crops, spec.samples)
            gallery = output / f"{item.label}.gallery.npz"
            write_gallery(gallery, measured, self.reconstruct, crops, self.device, spec.gallery)
            save(record, output / f"{item.label}.json")
            shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in metrics.values())
            self.console.print(
                f"{self.subject.autoencoder} on {item.label}: {shown}{_speed_text(measured.speed)}", soft_wrap=True
            )

    def _described(self, item: EvaluationSet, crops: Crops) -> Subject:
        """The subject as the record of a set holds it."""
        note = self.half.note if isinstance(self.half, HalfPrecision) else None
        if note is not None:
            self.console.print(f"{self.subject.autoencoder}: {note}", soft_wrap=True)
        notes = (*self.subject.notes, *([note] if note is not None else []))
        found = {"gmacs": self.gmacs.get(item.resolution), "tokens": tokens_of(self.half, crops, self.device)}
        return self.subject.model_copy(update={**found, "notes": notes})

    def _choose_path(self, crops: Crops) -> None:
        """Take the path of a set, before the state of its pass is named: a pass never goes on by another path."""
        if isinstance(crops, NativeCrops):
            reason = "whole images have several sizes, for each of which the fast path would be compiled anew"
            if self.request == "fast":
                raise ConfigError(f"--path fast: cannot be taken: {reason}; use --path auto or --path eager")
            self.path = EAGER.model_copy(update={"reason": reason})
            self.reconstruct = reconstructor(self.model, self.noise, self.profile.evaluation.precision)
            return
        size = min(self.profile.evaluation.batch_size, images_at_once(crops.resolution), len(crops))
        tf32, indices = self.settings.get("tf32") == "on", range(size)

        def error(fast: Autoencoder) -> float:
            images = torch.stack([crops[index] for index in indices]).to(self.device)
            wanted = reconstruct_part(self.model, self.noise, images, indices)
            return error_of(reconstruct_part(fast, self.noise, images, indices), wanted)

        with pinned(tf32), torch.inference_mode():
            chosen = choose_path(
                self.request,
                self.device,
                self.model,
                lambda: fast_autoencoder(self.model, size),
                error,
                what=f"reconstructions of the first {size} images, fast beside eager",
                tf32=tf32,
                precision=self.profile.evaluation.precision,
                process=self.process,
                say=lambda text: self.console.print(f"{self.subject.autoencoder}: {text}", soft_wrap=True),
            )
        self.path, self.reconstruct = (
            chosen.path,
            reconstructor(chosen.network, self.noise, self.profile.evaluation.precision),
        )

    def _recipe(self, crops: Crops) -> str:
        """Hash of everything that shapes the per-image state: a pass never resumes the state of another recipe."""
        spec = evaluation_recipe(self.profile, reconstructs=True)
        networks = {name: network.weights_sha256 for name, network in self.suite.networks.items()}
        code = fingerprint(__name__)
        device = self.device.type
        parts = [spec, crops.sha256, self.subject.weights_sha256, networks, self.settings, device, code]
        parts += [] if self.path.name == "eager" else [self.path.name]
        # A pass that wrote no PNG files, or others, cannot go on as one that writes them.
        return sha256_json(parts if self.png is None else [*parts, {"png": str(self.png.absolute())}])

    def _provenance(self, item: EvaluationSet, crops: Crops, clock: Stopwatch) -> Provenance:
        subject = self.subject
        return collect(
            code=fingerprint(__name__),
            config={**evaluation_recipe(self.profile, reconstructs=True), "crops": crops.sha256},
            recipe=reconstruction_recipe(
                self.profile, subject.autoencoder, subject.weights_source, subject.phase, item
            ),
            seed=self.profile.seed,
            device=describe(self.device, self.profile, self.process.count, self.profile.evaluation.precision),
            clock=clock,
        )

    def _write_samples(self, path: Path, crops: Crops, count: int) -> None:
        """Write the first images and their reconstructions, uint8 (k, 2, height, width, 3).

        Whole images are put on a canvas of the largest, white beside them.
        """
        pairs = [pair_of(self.reconstruct, crops, index, self.device) for index in range(min(count, len(crops)))]
        buffer = io.BytesIO()
        np.save(buffer, np.stack(on_one_canvas(pairs)))
        write_bytes(path, buffer.getvalue())


def settings_of(profile: Profile, model: Autoencoder, subject: Subject) -> dict[str, str]:
    """The protocol's switches that apply to one autoencoder.

    The switch ``posterior`` is left out for a model without a posterior, such as DC-AE, and for every retrained
    autoencoder: the three phases train only the mean, which is the latent, and never the spread.
    """
    settings = profile.evaluation.settings | profile.evaluation.computation
    if model.has_posterior and subject.weights_source != "retrained":
        return settings
    return {key: value for key, value in settings.items() if key != "posterior"}


def describe_data(item: EvaluationSet, crops: Crops) -> Data:
    """Describe the images of an evaluation set as records do."""
    return Data(
        name=item.dataset,
        split=crops.split,
        resolution=item.resolution,
        images=len(crops),
        sha256=crops.manifest_sha256,
    )


def _gmacs(profile: Profile, subject: Subject) -> dict[int, float]:
    """1e9 multiply-accumulates of a pass by resolution (px), for architectures whose code is ours."""
    entry = profile.autoencoders.get(subject.autoencoder)
    if profile.evaluation.protocol == NATIVE:
        return {}  # they would be another number for every image
    if entry is None or isinstance(unfolded(entry.model), DiffusersSpec | CustomSpec):
        return {}
    passes = autoencoder_cost(entry.model, {item.resolution for item in profile.sets_of(subject.autoencoder)}).passes
    return {side: cost.encode_gmacs + cost.decode_gmacs for side, cost in passes.items()}


def _tiled(model: Autoencoder, tiles: TilesSpec) -> Tiled:
    return Tiled(model, tiles.size, tiles.overlap, encodes=tiles.encode).eval()


def _noise(profile: Profile, settings: dict[str, str]) -> IndexNoise | None:
    return partial(posterior_noise, profile.seed) if settings.get("posterior") == "sample" else None


def _speed_text(speed: Speed) -> str:
    if not speed.images:
        return ""
    waiting = speed.waited / speed.seconds
    return f" ({speed.images / speed.seconds:.3g} img/s, {waiting:.0%} of the time waiting for images)"
