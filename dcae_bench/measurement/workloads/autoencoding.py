"""The workload of an autoencoder's encoder or decoder."""

import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.workloads.agreement import relative_rms, require_agreement
from dcae_bench.measurement.workloads.job import BUFFERS, Job, Ready
from dcae_bench.measurement.workloads.modes import capture_graph, in_rotation
from dcae_bench.models.zoo import build
from dcae_bench.training.blocks import compile_blocks


def autoencoder_workload(job: Job) -> Ready:
    """One pass of the encoder over images, or of the decoder over latents. The inputs are standard normal.

    Raises :class:`MeasurementError` for a resolution that the autoencoder cannot take, and for TensorRT.
    """
    if job.mode == "trt":
        raise MeasurementError("mode trt: it is for forward passes of denoisers; time an autoencoder without --mode")
    encode, space = job.case.work == "encode", job.case.space
    model = build(job.case.autoencoder, seed=job.seed).to(job.device).eval()
    shape = (3, job.case.resolution, job.case.resolution) if encode else (space.channels, space.side, space.side)
    generator = torch.Generator(job.device).manual_seed(job.seed)
    inputs = [torch.randn((job.batch, *shape), generator=generator, device=job.device) for _ in range(BUFFERS)]
    method = model.encode if encode else model.decode
    wanted = None
    if job.check and job.fast:
        with torch.inference_mode():
            wanted = method(inputs[0][:1]).clone()
    model.to(job.dtype).to(memory_format=job.memory_format)
    buffers = [(x.to(job.dtype, memory_format=job.memory_format),) for x in inputs]
    if job.mode != "eager":
        compile_blocks(model)
    run = torch.no_grad()(method)
    call = capture_graph(run, buffers) if job.mode == "compile+cudagraph" else in_rotation(run, buffers)
    agreement = None
    if wanted is not None:
        what = f"output of one image, {job.mode} {job.precision} beside eager fp32"
        agreement = require_agreement(job, what, relative_rms(call()[:1], wanted))
    return Ready(call, job.batch, {"channels_last": str(job.recipe.channels_last).lower()}, agreement)
