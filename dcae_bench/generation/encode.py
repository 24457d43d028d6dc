"""Encoding of images to cached latents: one pass of an autoencoder, resumable and shared by processes."""

import hashlib
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import sha256_file, write_bytes
from dcae_bench.base.leftovers import remove_folders, remove_parts
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.data.labelled import LabelledCrops, Mirrored, open_labelled
from dcae_bench.data.latents import (
    LABELS,
    LATENTS,
    MANIFEST,
    LatentManifest,
    Latents,
    LatentSummary,
    latents_recipe_sha256,
    read_latent_manifest,
    require_latents_of_weights,
    write_latent_manifest,
)
from dcae_bench.data.pixels import normalise
from dcae_bench.data.read_ahead import read_ahead
from dcae_bench.execution.inference import error_of, fast_autoencoder
from dcae_bench.execution.path import EAGER, choose_path, require_path, state_of_path
from dcae_bench.generation.packing import PackedArray
from dcae_bench.generation.posterior import posterior_noise
from dcae_bench.generation.statistics import LatentStatistics
from dcae_bench.models.autoencoder import Autoencoder, images_at_once
from dcae_bench.profile.diffusion import LatentDataSpec, LatentSource
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import latents_recipe
from dcae_bench.records.path import ComputePath, PathRequest
from dcae_bench.records.provenance import Stopwatch
from dcae_bench.records.subject import Subject
from dcae_bench.running.device import choose
from dcae_bench.running.kept_clock import forget_clocks, kept_clock
from dcae_bench.running.output_lock import sole_writers
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker, batches_of, join_processes
from dcae_bench.specs.autoencoders import has_grid
from dcae_bench.specs.latent_scale import Numbers, over_cells, told
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import choose_for_latents
from dcae_bench.subjects.own_class import first_images
from dcae_bench.subjects.scaling import declared_scaling

ROWS = 256
"""Latents that the last pass, which computes statistics, reads at a time."""


def encode_dataset(
    profile: Profile,
    latent: str,
    images: str,
    *,
    data: Path,
    output: Path,
    weights: Path | None = None,
    path: PathRequest | None = None,
) -> LatentManifest:
    """Encode the profile's ``images`` with the autoencoder of ``latent`` (``autoencoder@weights``) into ``output``.

    The folder ``output`` then holds ``latents.npy`` (n, c, h, w), ``labels.npy`` (n,) with -1 for images without a
    label, and ``manifest.json``, which is written last. ``weights`` is the weights file of a retrained autoencoder;
    released weights and the user's own are found by name. ``path`` is by default the profile's. After an interruption
    the same call continues; after the end it does nothing. Raises :class:`ConfigError`, :class:`DataError` (also where
    ``output`` holds latents of other weights, another recipe or another path), :class:`WeightsError` and
    :class:`ResultsError`.
    """
    latents_recipe(profile, latent, images)  # refuses names that the profile does not have, before anything is opened
    spec, source = profile.required_diffusion.data[images], LatentSource.parse(latent)
    if not has_grid(profile.latent_autoencoder(latent)):
        raise ConfigError(
            f"{latent}: its latent is a sequence of tokens without a grid, which cached latents and denoisers need; "
            "`evaluate` measures its reconstructions"
        )
    chosen = choose_for_latents(profile, source, profile.latent_autoencoder(latent), weights, "--weights")
    with join_processes() as process:
        device = process.device(choose(profile))
        crops = open_labelled(profile, spec, data)
        model, subject = open_autoencoder(chosen, partial(first_images, crops, device))
        if subject.unidentified:
            raise ConfigError(
                f"{subject.autoencoder}: {subject.notes[0]}, so latents of it could not be told from those of other "
                "weights; keep its networks as attributes, or let the class say in `identity` what its weights are"
            )
        digest = latents_recipe_sha256(
            profile, latent, images, crops_sha256=crops.sha256, weights_sha256=subject.weights_sha256
        )
        scaling = spec.scaling(declared_scaling(chosen, model))
        _require_packing(subject, scaling, spec.resolution // model.compression)
        model.to(device)
        request = path or profile.path
        encoding = Encoding(profile, spec, crops, model, subject, device, process, output, digest, scaling, request)
        with sole_writers(output / LATENTS, process):
            if (found := encoding.finished()) is None:
                encoding.run()
                found = read_latent_manifest(output)
            elif process.first:
                # What a kill after the manifest was written has left.
                remove_folders(output, Path(LATENTS).stem)
                remove_parts(output)
                forget_clocks(output, Path(LATENTS).stem)
        return found


@dataclass
class Encoding:
    """One pass of one autoencoder over labelled images."""

    profile: Profile
    spec: LatentDataSpec
    crops: LabelledCrops
    model: Autoencoder
    subject: Subject
    device: torch.device
    process: Worker
    output: Path
    recipe_sha256: str
    scaling: Scaling | None = None
    """Scaling that is declared for the weights, as the profile takes it; None: the latents' own, 1/RMS."""
    request: PathRequest = "eager"
    path: ComputePath = EAGER

    @property
    def count(self) -> int:
        """Number of latents, mirrored ones included."""
        return len(self.crops) * (2 if self.spec.flips else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """c, h, w of one latent."""
        side = self.spec.resolution // self.model.compression
        return self.model.latent_channels, side, side

    @property
    def draws_posterior(self) -> bool:
        """Whether latents are drawn from the posterior.

        Retrained weights give the posterior's mean, because the three training phases do not train its spread.
        """
        return (
            self.spec.posterior == "sample" and self.model.has_posterior and self.subject.weights_source != "retrained"
        )

    def finished(self) -> LatentManifest | None:
        """Return the manifest if ``output`` holds these latents. Raises :class:`DataError` if it holds others.

        The files are checked against the manifest's hashes.
        """
        if not (self.output / MANIFEST).exists():
            return None
        manifest = read_latent_manifest(self.output)
        require_latents_of_weights(manifest, self.subject.weights_sha256, self.output)
        if manifest.recipe_sha256 != self.recipe_sha256:
            raise DataError(
                f"{self.output}: holds latents of recipe {manifest.recipe_sha256[:12]}, this one is "
                f"{self.recipe_sha256[:12]}; take another folder, or delete this one and encode again"
            )
        stated = (manifest.scaling_factor, manifest.shift) if manifest.scaling == "declared" else None
        declared = (self.scaling.factors, self.scaling.shifts) if self.scaling else None
        if stated != declared:
            raise DataError(
                f"{self.output}: its scaling is {_told(stated)}, that of {self.subject.autoencoder} is now "
                f"{_told(declared)}; take another folder, or delete this one and encode again"
            )
        require_path(manifest.path, self.request, self.output)
        Latents(self.output)
        return manifest

    def run(self) -> None:
        """Encode the missing latents, compute the statistics of all, and write the manifest last.

        Raises :class:`DataError` for latents that are not finite or all 0, and :class:`ResultsError`.
        """
        size = min(self.profile.required_diffusion.encode_batch, images_at_once(self.spec.resolution))
        batches = batches_of(self.count, size)
        crops = Mirrored(self.crops) if self.spec.flips else self.crops
        console = Console(stderr=True, quiet=not self.process.first)
        self._choose_path(crops, next(iter(batches), range(0)), console)
        state = PackedArray(
            self.output / LATENTS,
            state_of_path(self.recipe_sha256, self.path),
            (self.count, *self.shape),
            self.spec.dtype,
        )
        with kept_clock(state.folder, keep=self.process.first) as clock:
            self._run(state, batches, crops, console, clock)
        if self.process.first:
            forget_clocks(self.output, Path(LATENTS).stem)  # those of passes with another recipe or path

    def _run(
        self,
        state: PackedArray,
        batches: list[range],
        crops: LabelledCrops | Mirrored,
        console: Console,
        clock: Stopwatch,
    ) -> None:
        if self.process.first:
            state.create_or_resume()
        self.process.wait()
        state.join()
        mine = state.unfinished(self.process.share(batches))
        with (
            Progress(console=console, disable=not console.is_terminal) as bar,
            pinned(tf32=False),
            torch.inference_mode(),
            state,
        ):
            task = bar.add_task(f"{self.subject.autoencoder}: encoding {self.crops.name}", total=len(mine))
            for batch, images in read_ahead(crops, mine, self.profile.evaluation.workers):
                state.write_rows(batch, self._encode(batch, images, crops))
                bar.advance(task)
        self.process.wait()
        if self.process.first:
            self._finish(state, clock)
            console.print(f"{self.subject.autoencoder}: {self.count} latents -> {self.output}", soft_wrap=True)
        self.process.wait()

    def _choose_path(self, crops: LabelledCrops | Mirrored, first: range, console: Console) -> None:
        """Take a path before the state of the pass is named: a pass never goes on by another path."""

        def error(fast: Autoencoder) -> float:
            images = torch.stack([crops[index] for index in first])
            return error_of(self._latents(fast, first, images), self._latents(self.model, first, images))

        with pinned(tf32=False), torch.inference_mode():
            chosen = choose_path(
                self.request,
                self.device,
                self.model,
                lambda: fast_autoencoder(self.model, len(first)),
                error,
                what=f"latents of the first {len(first)} images, fast beside eager",
                process=self.process,
                say=lambda text: console.print(f"{self.subject.autoencoder}: {text}", soft_wrap=True),
            )
        self.model, self.path = chosen.network, chosen.path

    def _latents(self, model: Autoencoder, batch: range, images: Tensor) -> Tensor:
        x = normalise(images.to(self.device))
        if self.draws_posterior:
            return model.draw(x, lambda shape: posterior_noise(self.profile.seed, batch, shape).to(x.device))
        return model.encode(x)

    def _encode(self, batch: range, images: Tensor, crops: LabelledCrops | Mirrored) -> np.ndarray:
        z = self._latents(self.model, batch, images)
        latents = z.float().cpu().numpy().astype(self.spec.dtype)
        finite = np.isfinite(latents).all(axis=(1, 2, 3))
        if not finite.all():
            index = batch[int(np.argmin(finite))]
            raise DataError(
                f"{crops.key(index)}: its latent is not finite in {self.spec.dtype} with weights "
                f"{self.subject.weights_sha256[:12]}; take other weights, or dtype float32"
            )
        return latents

    def _finish(self, state: PackedArray, clock: Stopwatch) -> None:
        """Compute statistics and hash in one pass over the array, then move the array into place and describe it."""
        statistics, digest = self._measure(state)
        scaling = self.scaling
        if scaling is None and statistics.rms == 0:
            raise DataError(f"{self.subject.autoencoder} on {self.crops.name}: every latent is 0, so there is no scale")
        channels = statistics.channels
        repeats = 2 if self.spec.flips else 1
        buffer = io.BytesIO()
        np.save(buffer, np.tile(self.crops.labels, repeats))
        write_bytes(self.output / LABELS, buffer.getvalue())
        state.move_into_place()
        manifest = LatentManifest(
            autoencoder=self.subject.autoencoder,
            weights_source=self.subject.weights_source,
            weights_sha256=self.subject.weights_sha256,
            model=self.model.spec,
            datasets=self.spec.datasets,
            split=self.spec.split,
            resolution=self.spec.resolution,
            crops_sha256=self.crops.sha256,
            data_sha256=self.crops.manifest_sha256,
            posterior="sample" if self.draws_posterior else "mean",
            seed=self.profile.seed,
            flips=self.spec.flips,
            classes=self.spec.class_count,
            count=self.count,
            shape=self.shape,
            dtype=self.spec.dtype,
            scaling_factor=scaling.factors if scaling else 1 / statistics.rms,
            shift=scaling.shifts if scaling else 0.0,
            scaling="declared" if scaling else "measured",
            statistics=LatentSummary(
                mean=statistics.mean,
                rms=statistics.rms,
                std=statistics.std,
                channel_mean=channels.mean,
                channel_rms=channels.rms,
                channel_std=channels.std,
            ),
            path=self.path,
            seconds=round(clock.seconds, 3),
            notes=self.subject.notes,
            sha256=digest,
            labels_sha256=sha256_file(self.output / LABELS),
            recipe_sha256=self.recipe_sha256,
        )
        write_latent_manifest(manifest, self.output)
        state.remove()

    def _measure(self, state: PackedArray) -> tuple[LatentStatistics, str]:
        """Return the statistics, summed latent by latent, and the SHA-256 of the file."""
        digest = hashlib.sha256(state.header)
        total, squares = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        for content in state.read_chunks(ROWS):
            digest.update(content.data)
            rows = content.astype(np.float64)
            total += rows.sum(axis=(2, 3)).sum(axis=0)
            squares += np.square(rows).sum(axis=(2, 3)).sum(axis=0)
        return LatentStatistics(self.count * self.shape[1] * self.shape[2], total, squares), digest.hexdigest()


def _told(scaling: tuple[Numbers, Numbers] | None) -> str:
    return f"x {told(scaling[0])} after a shift of {told(scaling[1])}, as declared" if scaling else "measured"


def _require_packing(subject: Subject, scaling: Scaling | None, side: int) -> None:
    """Check that latents of ``side`` cells can be packed as the scaling wants. Raises :class:`ConfigError`."""
    try:
        for numbers in (scaling.factors, scaling.shifts) if scaling else ():
            over_cells(numbers, (subject.latent_channels, side, side))
    except ValueError as error:
        raise ConfigError(
            f"{subject.autoencoder}: the scale of its latents ({scaling and scaling.source}) does not fit: {error}; "
            "take another resolution, or correct the source"
        ) from error
