"""Jobs of a profile: the seconds and bytes of each by the estimates of the plan, and the jobs that it waits for."""

from collections.abc import Iterable, Sequence

from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS
from dcae_bench.planning.ablations import AblationJobs
from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.images import count_files
from dcae_bench.planning.plan import GIB, PlanRow
from dcae_bench.planning.schedule import JobGraph, PlannedJob
from dcae_bench.planning.targets import EvaluationJob, Needs, needs_of
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.rows import TrainedRow
from dcae_bench.records.places import Places
from dcae_bench.specs.autoencoders import PCASpec

TRAINING_PRIORITY = 1
"""Priority of trainings in the rules."""


def job_graph(estimator: Estimator, *targets: str) -> JobGraph:
    """All jobs that targets need, as the rules of the workflow make them.

    Downloads are no jobs of the workflow. Raises :class:`ConfigError` for a target that no plan counts.
    """
    needs = Needs()
    for target in targets:
        needs |= needs_of(estimator.profile, target)
    return JobGraph(_Jobs(estimator, needs).all())


class _Jobs:
    def __init__(self, estimator: Estimator, needs: Needs):
        self.estimator, self.profile, self.needs = estimator, estimator.profile, needs
        self.ablations = AblationJobs(self.profile, Places.of(self.profile.name), {})
        self.start_s = estimator.rates.get("start", estimator.hours.device, self.profile.precision).rate

    def all(self) -> list[PlannedJob]:
        measured = [self._evaluation(job, sets) for job, sets in self._evaluation_jobs()]
        generated = [self._generation(row, scale) for row, scale in self.needs.generations]
        jobs = [
            *self._preparations(),
            *(self._training(name, phase) for name, phase in self.needs.trainings),
            *measured,
            *(self._encoding(latent, images) for latent, images in self.needs.encodings),
            *(self._denoiser(row) for row in self.needs.denoisers),
            *(self._sampling(row, scale) for row, scale in self.needs.samplings),
            *generated,
        ]
        if self.needs.tables:
            pages = tuple(job.name for job in (*measured, *generated))
            jobs.append(PlannedJob("tables and figures", self._page_s(), after=pages))
        return jobs

    def _page_s(self) -> float:
        return self.start_s if self.estimator.hours.device == "cpu" else 0.0

    def _job(self, name: str, row: PlanRow, after: Iterable[str], **more: float) -> PlannedJob:
        """A job whose command starts the profile's processes: a training on all nodes, everything else on one."""
        trains = row.rule.startswith("train")
        shared, threads = self.profile.world if trains else self.profile.processes, self.profile.threads
        seconds = 3600 * (row.gpu_hours + row.cpu_hours / threads) / shared
        return PlannedJob(
            name,
            self.start_s + seconds,
            gpus=0 if self.estimator.hours.device == "cpu" else shared,
            cores=threads * shared,
            after=tuple(dict.fromkeys(after)),
            priority=TRAINING_PRIORITY if trains else 0,
            disk_gib=row.disk_gib,
            unfinished_gib=row.unfinished_gib,
            **more,
        )

    def _preparations(self) -> Iterable[PlannedJob]:
        for name, splits in self.estimator.splits_to_read(self.needs).items():
            embedded = name in DATASETS
            for parts in [splits] if embedded else [[split] for split in splits]:
                row = self.estimator.preparation(name, parts)
                threads = 1 if embedded else self.profile.threads
                read = 0.0 if embedded else sum(self._read_files(name, split) for split in parts)
                yield PlannedJob(
                    _prepared(name, parts[0]),
                    self._page_s() + 3600 * row.cpu_hours / threads,
                    cores=threads,
                    disk_gib=row.disk_gib,
                    read_gib=read,
                    written_gib=row.disk_gib,
                )

    def _training(self, name: str, phase: int) -> PlannedJob:
        row = self.estimator.training(name, phase)
        view = of_autoencoder(self.profile, name)
        sets = view.training_sets(name, phase)
        before = self.ablations.before(name, phase)
        after = [_prepared(one, "train") for one in sets] + ([_trained(*before)] if before else [])
        if isinstance(view.autoencoders[name].model, PCASpec):
            return self._job(_trained(name, phase), row, after, written_gib=row.disk_gib)
        spec = view.phase(name, phase)
        saves = spec.images // view.required_training.checkpoint_images
        return self._job(
            _trained(name, phase),
            row,
            after,
            read_gib=spec.images * self._mean_gib(sets, spec.resolution),
            written_gib=row.disk_gib + saves * row.unfinished_gib / 2,
        )

    def _evaluation_jobs(self) -> Iterable[tuple[EvaluationJob, EvaluationJob]]:
        """After a phase one job measures all sets; of released and own weights each set has its job."""
        for job in self.needs.evaluations:
            if job.phase:
                yield job, job
            else:
                yield from ((job, job._replace(sets=(one,))) for one in job.sets)

    def _evaluation(self, job: EvaluationJob, part: EvaluationJob) -> PlannedJob:
        row = self.estimator.evaluation(part)
        after = [_prepared(item.dataset, "eval") for item in part.sets]
        after += [_trained(job.autoencoder, job.phase)] if job.phase else []
        read = sum(
            self.estimator.evaluation_images(item.dataset) * self._image_gib(item.dataset, item.resolution)
            for item in part.sets
        )
        what = f"phase {job.phase}" if job.phase else f"on {part.sets[0].label}"
        return self._job(f"evaluate {job.autoencoder} {what}", row, after, read_gib=read, written_gib=row.disk_gib)

    def _encoding(self, latent: str, images: str) -> PlannedJob:
        row = self.estimator.diffusion.encoding(latent, images)
        read = self._read_once(images)
        after = [*self._prepared_images(images), *self._autoencoder(latent)]
        return self._job(_encoded(latent, images), row, after, read_gib=read, written_gib=row.disk_gib)

    def _denoiser(self, name: str) -> PlannedJob:
        row, resolved = self.estimator.diffusion.training(name), self.profile.trained_row(name)
        cache = self.estimator.diffusion.encoding(str(resolved.spec.latent), resolved.spec.data)
        count = self.estimator.diffusion.count_latents(resolved.data)
        epochs = resolved.spec.images / count if count else 0.0
        saves = resolved.spec.images // resolved.training.checkpoint_images
        return self._job(
            f"train_diffusion {name}",
            row,
            [_encoded(resolved.spec.latent, resolved.spec.data)],
            read_gib=epochs * cache.disk_gib,
            written_gib=row.disk_gib + saves * row.unfinished_gib / 2,
        )

    def _sampling(self, name: str, scale: float) -> PlannedJob:
        row, resolved = self.estimator.diffusion.sampling(name, [scale]), self.profile.row(name)
        after = (
            [f"train_diffusion {name}"] if isinstance(resolved, TrainedRow) else self._autoencoder(resolved.spec.latent)
        )
        return self._job(_sampled(name, scale), row, after, written_gib=row.disk_gib)

    def _generation(self, name: str, scale: float) -> PlannedJob:
        row = self.estimator.diffusion.evaluation(name, 1, reference=True)
        images = self.profile.required_diffusion.rows[name].data
        drawn = self.estimator.diffusion.sampling(name, [scale]).disk_gib
        after = [_sampled(name, scale), *self._prepared_images(images)]
        return self._job(f"evaluate_samples {name} s={scale:g}", row, after, read_gib=drawn + self._read_once(images))

    def _autoencoder(self, latent: str) -> list[str]:
        source = LatentSource.parse(latent)
        if source.weights != "retrained":
            return []
        return [_trained(source.autoencoder, self.profile.phases_of(source.autoencoder)[-1])]

    def _prepared_images(self, images: str) -> list[str]:
        data = self.profile.required_diffusion.data[images]
        return [_prepared(name, data.split) for name in data.datasets]

    def _read_once(self, images: str) -> float:
        data = self.profile.required_diffusion.data[images]
        return self.estimator.diffusion.count_images(data) * self._mean_gib(data.datasets, data.resolution)

    def _read_files(self, name: str, split: str) -> float:
        return count_files(self.profile, name, split) * self._image_gib(name, 0)

    def _image_gib(self, name: str, resolution: int) -> float:
        """Size of an image where it lies: of the publisher's archives, or of a crop of a pack; 0 if nobody says it."""
        if name in DATASETS:
            return 3 * resolution**2 / GIB
        found = find_dataset(name, self.profile.data_roots)
        count = sum(found.expected_count(split) or 0 for split in found.splits)
        return found.download_gib / count if found.download_gib and count else 0.0

    def _mean_gib(self, names: Sequence[str], resolution: int) -> float:
        return sum(self._image_gib(name, resolution) for name in names) / len(names)


def _prepared(name: str, split: str) -> str:
    """Packs of embedded photographs are made in one job, whose name is that of their first split."""
    return f"prepare {name}" if name in DATASETS else f"prepare {name} {split}"


def _trained(name: str, phase: int) -> str:
    return f"train {name} phase {phase}"


def _encoded(latent: object, images: str) -> str:
    return f"encode {latent} on {images}"


def _sampled(row: str, scale: float) -> str:
    return f"sample {row} s={scale:g}"
