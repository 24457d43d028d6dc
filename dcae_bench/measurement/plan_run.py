"""Running a plan: each session is a process, existing records stay, and an interruption loses one step at most."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.files import read_text, sha256_json, write_text
from dcae_bench.measurement.plans import PlanSession, PlanSpec, PlanStep
from dcae_bench.measurement.record import ThroughputRecord, load
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.running.launch import LAUNCHER

STATE = "plan.json"
COMPILED = "compiled"
"""Folder below the output with the code that torch compiled, which later sessions and restarts read."""
AHEAD = "compile ahead"
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def run_plan(
    plan: PlanSpec,
    output: Path,
    *,
    budget_s: float | None = None,
    say: Callable[[str], None] = lambda _text: None,
    launch: Callable[[list[str], float | None, dict[str, str]], int] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Run the sessions whose records are missing, each in its own process. Returns each outcome by its session.

    The outcomes so far are in ``output`` before and after every session, so that they outlast an interruption. The same
    call continues the plan. After ``budget_s`` seconds no session starts, and a running session is ended. A failed
    session is reported through ``say`` and does not stop the plan.
    """
    launch = launch or _launch
    output = Path(output).absolute()
    begin = now()
    environment = {name: str(output / COMPILED / folder) for name, folder in CACHES.items()}
    outcomes: dict[str, str] = {}

    def tell(name: str, outcome: str) -> None:
        outcomes[name] = outcome
        state = {"plan": plan.what, "timings": plan.timings, "sessions": outcomes}
        write_text(output / STATE, json.dumps(state, indent=1) + "\n")

    def left_s() -> float | None:
        return None if budget_s is None else budget_s - (now() - begin)

    def run(name: str, words: list[str], limit_s: float | None, done: str = "measured") -> int:
        say(name)
        tell(name, "begun, and never ended")
        there, started = _records(output), now()
        code = launch(words, limit_s, environment)
        seconds = now() - started
        made = [load(path) for path in sorted(_records(output) - there)]
        ended = done if code == 0 else f"exit code {code}"
        ended = "ended by the plan: the time is over" if code < 0 else ended
        tell(name, f"{ended}, {seconds:.0f} s{_parts(made, seconds)}")
        say(f"  {outcomes[name]}")
        return code

    for session, restart in plan.runs():
        name = f"{session.name}, restart {restart}"
        if all(is_done(step, output, restart) for step in session.steps):
            tell(name, "was there")
            continue
        wanted = plan.compile_ahead and session.ahead and session.compiles and AHEAD not in outcomes
        if wanted and not _compiled_ahead(output) and _time(left_s()):
            words = ["measure", "--plan", plan.name, "--compile-ahead", "--output", str(output)]
            if run(AHEAD, words, left_s(), done="compiled") == 0:
                write_text(output / COMPILED / AHEAD, _code_of_ahead() + "\n")
        if _time(left := left_s()):
            run(name, command(plan, session, output, restart), left)
        else:
            tell(name, "not begun: the time is over")
    return outcomes


def _time(left_s: float | None) -> bool:
    """Whether time is left; None: there is no budget."""
    return left_s is None or left_s > 0


def _compiled_ahead(output: Path) -> bool:
    """Whether this code compiled ahead already."""
    marker = output / COMPILED / AHEAD
    return marker.exists() and read_text(marker).strip() == _code_of_ahead()


def _code_of_ahead() -> str:
    return fingerprint("dcae_bench.measurement.ahead")


def command(plan: PlanSpec, session: PlanSession, output: Path, restart: int) -> list[str]:
    """Arguments of ``dcae-bench`` that run a session."""
    words = ["measure", "--plan", plan.name, "--session", session.name, "--restart", str(restart)]
    return [*words, "--output", str(output)]


def measure_session(
    session: PlanSession, output: Path, restart: int, say: Callable[[str], None] = lambda _text: None
) -> list[Path]:
    """Measure the steps of a session whose records are missing, in this process. Returns the records' paths.

    Raises as :func:`dcae_bench.measurement.session.measure_each` does.
    """
    from dcae_bench.measurement.session import measure_each

    missing = [step.timings(output, restart) for step in session.steps if not is_done(step, output, restart)]
    return measure_each(missing, say) if missing else []


def is_done(step: PlanStep, output: Path, restart: int) -> bool:
    """Whether all records of a step are there, of this code and configuration, which restarts must share."""
    if not _records(output):  # spares a plan's process torch, which takes seconds to import
        return False
    from dcae_bench.measurement.session import Session

    timings = step.timings(output, restart)
    made = fingerprint(Session.__module__), sha256_json(timings.configuration)
    return all(_was_made_by(timings.path(case), made) for case in timings.cases)


def timed_s(records: Iterable[ThroughputRecord]) -> float:
    """Seconds in which the workloads of records and their ceilings ran for a number: warm-up, blocks, energy."""
    seconds = 0.0
    ceilings = {}
    for restart in (restart for record in records for restart in record.restarts):
        seconds += restart.series.seconds + restart.energy.seconds
        if restart.ceiling is not None:
            ceilings[restart.run] = restart.ceiling.seconds
    return seconds + sum(ceilings.values())


def _parts(made: list[ThroughputRecord], seconds: float) -> str:
    """How many of a session's seconds were timing."""
    return f", {seconds - timed_s(made):.0f} of them outside of timing and energy" if made else ""


def _records(output: Path) -> set[Path]:
    """Records of timings that lie in a folder, by their names."""
    return set(output.glob("*.r[0-9]*.json")) - set(output.glob("*.nvml.json"))


def _was_made_by(path: Path, made: tuple[str, str]) -> bool:
    if not path.exists():
        return False
    provenance = load(path).provenance
    return (provenance.code_sha256, provenance.config_sha256) == made


def _launch(words: list[str], limit_s: float | None, variables: dict[str, str]) -> int:
    """Run ``dcae-bench`` in its own process, which ends with this one.

    Returns the exit code; below 0 if the time ran out. Raises :class:`MeasurementError` if no process can be started.
    """
    environment = {**os.environ, **variables, LAUNCHER: str(os.getpid())}
    try:
        return abs(
            subprocess.run([sys.executable, "-m", "dcae_bench", *words], timeout=limit_s, env=environment).returncode
        )
    except subprocess.TimeoutExpired:
        return -1
    except OSError as error:
        raise MeasurementError(f"{sys.executable}: cannot be started ({error.strerror}); free some memory") from error
