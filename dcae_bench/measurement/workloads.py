"""Workloads ready to be timed: a network with random weights, inputs that stand ready, and one call an iteration."""

from dcae_bench.measurement.autoencoding import autoencoding
from dcae_bench.measurement.denoiser_step import denoiser_training
from dcae_bench.measurement.inference import forward, sampling
from dcae_bench.measurement.job import Job, Ready
from dcae_bench.measurement.phase_step import phase_training


def prepare(job: Job) -> Ready:
    """Build a case's workload and show first that it computes what plain eager PyTorch does.

    Weights are random (normal, 0.02, where a denoiser starts at zero), latents and noise standard normal as scaled
    latents are: zeros run faster. Raises :class:`MeasurementError` where the two disagree, and torch's own errors.
    """
    case = job.case
    if case.denoiser is None:
        return phase_training(job) if case.trains else autoencoding(job)
    if case.trains:
        return denoiser_training(job)
    return forward(job) if case.work == "forward" else sampling(job)
