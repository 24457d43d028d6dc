"""Rates that estimates are made with: measured or stated, each with how."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from dcae_bench.errors import ConfigError, ResultsError
from dcae_bench.files import REPOSITORY
from dcae_bench.records import Record, load

RATES = REPOSITORY / "baselines" / "rates.yaml"
REFERENCE = REPOSITORY / "results" / "reference"


class Rate(BaseModel):
    """One rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Literal[
        "peak", "training", "inference", "denoiser-training", "denoiser-sampling", "dopri5", "metrics", "prepare"
    ]
    device: Literal["cpu", "cuda"] | None
    precision: Literal["fp32", "bf16", "fp16"] | None
    rate: PositiveFloat
    unit: Literal["TFLOP/s", "of peak", "img/s", "Mpx/s", "NFE"]
    source: Literal["measured", "stated"]
    how: str

    def __str__(self) -> str:
        """One line, as a plan prints it."""
        device = f", {self.device}" if self.device else ""
        precision = f" {self.precision}" if self.precision else ""
        return f"{self.what}{device}{precision}: {self.rate:g} {self.unit} ({self.source}: {self.how})"


class Rates:
    """The table of rates, which remembers what was asked of it."""

    def __init__(self, rates: Iterable[Rate]):
        self._rates = list(rates)
        self.used: dict[str, Rate] = {}

    @classmethod
    def read(cls, path: Path = RATES) -> "Rates":
        """Read a file of rates. Raises :class:`ConfigError`."""
        try:
            return cls(Rate(**entry) for entry in yaml.safe_load(path.read_text())["rates"])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: is not a file of rates ({reason}); correct it or restore it") from error

    def get(self, what: str, device: str, precision: str) -> Rate:
        """Find the rate of a device. Raises :class:`ConfigError` where there is none."""
        for rate in self._rates:
            if rate.what == what and rate.device in (None, device) and rate.precision in (None, precision):
                self.used[str(rate)] = rate
                return rate
        raise ConfigError(f"baselines/rates.yaml: has no '{what}' for {device} in {precision}; add one")


def reference_records(folder: Path = REFERENCE) -> list[Record]:
    """Training records that were committed as evidence; their speeds are measurements."""
    records = []
    for path in sorted(folder.rglob("record.json")):
        try:
            records.append(load(path))
        except ResultsError:
            continue  # written by an older version: it measured something, but a plan can do without
    return [record for record in records if record.kind in ("training", "diffusion_training")]
