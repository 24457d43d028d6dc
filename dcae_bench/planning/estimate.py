"""From a profile's jobs to hours, memory, disk and downloads."""

from collections.abc import Sequence
from functools import cache

from dcae_bench import weights
from dcae_bench.config import Profile
from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.denoiser_presets import denoiser_catalogue
from dcae_bench.diffusion_plan import ReleasedPlan
from dcae_bench.diffusion_spec import LatentSource
from dcae_bench.evaluation.protocols import protocol_of
from dcae_bench.metrics import inception_weights
from dcae_bench.metrics.lpips import pairs_at_once
from dcae_bench.models.autoencoder import images_at_once
from dcae_bench.models.cost import cost as model_cost
from dcae_bench.models.cost import denoiser_cost
from dcae_bench.own import to_fetch
from dcae_bench.planning.costs import FP32, step_cost, training_bytes, unfinished_bytes
from dcae_bench.planning.diffusion import DiffusionEstimator
from dcae_bench.planning.hours import Hours
from dcae_bench.planning.passes import autoencoder_passes, comparison_pass, forward_mac
from dcae_bench.planning.plan import GIB, Plan, Row
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import Evaluation, Needs, needs_of
from dcae_bench.presets import catalogue
from dcae_bench.protocols import PAPER
from dcae_bench.records import Record, WeightsSource
from dcae_bench.specs import AutoencoderSpec

MANIFEST_BYTES = 48  # measured on 200,000 rows of ImageNet's kind: 41 a row, the more the less alike paths are
INCEPTION = "inception"
INCEPTION_GIB = 0.089  # 23.9 million parameters in fp32


class Estimator:
    """Estimates one profile's jobs."""

    def __init__(self, profile: Profile, rates: Rates, measured: Sequence[Record] = ()):
        """``measured`` are records of trainings, whose speeds go before ``rates``."""
        self.profile, self.rates, self.measured = profile, rates, measured
        self.hours = Hours(profile, rates)
        self.diffusion = DiffusionEstimator(profile, rates, measured)

    def plan(self, *targets: str) -> Plan:
        """Rows of everything ``targets`` need. Raises :class:`ConfigError` for a target that no plan counts."""
        needs = Needs()
        for target in targets:
            needs |= needs_of(self.profile, target)
        rows = [self.prepare(name, splits) for name, splits in self._data(needs).items()]
        rows += [self.fetch(name) for name in self._released(needs)]
        rows += [self.fetch_own(name) for name in self._own(needs)]
        rows += [self.train(name, number) for name, number in needs.trainings]
        rows += [self.evaluate(job) for job in needs.evaluations]
        rows += self.diffusion.rows(needs)
        rows += [Row("table", "tables and figures", len(needs.tables))] if needs.tables else []
        assumptions = [
            *ASSUMPTIONS,
            *(ASSUMPTIONS_OF_DIFFUSION if needs.encodings or needs.samplings else ()),
            *self.rates.used,
        ]
        return Plan(self.profile.name, targets, tuple(rows), tuple(assumptions))

    def _data(self, needs: Needs) -> dict[str, list[str]]:
        """Splits of data sets that jobs read."""
        wanted = [(name, "train") for _, number in needs.trainings for name in self.profile.training_sets(number)]
        wanted += [(item.dataset, "eval") for job in needs.evaluations for item in job.sets]
        rows = [self.profile.diffusion.rows[row] for row, _ in needs.generations]
        for images in dict.fromkeys([*(images for _, images in needs.encodings), *(row.data for row in rows)]):
            data = self.profile.diffusion.data[images]
            wanted += [(name, data.split) for name in data.datasets]
        names = dict.fromkeys(name for name, _ in wanted)
        return {name: [split for split in ("train", "eval") if (name, split) in wanted] for name in names}

    def _released(self, needs: Needs) -> list[str]:
        """Weights that jobs take from elsewhere."""
        names = self._taken(needs, "released")
        sampled = [self.profile.row(row) for row in dict.fromkeys(row for row, _ in needs.samplings)]
        for plan in sampled:
            names += [plan.row.source.autoencoder, plan.row.released] if isinstance(plan, ReleasedPlan) else []
        measured = needs.evaluations or needs.generations
        inception = [INCEPTION] if measured and self.profile.evaluation.protocol == PAPER else []
        return [*dict.fromkeys(names), *inception]

    def _own(self, needs: Needs) -> list[str]:
        """Own autoencoders of jobs that are on the hub and not here."""
        names = dict.fromkeys(self._taken(needs, "own"))
        return [name for name in names if to_fetch(name, self.profile.autoencoders[name])]

    def _taken(self, needs: Needs, weights: WeightsSource) -> list[str]:
        """Autoencoders from one source that jobs measure or encode with."""
        as_is = [job.autoencoder for job in needs.evaluations if not job.phase]
        sources = [LatentSource.parse(latent) for latent, _ in needs.encodings]
        return [name for name in as_is if self.profile.autoencoders[name].weights == weights] + [
            source.autoencoder for source in sources if source.weights == weights
        ]

    def prepare(self, name: str, splits: Sequence[str]) -> Row:
        """Read one data set: CPU-hours by pixels read, disk by what is kept (pixels of packs, rows of manifests)."""
        if name in DATASETS:
            short = self.profile.pack_short_side
            photos = load_manifest(name).photos
            scales = [min(1.0, short / min(photo.width, photo.height)) for photo in photos]
            read = sum(photo.width * photo.height for photo in photos) / 1e6
            kept = sum(p.width * p.height * scale**2 for p, scale in zip(photos, scales, strict=True)) * 3
            jobs, download = 1, 0.0
        else:
            data = find_dataset(name, self.profile.data_roots)
            count = sum(data.count(split) or 0 for split in splits)
            read, kept = count * (data.megapixels or 0.0), count * MANIFEST_BYTES
            # The publisher's archives hold every split; a folder of the user's is there already.
            jobs, download = len(splits), data.download_gib if data.home else 0.0
            name = name if count else f"{name} (number of images not known)"
        hours = read / self.rates.get("prepare", "cpu", "fp32").rate / 3600
        return Row("prepare", name, jobs, cpu_hours=hours, disk_gib=kept / GIB, download_gib=download)

    def fetch(self, name: str) -> Row:
        """Released weights, or FID's network; nothing to download where they are on this machine."""
        if inception_weights.here() if name == INCEPTION else weights.here(name):
            return Row("fetch", name, 1)
        size = INCEPTION_GIB if name == INCEPTION else _released_parameters(name) * FP32 / GIB
        return Row("fetch", name, 1, disk_gib=size, download_gib=size)

    def fetch_own(self, name: str) -> Row:
        """Own weights that are on the hub."""
        size = model_cost(self.profile.autoencoders[name].model, ()).parameters * FP32 / GIB
        return Row("fetch", name, 1, disk_gib=size, download_gib=size)

    def train(self, name: str, number: int) -> Row:
        """One phase of one autoencoder."""
        profile, phase = self.profile, self.profile.phase(name, number)
        cost = step_cost(profile.autoencoders[name].model, phase, profile.training.loss, profile.precision)
        macs = cost.forward_mac + cost.backward_mac
        if profile.training.execution.checkpoint_activations:
            macs += cost.recompute_mac
        hours, source = self.hours.of(2 * macs * phase.images, "training", profile.precision), "stated"
        for record in self.measured:
            if record.kind != "training":
                continue
            subject = record.subject
            where = (record.profile, subject.autoencoder, subject.phase, record.data.resolution)
            kind = record.provenance.device.kind
            if where == (profile.name, name, number, phase.resolution) and kind == self.hours.device:
                speed = record.metrics["images_per_s"].value
                hours = phase.images / speed / 3600 * record.provenance.device.processes
                source = f"measured on {record.provenance.device.name}"
        part = phase.batch_size // phase.accumulate // profile.processes
        return Row(
            "train",
            f"{name} phase {number}",
            1,
            **self.hours.spent(hours),
            memory_gib=training_bytes(cost, part, profile.precision, profile.training.execution) / GIB,
            disk_gib=cost.parameters * FP32 / GIB,
            unfinished_gib=unfinished_bytes(cost) / GIB,
            source=source,
        )

    def evaluate(self, job: Evaluation) -> Row:
        """Reconstruction of some sets: after a phase in one job, of released or own weights in a job per set."""
        profile = self.profile
        entry = profile.autoencoders[job.autoencoder]
        spec = entry.model
        images, flops, samples = 0, 0.0, 0
        for item in job.sets:
            count = self._evaluation_images(item.dataset)
            images += count
            flops += 2 * count * forward_mac(spec, item.resolution)
            samples += profile.evaluation.samples * 2 * 3 * item.resolution**2
        hours = self.hours.of(flops, "inference", "fp32") + self.hours.of_metrics(images)
        subject = f"{job.autoencoder} {f'phase {job.phase}' if job.phase else entry.weights}"
        jobs = 1 if job.phase else len(job.sets)
        memory = max(self._evaluation_bytes(spec, item.resolution) for item in job.sets)
        return Row(
            "evaluate", subject, jobs, **self.hours.spent(hours), memory_gib=memory / GIB, disk_gib=samples / GIB
        )

    def _evaluation_bytes(self, spec: AutoencoderSpec, resolution: int) -> float:
        """Device memory at the largest step of a batch: the autoencoder's, LPIPS' or SSIM's, and all weights."""
        batch, device = self.profile.evaluation.batch_size, self.hours.device
        passes = autoencoder_passes(spec, resolution)
        compared = comparison_pass(protocol_of(self.profile).lpips, resolution)
        peaks = [
            max(passes.encode.peak_bytes, passes.decode.peak_bytes) * min(batch, images_at_once(resolution)),
            compared.lpips_bytes * min(batch, pairs_at_once(device, resolution)),
            compared.ssim_bytes * batch if device != "cpu" else 0.0,
        ]
        return (passes.parameters + compared.parameters) * FP32 + max(peaks)

    def _evaluation_images(self, dataset: str) -> int:
        if dataset not in DATASETS:
            return find_dataset(dataset, self.profile.data_roots).count("eval") or 0  # one crop of each
        return len(load_manifest(dataset).split("eval")) * self.profile.evaluation.crops_per_photo


@cache
def _released_parameters(name: str) -> int:
    """Parameters in a file of released weights; a denoiser's holds its autoencoder too."""
    preset = denoiser_catalogue().denoisers.get(name)
    if preset is None:
        return model_cost(catalogue().spec(name), ()).parameters
    denoiser = denoiser_cost(denoiser_catalogue().spec(name)).all_parameters
    return denoiser + _released_parameters(preset.autoencoder)


ASSUMPTIONS = (
    "arithmetic: multiply-accumulates of convolutions and matrix products, counted on the models themselves, frozen "
    "parts without a backward pass, losses and recomputation included; the rest is in the assumed utilisation",
    "memory: weights, average, gradients, Adam, autocast copies and kept activations of one device's "
    "share of a part of a batch; of an evaluation, weights and the largest of encoding, decoding, LPIPS and "
    "SSIM; not the networks of distances, the library's workspace or fragmentation",
    "disk: packs, manifests, latents, samples and finished weights, not the images of other data sets nor the features "
    "of originals in the user's cache; 'while running' is an unfinished training's state and the next one on its way",
    "evaluation, encoding and sampling compute in fp32, whatever the training's precision",
    "hours of evaluation leave out reading data; hours of training leave it out too unless they were measured",
)
ASSUMPTIONS_OF_DIFFUSION = (
    "samples: function evaluations of the sampler on each, in two passes where it is guided, then decoded",
    "a file of a released denoiser holds its autoencoder too, both in fp32",
    "samples are compared with all images behind the latents, whose features are computed once for all rows",
)
