"""Estimator of a profile's jobs: hours, memory, disk and downloads of some targets, as a plan."""

from collections.abc import Sequence
from functools import cache

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.costs.passes import autoencoder_passes, comparison_pass, forward_mac
from dcae_bench.costs.step import FP32, step_cost, unfinished_run_bytes
from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.evaluation.protocols import protocol_of
from dcae_bench.extractors import inception_weights
from dcae_bench.extractors.lpips import pairs_at_once
from dcae_bench.models.autoencoder import images_at_once
from dcae_bench.models.cost import autoencoder_cost, denoiser_cost
from dcae_bench.models.pca import fit_mac
from dcae_bench.planning.diffusion import DiffusionEstimator
from dcae_bench.planning.hours import Hours
from dcae_bench.planning.images import count_files
from dcae_bench.planning.memory import fits, training_memory
from dcae_bench.planning.plan import GIB, Plan, PlanRow
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import EvaluationJob, Needs, needs_of
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow
from dcae_bench.records.record import Record
from dcae_bench.specs.autoencoders import AutoencoderSpec, PCASpec
from dcae_bench.specs.protocols import PAPER, WeightsSource
from dcae_bench.subjects.own import needs_fetch
from dcae_bench.weights import released as weights

MANIFEST_BYTES = 48  # of a row; measured on 200,000 rows like ImageNet's: 41, and more where paths have less in common
INCEPTION = "inception"
INCEPTION_GIB = 0.089  # 23.9 million parameters in fp32


class Estimator:
    """Estimates jobs of one profile, as rows of a plan."""

    def __init__(self, profile: Profile, rates: Rates, measured: Sequence[Record] = ()):
        """``measured`` are training records; their speeds take precedence over ``rates``."""
        self.profile, self.rates, self.measured = profile, rates, measured
        self.hours = Hours(profile, rates)
        self.diffusion = DiffusionEstimator(profile, rates, measured)

    def plan(self, *targets: str) -> Plan:
        """Plan of all jobs that ``targets`` need. Raises :class:`ConfigError` for a target that no plan counts."""
        needs = Needs()
        for target in targets:
            needs |= needs_of(self.profile, target)
        rows = [self.preparation(name, splits) for name, splits in self.splits_to_read(needs).items()]
        rows += [self.download(name) for name in self._weights_to_download(needs)]
        rows += [self.own_download(name) for name in self._own_to_download(needs)]
        rows += [self.training(name, number) for name, number in needs.trainings]
        rows += [self.evaluation(job) for job in needs.evaluations]
        rows += self.diffusion.rows(needs)
        rows += [PlanRow("table", "tables and figures", len(needs.tables))] if needs.tables else []
        assumptions = [
            *ASSUMPTIONS,
            *(ASSUMPTIONS_OF_DIFFUSION if needs.encodings or needs.samplings else ()),
        ]
        on_gpus = fits(rows, self.rates) if self.hours.device == "cuda" else ()
        return Plan(self.profile.name, targets, tuple(rows), (*assumptions, *self.rates.used), on_gpus)

    def splits_to_read(self, needs: Needs) -> dict[str, list[str]]:
        """Splits that the jobs read, by data set."""
        wanted = [(name, "train") for job in needs.trainings for name in self._training_sets(*job)]
        wanted += [(item.dataset, "eval") for job in needs.evaluations for item in job.sets]
        rows = [self.profile.required_diffusion.rows[row] for row, _ in needs.generations]
        for images in dict.fromkeys([*(images for _, images in needs.encodings), *(row.data for row in rows)]):
            data = self.profile.required_diffusion.data[images]
            wanted += [(name, data.split) for name in data.datasets]
        names = dict.fromkeys(name for name, _ in wanted)
        return {name: [split for split in ("train", "eval") if (name, split) in wanted] for name in names}

    def _training_sets(self, autoencoder: str, phase: int) -> tuple[str, ...]:
        return of_autoencoder(self.profile, autoencoder).training_sets(autoencoder, phase)

    def _weights_to_download(self, needs: Needs) -> list[str]:
        """Names of released weights that the jobs use, and ``inception`` where they use the Inception network."""
        names = self._untrained(needs, "released")
        sampled = [self.profile.row(row) for row in dict.fromkeys(row for row, _ in needs.samplings)]
        for resolved in sampled:
            if isinstance(resolved, ReleasedRow):
                names += [resolved.spec.source.autoencoder, resolved.spec.released]
        measured = needs.evaluations or needs.generations
        inception = [INCEPTION] if measured and self.profile.evaluation.protocol == PAPER else []
        return [*dict.fromkeys(names), *inception]

    def _own_to_download(self, needs: Needs) -> list[str]:
        """Own autoencoders that the jobs use and whose weights must be downloaded from the hub."""
        names = dict.fromkeys(self._untrained(needs, "own"))
        return [name for name in names if needs_fetch(name, self.profile.autoencoders[name])]

    def _untrained(self, needs: Needs, weights: WeightsSource) -> list[str]:
        """Autoencoders with released or own weights (``weights``) that the jobs measure or encode with."""
        not_trained = [job.autoencoder for job in needs.evaluations if not job.phase]
        sources = [LatentSource.parse(latent) for latent, _ in needs.encodings]
        return [name for name in not_trained if self.profile.autoencoders[name].weights == weights] + [
            source.autoencoder for source in sources if source.weights == weights
        ]

    def preparation(self, name: str, splits: Sequence[str]) -> PlanRow:
        """Row for preparing a data set: CPU-hours by pixels read, disk by pixels of packs or rows of manifests."""
        if name in DATASETS:
            short = self.profile.pack_short_side
            photos = load_manifest(name).photos
            scales = [min(1.0, short / min(photo.width, photo.height)) for photo in photos]
            read = sum(photo.width * photo.height for photo in photos) / 1e6
            kept = sum(p.width * p.height * scale**2 for p, scale in zip(photos, scales, strict=True)) * 3
            jobs = 1
            download: float | None = 0.0
        else:
            data = find_dataset(name, self.profile.data_roots)
            count = sum(count_files(self.profile, name, split) for split in splits)
            read, kept = count * (data.megapixels or 0.0), count * MANIFEST_BYTES
            # The publisher's archives hold all splits; the user's own folder needs no download.
            jobs, download = len(splits), data.download_gib if data.home else 0.0
            name = name if count else f"{name} (number of images not known)"
        hours = read / self.rates.get("prepare", "cpu", "fp32").rate / 3600
        return PlanRow("prepare", name, jobs, cpu_hours=hours, disk_gib=kept / GIB, download_gib=download)

    def download(self, name: str) -> PlanRow:
        """Row for fetching released weights or FID's network; no download if they are on this machine."""
        if inception_weights.is_available() if name == INCEPTION else weights.is_fetched(name):
            return PlanRow("fetch", name, 1)
        size = INCEPTION_GIB if name == INCEPTION else _released_parameters(name) * FP32 / GIB
        return PlanRow("fetch", name, 1, disk_gib=size, download_gib=size)

    def own_download(self, name: str) -> PlanRow:
        """Row for fetching own weights from the hub."""
        size = autoencoder_cost(self.profile.autoencoders[name].model, ()).parameters * FP32 / GIB
        return PlanRow("fetch", name, 1, disk_gib=size, download_gib=size)

    def training(self, name: str, number: int) -> PlanRow:
        """Row for training one phase of one autoencoder, or for fitting a control in its place."""
        profile = of_autoencoder(self.profile, name)
        phase = profile.phase(name, number)
        if isinstance(model := profile.autoencoders[name].model, PCASpec):
            return self.fit(name, model, phase.resolution)
        cost = step_cost(profile.autoencoders[name].model, phase, profile.required_training.loss, profile.precision)
        macs = cost.forward_mac + cost.backward_mac
        if profile.required_training.execution.checkpoint_activations:
            macs += cost.recompute_mac
        hours, source = self.hours.of_flops(2 * macs * phase.images, "training", profile.precision), "stated"
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
        part = phase.batch_size // phase.accumulate // profile.world
        return PlanRow(
            "train",
            f"{name} phase {number}",
            1,
            **self.hours.columns(hours),
            **training_memory(profile, cost, part, profile.precision, profile.required_training.execution),
            disk_gib=cost.parameters * FP32 / GIB,
            unfinished_gib=unfinished_run_bytes(cost) / GIB,
            source=source,
        )

    def fit(self, name: str, spec: PCASpec, resolution: int) -> PlanRow:
        """Row for fitting a control to its crops, whose patches stay in memory."""
        patches = spec.images * (resolution // spec.compression) ** 2
        hours = self.hours.of_flops(2 * fit_mac(spec, patches), "training", "fp32")
        size = 3 * spec.compression**2 * FP32 / GIB
        return PlanRow(
            "train",
            f"{name} fit",
            1,
            **self.hours.columns(hours),
            memory_gib=patches * size,
            disk_gib=(spec.latent_channels + 1) * size,
        )

    def evaluation(self, job: EvaluationJob) -> PlanRow:
        """Row for evaluating reconstructions: one job after a phase, one job per set for released or own weights."""
        profile = of_autoencoder(self.profile, job.autoencoder)
        entry = profile.autoencoders[job.autoencoder]
        spec = entry.model
        images, flops, samples = 0, 0.0, 0
        for item in job.sets:
            count = self.evaluation_images(item.dataset)
            images += count
            flops += 2 * count * forward_mac(spec, item.resolution)
            samples += profile.evaluation.samples * 2 * 3 * item.resolution**2
        hours = self.hours.of_flops(flops, "inference", "fp32") + self.hours.of_metrics(images)
        subject = f"{job.autoencoder} {f'phase {job.phase}' if job.phase else entry.weights}"
        jobs = 1 if job.phase else len(job.sets)
        memory = max(self._evaluation_bytes(spec, item.resolution) for item in job.sets)
        return PlanRow(
            "evaluate", subject, jobs, **self.hours.columns(hours), memory_gib=memory / GIB, disk_gib=samples / GIB
        )

    def _evaluation_bytes(self, spec: AutoencoderSpec, resolution: int) -> float:
        """Peak device memory: all weights, and the largest of encoding, decoding, LPIPS and SSIM of a batch."""
        batch, device = self.profile.evaluation.batch_size, self.hours.device
        passes = autoencoder_passes(spec, resolution)
        compared = comparison_pass(protocol_of(self.profile).lpips, resolution)
        peaks = [
            max(passes.encode.peak_bytes, passes.decode.peak_bytes) * min(batch, images_at_once(resolution)),
            compared.lpips_bytes * min(batch, pairs_at_once(device, resolution)),
            compared.ssim_bytes * batch if device != "cpu" else 0.0,
        ]
        return (passes.parameters + compared.parameters) * FP32 + max(peaks)

    def evaluation_images(self, dataset: str) -> int:
        """Number of images or crops that an evaluation on a data set measures; 0: not stated."""
        if dataset not in DATASETS:
            return count_files(self.profile, dataset, "eval")  # one crop per image
        return len(load_manifest(dataset).split("eval")) * self.profile.evaluation.crops_per_photo


@cache
def _released_parameters(name: str) -> int:
    """Parameters in a file of released weights. A denoiser's file also holds its autoencoder."""
    preset = denoiser_catalogue().denoisers.get(name)
    if preset is None:
        return autoencoder_cost(catalogue().spec(name), ()).parameters
    denoiser = denoiser_cost(denoiser_catalogue().spec(name)).all_parameters
    return denoiser + _released_parameters(preset.autoencoder)


ASSUMPTIONS = (
    "arithmetic: multiply-accumulates of convolutions and matrix products, counted on the models themselves; includes "
    "losses and recomputation, excludes backward passes of frozen parts; the assumed utilisation covers other work",
    "memory of a training: weights, EMA weights, gradients, Adam's state, autocast copies and kept activations, for "
    "one device's share of an accumulated part of a batch; with 'sharding: full' a share of the first four, and whole "
    "weights for two blocks and all that is outside of blocks; memory of an evaluation: weights, and the largest of "
    "encoding, decoding, LPIPS and SSIM; excludes the networks of distances, library workspace and fragmentation",
    "disk: packs, manifests, latents, samples and finished weights; excludes images of data sets of files and the "
    "originals' features in the user's cache; 'while running' is the saved state of a training and the next save",
    "evaluation, encoding and sampling compute in fp32, whatever the precision of the training",
    "hours of evaluation exclude reading data; hours of training exclude reading data unless they were measured",
)
ASSUMPTIONS_OF_DIFFUSION = (
    "a sample costs the sampler's function evaluations, two passes each with guidance, and one decoding",
    "a file of a released denoiser also holds its autoencoder, both in fp32",
    "samples are compared with all images behind the latents; the features of these images are computed once",
)
