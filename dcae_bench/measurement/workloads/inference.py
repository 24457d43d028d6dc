"""The workloads of a denoiser without training: its forward pass, and full sampling."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.execution.agreement import largest_output_error
from dcae_bench.execution.attention import use_attention
from dcae_bench.execution.blocks import compile_blocks
from dcae_bench.execution.fast import fast_inference
from dcae_bench.execution.inference import FastDenoiser
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.agreement import AFTER, require_agreement
from dcae_bench.measurement.workloads.cases import CLASSES
from dcae_bench.measurement.workloads.denoisers import forward_inputs, process_of, random_denoiser, sampler_of
from dcae_bench.measurement.workloads.job import Inputs, Job, Ready, kernel_setting, kernels, precision_context
from dcae_bench.measurement.workloads.modes import Rotation, capture_graph, compile_with_tensorrt
from dcae_bench.models.zoo import build
from dcae_bench.specs.diffusion import GuidanceSpec

GUIDANCE = GuidanceSpec(s=1.5)
CHECKED = 4
"""Number of images of each batch whose outputs are compared with plain eager fp32."""


class DeviceNoise:
    """Standard normal noise drawn on the device.

    Keyed streams, which images are sampled from elsewhere, are drawn on the CPU: their speed would be what is timed.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device, seed: int):
        self._shape, self._device = shape, device
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self) -> Tensor:
        """The next noise of the given shape, float32."""
        return torch.randn(self._shape, generator=self._generator, device=self._device)


def forward_workload(job: Job) -> Ready:
    """One forward pass of the case's denoiser. Raises :class:`MeasurementError` if a faster mode disagrees."""
    inputs = forward_inputs(job)
    model = random_denoiser(job.case, job.device, job.seed).eval()
    wanted = [_predict_plainly(model, one) for one in inputs] if job.check and job.fast else []
    kernel = job.kernel
    predict = _predictor(model, job, inputs, kernel)
    del model  # its weights may have a cast copy
    if job.mode == "compile+cudagraph":
        with torch.no_grad():
            call = capture_graph(predict, inputs)
    else:
        call = Rotation(predict, inputs)
    agree = partial(_agree, job, "outputs", call, wanted)
    return Ready(call, job.batch, job.settings | kernel_setting(kernel), agree(), partial(agree, AFTER))


def sampling_workload(job: Job) -> Ready:
    """Full sampling under guidance. ``sample_decode`` also decodes the images, in parts that fit into memory.

    Raises :class:`MeasurementError` if a faster mode disagrees.
    """
    (sampler, nfe), space = sampler_of(job.case), job.case.space
    doubled = replace(job, batch=2 * job.batch)
    inputs = forward_inputs(doubled)
    model = random_denoiser(job.case, job.device, job.seed).eval()
    wanted = [_predict_plainly(model, one) for one in inputs] if job.check and job.fast else []
    kernel = job.kernel
    predict = _predictor(model, doubled, inputs, kernel)
    del model
    agree = partial(_agree, job, "predictions", Rotation(predict, inputs), wanted)
    agreement = agree()
    weights = inputs[0][0].dtype
    denoiser = FastDenoiser(job.case.spec, lambda x, t, y: predict(x.to(weights), t, y))
    noise = DeviceNoise((job.batch, space.channels, space.side, space.side), job.device, job.seed)
    labels = torch.randint(0, CLASSES, (job.batch,), device=job.device)
    process = build_process(process_of(job.case))
    decode = _decoder(job) if job.case.work == "sample_decode" else None

    def call() -> Tensor:
        z = sample(denoiser, process, sampler, noise, labels, GUIDANCE)
        return z if decode is None else decode(z)

    settings = {"nfe": str(nfe), "guidance": "doubled batch", **job.settings, **kernel_setting(kernel)}
    return Ready(call, job.batch, settings, agreement, partial(agree, AFTER))


def _agree(job: Job, what: str, call: Rotation, wanted: Sequence[Tensor], when: str = "") -> Agreement | None:
    """Compare the outputs for each batch with plain ones; None if there are none, for plain eager fp32 itself."""
    if not wanted:
        return None
    what = f"{what} of {len(wanted)} x {len(wanted[0])} images, {job.mode} {job.precision} beside eager fp32{when}"
    return require_agreement(job, what, largest_output_error(call.once_each(), wanted))


def _decoder(job: Job, part: int = 8) -> Callable[[Tensor], Tensor]:
    """The decoder of the case's autoencoder, which decodes ``part`` latents at a time."""
    model = build(job.case.autoencoder, seed=job.seed, device=job.device).eval()
    if job.rewritten:
        model = fast_inference(model)
        if job.mode != "eager":
            compile_blocks(model)
    model.to(job.dtype)

    def decode(z: Tensor) -> Tensor:
        with torch.inference_mode(), kernels(job, None):
            return torch.cat([model.decode(some) for some in z.to(job.dtype).split(part)])

    return decode


def _predictor(model: nn.Module, job: Job, inputs: Sequence[Inputs], kernel: str | None) -> Callable[..., Tensor]:
    """The network's forward pass in the job's precision and mode, without gradients."""
    if job.rewritten:
        model = fast_inference(model)
    use_attention(model, kernel)
    if "autocast" not in job.precision:
        model.to(job.dtype)
    if job.mode == "trt":
        with torch.no_grad():
            return torch.no_grad()(compile_with_tensorrt(model, inputs[0]))
    if job.mode != "eager":
        compile_blocks(model)

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad(), kernels(job, kernel), precision_context(job.precision, job.device):
            return model(x, t, y)

    return predict


def _predict_plainly(model: nn.Module, inputs: Inputs) -> Tensor:
    """Prediction of the network for the first images, in eager fp32."""
    x, t, y = (tensor[:CHECKED] for tensor in inputs)
    with torch.inference_mode():
        return model(x.float(), t, y).clone()
