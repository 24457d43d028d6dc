"""From a name to a diffusion process."""

from dcae_bench.diffusion.flow import FlowMatching
from dcae_bench.diffusion.learned_range import LearnedRange
from dcae_bench.diffusion.process import Process
from dcae_bench.diffusion.vp import VariancePreserving
from dcae_bench.diffusion_specs import ProcessName


def build_process(name: ProcessName) -> Process:
    """Build a diffusion process by name."""
    return {"vp": VariancePreserving, "learned-range": LearnedRange, "flow": FlowMatching}[name]()
