"""Stopping a command by a signal, so that it keeps its work: preemption, a time limit, Ctrl-C.

The first signal ends the command at once, or at the next good moment where the work has such moments: a training ends
after its next step, with a checkpoint. The command then prints one line and exits with :data:`EXIT_CODE`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75
"""Exit code of a stopped command, ``EX_TEMPFAIL`` of ``sysexits.h``: the same command goes on."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that stop a command. SLURM, Kubernetes and Snakemake send the first; SLURM sends others where it is told."""
GRACE_S = 20.0
"""Seconds to the next good moment after which the work is stopped anyway: schedulers kill after thirty."""
INSISTENCE_S = 2.0
"""A second Ctrl-C after so many seconds stops at once. Before, it may be the first one on another way."""

SHELL_PREFIX = "set -euo pipefail; trap : HUP TERM USR1 USR2; "
"""What the shell of a job begins with: Snakemake's own words, and a trap, so that it waits for its command.

SLURM signals all processes of a job, and kills those that are left when the first of them has ended.
"""


class Stopped(SystemExit):
    """A signal stopped the command. ``line`` tells the user what was kept, and how to go on."""

    def __init__(self, line: str):
        super().__init__(EXIT_CODE)
        self.line = line


def _at_once(number: signal.Signals) -> None:
    raise Stopped(f"stopped by {number.name}; run the same command again to go on")


_act: Callable[[signal.Signals], None] = _at_once
"""What the first signal does now."""
_received: signal.Signals | None = None
_since = 0.0


@contextmanager
def stoppable() -> Iterator[None]:
    """Let signals stop the command in this block. Signals that this process ignores, as under ``nohup``, stay so."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    command = os.getpid()

    def receive(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != command:  # a process that a library has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        _receive(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, receive)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received = None


def outlive_command() -> None:
    """Let this process, a Snakemake that runs one submitted job, wait for its command, which gets the same signal.

    Snakemake itself waits at SIGTERM and SIGINT. A handler, unlike ignoring, is not passed on to the command.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda _number, _frame: None)


@contextmanager
def acting(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Let the first signal do something else in this block."""
    global _act
    before, _act = _act, act
    try:
        yield
    finally:
        _act = before


@contextmanager
def at_good_moments() -> Iterator[Callable[[], signal.Signals | None]]:
    """Stop the work of this block at its good moments only.

    Yields a function that returns the signal that asked to stop; the block must call it at each good moment and, if it
    returns one, end. If there is no good moment for :data:`GRACE_S` seconds, the work is stopped where it is.
    """
    overdue: list[threading.Timer] = []

    def wait(number: signal.Signals) -> None:
        timer = threading.Timer(GRACE_S, lambda: os.kill(os.getpid(), number))
        timer.daemon = True
        overdue.append(timer)
        timer.start()

    def asked() -> signal.Signals | None:
        for timer in overdue:
            timer.cancel()
        return _received

    with acting(wait):
        try:
            yield asked
        finally:
            for timer in overdue:
                timer.cancel()


def _receive(number: signal.Signals) -> None:
    global _received, _since
    if _received is None:
        _received, _since = number, time.monotonic()
        _act(number)
    elif time.monotonic() - _since >= (INSISTENCE_S if number == signal.SIGINT else GRACE_S):
        _since = time.monotonic()
        _at_once(number)
