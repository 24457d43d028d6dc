"""From a denoiser to images: one pass, resumable and shared by processes."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from dcae_bench.config import Profile
from dcae_bench.data.samples import Samples
from dcae_bench.device import choose
from dcae_bench.diffusion.decode import decode
from dcae_bench.diffusion.noise import PAPER_RANKS, Noise, SampleNoise, paper_batches, paper_labels
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.diffusion_plan import ReleasedPlan, TrainedPlan
from dcae_bench.diffusion_specs import AncestralSpec, GuidanceSpec, SamplerSpec
from dcae_bench.errors import ConfigError, DataError
from dcae_bench.evaluation import SAMPLES_CODE
from dcae_bench.evaluation.denoisers import OpenDenoiser, open_released, open_trained
from dcae_bench.evaluation.packing import PackedArray
from dcae_bench.evaluation.pngs import write_pngs
from dcae_bench.evaluation.protocols import pinned
from dcae_bench.evaluation.workers import Process, batches_of, processes
from dcae_bench.files import sha256_file, sha256_json, write_bytes, write_text
from dcae_bench.provenance import Stopwatch, fingerprint

SAMPLES, LABELS, MANIFEST = "samples.npy", "labels.npy", "samples.json"


class SampleManifest(BaseModel):
    """What stands beside samples, ``samples.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[1] = 1
    row: str
    released: str | None = Field(default=None, description="name of the denoiser's weights; null: trained here")
    denoiser_sha256: str
    autoencoder: str = Field(description="autoencoder@weights")
    autoencoder_sha256: str
    latents_sha256: str | None = Field(description="of the latents that the denoiser learned from; null: released")
    crops_sha256: str | None = Field(description="of the images behind them, which are the reference; null: released")
    data_sha256: str | None
    sampler: SamplerSpec
    nfe: int | None = Field(description="evaluations per sample, a doubled batch of guidance as one; null: adaptive")
    guidance_scale: float = Field(description="convention s: 1 is the conditional model alone")
    count: int
    shape: tuple[int, int, int] = Field(description="H, W, 3 of one image")
    classes: int | None
    seed: int
    seed_policy: Literal["sample", "paper_8gpu"]
    precision: Literal["fp32"] = "fp32"
    tf32: bool = False
    seconds: float = Field(description="of the last run of the command, loading not counted")
    sha256: str = Field(description="of samples.npy")
    labels_sha256: str
    recipe_sha256: str = Field(description="of all that shaped the samples, code included")


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
) -> SampleManifest:
    """Sample a row's denoiser and decode: ``samples.npy``, uint8 (n, H, W, 3), in the folder ``output``.

    Beside it are ``labels.npy`` (n,), -1 where there are none, and ``samples.json``, written last. A trained row needs
    ``weights`` of its denoiser and ``latents``, the cache that they learned from, of which only the manifest is read;
    ``autoencoder`` are the weights that made it, released ones and the user's own are found by name. A released row
    takes none of the three: its weights and those of its autoencoder are found by name. ``guidance`` is by default the
    row's first. Interrupted, the same command goes on; finished, it does nothing. ``png`` is a folder that gets every
    image as a file too. Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and
    :class:`ResultsError`.
    """
    plan = profile.row(row)
    guidance = guidance or plan.guidance[0]
    if plan.denoiser.classes is None and not guidance.plain:
        raise ConfigError(f"guidance s = {guidance.scale:g}: row {row} is unconditional; use s = 1")
    with processes() as process:
        device = process.device(choose(profile))
        files = weights, latents, autoencoder
        if isinstance(plan, ReleasedPlan):
            denoiser = open_released(profile, plan, *files)
        else:
            denoiser = open_trained(profile, plan, *files)
        recipe = [profile.sampling_recipe(row, guidance), *denoiser.identity, fingerprint(*SAMPLES_CODE)]
        sampling = Sampling(profile, plan, denoiser, guidance, device, process, output, sha256_json(recipe))
        if (found := sampling.finished()) is None:
            sampling.run()
            found = read_samples(output)
        elif process.first:
            console = Console(stderr=True)
            console.print(f"row {row}: these {found.count} samples are in {output} already", soft_wrap=True)
        if png is not None:
            write_pngs(Samples(output, found.sha256), png, process, threads=profile.evaluation.workers)
        return found


@dataclass
class Sampling:
    """One pass of one denoiser at one guidance."""

    profile: Profile
    plan: TrainedPlan | ReleasedPlan
    denoiser: OpenDenoiser
    guidance: GuidanceSpec
    device: torch.device
    process: Process
    output: Path
    recipe_sha256: str

    @property
    def count(self) -> int:
        """Images to sample."""
        return self.profile.diffusion.samples

    @property
    def sampler(self) -> SamplerSpec:
        """The row's sampler."""
        return self.plan.sampler

    @property
    def labels(self) -> Tensor | None:
        """Label of every sample: classes in turn, or as the authors draw them."""
        classes = self.plan.denoiser.classes
        if classes is None:
            return None
        if self.profile.diffusion.seed_policy == "paper_8gpu":
            return paper_labels(self.count, classes, self.profile.seed)
        return torch.arange(self.count) % classes

    def finished(self) -> SampleManifest | None:
        """The manifest of these very samples, if they are there. Raises :class:`DataError` if others are."""
        if not (self.output / MANIFEST).exists():
            return None
        found = read_samples(self.output)
        if found.recipe_sha256 != self.recipe_sha256:
            raise DataError(
                f"{self.output}: holds samples of denoiser {found.denoiser_sha256[:12]} and recipe "
                f"{found.recipe_sha256[:12]}, these are {self.denoiser.sha256[:12]} and {self.recipe_sha256[:12]}; "
                "take another folder, or delete this one and sample again"
            )
        return found

    def run(self) -> None:
        """Sample what is not sampled yet, and write the manifest last."""
        side = self.plan.data.resolution
        state = PackedArray(self.output / SAMPLES, self.recipe_sha256, (self.count, side, side, 3), "uint8")
        if self.process.first:
            state.create()
        self.process.wait()
        self.denoiser.model.to(self.device)
        self.denoiser.autoencoder.to(self.device)
        clock, console = Stopwatch(), Console(stderr=True, quiet=not self.process.first)
        with Progress(console=console, disable=not console.is_terminal) as bar, pinned(tf32=False):
            task = bar.add_task(f"row {self.plan.name}: sampling", total=self.count)
            for rows, noise in self._batches(state):
                images = self._sample(rows, noise).permute(0, 2, 3, 1).contiguous().cpu().numpy()
                # The authors' eight parts may reach past the count.
                kept = range(rows.start, min(rows.stop, self.count))
                if len(kept):
                    state.write(kept, images[: len(kept)])
                bar.advance(task, len(rows))
        self.process.wait()
        if self.process.first:
            self._finish(state, clock)
            console.print(f"row {self.plan.name}: {self.count} samples -> {self.output}", soft_wrap=True)
        self.process.wait()

    def _batches(self, state: PackedArray) -> Iterator[tuple[range, Noise]]:
        """Indices and noise of this process's batches that are not there yet."""
        spec, latent = self.profile.diffusion, self.plan.denoiser.latent
        shape = latent.channels, latent.side, latent.side
        if spec.seed_policy == "sample":
            for rows in state.missing(self.process.share(batches_of(self.count, spec.sample_batch))):
                yield rows, SampleNoise(self.profile.seed, rows, shape, self.device)
            return
        ranks = range(self.process.rank, PAPER_RANKS, self.process.count)
        # A rank's batches share a stream. Its starts are drawn for batches that are left out too; noise between steps
        # is drawn by the steps themselves, so that none may be.
        whole = isinstance(self.sampler, AncestralSpec)
        for batch in paper_batches(self.count, self.profile.seed, shape, self.device, ranks=ranks):
            if whole or state.missing([range(batch.indices.start, min(batch.indices.stop, self.count))]):
                yield batch.indices, batch.noise

    def _sample(self, rows: range, noise: Noise) -> Tensor:
        labels = self.labels
        if labels is not None:
            labels = labels[[index % self.count for index in rows]].to(self.device)
        process = build_process(self.plan.process)
        latents = sample(self.denoiser.model, process, self.sampler, noise, labels, self.guidance)
        return decode(self.denoiser.autoencoder, latents, self.denoiser)

    def _finish(self, state: PackedArray, clock: Stopwatch) -> None:
        labels = self.labels
        buffer = io.BytesIO()
        np.save(buffer, np.full(self.count, -1) if labels is None else labels.numpy())
        write_bytes(self.output / LABELS, buffer.getvalue())
        state.put_into_place()
        cache = self.denoiser.cache
        manifest = SampleManifest(
            row=self.plan.name,
            released=self.plan.row.released if isinstance(self.plan, ReleasedPlan) else None,
            denoiser_sha256=self.denoiser.sha256,
            autoencoder=self.plan.row.latent,
            autoencoder_sha256=self.denoiser.autoencoder_sha256,
            latents_sha256=cache.sha256 if cache else None,
            crops_sha256=cache.crops_sha256 if cache else None,
            data_sha256=cache.data_sha256 if cache else None,
            sampler=self.sampler,
            nfe=getattr(self.sampler, "nfe", None) or getattr(self.sampler, "steps", None),
            guidance_scale=self.guidance.scale,
            count=self.count,
            shape=state.shape[1:],
            classes=self.plan.denoiser.classes,
            seed=self.profile.seed,
            seed_policy=self.profile.diffusion.seed_policy,
            seconds=round(clock.seconds, 3),
            sha256=sha256_file(self.output / SAMPLES),
            labels_sha256=sha256_file(self.output / LABELS),
            recipe_sha256=self.recipe_sha256,
        )
        write_text(self.output / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        state.forget()


def read_samples(folder: Path) -> SampleManifest:
    """The manifest of finished samples. Raises :class:`DataError`."""
    path = Path(folder) / MANIFEST
    try:
        return SampleManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); sample first (dcae-bench sample)") from error
    except ValidationError as error:
        raise DataError(
            f"{path}: is not a manifest of samples ({error.errors()[0]['msg']}); delete {folder} and sample again"
        ) from error
