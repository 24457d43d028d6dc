"""Sanity checks: scores of the identity, of JPEG at falling quality, and of one JPEG in other batches or processes."""

import io
import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcae_bench.base.errors import CheckError
from dcae_bench.base.files import write_text
from dcae_bench.base.parent import end_with_parent
from dcae_bench.base.terminal import Console
from dcae_bench.data.images import Crops, open_crops
from dcae_bench.data.native import sizes_of
from dcae_bench.evaluation.distances import frechet
from dcae_bench.evaluation.protocols import protocol_of
from dcae_bench.evaluation.reconstruction import Reconstruct, ReconstructionEvaluator
from dcae_bench.evaluation.suite import Suite
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile
from dcae_bench.running.device import choose
from dcae_bench.running.processes import Worker, join_processes

QUALITIES = (95, 75, 50, 25, 10)
"""JPEG qualities of the ladder, from the best."""
MIDDLE_QUALITY = 50
"""JPEG quality that is measured under other batches, orders, threads and processes."""
PROCESS_COUNTS = (2, 3)
"""Numbers of processes that share the images, one after the other."""
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class CheckedSet:
    """One evaluation set of a profile on which the evaluator is checked, or its first ``images`` crops."""

    profile: Profile
    item: EvaluationSet
    data: Path
    images: int | None = None
    inception: Path | None = None

    def crops(self) -> Crops:
        """Open the crops. Raises :class:`DataError`."""
        crops = open_crops(self.profile, self.item, self.data)
        if self.images is None or self.images >= len(crops):
            return crops
        return RearrangedCrops(crops, range(self.images), f"first {self.images}")

    def evaluator(self, process: Worker) -> ReconstructionEvaluator:
        """Load the protocol's networks into an evaluator. Raises :class:`WeightsError`."""
        spec = self.profile.evaluation
        suite = Suite.load(protocol_of(self.profile), process.device(choose(self.profile)), self.inception)
        tf32 = spec.settings.get("tf32") == "on"
        return ReconstructionEvaluator(suite, spec.batch_size, tf32=tf32, threads=spec.workers, process=process)


def measure_ladder(
    evaluator: ReconstructionEvaluator, crops: Crops, folder: Path, console: Console
) -> dict[str, dict[str, float]]:
    """Scores of the identity and of each JPEG quality, by name. The evaluator measures them like autoencoders."""
    steps: list[tuple[str, Reconstruct]] = [("identity", lambda images, indices: images)]
    steps += [(f"JPEG {quality}", jpeg(quality)) for quality in QUALITIES]
    rungs = {}
    for name, reconstruct in steps:
        rungs[name] = _score(evaluator, reconstruct, crops, folder / ".sanity-ladder")
        shown = ", ".join(f"{key} {value:.4g}" for key, value in rungs[name].items())
        console.print(f"{name}: {shown}", soft_wrap=True)
    return rungs


def measure_invariance(
    evaluator: ReconstructionEvaluator, crops: Crops, folder: Path, console: Console
) -> dict[str, dict[str, float]]:
    """Scores of one JPEG quality, by variant: as the evaluator is set, then in other batches, threads and order.

    No variant uses the cache of the originals' features.
    """
    evaluator = replace(evaluator, use_cache=False)
    larger = 2 * evaluator.batch_size + 1
    variants: dict[str, tuple[ReconstructionEvaluator, Crops]] = {
        f"batches of {evaluator.batch_size}": (evaluator, crops),
        "batches of 1": (replace(evaluator, batch_size=1), crops),
        f"batches of {larger}": (replace(evaluator, batch_size=larger), crops),
        "4 threads": (replace(evaluator, threads=4), crops),
        "reversed order": (evaluator, RearrangedCrops(crops, range(len(crops))[::-1], "reversed")),
    }
    found = {}
    for name, (variant, images) in variants.items():
        found[name] = _score(variant, jpeg(MIDDLE_QUALITY), images, folder / ".sanity-invariance")
        console.print(f"{name}: measured", soft_wrap=True)
    return found


def measure_in_processes(
    checked: CheckedSet,
    folder: Path,
    console: Console,
    *,
    counts: Sequence[int] = PROCESS_COUNTS,
    context: SpawnContext | ForkServerContext = SPAWN,
) -> dict[str, dict[str, float]]:
    """Scores as in :func:`measure_invariance`, by several processes that share the images as under ``torchrun``.

    Raises :class:`CheckError` where a process fails; the output of that process says why.
    """
    found = {}
    for count in counts:
        path = folder / f".sanity-{count}-processes.json"
        _run_processes(checked, path, count, context)
        found[f"{count} processes"] = json.loads(path.read_text())
        path.unlink()
        console.print(f"{count} processes: measured", soft_wrap=True)
    return found


class RearrangedCrops:
    """A selection of crops, in any order."""

    def __init__(self, crops: Crops, indices: Sequence[int], what: str):
        """``indices`` select and order crops of ``crops``; ``what`` tells the selection apart in hashes."""
        self._crops, self._indices = crops, indices
        self.name, self.split, self.resolution = crops.name, crops.split, crops.resolution
        self.manifest_sha256, self.sha256 = crops.manifest_sha256, f"{crops.sha256} {what}"
        sizes = sizes_of(crops)
        self.sizes = None if sizes is None else [sizes[index] for index in indices]
        """Height and width of every crop; None for squares of one side."""

    def __len__(self) -> int:
        return len(self._indices)

    def key(self, index: int) -> str:
        """Name of the crop at an index of the new order."""
        return self._crops.key(self._indices[index])

    def __getitem__(self, index: int) -> Tensor:
        return self._crops[self._indices[index]]


def jpeg(quality: int) -> Reconstruct:
    """Make a :data:`Reconstruct` that compresses and decompresses with Pillow's JPEG at ``quality``."""

    def reconstruct(images: Tensor, indices: range) -> Tensor:
        return torch.stack([_compressed(image, quality) for image in images.cpu()]).to(images.device)

    return reconstruct


def _compressed(image: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "jpeg", quality=quality)
    with Image.open(buffer) as found:
        return torch.from_numpy(np.array(found)).permute(2, 0, 1)


def _score(evaluator: ReconstructionEvaluator, reconstruct: Reconstruct, crops: Crops, state: Path) -> dict[str, float]:
    """Fréchet distances and means over images, by a pass that neither resumes nor leaves a state."""
    process = evaluator.process
    if process.first:
        evaluator.forget(state)
    process.wait()
    measured = evaluator.measure(reconstruct, crops, state)
    extractors = evaluator.suite.extractors
    names = evaluator.suite.protocol.distances
    scores: dict[str, float] = {}
    if process.first:
        scores |= {f"r{extractors[name].key}": frechet(measured.real[name], measured.fake[name]) for name in names}
        scores |= {name: float(np.mean(measured.column(name))) for name in measured.value_names}
    process.wait()
    if process.first:
        evaluator.forget(state)
    return scores


def _run_processes(checked: CheckedSet, path: Path, count: int, context: SpawnContext | ForkServerContext) -> None:
    """Start ``count`` processes on this machine that measure ``checked`` together and write the scores to ``path``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    gpus = torch.cuda.device_count() or 1
    places = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank % gpus)} for rank in range(count)]
    started = [context.Process(target=_measure_share, args=(checked, path, place), daemon=True) for place in places]
    for process in started:
        process.start()
    try:
        running = list(started)
        while running:
            ended = wait([process.sentinel for process in running])
            running = [process for process in running if process.sentinel not in ended]
            # Without this error the other processes would wait forever for the one that failed.
            if failed := [process.exitcode for process in started if process not in running and process.exitcode]:
                raise CheckError(
                    f"{checked.item.label}: cannot be measured by {count} processes, one ended with exit code "
                    f"{failed[0]}; its output stands above"
                )
    finally:
        for process in started:
            process.terminate()
            process.join()


def _measure_share(checked: CheckedSet, path: Path, place: dict[str, str]) -> None:
    """Join the processes under the environment ``place``, measure a share, and in the first write the scores."""
    end_with_parent()
    os.environ.update(place)
    with join_processes() as process:
        evaluator = replace(checked.evaluator(process), use_cache=False)
        scores = _score(evaluator, jpeg(MIDDLE_QUALITY), checked.crops(), path.with_suffix(".state"))
        if process.first:
            write_text(path, json.dumps(scores))
