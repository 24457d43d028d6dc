"""Failed jobs of a workflow run: their errors are the last lines on the terminal.

Snakemake prints a failed job's command and an advice to look further up, and its own error ends the output. The user
needs one line: what went wrong, and which log tells the rest.
"""

import atexit
import logging
import os
import sys
from pathlib import Path

from snakemake.logging import LogEvent, logger

PREFIX = "dcae-bench: error: "
ADVICE = "For further error details"
"""Begin of what Snakemake appends to the message of a cluster's job."""
TAIL_BYTES = 16384
"""Length of a log's end that is searched for the error."""


class FailedJobs(logging.Handler):
    """Collects the failed jobs that Snakemake reports, and prints one line for each when the process ends."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: dict[int, str] = {}
        """One line per job, by Snakemake's number of the job."""

    @classmethod
    def watch(cls) -> "FailedJobs":
        """Watch the run of this process."""
        watching = cls()
        logger.addHandler(watching)
        atexit.register(watching.print)
        return watching

    def emit(self, record: logging.LogRecord) -> None:
        """Note the error of a failed job, and forget it when a retry succeeds."""
        found = vars(record)
        if found.get("event") == LogEvent.JOB_ERROR:
            logs = [Path(path) for path in found["log"] or ()]
            self.lines[found["jobid"]] = describe(found["rule_name"], logs, found.get("rule_msg"))
        elif found.get("event") == LogEvent.JOB_FINISHED:
            self.lines.pop(found["job_id"], None)

    def print(self) -> None:
        """Print the collected lines on standard error."""
        for line in dict.fromkeys(self.lines.values()):
            print(line, file=sys.stderr, flush=True)


def describe(rule: str, logs: list[Path], message: str | None = None) -> str:
    """One line for a failed job of a rule: its error, and where its log lies.

    ``message`` is what a cluster says of a job that could not say anything, as its state ``TIMEOUT``.
    """
    last = [line for log in logs for line in _last_lines(log)]
    errors = [line.removeprefix(PREFIX) for line in last if line.startswith(PREFIX)]
    if errors:
        reason = errors[-1]
    elif told := (message or "").strip().partition("\n")[0].partition(ADVICE)[0]:
        reason = f"job {rule} ended without an error of its own: {told}"
    elif last:
        reason = f"job {rule} ended without an error of its own; its last line is: {last[-1]}"
    else:
        reason = f"job {rule} ended without a word"
    return f"{PREFIX}{reason} (log: {', '.join(map(str, logs)) or 'none'})"


def _last_lines(log: Path) -> list[str]:
    """Lines at the end of a log that hold text; none if the log cannot be read."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
