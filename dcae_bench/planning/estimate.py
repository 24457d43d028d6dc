"""From a profile to its jobs, and from a job to hours, memory, disk and downloads."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from dcae_bench import weights
from dcae_bench.config import Profile
from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation_spec import EvaluationSet
from dcae_bench.models.cost import cost as model_cost
from dcae_bench.planning.costs import StepCost, forward_mac, step_cost
from dcae_bench.planning.rates import Rates
from dcae_bench.records import Record

GIB = 2**30
FP32 = 4  # bytes
HALF = {"bf16", "fp16"}
RECORDS = ("reconstruction", "check")
MANIFEST_BYTES = 48  # measured on 200,000 rows of ImageNet's kind: 41 a row, the more the less alike paths are


@dataclass(frozen=True)
class Row:
    """Estimate of the jobs of one rule and subject. Hours are of all its jobs together."""

    rule: str
    subject: str
    jobs: int
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    memory_gib: float = 0.0
    """Of the device, at the peak of one job."""
    disk_gib: float = 0.0
    download_gib: float | None = 0.0
    """None: not known."""
    source: str = "stated"


class Evaluation(NamedTuple):
    """Measuring one autoencoder on some sets: after a training phase, or with released weights."""

    autoencoder: str
    phase: int | None
    sets: tuple[EvaluationSet, ...]


@dataclass(frozen=True)
class Plan:
    """All rows of a profile and target, and what was assumed."""

    profile: str
    target: str
    rows: tuple[Row, ...]
    assumptions: tuple[str, ...]

    def total(self) -> Row:
        """Sums of hours, disk and known downloads; memory is the largest."""
        rows = self.rows
        return Row(
            rule="total",
            subject="",
            jobs=sum(row.jobs for row in rows),
            gpu_hours=sum(row.gpu_hours for row in rows),
            cpu_hours=sum(row.cpu_hours for row in rows),
            memory_gib=max((row.memory_gib for row in rows), default=0.0),
            disk_gib=sum(row.disk_gib for row in rows),
            download_gib=sum(row.download_gib or 0.0 for row in rows),
            source="",
        )

    def as_json(self) -> dict:
        """Everything, as plain values."""
        unknown = [row.subject for row in self.rows if row.download_gib is None]
        return {**asdict(self), "total": asdict(self.total()), "downloads_not_known": unknown, "estimate": True}


class Estimator:
    """Estimates one profile's jobs."""

    def __init__(self, profile: Profile, rates: Rates, measured: Sequence[Record] = ()):
        self.profile, self.rates, self.measured = profile, rates, measured
        self.device = "cpu" if profile.device == "cpu" else "cuda"

    def plan(self, target: str) -> Plan:
        """Rows of everything ``target`` needs. Raises :class:`ConfigError` for a target that no rule makes."""
        trainings, evaluations, tables = self._needed(target)
        profile = self.profile
        sets = [name for _, number in trainings for name in profile.training_sets(number)]
        sets += [item.dataset for job in evaluations for item in job.sets]
        rows = [self.prepare(name) for name in dict.fromkeys(sets)]
        rows += [self.fetch(name) for name in dict.fromkeys(job.autoencoder for job in evaluations if not job.phase)]
        rows += [self.train(name, number) for name, number in trainings]
        rows += [self.evaluate(job) for job in evaluations]
        rows += [Row("table", target, tables)] if tables else []
        return Plan(profile.name, target, tuple(rows), (*ASSUMPTIONS, *self.rates.used))

    def prepare(self, name: str) -> Row:
        """Read one data set: CPU-hours by pixels read, disk by what is kept (pixels of packs, rows of manifests)."""
        if name in DATASETS:
            short = self.profile.pack_short_side
            photos = load_manifest(name).photos
            scales = [min(1.0, short / min(photo.width, photo.height)) for photo in photos]
            read = sum(photo.width * photo.height for photo in photos) / 1e6
            kept = sum(p.width * p.height * scale**2 for p, scale in zip(photos, scales, strict=True)) * 3
            jobs, download = 1, 0.0
        else:
            data, splits = find_dataset(name, self.profile.data_roots), self.profile.splits_of(name)
            count = sum(data.images[split] or 0 for split in splits)
            read, kept = count * (data.megapixels or 0.0), count * MANIFEST_BYTES
            # The publisher's archives hold every split; a folder of the user's is there already.
            jobs, download = len(splits), data.download_gib if data.home else 0.0
            name = name if count else f"{name} (number of images not known)"
        hours = read / self.rates.get("prepare", "cpu", "fp32").rate / 3600
        return Row("prepare", name, jobs, cpu_hours=hours, disk_gib=kept / GIB, download_gib=download)

    def fetch(self, name: str) -> Row:
        """Released weights of one autoencoder; nothing to download where they are on this machine."""
        if weights.here(name):
            return Row("fetch", name, 1)
        size = model_cost(self.profile.autoencoders[name].model, ()).parameters * FP32 / GIB
        return Row("fetch", name, 1, disk_gib=size, download_gib=size)

    def train(self, name: str, number: int) -> Row:
        """One phase of one autoencoder."""
        profile, phase = self.profile, self.profile.phase(name, number)
        cost = step_cost(profile.autoencoders[name].model, phase, profile.training.loss, profile.precision)
        macs = cost.forward_mac + cost.backward_mac
        if profile.training.execution.checkpoint_activations:
            macs += cost.recompute_mac
        hours, source = self._hours(2 * macs * phase.images, "training", profile.precision), "stated"
        for record in self.measured:
            subject = record.subject
            where = (record.profile, subject.autoencoder, subject.phase, record.data.resolution)
            kind = record.provenance.device.kind
            if where == (profile.name, name, number, phase.resolution) and kind == self.device:
                speed = record.metrics["images_per_s"].value
                hours, source = phase.images / speed / 3600, f"measured on {record.provenance.device.name}"
        # The state of the unfinished run is as large again while a checkpoint is replaced, but goes when it is done.
        return Row(
            "train",
            f"{name} phase {number}",
            1,
            **self._where(hours),
            memory_gib=self.training_bytes(cost, phase.batch_size // phase.accumulate) / GIB,
            disk_gib=cost.parameters * FP32 / GIB,
            source=source,
        )

    def training_bytes(self, cost: StepCost, images: int) -> float:
        """Device memory of a step that computes ``images`` at a time, in bytes.

        Weights and their average (4 + 4 bytes a parameter), gradient and Adam's moments (4 + 8 a trained one), the
        half-precision copy that autocast keeps (2), LPIPS and discriminator, and the activations.
        """
        fixed = 2 * FP32 * cost.parameters + 3 * FP32 * cost.trained
        fixed += FP32 * cost.other_parameters + 3 * FP32 * cost.other_trained
        if self.profile.precision in HALF:
            fixed += 2 * cost.parameters
        kept = cost.kept_bytes
        if self.profile.training.execution.checkpoint_activations:
            kept = cost.kept_inputs_bytes + cost.largest_block_bytes
        return fixed + kept * images

    def evaluate(self, job: Evaluation) -> Row:
        """Reconstruction of some sets: after a phase in one job, of released weights in a job per set."""
        profile = self.profile
        spec = profile.autoencoders[job.autoencoder].model
        images, flops, samples = 0, 0.0, 0
        for item in job.sets:
            count = self._evaluation_images(item.dataset)
            images += count
            flops += 2 * count * forward_mac(spec, item.resolution)
            samples += profile.evaluation.samples * 2 * 3 * item.resolution**2
        metrics = self.rates.get("metrics", self.device, profile.precision).rate
        hours = self._hours(flops, "inference", "fp32") + images / metrics / 3600
        subject = f"{job.autoencoder} {f'phase {job.phase}' if job.phase else 'released'}"
        jobs = 1 if job.phase else len(job.sets)
        return Row("evaluate", subject, jobs, **self._where(hours), disk_gib=samples / GIB)

    def _evaluation_images(self, dataset: str) -> int:
        if dataset not in DATASETS:
            return find_dataset(dataset, self.profile.data_roots).images["eval"] or 0  # one crop of each
        return len(load_manifest(dataset).split("eval")) * self.profile.evaluation.crops_per_photo

    def _hours(self, flops: float, what: str, precision: str) -> float:
        peak = self.rates.get("peak", self.device, precision).rate * 1e12
        if self.device == "cpu":
            peak *= self.profile.threads
        return flops / (peak * self.rates.get(what, self.device, precision).rate) / 3600

    def _where(self, hours: float) -> dict[str, float]:
        """CPU-hours count threads, as clusters do."""
        return {"cpu_hours": hours * self.profile.threads} if self.device == "cpu" else {"gpu_hours": hours}

    def _needed(self, target: str) -> tuple[list[tuple[str, int]], list[Evaluation], int]:
        """Trainings, evaluations and tables that a target of the workflow needs."""
        profile = self.profile
        every = [(name, number) for name in profile.named("retrained") for number in profile.phases]
        sets = profile.evaluation.sets
        retrained = [Evaluation(name, number, sets) for name, number in every]
        released = [Evaluation(name, None, profile.sets_of(name)) for name in profile.named("released")]
        if target == "all":
            return every, retrained + released, 3 if every else 2
        if target.startswith("results/table_rfid."):
            return every, retrained + released, 1
        if target.startswith("results/figures/reconstructions."):
            return every, [job for job in retrained if job.phase == max(profile.phases)] + released, 1
        if target.startswith("results/figures/losses.") and every:
            return every, [], 1
        for stage in ("training", "reconstruction", "latents"):
            for name, number in every:
                if target.startswith(f"results/{profile.name}/{stage}/{name}@retrained/phase{number}/"):
                    before = [(name, n) for n in range(1, number + 1)]
                    return before, [Evaluation(name, number, sets)] if stage == "reconstruction" else [], 0
        for job in released:
            for item in job.sets:
                if target in (
                    f"results/{profile.name}/{s}/{job.autoencoder}@released/{item.label}.json" for s in RECORDS
                ):
                    return [], [Evaluation(job.autoencoder, None, (item,))], 0
        example = (
            f"training/{profile.named('retrained')[0]}@retrained/phase1/model.safetensors"
            if every
            else f"reconstruction/{released[0].autoencoder}@released/{released[0].sets[0].label}.json"
        )
        raise ConfigError(
            f"target '{target}': no rule of profile {profile.name} makes it; take all, results/table_rfid.md or "
            f"results/{profile.name}/{example}"
        )


ASSUMPTIONS: Iterable[str] = (
    "arithmetic: multiply-accumulates of convolutions and matrix products, counted on the models themselves, frozen "
    "parts without a backward pass, losses and recomputation included; the rest is in the assumed utilisation",
    "memory: weights, average, gradients, Adam, autocast copies and kept activations of one part of a batch on one "
    "device; not the library's workspace or fragmentation",
    "disk: packs, manifests and finished weights, not the images of other data sets; an unfinished phase holds up to "
    "twice weights, average and moments besides",
    "evaluation computes in fp32, whatever the training's precision",
    "hours of evaluation leave out reading data; hours of training leave it out too unless they were measured",
)
