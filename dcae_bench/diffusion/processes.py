"""Diffusion processes by name."""

from collections.abc import Callable

from dcae_bench.diffusion.flow import FlowMatching
from dcae_bench.diffusion.learned_range import LearnedRange
from dcae_bench.diffusion.process import Process
from dcae_bench.diffusion.vp import VariancePreserving
from dcae_bench.specs.diffusion import ProcessName


def build_process(name: ProcessName) -> Process:
    """Build the diffusion process that a profile or a sampler names."""
    kinds: dict[ProcessName, Callable[[], Process]] = {
        "vp": VariancePreserving,
        "learned-range": LearnedRange,
        "flow": FlowMatching,
    }
    return kinds[name]()
