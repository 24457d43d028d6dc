"""Scoring: the frame of one score, with the sets it opens, the state of its pass, and its record."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.data.image_sets import ImageSet, open_image_set, reopen_image_set, require_source
from dcae_bench.data.set_crops import SetCrops
from dcae_bench.evaluation.store import forget, remove_other_states
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import evaluation_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.places import PER_IMAGE
from dcae_bench.records.provenance import Stopwatch, collect
from dcae_bench.records.record import Metric
from dcae_bench.records.score import ScoredSet, ScoreRecord, save_score
from dcae_bench.running.device import choose, describe
from dcae_bench.running.kept_clock import kept_clock
from dcae_bench.running.output_lock import sole_writers
from dcae_bench.running.processes import Worker

LOSSY = (".jpg", ".jpeg", ".webp")
"""Suffixes of formats that usually lose detail."""


class Scoring:
    """One score of a command, on one device."""

    def __init__(self, profile: Profile, output: Path, process: Worker, *, code: str):
        """``code`` is the module whose code, with its imports, shapes the numbers."""
        self.profile, self.output, self.process = profile, output, process
        self.code = fingerprint(code)
        self.device = process.device(choose(profile))
        self.console = Console(stderr=True, quiet=not process.first)

    @contextmanager
    def opened(self, *sources: Path, follow_links: bool = False) -> Iterator[list[ImageSet]]:
        """Open image sets for the block, which no other command with this output enters at the same time.

        The manifests of folders lie in a hidden folder beside the output until the block ends. Raises
        :class:`DataError`; a list of unusable images that its message names stays in that folder.
        """
        for source in sources:
            require_source(source, follow_links=follow_links)
        scratch = self.output.with_name(f".{self.output.name}.sets")
        places = [scratch / str(number) for number in range(len(sources))]
        with sole_writers(self.output, self.process):
            named = False
            try:
                if self.process.first:
                    shutil.rmtree(scratch, ignore_errors=True)
                    workers = max(1, self.profile.evaluation.workers)
                    for source, place in zip(sources, places, strict=True):
                        open_image_set(source, place, follow_links=follow_links, workers=workers, console=self.console)
                self.process.wait()
                yield [reopen_image_set(source, place) for source, place in zip(sources, places, strict=True)]
                self.process.wait()
            except DataError as error:
                named = str(scratch) in str(error)
                raise
            finally:
                if self.process.first and not named:
                    shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def run(self, recipe: Mapping[str, Any], settings: dict[str, str], name: str, images: int) -> Iterator["Run"]:
        """Enter the pass of a recipe, which goes on where a killed one stopped; the end of the block forgets it.

        ``settings`` are those that the record holds, ``name`` and the number of ``images`` those of the progress bar.
        """
        shaped = {
            **recipe,
            "settings": settings,
            "batch_size": self.profile.evaluation.batch_size,
            "device": self.device.type,
            "code": self.code,
        }
        state = self.output.with_name(f".{self.output.stem}-{sha256_json(shaped)[:12]}")
        with ExitStack() as stack:
            clock = stack.enter_context(kept_clock(state, keep=self.process.first))
            bar = stack.enter_context(Progress(console=self.console, disable=not self.console.is_terminal))
            task = bar.add_task(name, total=images)
            if self.process.first:
                remove_other_states(state)
            yield Run(
                self,
                shaped,
                settings,
                state,
                clock,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            self.process.wait()
            if self.process.first:
                forget(state)


@dataclass
class Run:
    """The pass of one score."""

    scoring: Scoring
    recipe: Mapping[str, Any]
    settings: dict[str, str]
    state: Path
    clock: Stopwatch
    progress: Callable[[int, int], None]

    @property
    def tf32(self) -> bool:
        """Whether the settings allow TF32."""
        return self.settings.get("tf32") == "on"

    def save(
        self,
        protocol: str,
        against: Literal["originals", "reference"],
        images: ScoredSet,
        reference: ScoredSet,
        resolution: int,
        metrics: dict[str, Metric],
        notes: tuple[str, ...],
    ) -> None:
        """Write the record and show its metrics. Raises :class:`ResultsError`."""
        scoring, profile = self.scoring, self.scoring.profile
        record = ScoreRecord(
            profile=profile.name,
            protocol=protocol,
            images=images,
            against=against,
            reference=reference,
            resolution=resolution,
            metrics=metrics,
            settings=self.settings,
            notes=notes,
            provenance=collect(
                code=scoring.code,
                config=self.recipe,
                recipe=evaluation_recipe(profile),
                seed=profile.seed,
                device=describe(scoring.device, profile, scoring.process.count, "fp32"),
                clock=self.clock,
            ),
        )
        if against == "reference":  # of another score that was written here before
            per_image(scoring.output).unlink(missing_ok=True)
        save_score(record, scoring.output)
        shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in metrics.values())
        scoring.console.print(f"{images.source}: {shown}", soft_wrap=True)
        for note in notes:
            scoring.console.print(f"{images.source}: {note}", soft_wrap=True)


def per_image(output: Path) -> Path:
    """File beside a record with the values of every pair."""
    return Path(f"{str(output).removesuffix('.json')}{PER_IMAGE}")


def described(crops: SetCrops, left_out: int = 0) -> ScoredSet:
    """A set of images as a record has it."""
    return ScoredSet(
        source=crops.name, sha256=crops.images.sha256, images=len(crops), left_out=left_out, cropped=crops.cropped
    )


def notes_of(crops: SetCrops) -> tuple[str, ...]:
    """What a reader must know of scored images: how many a lossy format has changed."""
    names = [crops.key(index) for index in range(len(crops))]
    lossy = [name for name in names if name.lower().endswith(LOSSY)]
    if not lossy:
        return ()
    return (f"{len(lossy):,} of {len(names):,} images are in a lossy format ({lossy[0]}); its losses count as theirs",)
