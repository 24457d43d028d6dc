"""Timed workloads: training steps, forward passes, sampling and the three training phases, each in several modes."""
