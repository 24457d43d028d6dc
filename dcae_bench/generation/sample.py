"""Sampling of a denoiser: one pass that draws latents and decodes them to images, resumable and shared by processes."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import sha256_file, sha256_json, write_bytes
from dcae_bench.base.leftovers import remove_folders, remove_parts
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.data.sample_manifest import (
    LABELS,
    MANIFEST,
    SAMPLES,
    SampleManifest,
    read_sample_manifest,
    samples_recipe_sha256,
    write_sample_manifest,
)
from dcae_bench.data.samples import open_samples
from dcae_bench.diffusion.decode import decode, unscale
from dcae_bench.diffusion.noise import PAPER_BATCH, PAPER_RANKS, Noise, SampleNoise, paper_batches, paper_labels
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.execution.inference import Compared, error_of, fast_autoencoder, fast_denoiser, largest
from dcae_bench.execution.path import EAGER, Fast, choose_path, require_path, state_of_path
from dcae_bench.generation.packing import PackedArray
from dcae_bench.generation.pngs import write_pngs
from dcae_bench.models.autoencoder import images_at_once
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.records.path import ComputePath, PathRequest
from dcae_bench.records.provenance import Stopwatch
from dcae_bench.running.device import choose, describe
from dcae_bench.running.kept_clock import forget_clocks, kept_clock
from dcae_bench.running.output_lock import sole_writers
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker, batches_of, join_processes
from dcae_bench.specs.diffusion import AncestralSpec, GuidanceSpec, SamplerSpec
from dcae_bench.subjects.denoisers import OpenDenoiser, open_released, open_trained

CHECKED = 4
"""Samples on which a fast path is compared with eager PyTorch, over all steps of the sampler."""


def sample_images(
    profile: Profile,
    row: str,
    *,
    output: Path,
    weights: Path | None = None,
    latents: Path | None = None,
    autoencoder: Path | None = None,
    guidance: GuidanceSpec | None = None,
    png: Path | None = None,
    path: PathRequest | None = None,
) -> SampleManifest:
    """Sample the denoiser of ``row``, decode the latents, and write the images into the folder ``output``.

    The folder then holds ``samples.npy``, uint8 (n, H, W, 3), ``labels.npy`` (n,) with -1 for unconditional samples,
    and ``samples.json``, which is written last. After an interruption the same call continues; after the end it does
    nothing.

    A trained row needs ``weights``, the file of its denoiser, and ``latents``, the cache that the denoiser learned
    from; only the cache's manifest is read. ``autoencoder`` is the weights file of a retrained autoencoder; released
    weights and the user's own are found by name. A released row takes none of the three: all its weights are found by
    name. ``guidance`` is by default the row's first guidance. ``png`` is a folder that receives every image as a PNG
    file too. ``path`` is by default the profile's.

    Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    resolved = profile.row(row)
    guidance = guidance or resolved.guidance[0]
    if resolved.denoiser.classes is None and not guidance.plain:
        raise ConfigError(f"guidance s = {guidance.scale:g}: row {row} is unconditional; use s = 1")
    untrained = isinstance(resolved, TrainedRow) and resolved.training.label_dropout == 0
    if untrained and not guidance.plain:
        raise ConfigError(
            f"guidance s = {guidance.scale:g}: row {row} was trained with label_dropout 0, so its null class is not "
            "trained; use s = 1"
        )
    with join_processes() as process:
        device = process.device(choose(profile))
        files = weights, latents, autoencoder
        if isinstance(resolved, ReleasedRow):
            denoiser = open_released(profile, resolved, *files)
        else:
            denoiser = open_trained(profile, resolved, *files)
        digest = samples_recipe_sha256(profile, row, guidance.scale, **denoiser.identity)
        request = path or profile.path
        sampling = Sampling(profile, resolved, denoiser, guidance, device, process, output, digest, request)
        with sole_writers(output / SAMPLES, process):
            if (found := sampling.finished()) is None:
                sampling.run()
                found = read_sample_manifest(output)
            elif process.first:
                # What a kill after the manifest was written has left.
                remove_folders(output, Path(SAMPLES).stem)
                remove_parts(output)
                forget_clocks(output, Path(SAMPLES).stem)
                console = Console(stderr=True)
                console.print(f"row {row}: these {found.count} samples are in {output} already", soft_wrap=True)
        if png is not None:
            with sole_writers(png, process):
                write_pngs(open_samples(output, found), png, process, threads=profile.evaluation.workers)
        return found


@dataclass
class Sampling:
    """One pass of one denoiser at one guidance scale."""

    profile: Profile
    resolved: TrainedRow | ReleasedRow
    denoiser: OpenDenoiser
    guidance: GuidanceSpec
    device: torch.device
    process: Worker
    output: Path
    recipe_sha256: str
    request: PathRequest = "eager"
    path: ComputePath = EAGER

    @property
    def count(self) -> int:
        """Number of images to sample."""
        return self.profile.required_diffusion.samples

    @property
    def sampler(self) -> SamplerSpec:
        """The row's sampler."""
        return self.resolved.sampler

    @property
    def labels(self) -> Tensor | None:
        """Label of every sample (n,): each class in turn, or the authors' random draw; None: unconditional."""
        classes = self.resolved.denoiser.classes
        if classes is None:
            return None
        if self.profile.required_diffusion.seed_policy == "paper_8gpu":
            return paper_labels(self.count, classes, self.profile.seed)
        return torch.arange(self.count) % classes

    @property
    def noise(self) -> str | None:
        """Device whose own generators draw the noise (``cuda: NVIDIA H100``); None: noise that is equal everywhere."""
        if self.profile.required_diffusion.seed_policy == "sample":
            return None
        device = describe(self.device, self.profile)
        return f"{device.kind}: {device.name}"

    def finished(self) -> SampleManifest | None:
        """Return the manifest if ``output`` holds these samples. Raises :class:`DataError` if it holds others.

        The files are checked against the manifest's hashes.
        """
        if not (self.output / MANIFEST).exists():
            return None
        found = read_sample_manifest(self.output)
        if found.recipe_sha256 != self.recipe_sha256:
            raise DataError(
                f"{self.output}: holds samples of denoiser {found.denoiser_sha256[:12]} and recipe "
                f"{found.recipe_sha256[:12]}, these are {self.denoiser.sha256[:12]} and {self.recipe_sha256[:12]}; "
                "take another folder, or delete this one and sample again"
            )
        require_path(found.path, self.request, self.output)
        open_samples(self.output, found)
        return found

    def run(self) -> None:
        """Sample the missing images, and write the manifest last."""
        self.denoiser.model.to(self.device)
        self.denoiser.autoencoder.to(self.device)
        self._choose_path()
        side = self.resolved.data.resolution
        # Samples of two devices' noise are no samples of one stream: another device begins anew.
        state_sha256 = sha256_json([self.recipe_sha256, self.noise]) if self.noise else self.recipe_sha256
        state_sha256 = state_of_path(state_sha256, self.path)
        state = PackedArray(self.output / SAMPLES, state_sha256, (self.count, side, side, 3), "uint8")
        with kept_clock(state.folder, keep=self.process.first) as clock:
            self._run(state, clock)
        if self.process.first:
            forget_clocks(self.output, Path(SAMPLES).stem)  # those of passes with another recipe or path

    def _run(self, state: PackedArray, clock: Stopwatch) -> None:
        if self.process.first:
            state.create_or_resume()
        self.process.wait()
        state.join()
        console = Console(stderr=True, quiet=not self.process.first)
        with Progress(console=console, disable=not console.is_terminal) as bar, pinned(tf32=False), state:
            task = bar.add_task(f"row {self.resolved.name}: sampling", total=self.count)
            for rows, noise in self._batches(state):
                images = self._sample(rows, noise).permute(0, 2, 3, 1).contiguous().cpu().numpy()
                # The last of the authors' eight parts may reach past the number of samples.
                kept = range(rows.start, min(rows.stop, self.count))
                if len(kept):
                    state.write_rows(kept, images[: len(kept)])
                bar.advance(task, len(rows))
        self.process.wait()
        if self.process.first:
            self._finish(state, clock)
            console.print(f"row {self.resolved.name}: {self.count} samples -> {self.output}", soft_wrap=True)
        self.process.wait()

    def _choose_path(self) -> None:
        """Take a path before the state of the pass is named: a pass never goes on by another path."""
        plain, spec = self.denoiser, self.profile.required_diffusion
        size = PAPER_BATCH if spec.seed_policy == "paper_8gpu" else min(spec.sample_batch, self.count)
        guided = self.labels is not None and not self.guidance.plain
        decoded = min(size, images_at_once(self.resolved.data.resolution))
        first = range(min(CHECKED, size, self.count))

        def make() -> Fast[OpenDenoiser]:
            model = fast_denoiser(plain.model, 2 * size if guided else size, self.device)
            decoder = fast_autoencoder(plain.autoencoder, decoded)
            both = replace(plain, model=model.network, autoencoder=decoder.network)
            return Fast(both, f"denoiser: {model.how}; decoder: {decoder.how}")

        def error(fast: OpenDenoiser) -> float:
            latent = self.resolved.denoiser.latent
            noise = SampleNoise(self.profile.seed, first, (latent.channels, latent.side, latent.side), self.device)
            compared = Compared(plain.model, fast.model)
            z = unscale(self._latents(compared, first, noise), plain)
            return largest(compared.error, error_of(fast.autoencoder.decode(z), plain.autoencoder.decode(z)))

        console = Console(stderr=True, quiet=not self.process.first)
        with pinned(tf32=False), torch.inference_mode():
            chosen = choose_path(
                self.request,
                self.device,
                plain,
                make,
                error,
                what=f"predictions at every step and images of the first {len(first)} samples, fast beside eager",
                process=self.process,
                say=lambda text: console.print(f"row {self.resolved.name}: {text}", soft_wrap=True),
            )
        self.denoiser, self.path = chosen.network, chosen.path

    def _batches(self, state: PackedArray) -> Iterator[tuple[range, Noise]]:
        """Yield the sample indices and the noise of this process's unfinished batches."""
        spec, latent = self.profile.required_diffusion, self.resolved.denoiser.latent
        shape = latent.channels, latent.side, latent.side
        if spec.seed_policy == "sample":
            for rows in state.unfinished(self.process.share(batches_of(self.count, spec.sample_batch))):
                yield rows, SampleNoise(self.profile.seed, rows, shape, self.device)
            return
        ranks = range(self.process.rank, PAPER_RANKS, self.process.count)
        steps = self.sampler.steps if isinstance(self.sampler, AncestralSpec) else 0
        doubled = self.labels is not None and not self.guidance.plain
        for batch in paper_batches(
            self.count, self.profile.seed, shape, self.device, ranks=ranks, steps=steps, doubled=doubled
        ):
            if state.unfinished([range(batch.indices.start, min(batch.indices.stop, self.count))]):
                yield batch.indices, batch.noise

    def _sample(self, rows: range, noise: Noise) -> Tensor:
        return decode(self.denoiser.autoencoder, self._latents(self.denoiser.model, rows, noise), self.denoiser)

    def _latents(self, model: Denoiser, rows: range, noise: Noise) -> Tensor:
        labels = self.labels
        if labels is not None:
            labels = labels[[index % self.count for index in rows]].to(self.device)
        return sample(model, build_process(self.resolved.process), self.sampler, noise, labels, self.guidance)

    def _finish(self, state: PackedArray, clock: Stopwatch) -> None:
        labels = self.labels
        buffer = io.BytesIO()
        np.save(buffer, np.full(self.count, -1) if labels is None else labels.numpy())
        write_bytes(self.output / LABELS, buffer.getvalue())
        state.move_into_place()
        cache = self.denoiser.cache
        manifest = SampleManifest(
            row=self.resolved.name,
            released=self.resolved.spec.released if isinstance(self.resolved, ReleasedRow) else None,
            **self.denoiser.identity,
            autoencoder=self.resolved.spec.latent,
            crops_sha256=cache.crops_sha256 if cache else None,
            data_sha256=cache.data_sha256 if cache else None,
            sampler=self.sampler,
            nfe=getattr(self.sampler, "nfe", None) or getattr(self.sampler, "steps", None),
            guidance_scale=self.guidance.scale,
            count=self.count,
            shape=state.shape[1:],
            classes=self.resolved.denoiser.classes,
            seed=self.profile.seed,
            seed_policy=self.profile.required_diffusion.seed_policy,
            noise=self.noise,
            path=self.path,
            seconds=round(clock.seconds, 3),
            sha256=sha256_file(self.output / SAMPLES),
            labels_sha256=sha256_file(self.output / LABELS),
            recipe_sha256=self.recipe_sha256,
        )
        write_sample_manifest(manifest, self.output)
        state.remove()
