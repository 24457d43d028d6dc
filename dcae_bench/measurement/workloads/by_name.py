"""The workload of a job: a network with random weights, prepared inputs, and one call that runs one iteration."""

from dcae_bench.measurement.workloads.autoencoding import autoencoder_workload
from dcae_bench.measurement.workloads.denoiser_step import denoiser_training_workload
from dcae_bench.measurement.workloads.inference import forward_workload, sampling_workload
from dcae_bench.measurement.workloads.job import Job, Ready
from dcae_bench.measurement.workloads.phase_step import phase_training_workload


def build_workload(job: Job) -> Ready:
    """Build the job's workload, and check first that a faster mode computes what plain eager PyTorch computes.

    The weights are random; a parameter that a denoiser starts at zero is drawn from N(0, 0.02²). Latents and noise are
    standard normal, as scaled latents are. Nothing is zero, because GPUs multiply zeros faster.
    Raises :class:`MeasurementError` if the faster mode disagrees. Errors of torch are not caught.
    """
    case = job.case
    if case.denoiser is None:
        return phase_training_workload(job) if case.trains else autoencoder_workload(job)
    if case.trains:
        return denoiser_training_workload(job)
    return forward_workload(job) if case.work == "forward" else sampling_workload(job)
