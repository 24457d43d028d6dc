"""Timing and energy that a reviewer can believe: clocks, statistics, NVML, the state gate and the lease."""
