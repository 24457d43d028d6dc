"""The workload of an autoencoder's encoder or decoder."""

from functools import partial

import torch
from torch import Tensor

from dcae_bench.base.errors import MeasurementError
from dcae_bench.execution.agreement import largest_output_error
from dcae_bench.execution.blocks import compile_blocks
from dcae_bench.execution.fast import fast_inference
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.agreement import AFTER, require_agreement
from dcae_bench.measurement.workloads.job import BUFFERS, Job, Ready, kernels
from dcae_bench.measurement.workloads.modes import Rotation, capture_graph
from dcae_bench.models.zoo import build


def autoencoder_workload(job: Job) -> Ready:
    """One pass of the encoder over images, or of the decoder over latents. The inputs are standard normal.

    Raises :class:`MeasurementError` for a resolution that the autoencoder cannot take, and for TensorRT.
    """
    if job.mode == "trt":
        raise MeasurementError("mode trt: it is for forward passes of denoisers; time an autoencoder without --mode")
    encode, space = job.case.work == "encode", job.case.space
    model = build(job.case.autoencoder, seed=job.seed, device=job.device).eval()
    shape = (3, job.case.resolution, job.case.resolution) if encode else (space.channels, space.side, space.side)
    generator = torch.Generator(job.device).manual_seed(job.seed)
    inputs = [torch.randn((job.batch, *shape), generator=generator, device=job.device) for _ in range(BUFFERS)]
    method = model.encode if encode else model.decode
    wanted = []
    if job.check and job.fast:
        with torch.inference_mode():
            wanted = [method(images[:1]).clone() for images in inputs]
    if job.rewritten:
        model = fast_inference(model)
        method = model.encode if encode else model.decode
    model.to(job.dtype).to(memory_format=job.memory_format)
    buffers = [(x.to(job.dtype, memory_format=job.memory_format),) for x in inputs]
    if job.mode != "eager":
        compile_blocks(model)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad(), kernels(job, None):
            return method(x)

    call = capture_graph(run, buffers) if job.mode == "compile+cudagraph" else Rotation(run, buffers)

    def agree(when: str = "") -> Agreement | None:
        if not wanted:
            return None
        what = f"outputs of {len(wanted)} x 1 images, {job.mode} {job.precision} beside eager fp32{when}"
        return require_agreement(job, what, largest_output_error(call.once_each(), wanted))

    settings = {**job.settings, "channels_last": str(job.recipe.channels_last).lower()}
    return Ready(call, job.batch, settings, agree(), partial(agree, AFTER))
