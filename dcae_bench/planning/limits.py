"""Limits of jobs on a cluster: the time and the memory that each job asks for, from the estimates of the plan.

The rules add these to their resources. They stand above any default of a Snakemake profile, and below its
``set-resources``.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dcae_bench.base.errors import UserError
from dcae_bench.planning.plan import PlanRow
from dcae_bench.planning.rates import Rates, reference_records
from dcae_bench.planning.targets import EvaluationJob
from dcae_bench.planning.workflow import Workflow

if TYPE_CHECKING:
    from dcae_bench.planning.estimate import Estimator

START_MIN = 15
"""Minutes for what no estimate counts: imports, compiling, opening data and writing results."""
MARGIN = 2.0
"""How many times its estimate a job asks for. Rates are stated for other machines than the cluster's."""
UNKNOWN_MIN = 240
"""Minutes for a job without an estimate, as for a data set whose number of images nobody stated."""
PROCESS_GIB = 6.0
"""Memory of the host for each process of a job: PyTorch, its CUDA libraries, and images read ahead."""

Asked = dict[str, Callable[..., int]]
"""Functions of a job's wildcards and attempt, by resource: ``runtime`` in minutes, ``mem_mb`` in MiB."""


class Limits:
    """What the jobs of each rule ask a cluster for.

    Every attempt asks for as much again as the first, because a job that ran out of time or memory is tried again.
    Nothing is asked for where jobs are not ``submitted``, because counting operations takes seconds. ``longest`` is the
    longest time limit in minutes that the cluster gives: a job that is ended there goes on in its next attempt.
    """

    def __init__(self, jobs: Workflow, *, submitted: bool, longest: int | None = None):
        self.jobs, self.submitted, self.longest = jobs, submitted, longest
        self._rows: dict[tuple[object, ...], PlanRow | None] = {}

    @property
    def preparation(self) -> Asked:
        """For rule ``prepare``: a split takes no longer than both."""
        return self._asked(lambda w: self._estimator.preparation(w.dataset, ("train", "eval")), "prepare", 1, threads=1)

    @property
    def listing(self) -> Asked:
        """For rule ``prepare_files``, whose workers are threads of one job."""
        return self._asked(lambda w: self._estimator.preparation(w.dataset, (w.split,)), "prepare_files", 1)

    @property
    def training(self) -> dict[str, Any]:
        """For a phase of an autoencoder or of a variant of it."""
        return self._on_nodes(lambda w: self._estimator.training(w.autoencoder, int(w.phase)), "train")

    @property
    def evaluation(self) -> Asked:
        """For the evaluation of a retrained autoencoder on all sets."""
        return self._evaluation("evaluate", lambda: self.jobs.retrained_labels)

    @property
    def evaluation_of_variant(self) -> Asked:
        """For the evaluation of a variant on the sets of the ablations."""
        return self._evaluation("evaluate_variant", lambda: self.jobs.ablations.labels)

    @property
    def evaluation_as_is(self) -> Asked:
        """For the evaluation of an autoencoder that no job trains, on one set."""

        def row(w: Any) -> PlanRow:
            return self._estimator.evaluation(EvaluationJob(self.jobs.subjects[w.subject], None, self._sets([w.set])))

        return self._asked(row, "evaluate_as_is")

    @property
    def encoding(self) -> Asked:
        """For rule ``encode``."""
        return self._asked(lambda w: self._estimator.diffusion.encoding(w.latent, w.images), "encode")

    @property
    def diffusion_training(self) -> dict[str, Any]:
        """For rule ``train_diffusion``."""
        return self._on_nodes(lambda w: self._estimator.diffusion.training(w.row), "train_diffusion")

    @property
    def sampling(self) -> Asked:
        """For rule ``sample``."""
        return self._asked(lambda w: self._estimator.diffusion.sampling(w.row, [float(w.scale)]), "sample")

    @property
    def evaluation_of_samples(self) -> Asked:
        """For rule ``evaluate_samples``, with the features of the images that samples are compared with."""
        return self._asked(lambda w: self._estimator.diffusion.evaluation(w.row, 1, reference=True), "evaluate_samples")

    def _evaluation(self, rule: str, labels: Callable[[], list[str]]) -> Asked:
        def row(w: Any) -> PlanRow:
            return self._estimator.evaluation(EvaluationJob(w.autoencoder, int(w.phase), self._sets(labels())))

        return self._asked(row, rule)

    def _on_nodes(self, row: Callable[[Any], PlanRow], rule: str) -> dict[str, Any]:
        """What a training asks for, on all nodes of the profile: a task and its GPUs on each, started by ``srun``."""
        nodes, gpus = self.jobs.profile.nodes, self.jobs.gpus
        asked = self._asked(row, rule, nodes=nodes)
        if nodes == 1 or not asked:
            return asked
        # Without the zero, Snakemake's plugin would want the tasks of each node on each of its GPUs.
        return {
            **asked,
            **{"nodes": nodes, "tasks": nodes, "mpi": "srun"},
            **({"gres": f"gpu:{gpus}", "tasks_per_gpu": 0} if gpus else {}),
        }

    def _sets(self, labels: list[str]) -> tuple[Any, ...]:
        return tuple(item for item in self.jobs.profile.evaluation.sets if item.label in labels)

    def _asked(
        self,
        row: Callable[[Any], PlanRow],
        rule: str,
        processes: int | None = None,
        threads: int | None = None,
        nodes: int = 1,
    ) -> Asked:
        """What jobs of a rule ask for on a node; by default they have the profile's processes with their threads."""
        if not self.submitted:
            return {}
        shared, each = processes or self.jobs.profile.processes, threads or self.jobs.profile.threads

        # Snakemake gives resource functions what their parameters name.
        def runtime(wildcards: Any, attempt: int) -> int:
            minutes = _minutes(self._row(row, rule, wildcards), shared * nodes, each) * attempt
            return min(minutes, self.longest or minutes)

        def mem_mb(wildcards: Any, attempt: int) -> int:
            return self._memory_mb(self._row(row, rule, wildcards), shared) * attempt

        return {"runtime": runtime, "mem_mb": mem_mb}

    def _row(self, row: Callable[[Any], PlanRow], rule: str, wildcards: Any) -> PlanRow | None:
        """Estimate of a job; None where there is none. Snakemake asks again for each attempt and each resource."""
        key = (rule, *wildcards)
        if key not in self._rows:
            try:
                self._rows[key] = row(wildcards)
            except UserError:  # the job itself says what is wrong, or the estimate lacks what the job will have
                self._rows[key] = None
        return self._rows[key]

    def _memory_mb(self, row: PlanRow | None, processes: int) -> int:
        # A plan counts the memory of the device.
        estimated = MARGIN * row.memory_gib if row is not None and self.jobs.gpus == 0 else 0.0
        return math.ceil((PROCESS_GIB + estimated) * 1024) * processes

    @cached_property
    def _estimator(self) -> "Estimator":
        from dcae_bench.planning.estimate import Estimator  # opens torch, which a local run does without

        return Estimator(self.jobs.profile, Rates.read(), reference_records())


def _minutes(row: PlanRow | None, processes: int, threads: int) -> int:
    """Time limit for an estimate, whose hours are those of all GPUs, or of the threads of one process."""
    hours = 0.0 if row is None else (row.gpu_hours + row.cpu_hours / threads) / processes
    return math.ceil(START_MIN + MARGIN * 60 * hours) if hours else UNKNOWN_MIN
