"""Faults at random moments on the way to both tables of a tiny profile; then the same command again must give the same.

    python -m tests.storm --minutes 10 --seed 0

Each try takes one command, or the whole workflow, disturbs it, runs it again, and compares its files with those of an
undisturbed run. The seed of a try chooses everything but the machine's own timing; the summary names the seed of each
failure, and ``--tries 1 --seed SEED`` repeats it.
"""

import argparse
import contextlib
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dcae_bench.base.files import REPOSITORY
from tests import killed_commands
from tests.crashing_disk import MODES, CrashingDisk

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WRONG, HAND, LEFT, NO_LINE = "wrong numbers", "rerun needs a hand", "leftovers", "no error line"
PATIENCE_S = 600
"""Longest that a command may take before it counts as hanging; a busy machine may give it no processor for minutes."""
COPIES = 3
"""Copies of the disk that a simulated crash is judged by, of the different ones that one crash may leave."""
JOB_S, SNAKEMAKE_S = 4.0, 3.0
"""About what a job of the workflow takes, and what Snakemake takes before the first."""


class Failure(Exception):
    """What a try found: its kind and details."""

    def __init__(self, kind: str, details: str):
        super().__init__(f"{kind}: {details}")
        self.kind = kind


@dataclass
class Command:
    """One command of the workflow, and what an undisturbed run told of it."""

    arguments: list[str]
    outputs: list[Path]
    before: Path | None = None
    seconds: float = 0.0
    points: int = 0
    changes: int = 0
    largest: int = 0
    after: dict = field(default_factory=dict)


class Child:
    """A command that runs in a fork of this process, with all imports done."""

    def __init__(self, folder: Path, arguments: list[str], around: Callable[[], AbstractContextManager]):
        self._read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            os.setsid()
            os.dup2(write, 1)
            os.dup2(write, 2)
            status = 1
            try:
                with around():
                    status = killed_commands.run_command(str(folder), arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status if isinstance(status, int) else 1)
        os.close(write)

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """Exit code and everything that it said. Raises Failure for a command that hangs."""
        said, deadline = b"", time.monotonic() + PATIENCE_S
        while select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (read := os.read(self._read, 1 << 16)):
                break
            said += read
        else:
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise Failure(HAND, f"hangs: {said.decode(errors='replace')[-500:]}")
        os.close(self._read)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said.decode(errors="replace")


class Storm:
    """The undisturbed run in ``root``, and the tries."""

    def __init__(self, root: Path):
        from tests import tiny_diffusion
        from tests.workflow import test_killed as workflow

        self.root, self.workflow = root, workflow
        self.hits = 0
        results, weights = workflow.RESULTS, workflow.AUTOENCODER
        data = [str(one) for one in workflow.DATA]
        reconstruction = results / "reconstruction" / "sd-vae@retrained" / "phase1"
        record = reconstruction / "photos-indoor-32.json"
        table = Path("results", "table_rfid.md")
        self.tables = [table, workflow.TABLE]
        train = ["--autoencoder", "sd-vae", "--phase", "1", *data, "--run-dir", results / "runs" / "sd-vae-phase1"]
        evaluate = ["--autoencoder", "sd-vae", "--phase", "1", *data, "--weights", weights, "--output", reconstruction]
        beside = [record.with_suffix(end) for end in (".samples.npy", ".gallery.npz")]
        ends = (".md", ".csv", ".json")
        arguments = {
            "train": [*train, "--output", weights],
            "evaluate": evaluate,
            "table": ["--output", table, *data, record],
            **workflow.COMMANDS,
        }
        outputs = {
            "train": [weights, weights.with_name("record.json"), weights.with_name("log.jsonl")],
            "evaluate": [record, *beside],
            "table": [table.with_suffix(end) for end in ends],
            **workflow.OUTPUTS,
        }
        self.commands = {
            verb: Command([verb, "--profile", "tiny.yaml", *map(str, arguments[verb])], outputs[verb])
            for verb in arguments
        }
        folder = root / "start"
        tiny_diffusion.write_data(folder / results / "data", ("photos-indoor", "photos-mixed"))
        (folder / "tiny.yaml").write_text(workflow.profile())
        (folder / "cache").mkdir()
        for verb, command in self.commands.items():
            command.before, folder = folder, workflow.copy(folder, root / verb)
            self._run_undisturbed(command, folder)
        self.whole = folder

    def _run_undisturbed(self, command: Command, folder: Path) -> None:
        told = self.root / "told"

        @contextmanager
        def counting() -> Iterator[None]:
            disk = CrashingDisk(folder, self.root / f"{folder.name}-kept", every=1 << 30, first=1 << 30)
            descriptor = os.open(told, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            killed_commands.arm(f"{folder}/", 0, descriptor)
            with disk.watch():
                yield
            os.pwrite(descriptor, b"%20d" % disk.points, 100)

        started = time.monotonic()
        status, said = Child(folder, command.arguments, counting).wait()
        if status:
            raise SystemExit(f"the undisturbed run fails with {status}: {' '.join(command.arguments)}\n{said}")
        command.seconds = time.monotonic() - started
        content = told.read_bytes()
        command.changes, command.points = int(content[:100].strip(b"\0")), int(content[100:])
        command.largest = max((folder / path).stat().st_size for path in command.outputs)
        command.after = self._state(folder, command.outputs)
        shutil.rmtree(self.root / f"{folder.name}-kept")

    def _state(self, folder: Path, outputs: list[Path]) -> dict:
        """Outputs without times, and the features that later commands would believe."""
        kept = sorted(path.relative_to(folder) for path in (folder / "cache" / "reference").glob("*.raw"))
        # A try goes on from a copy of an undisturbed folder; tables that need no work keep the place of that folder.
        undisturbed = [self.root / name for name in self.commands]
        return self.workflow.content(folder, [*outputs, *kept], *undisturbed)

    # Disturbances. Each gets a folder as it was before the command, and chooses by ``chance``.

    def signalled(self, command: Command, folder: Path, chance: random.Random) -> None:
        """Up to three signals at random moments, each to a run of its own."""
        for _ in range(chance.randint(1, 3)):
            child = Child(folder, command.arguments, contextlib.nullcontext)
            time.sleep(chance.uniform(0, command.seconds))
            child.send(chance.choice(SIGNALS))
            self._disturbed(command, folder, *child.wait())

    def killed_in_a_write(self, command: Command, folder: Path, chance: random.Random) -> None:
        """SIGKILL in the middle of a random change on disk."""
        kill_at = chance.randint(1, command.changes)

        @contextmanager
        def deadly() -> Iterator[None]:
            killed_commands.arm(f"{folder}/", kill_at, os.open(os.devnull, os.O_RDWR))
            yield

        self._disturbed(command, folder, *Child(folder, command.arguments, deadly).wait())

    def full_disk(self, command: Command, folder: Path, chance: random.Random) -> None:
        """No file grows beyond a random size."""
        limit = int(2 ** chance.uniform(0, command.largest.bit_length()))

        @contextmanager
        def limited() -> Iterator[None]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            yield

        status, said = Child(folder, command.arguments, limited).wait()
        self._disturbed(command, folder, status, said)
        self.require_one_line(status, said, f"no file above {limit} bytes")

    def two_at_once(self, command: Command, folder: Path, chance: random.Random) -> None:
        """The same command twice; sometimes one of them is killed meanwhile."""
        first = Child(folder, command.arguments, contextlib.nullcontext)
        time.sleep(chance.uniform(0, command.seconds) * chance.choice((0.1, 1)))
        second = Child(folder, command.arguments, contextlib.nullcontext)
        victim = chance.choice((None, first, second))
        if victim:
            time.sleep(chance.uniform(0, command.seconds))
            victim.send(signal.SIGKILL)
        for child in (first, second):
            status, said = child.wait()
            if victim is not child or status != -signal.SIGKILL:
                self.require_one_line(status, said, "two at once")
        self.hits += 1

    def crashed(self, command: Command, folder: Path, chance: random.Random) -> None:
        """The machine crashes at a random change; the folder becomes what the disk may hold then."""
        copies = folder.with_name("copies")
        point = chance.randrange(command.points)
        often = chance.random() < 0.5

        @contextmanager
        def watched() -> Iterator[None]:
            from dcae_bench.base import row_files
            from dcae_bench.data import scan

            if often:
                row_files.COMMIT_S = scan.WRITE_S = 0.0
            disk = CrashingDisk(folder, copies, every=1 << 30, first=point, modes=len(MODES))
            with disk.watch():
                yield
            disk.clean()

        self._disturbed(command, folder, *Child(folder, command.arguments, watched).wait())
        made = sorted(copies.iterdir())
        self.hits += bool(made)
        for copy in chance.sample(made, min(COPIES, len(made))):
            try:
                self._again(command, copy)
            except Failure as found:
                raise Failure(found.kind, f"crash at change {point}, {copy.name}: {found}") from found

    def interrupted_workflow(self, chance: random.Random, folder: Path) -> None:
        """Real Snakemake, on its way to both tables, gets a signal: it alone, or all its jobs too."""
        start = chance.randrange(len(self.commands))
        shutil.copytree([*self.commands.values()][start].before, folder, symlinks=True)
        run = self._snakemake(folder)
        time.sleep(chance.uniform(1, SNAKEMAKE_S + JOB_S * (len(self.commands) - start) / 1.5))
        number, send = chance.choice(SIGNALS), chance.choice((os.kill, os.killpg))
        with contextlib.suppress(ProcessLookupError):
            send(run.pid, number)
        self.hits += self._wait(run)[0] != 0
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status, said = self._wait(self._snakemake(folder))
            if "still at work here" not in said or time.monotonic() > deadline:
                break
            time.sleep(1)  # as the line says: jobs of a killed run end first
        how = f"{send.__name__} {number.name} from {[*self.commands][start]} on"
        if status:
            raise Failure(HAND, f"{how}: exit code {status}: {said[-1500:]}")
        for command in self.commands.values():
            self._compare(command, folder, how)
        self._no_leftovers(folder, how)

    def _snakemake(self, folder: Path) -> subprocess.Popen:
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        arguments = ["--snakefile", REPOSITORY / "Snakefile", "--directory", folder, "--cores", "2", *self.tables]
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *map(str, arguments), "--config", f"profile={folder / 'tiny.yaml'}"],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": paths},
            cwd=folder,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def _wait(self, run: subprocess.Popen) -> tuple[int, str]:
        try:
            said, _ = run.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            raise Failure(HAND, f"Snakemake hangs: {run.communicate()[0][-1500:]}") from None
        return run.returncode, said

    # Judgement

    def _disturbed(self, command: Command, folder: Path, status: int, said: str) -> None:
        """A command that ends well in spite of a disturbance has written the right files."""
        self.hits += status != 0
        if status == 0:
            self._compare(command, folder, "ended well")

    def require_one_line(self, status: int, said: str, how: str) -> None:
        """A command that fails of itself ends with exit code 2 and its error as last line."""
        last = (said.splitlines() or [""])[-1]
        if status not in (0, 2) or (status == 2 and not last.startswith("dcae-bench: error: ")):
            raise Failure(NO_LINE, f"{how}: exit code {status}: {said[-1500:]}")

    def _again(self, command: Command, folder: Path) -> None:
        status, said = Child(folder, command.arguments, contextlib.nullcontext).wait()
        if status:
            raise Failure(HAND, f"exit code {status}: {said[-1500:]}")
        self._compare(command, folder, "run again")
        self._no_leftovers(folder, "run again")

    def _compare(self, command: Command, folder: Path, how: str) -> None:
        missing = [str(path) for path in command.outputs if not (folder / path).exists()]
        if missing:
            raise Failure(WRONG, f"{how}: exit code 0 without {missing}")
        here = self._state(folder, command.outputs)
        # The cache may hold more than this command put there.
        other = [path for path, wanted in command.after.items() if here.get(path) != wanted]
        if other:
            differing = [f"{path}: {self.differing(command.after[path], here.get(path))}" for path in other]
            raise Failure(WRONG, f"{how}: {', '.join(differing)}")

    def differing(self, wanted: object, found: object) -> str:
        """The innermost values that differ, with their keys."""
        if isinstance(wanted, dict) and isinstance(found, dict):
            keys = [key for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key)]
            return "; ".join(f"{key} {self.differing(wanted.get(key), found.get(key))}" for key in keys[:4])
        return f"{str(wanted)[:80]} became {str(found)[:80]}"

    def _no_leftovers(self, folder: Path, how: str) -> None:
        left = [str(path.relative_to(folder)) for path in (folder / "results").rglob(".*")]
        if left:
            raise Failure(LEFT, f"{how}: {left}")

    KINDS = (signalled, killed_in_a_write, full_disk, two_at_once, crashed)
    # The workflow takes as long as many commands.
    CYCLE = (*KINDS, interrupted_workflow, *KINDS)

    def try_one(self, seed: int) -> tuple[str, bool, Failure | None]:
        """Kind of the try, whether the disturbance met the command at work, and what was found."""
        chance = random.Random(seed)
        kind = self.CYCLE[seed % len(self.CYCLE)]
        name, self.hits, found = kind.__name__.replace("_", " "), 0, None
        place = Path(tempfile.mkdtemp(dir=self.root, prefix=f"try-{seed}-"))
        folder = place / "folder"
        try:
            if kind is Storm.interrupted_workflow:
                self.interrupted_workflow(chance, folder)
            else:
                verb = chance.choice([*self.commands])
                command = self.commands[verb]
                shutil.copytree(command.before, folder, symlinks=True)
                try:
                    kind(self, command, folder, chance)
                    if chance.random() < 0.5:  # Snakemake removes the outputs of an interrupted job
                        for path in command.outputs:
                            (folder / path).unlink(missing_ok=True)
                    self._again(command, folder)
                except Failure as failure:
                    raise Failure(failure.kind, f"{verb}: {failure}") from failure
        except Failure as failure:
            found = failure
        shutil.rmtree(place, ignore_errors=True)
        return name, self.hits > 0, found


def summary(tries: Counter, hits: Counter, failures: list[tuple[str, int, Failure]], seconds: float) -> str:
    """A table of kinds, tries and failures."""
    kinds = (WRONG, HAND, LEFT, NO_LINE)
    lines = [f"{'disturbance':<22}{'tries':>7}{'met':>7}" + "".join(f"{kind:>20}" for kind in kinds)]
    for name in tries:
        counts = [sum(one == name and found.kind == kind for one, _, found in failures) for kind in kinds]
        lines.append(f"{name:<22}{tries[name]:>7}{hits[name]:>7}" + "".join(f"{count:>20}" for count in counts))
    total = "" if failures else ": every rerun gave the same files"
    lines.append(f"{sum(tries.values())} tries, {len(failures)} failures in {seconds:.0f} s{total}")
    lines += [f"failed: {name}, --tries 1 --seed {seed}: {found.kind}" for name, seed, found in failures]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no try after this time (default: 10)")
    parser.add_argument("--tries", type=int, help="number of tries, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first try; each next one adds 1 (default: 0)")
    asked = parser.parse_args()
    # As with pytest's fork server: a fork keeps one thread, and all processes compute alike.
    os.environ |= {"OMP_NUM_THREADS": "1", "DCAE_BENCH_CACHE": "cache"}
    os.environ.pop("DCAE_BENCH_RUN", None)
    tries, hits, failures = Counter(), Counter(), []
    with tempfile.TemporaryDirectory(prefix="storm-") as root:
        killed_commands.preload()
        started = time.monotonic()
        storm = Storm(Path(root).resolve())
        print(f"undisturbed run: {len(storm.commands)} commands in {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()
        for seed in range(asked.seed, sys.maxsize):
            spent = time.monotonic() - started
            if spent > asked.minutes * 60 if asked.tries is None else seed >= asked.seed + asked.tries:
                break
            name, hit, found = storm.try_one(seed)
            tries[name] += 1
            hits[name] += hit
            print(f"{seed:>6}  {name:<22}{found or 'the same files'}", flush=True)
            if found:
                failures.append((name, seed, found))
        print(f"\n{summary(tries, hits, failures, time.monotonic() - started)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
