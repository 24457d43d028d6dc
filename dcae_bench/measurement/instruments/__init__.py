"""Instruments: clocks, NVML, the state gate, and the statistics of samples."""
