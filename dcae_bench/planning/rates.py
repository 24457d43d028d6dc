"""Rates of devices that estimates use; each rate is measured or stated, and says how it was found."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat

from dcae_bench.base.errors import ConfigError, ResultsError
from dcae_bench.base.files import BASELINES, REPOSITORY
from dcae_bench.base.typed import Strict
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.records import places
from dcae_bench.records.record import Record, load

RATES = BASELINES / "rates.yaml"
REFERENCE = REPOSITORY / places.REFERENCE


class Rate(Strict):
    """How fast one kind of work runs on one kind of device in one precision, or how much memory it has."""

    what: Literal[
        "peak",
        "training",
        "inference",
        "denoiser-training",
        "denoiser-sampling",
        "dopri5",
        "metrics",
        "prepare",
        "start",
        "memory",
    ]
    device: Literal["cpu", "cuda"] | None
    precision: Literal["fp32", "bf16", "fp16"] | None
    rate: PositiveFloat
    unit: Literal["TFLOP/s", "of peak", "img/s", "Mpx/s", "NFE", "GB", "s"]
    source: Literal["measured", "stated"]
    how: str

    def __str__(self) -> str:
        """One line, as a plan prints the rate among its assumptions."""
        device = f", {self.device}" if self.device else ""
        precision = f" {self.precision}" if self.precision else ""
        return f"{self.what}{device}{precision}: {self.rate:g} {self.unit} ({self.source}: {self.how})"


class _RateFile(Strict):
    rates: tuple[Rate, ...]


class Rates:
    """The table of rates. Remembers which rates were used, so that a plan can list them."""

    def __init__(self, rates: Iterable[Rate]):
        self._rates = list(rates)
        self.used: dict[str, Rate] = {}

    @classmethod
    def read(cls, path: Path = RATES) -> "Rates":
        """Read a file of rates. Raises :class:`ConfigError`."""
        return cls(read_shipped(path, _RateFile).rates)

    def get(self, what: str, device: str, precision: str) -> Rate:
        """Find the rate of a kind of work on a device. Raises :class:`ConfigError` where the table has none."""
        for rate in self._rates:
            if rate.what == what and rate.device in (None, device) and rate.precision in (None, precision):
                self.used[str(rate)] = rate
                return rate
        raise ConfigError(f"baselines/rates.yaml: has no '{what}' for {device} in {precision}; add one")


def reference_records(folder: Path = REFERENCE) -> list[Record]:
    """Training records of the committed evidence, whose measured speeds replace rates."""
    records = []
    for path in sorted(folder.rglob("record.json")):
        try:
            records.append(load(path))
        except ResultsError:
            continue  # an older version wrote this record; a plan can do without its speed
    return [record for record in records if record.kind in ("training", "diffusion_training")]
