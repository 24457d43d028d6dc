"""Instruments: clocks, NVML, the lease of a device, the state gate, and the statistics of samples."""
