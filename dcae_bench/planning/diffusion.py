"""From the diffusion part's jobs to hours, memory and disk."""

from collections.abc import Sequence

import numpy as np

from dcae_bench.config import Profile
from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.diffusion.noise import PAPER_BATCH
from dcae_bench.diffusion_plan import RowPlan
from dcae_bench.diffusion_spec import LatentDataSpec
from dcae_bench.diffusion_specs import AncestralSpec, DPMSolverSpec, SamplerSpec
from dcae_bench.models.autoencoder import images_at_once
from dcae_bench.planning.costs import FP32, denoiser_step_cost, training_bytes, unfinished_bytes
from dcae_bench.planning.hours import Hours
from dcae_bench.planning.passes import autoencoder_passes, denoiser_pass
from dcae_bench.planning.plan import GIB, Row
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import Needs
from dcae_bench.records import Record

LABEL_BYTES = 8
HEADER_BYTES = 128  # of an .npy file


class DiffusionEstimator:
    """Estimates latents, denoisers and samples of one profile."""

    def __init__(self, profile: Profile, rates: Rates, measured: Sequence[Record] = ()):
        """``measured`` are records of trainings, whose speeds go before ``rates``."""
        self.profile, self.rates, self.measured = profile, rates, measured
        self.hours = Hours(profile, rates)

    def rows(self, needs: Needs) -> list[Row]:
        """Rows of all jobs of the diffusion part."""
        rows = [self.encode(latent, images) for latent, images in needs.encodings]
        rows += [self.train(row) for row in needs.denoisers]
        rows += [self.sample(row, scales) for row, scales in _by_row(needs.samplings).items()]
        looked_at: set[str] = set()
        for row, scales in _by_row(needs.generations).items():
            data = self.profile.diffusion.rows[row].data
            rows.append(self.evaluate(row, len(scales), reference=data not in looked_at))
            looked_at.add(data)
        return rows

    def encode(self, latent: str, images: str) -> Row:
        """Latents of one autoencoder; the disk is exactly that of the finished arrays."""
        spec, data = self.profile.latent_autoencoder(latent), self.profile.diffusion.data[images]
        passes, count = autoencoder_passes(spec, data.resolution), self.latents(data)
        side = data.resolution // spec.compression
        each = spec.latent_channels * side**2 * np.dtype(data.dtype).itemsize + LABEL_BYTES
        batch = min(self.profile.diffusion.encode_batch, count, images_at_once(data.resolution))
        hours = self.hours.of(2 * passes.encode.mac * count, "inference", "fp32")
        return Row(
            "encode",
            f"{latent} on {images}" + ("" if count else " (number of images not known)"),
            1,
            **self.hours.spent(hours),
            memory_gib=(passes.parameters * FP32 + passes.encode.peak_bytes * batch) / GIB,
            disk_gib=(count * each + 2 * HEADER_BYTES) / GIB,
        )

    def train(self, row: str) -> Row:
        """One denoiser with its previews."""
        plan = self.profile.trained_row(row)
        training, precision = plan.training, plan.training.precision or self.profile.precision
        cost = denoiser_step_cost(plan.denoiser, precision)
        macs = cost.forward_mac + cost.backward_mac
        if training.execution.checkpoint_activations:
            macs += cost.recompute_mac
        previews = -(-plan.row.images // training.checkpoint_images) * training.previews
        hours = self.hours.of(2 * macs * plan.row.images, "denoiser-training", precision)
        hours += self._sampling_hours(plan, previews, [plan.guidance[0].scale])
        source = "stated"
        for record in self.measured:
            if record.kind != "diffusion_training" or (record.profile, record.denoiser.row) != (self.profile.name, row):
                continue
            device = record.provenance.device
            if device.kind == self.hours.device:
                hours = plan.row.images / record.metrics["images_per_s"].value / 3600 * device.processes
                source = f"measured on {device.name}"
        part = training.batch_size // training.accumulate // self.profile.processes
        return Row(
            "train_diffusion",
            row,
            1,
            **self.hours.spent(hours),
            memory_gib=training_bytes(cost, part, precision, training.execution) / GIB,
            disk_gib=(cost.parameters * FP32 + previews * 3 * plan.data.resolution**2) / GIB,
            unfinished_gib=unfinished_bytes(cost) / GIB,
            source=source,
        )

    def sample(self, row: str, scales: Sequence[float]) -> Row:
        """Samples of one denoiser, a job for each guidance scale, kept as uint8."""
        plan, spec = self.profile.row(row), self.profile.diffusion
        denoiser, passes = denoiser_pass(plan.denoiser), autoencoder_passes(plan.autoencoder, plan.data.resolution)
        batch = min(PAPER_BATCH if spec.seed_policy == "paper_8gpu" else spec.sample_batch, spec.samples)
        decoded = min(batch, images_at_once(plan.data.resolution))
        peak = max(max(map(_passes, scales)) * denoiser.peak_bytes * batch, passes.decode.peak_bytes * decoded)
        weights = (denoiser.parameters + passes.parameters) * FP32
        each = 3 * plan.data.resolution**2 + LABEL_BYTES
        return Row(
            "sample",
            row,
            len(scales),
            **self.hours.spent(self._sampling_hours(plan, spec.samples, scales)),
            memory_gib=(weights + peak) / GIB,
            disk_gib=len(scales) * (spec.samples * each + 2 * HEADER_BYTES) / GIB,
        )

    def evaluate(self, row: str, jobs: int, *, reference: bool) -> Row:
        """Metrics of the samples at some scales, and of the images behind the latents where ``reference`` says so."""
        spec = self.profile.diffusion
        images = jobs * spec.samples + (self.images(spec.data[spec.rows[row].data]) if reference else 0)
        return Row("evaluate_samples", row, jobs, **self.hours.spent(self.hours.of_metrics(images)))

    def latents(self, data: LatentDataSpec) -> int:
        """Number of latents: of every image, and of its mirror image where the data say so."""
        return self.images(data) * (2 if data.flips else 1)

    def images(self, data: LatentDataSpec) -> int:
        """Number of images; those of a data set that states none count as none.

        Raises :class:`DataError` for a split that is not there.
        """
        count = 0
        for name in data.datasets:
            if name in DATASETS:
                count += len(load_manifest(name).split(data.split)) * data.crops_per_photo
            else:
                count += find_dataset(name, self.profile.data_roots).count(data.split) or 0
        return count

    def _sampling_hours(self, plan: RowPlan, count: int, scales: Sequence[float]) -> float:
        """Hours to draw and decode ``count`` images at each scale."""
        nfe = self._evaluations(plan.sampler)
        drawn = 2 * nfe * denoiser_pass(plan.denoiser).mac * sum(map(_passes, scales)) * count
        decoded = 2 * autoencoder_passes(plan.autoencoder, plan.data.resolution).decode.mac * len(scales) * count
        return self.hours.of(drawn, "denoiser-sampling", "fp32") + self.hours.of(decoded, "inference", "fp32")

    def _evaluations(self, sampler: SamplerSpec) -> float:
        """Function evaluations per sample: fixed, or assumed where the sampler chooses its steps."""
        if isinstance(sampler, DPMSolverSpec):
            return sampler.nfe
        if isinstance(sampler, AncestralSpec):
            return sampler.steps
        return self.rates.get("dopri5", self.hours.device, "fp32").rate


def _passes(scale: float) -> int:
    """Passes of the denoiser in one function evaluation under a guidance scale."""
    return 1 if scale == 1 else 2


def _by_row(samplings: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    scales: dict[str, list[float]] = {}
    for row, scale in samplings:
        scales.setdefault(row, []).append(scale)
    return scales
