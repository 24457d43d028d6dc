"""From arithmetic to hours on the profile's device."""

from dcae_bench.config import Profile
from dcae_bench.planning.rates import Rates


class Hours:
    """Hours of work on the device that a profile names: a GPU of the table of rates, or its threads."""

    def __init__(self, profile: Profile, rates: Rates):
        self.profile, self.rates = profile, rates
        self.device = "cpu" if profile.device == "cpu" else "cuda"

    def of(self, flops: float, what: str, precision: str) -> float:
        """Hours of ``flops`` at the share of the peak that work of kind ``what`` reaches."""
        peak = self.rates.get("peak", self.device, precision).rate * 1e12
        if self.device == "cpu":
            peak *= self.profile.threads
        return flops / (peak * self.rates.get(what, self.device, precision).rate) / 3600

    def of_metrics(self, images: int) -> float:
        """Hours to look at images through the networks of the metrics."""
        return images / self.rates.get("metrics", self.device, self.profile.precision).rate / 3600

    def spent(self, hours: float) -> dict[str, float]:
        """The columns of a row; CPU-hours count threads, as clusters do."""
        return {"cpu_hours": hours * self.profile.threads} if self.device == "cpu" else {"gpu_hours": hours}
