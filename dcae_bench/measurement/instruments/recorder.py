"""The recorder: a thread that samples one GPU during a measurement, so that the state behind a number is known."""

import threading
from collections.abc import Callable
from types import TracebackType

from dcae_bench.measurement.instruments.nvml import Sample, Source, Trace

PERIOD_S = 0.05
FULL_EVERY = 20
"""One of so many samples also reads processes, violations and ECC errors, which change slowly and take longer."""


class Recorder:
    """Samples ``source`` from entry to exit of the context; :attr:`trace` holds the samples.

    The caller's thread takes the first and the last sample, so even the shortest window has both. Both are full
    samples. An error of NVML ends the sampling and is raised on exit.
    """

    def __init__(self, source: Source, *, origin: str = "recorded", period_s: float = PERIOD_S):
        """Record ``source`` every ``period_s`` seconds. Nothing is read before the context is entered."""
        self._source, self._origin, self._period_s = source, origin, period_s
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Recorder":
        self._identity = self._source.identity()
        self.sample()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is None:
            self.sample()
        elif error is None:
            raise self._error

    def sample(self, *, full: bool = True) -> Sample:
        """Take a sample now, e.g. right after a synchronisation."""
        with self._lock:
            sample = self._source.sample(full=full)
            self._samples.append(sample)
        return sample

    @property
    def trace(self) -> Trace:
        """The samples so far."""
        with self._lock:
            return Trace(origin=self._origin, identity=self._identity, samples=tuple(self._samples))

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(self._period_s):
            count += 1
            try:
                self.sample(full=count % FULL_EVERY == 0)
            except Exception as error:  # the thread that measures raises the error again
                self._error = error
                return


def wait_for_counter_step(
    recorder: Recorder, now: Callable[[], float], sleep: Callable[[float], None], limit_s: float
) -> bool:
    """Wait until the energy counter moves, so that a window starts at a step of the counter.

    Returns whether the counter moved within ``limit_s`` seconds.
    """
    first = recorder.sample(full=False).energy_mj
    if first is None:
        return False
    begin = now()
    while now() - begin < limit_s:
        sleep(0.002)
        if recorder.sample(full=False).energy_mj != first:
            return True
    return False
