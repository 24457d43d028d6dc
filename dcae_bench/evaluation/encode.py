"""From images to cached latents: one pass of an autoencoder, resumable and shared by processes."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from dcae_bench.config import Profile
from dcae_bench.data.crops import normalise
from dcae_bench.data.labelled import LabelledCrops, open_labelled
from dcae_bench.data.latents import (
    LABELS,
    LATENTS,
    MANIFEST,
    LatentManifest,
    LatentSummary,
    read_manifest,
    require_weights,
)
from dcae_bench.device import choose
from dcae_bench.diffusion_spec import LatentDataSpec, LatentSource
from dcae_bench.errors import DataError
from dcae_bench.evaluation import LATENTS_CODE
from dcae_bench.evaluation.latents import LatentStatistics
from dcae_bench.evaluation.noise import posterior_noise
from dcae_bench.evaluation.packing import PackedArray
from dcae_bench.evaluation.protocols import pinned
from dcae_bench.evaluation.run import load_autoencoder
from dcae_bench.evaluation.workers import Process, batches_of, processes, read_ahead
from dcae_bench.files import sha256_file, sha256_json, write_bytes, write_text
from dcae_bench.models.autoencoder import Autoencoder, images_at_once
from dcae_bench.own import profile_weights
from dcae_bench.presets import Scaling, catalogue
from dcae_bench.provenance import fingerprint
from dcae_bench.records import Subject

ROWS = 256
"""Latents of one step of the last pass, which only reads."""


def encode_dataset(
    profile: Profile, latent: str, images: str, *, data: Path, output: Path, weights: Path | None = None
) -> LatentManifest:
    """Write the latents of ``latent`` (``autoencoder@weights``) of the profile's ``images`` into the folder ``output``.

    ``latents.npy`` (n, c, h, w), ``labels.npy`` (n,), -1 where there are none, and ``manifest.json``, written last.
    ``weights`` are those of a retrained autoencoder; released ones and the user's own are found by name. Interrupted,
    the same command goes on; finished, it does nothing. Raises :class:`ConfigError`, :class:`DataError`,
    :class:`WeightsError` and :class:`ResultsError`; latents of other weights or another recipe in ``output`` are a
    :class:`DataError`.
    """
    recipe = profile.latents_recipe(latent, images)
    spec, source = profile.diffusion.data[images], LatentSource.parse(latent)
    if weights is None:
        weights = profile_weights(profile, source, "--weights")
    with processes() as process:
        device = process.device(choose(profile))
        crops = open_labelled(spec, data, profile.seed)
        model, subject = load_autoencoder(
            profile.latent_autoencoder(latent), source.autoencoder, None, weights, source.weights
        )
        digest = sha256_json([recipe, crops.sha256, subject.weights_sha256, fingerprint(*LATENTS_CODE)])
        encoding = Encoding(profile, spec, crops, model.to(device), subject, device, process, output, digest)
        if (found := encoding.finished()) is None:
            encoding.run()
            found = read_manifest(output)
        return found


@dataclass
class Encoding:
    """One pass of one autoencoder over some images."""

    profile: Profile
    spec: LatentDataSpec
    crops: LabelledCrops
    model: Autoencoder
    subject: Subject
    device: torch.device
    process: Process
    output: Path
    recipe_sha256: str

    @property
    def count(self) -> int:
        """Rows of the array."""
        return len(self.crops) * (2 if self.spec.flips else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """c, h, w of one latent."""
        side = self.spec.resolution // self.model.compression
        return self.model.latent_channels, side, side

    @property
    def samples(self) -> bool:
        """Whether latents are drawn; the posterior's spread was never trained where the three phases trained."""
        return (
            self.spec.posterior == "sample" and self.model.has_posterior and self.subject.weights_source != "retrained"
        )

    def finished(self) -> LatentManifest | None:
        """The manifest of these very latents, if they are there. Raises :class:`DataError` if others are."""
        if not (self.output / MANIFEST).exists():
            return None
        manifest = read_manifest(self.output)
        require_weights(manifest, self.subject.weights_sha256, self.output)
        if manifest.recipe_sha256 != self.recipe_sha256:
            raise DataError(
                f"{self.output}: holds latents of recipe {manifest.recipe_sha256[:12]}, this one is "
                f"{self.recipe_sha256[:12]}; take another folder, or delete this one and encode again"
            )
        return manifest

    def run(self) -> None:
        """Encode what is not encoded yet, then count, and write the manifest last."""
        size = min(self.profile.diffusion.encode_batch, images_at_once(self.spec.resolution))
        batches = batches_of(self.count, size)
        state = PackedArray(self.output / LATENTS, self.recipe_sha256, (self.count, *self.shape), self.spec.dtype)
        if self.process.first:
            state.create()
        self.process.wait()
        mine = state.missing(self.process.share(batches))
        console = Console(stderr=True, quiet=not self.process.first)
        mirrored = _Mirrored(self.crops) if self.spec.flips else self.crops
        with (
            Progress(console=console, disable=not console.is_terminal) as bar,
            pinned(tf32=False),
            torch.inference_mode(),
        ):
            task = bar.add_task(f"{self.subject.autoencoder}: encoding {self.crops.name}", total=len(mine))
            for batch, images in read_ahead(mirrored, mine, self.profile.evaluation.workers):
                state.write(batch, self._encode(batch, images, mirrored))
                bar.advance(task)
        self.process.wait()
        if self.process.first:
            self._finish(state)
            console.print(f"{self.subject.autoencoder}: {self.count} latents -> {self.output}", soft_wrap=True)
        self.process.wait()

    def _encode(self, batch: range, images: Tensor, crops: "LabelledCrops | _Mirrored") -> np.ndarray:
        x = normalise(images.to(self.device))
        if self.samples:
            z = self.model.draw(x, lambda shape: posterior_noise(self.profile.seed, batch, shape).to(x.device))
        else:
            z = self.model.encode(x)
        latents = z.float().cpu().numpy().astype(self.spec.dtype)
        finite = np.isfinite(latents).all(axis=(1, 2, 3))
        if not finite.all():
            index = batch[int(np.argmin(finite))]
            raise DataError(
                f"{crops.key(index)}: its latent is not finite in {self.spec.dtype} with weights "
                f"{self.subject.weights_sha256[:12]}; take other weights, or dtype float32"
            )
        return latents

    def _finish(self, state: PackedArray) -> None:
        """One pass over the array for its statistics and hash, then everything into place."""
        statistics, digest = self._measure(state)
        scaling = self._declared()
        if scaling is None and statistics.rms == 0:
            raise DataError(f"{self.subject.autoencoder} on {self.crops.name}: every latent is 0, so there is no scale")
        channels = statistics.channels
        repeats = 2 if self.spec.flips else 1
        buffer = io.BytesIO()
        np.save(buffer, np.tile(self.crops.labels, repeats))
        write_bytes(self.output / LABELS, buffer.getvalue())
        state.put_into_place()
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
            posterior="sample" if self.samples else "mean",
            seed=self.profile.seed,
            flips=self.spec.flips,
            classes=self.spec.class_count,
            count=self.count,
            shape=self.shape,
            dtype=self.spec.dtype,
            scaling_factor=scaling.factor if scaling else 1 / statistics.rms,
            shift=scaling.shift if scaling else 0.0,
            scaling="declared" if scaling else "measured",
            statistics=LatentSummary(
                mean=statistics.mean,
                rms=statistics.rms,
                std=statistics.std,
                channel_mean=channels.mean,
                channel_rms=channels.rms,
                channel_std=channels.std,
            ),
            sha256=digest,
            labels_sha256=sha256_file(self.output / LABELS),
            recipe_sha256=self.recipe_sha256,
        )
        write_text(self.output / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        state.forget()

    def _measure(self, state: PackedArray) -> tuple[LatentStatistics, str]:
        """Statistics, summed latent by latent, and SHA-256 of the file."""
        digest = hashlib.sha256(state.header)
        total, squares = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        for content in state.contents(ROWS):
            digest.update(content)
            rows = content.astype(np.float64)
            total += rows.sum(axis=(2, 3)).sum(axis=0)
            squares += np.square(rows).sum(axis=(2, 3)).sum(axis=0)
        return LatentStatistics(self.count * self.shape[1] * self.shape[2], total, squares), digest.hexdigest()

    def _declared(self) -> Scaling | None:
        """What the authors of released weights state."""
        return (
            catalogue().preset(self.subject.autoencoder).scaling if self.subject.weights_source == "released" else None
        )


class _Mirrored:
    """Crops, then the same crops mirrored."""

    def __init__(self, crops: LabelledCrops):
        self._crops = crops

    def key(self, index: int) -> str:
        return self._crops.key(index % len(self._crops))

    def __getitem__(self, index: int) -> Tensor:
        flip, inner = divmod(index, len(self._crops))
        return self._crops[inner].flip(-1) if flip else self._crops[inner]
