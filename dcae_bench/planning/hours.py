"""Hours: the time that work takes on a profile's device, from operations and rates."""

from typing import TypedDict

from dcae_bench.planning.rates import Rates
from dcae_bench.profile.profile import Profile


class HourColumns(TypedDict):
    """Hours of a job as fields of a plan's row; one of them is 0."""

    gpu_hours: float
    cpu_hours: float


class Hours:
    """Converts operations to hours on the profile's device: its CPU threads, or the GPU of the table of rates."""

    def __init__(self, profile: Profile, rates: Rates):
        self.profile, self.rates = profile, rates
        self.device = "cpu" if profile.device == "cpu" else "cuda"

    def of_flops(self, flops: float, what: str, precision: str) -> float:
        """Hours for ``flops`` operations, at the share of the device's peak that work of kind ``what`` reaches."""
        peak = self.rates.get("peak", self.device, precision).rate * 1e12
        if self.device == "cpu":
            peak *= self.profile.threads
        return flops / (peak * self.rates.get(what, self.device, precision).rate) / 3600

    def of_metrics(self, images: int) -> float:
        """Hours for passing images through the networks of the metrics."""
        return images / self.rates.get("metrics", self.device, self.profile.precision).rate / 3600

    def columns(self, hours: float) -> HourColumns:
        """Fields of a plan's row for a job of ``hours``. CPU-hours count each thread, as clusters do."""
        if self.device == "cpu":
            return {"gpu_hours": 0.0, "cpu_hours": hours * self.profile.threads}
        return {"gpu_hours": hours, "cpu_hours": 0.0}
