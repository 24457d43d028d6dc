"""Diffusion estimator: hours, memory and disk of the jobs of a profile's diffusion part."""

from collections.abc import Sequence

import numpy as np

from dcae_bench.costs.passes import autoencoder_passes, denoiser_pass
from dcae_bench.costs.step import FP32, denoiser_step_cost, unfinished_run_bytes
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.diffusion.noise import PAPER_BATCH
from dcae_bench.models.autoencoder import images_at_once
from dcae_bench.planning.hours import Hours
from dcae_bench.planning.images import count_files
from dcae_bench.planning.memory import training_memory
from dcae_bench.planning.plan import GIB, PlanRow
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import Needs
from dcae_bench.profile.diffusion import LatentDataSpec
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import Row
from dcae_bench.records.record import Record
from dcae_bench.specs.diffusion import AncestralSpec, DPMSolverSpec, SamplerSpec

LABEL_BYTES = 8
HEADER_BYTES = 128  # header of an .npy file


class DiffusionEstimator:
    """Estimates a profile's encoding, denoiser training, sampling and evaluation of samples, as rows of a plan."""

    def __init__(self, profile: Profile, rates: Rates, measured: Sequence[Record] = ()):
        """``measured`` are training records; their speeds take precedence over ``rates``."""
        self.profile, self.rates, self.measured = profile, rates, measured
        self.hours = Hours(profile, rates)

    def rows(self, needs: Needs) -> list[PlanRow]:
        """Rows for all jobs of the diffusion part in ``needs``."""
        rows = [self.encoding(latent, images) for latent, images in needs.encodings]
        rows += [self.training(row) for row in needs.denoisers]
        rows += [self.sampling(row, scales) for row, scales in _scales_by_row(needs.samplings).items()]
        measured_data: set[str] = set()
        for row, scales in _scales_by_row(needs.generations).items():
            data = self.profile.required_diffusion.rows[row].data
            rows.append(self.evaluation(row, len(scales), reference=data not in measured_data))
            measured_data.add(data)
        return rows

    def encoding(self, latent: str, images: str) -> PlanRow:
        """Row for encoding some images. The disk space is exact: the size of the finished arrays."""
        spec, data = self.profile.latent_autoencoder(latent), self.profile.required_diffusion.data[images]
        passes, count = autoencoder_passes(spec, data.resolution), self.count_latents(data)
        side = data.resolution // spec.compression
        each = spec.latent_channels * side**2 * np.dtype(data.dtype).itemsize + LABEL_BYTES
        batch = min(self.profile.required_diffusion.encode_batch, count, images_at_once(data.resolution))
        hours = self.hours.of_flops(2 * passes.encode.mac * count, "inference", "fp32")
        return PlanRow(
            "encode",
            f"{latent} on {images}" + ("" if count else " (number of images not known)"),
            1,
            **self.hours.columns(hours),
            memory_gib=(passes.parameters * FP32 + passes.encode.peak_bytes * batch) / GIB,
            disk_gib=(count * each + 2 * HEADER_BYTES) / GIB,
        )

    def training(self, row: str) -> PlanRow:
        """Row for training one denoiser, with its previews."""
        resolved = self.profile.trained_row(row)
        training, precision = resolved.training, resolved.training.precision or self.profile.precision
        cost = denoiser_step_cost(resolved.denoiser, precision)
        macs = cost.forward_mac + cost.backward_mac
        if training.execution.checkpoint_activations:
            macs += cost.recompute_mac
        previews = -(-resolved.spec.images // training.checkpoint_images) * training.previews
        hours = self.hours.of_flops(2 * macs * resolved.spec.images, "denoiser-training", precision)
        hours += self._sampling_hours(resolved, previews, [resolved.guidance[0].scale])
        source = "stated"
        for record in self.measured:
            if record.kind != "diffusion_training":
                continue
            if (record.profile, record.required_denoiser.row) != (self.profile.name, row):
                continue
            device = record.provenance.device
            if device.kind == self.hours.device:
                hours = resolved.spec.images / record.metrics["images_per_s"].value / 3600 * device.processes
                source = f"measured on {device.name}"
        part = training.batch_size // training.accumulate // self.profile.world
        return PlanRow(
            "train_diffusion",
            row,
            1,
            **self.hours.columns(hours),
            **training_memory(self.profile, cost, part, precision, training.execution),
            disk_gib=(cost.parameters * FP32 + previews * 3 * resolved.data.resolution**2) / GIB,
            unfinished_gib=unfinished_run_bytes(cost) / GIB,
            source=source,
        )

    def sampling(self, row: str, scales: Sequence[float]) -> PlanRow:
        """Row for sampling one denoiser: one job per guidance scale. Samples are stored as uint8."""
        resolved, spec = self.profile.row(row), self.profile.required_diffusion
        denoiser = denoiser_pass(resolved.denoiser)
        passes = autoencoder_passes(resolved.autoencoder, resolved.data.resolution)
        batch = min(PAPER_BATCH if spec.seed_policy == "paper_8gpu" else spec.sample_batch, spec.samples)
        decoded = min(batch, images_at_once(resolved.data.resolution))
        at_once = max(map(_passes_per_evaluation, scales)) * batch
        peak = max(at_once * denoiser.peak_bytes, passes.decode.peak_bytes * decoded)
        weights = (denoiser.parameters + passes.parameters) * FP32
        each = 3 * resolved.data.resolution**2 + LABEL_BYTES
        return PlanRow(
            "sample",
            row,
            len(scales),
            **self.hours.columns(self._sampling_hours(resolved, spec.samples, scales)),
            memory_gib=(weights + peak) / GIB,
            disk_gib=len(scales) * (spec.samples * each + 2 * HEADER_BYTES) / GIB,
        )

    def evaluation(self, row: str, jobs: int, *, reference: bool) -> PlanRow:
        """Row for measuring samples of a row in ``jobs`` jobs; ``reference`` adds features of the reference images."""
        spec = self.profile.required_diffusion
        images = jobs * spec.samples + (self.count_images(spec.data[spec.rows[row].data]) if reference else 0)
        return PlanRow("evaluate_samples", row, jobs, **self.hours.columns(self.hours.of_metrics(images)))

    def count_latents(self, data: LatentDataSpec) -> int:
        """Number of latents: one per image, two where mirror images are encoded too."""
        return self.count_images(data) * (2 if data.flips else 1)

    def count_images(self, data: LatentDataSpec) -> int:
        """Number of images. A data set of which no number is known counts as 0.

        Raises :class:`DataError` for a split that a data set does not have.
        """
        count = 0
        for name in data.datasets:
            if name in DATASETS:
                count += len(load_manifest(name).split(data.split)) * data.crops_per_photo
            else:
                count += count_files(self.profile, name, data.split)
        return count

    def _sampling_hours(self, resolved: Row, count: int, scales: Sequence[float]) -> float:
        """Hours to draw and decode ``count`` images at each scale."""
        nfe = self._nfe(resolved.sampler)
        drawn = 2 * nfe * denoiser_pass(resolved.denoiser).mac * sum(map(_passes_per_evaluation, scales)) * count
        decode = autoencoder_passes(resolved.autoencoder, resolved.data.resolution).decode
        hours = self.hours.of_flops(drawn, "denoiser-sampling", "fp32")
        return hours + self.hours.of_flops(2 * decode.mac * len(scales) * count, "inference", "fp32")

    def _nfe(self, sampler: SamplerSpec) -> float:
        """Function evaluations per sample: fixed by the sampler, or a rate for a sampler that chooses its steps."""
        if isinstance(sampler, DPMSolverSpec):
            return sampler.nfe
        if isinstance(sampler, AncestralSpec):
            return sampler.steps
        return self.rates.get("dopri5", self.hours.device, "fp32").rate


def _passes_per_evaluation(scale: float) -> int:
    """Passes of the denoiser in one function evaluation: two with guidance, one without (scale 1)."""
    return 1 if scale == 1 else 2


def _scales_by_row(samplings: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    scales: dict[str, list[float]] = {}
    for row, scale in samplings:
        scales.setdefault(row, []).append(scale)
    return scales
