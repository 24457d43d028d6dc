"""A denoiser's forward pass and full sampling, ready to be timed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

import torch
from torch import Tensor, nn

from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.measurement.agreement import agree, relative_rms
from dcae_bench.measurement.cases import CLASSES
from dcae_bench.measurement.denoisers import forward_inputs, network, process_of, sampler_of
from dcae_bench.measurement.job import Inputs, Job, Ready, kernel_setting, precision_context
from dcae_bench.measurement.modes import attention_kernel, captured, tensorrt
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build
from dcae_bench.training.blocks import compile_blocks

GUIDANCE = GuidanceSpec(s=1.5)
CHECKED = 4
"""Images that outputs are compared on."""


class DeviceNoise:
    """Normal numbers drawn on the device: keyed streams of the processor would be what is timed."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, seed: int):
        """Draws of ``shape``."""
        self._shape, self._device = shape, device
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self) -> Tensor:
        """Draw the next numbers, float32."""
        return torch.randn(self._shape, generator=self._generator, device=self._device)


class Predictor:
    """A denoiser as samplers take it: float32 latents in, predictions out, computed some faster way."""

    def __init__(self, model: Denoiser, predict: Callable[..., Tensor]):
        """``predict`` takes latents, times and labels."""
        self.spec, self._predict = model.spec, predict

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict."""
        return self._predict(x, t, y)


def forward(job: Job) -> Ready:
    """One forward pass."""
    inputs = forward_inputs(job)
    model = network(job.case, job.device, job.seed).eval()
    wanted = _plain(model, inputs[0]) if job.check and job.fast else None
    kernel = job.kernel
    predict = _predictor(model, job, inputs, kernel)
    if job.mode == "compile+cudagraph":
        with attention_kernel(kernel), torch.no_grad():
            call = captured(predict, inputs)
    else:
        rotation = cycle(inputs)

        def call() -> Tensor:
            return predict(*next(rotation))

    agreement = None
    if wanted is not None:
        found = call()[: len(wanted)]  # the rotation begins at the first inputs
        what = f"outputs of {len(wanted)} images, {job.mode} {job.precision} beside eager fp32"
        agreement = agree(job, what, relative_rms(found, wanted))
    return Ready(call, job.batch, kernel_setting(kernel), agreement)


def sampling(job: Job) -> Ready:
    """Full sampling under guidance; with ``sample_decode`` the images too, in parts of a size that fits."""
    (sampler, nfe), space = sampler_of(job.case), job.case.space
    doubled = replace(job, batch=2 * job.batch)
    inputs = forward_inputs(doubled)
    model = network(job.case, job.device, job.seed).eval()
    wanted = _plain(model, inputs[0]) if job.check and job.fast else None
    kernel = job.kernel
    predict = _predictor(model, doubled, inputs, kernel)
    agreement = None
    if wanted is not None:
        what = f"one prediction of {len(wanted)} images, {job.mode} {job.precision} beside eager fp32"
        agreement = agree(job, what, relative_rms(predict(*inputs[0])[: len(wanted)], wanted))
    weights = inputs[0][0].dtype
    network_ = Predictor(model, lambda x, t, y: predict(x.to(weights), t, y))
    noise = DeviceNoise((job.batch, space.channels, space.side, space.side), job.device, job.seed)
    labels = torch.randint(0, CLASSES, (job.batch,), device=job.device)
    process = build_process(process_of(job.case))
    decode = _decoder(job) if job.case.work == "sample_decode" else None

    def call() -> Tensor:
        z = sample(network_, process, sampler, noise, labels, GUIDANCE)
        return z if decode is None else decode(z)

    settings = {"nfe": str(nfe), "guidance": "doubled batch", **kernel_setting(kernel)}
    return Ready(call, job.batch, settings, agreement)


def _decoder(job: Job, part: int = 8) -> Callable[[Tensor], Tensor]:
    model = build(job.case.autoencoder, seed=job.seed).to(job.device, job.dtype).eval()

    @torch.inference_mode()
    def decode(z: Tensor) -> Tensor:
        return torch.cat([model.decode(some) for some in z.to(job.dtype).split(part)])

    return decode


def _predictor(model: nn.Module, job: Job, inputs: Sequence[Inputs], kernel: str | None) -> Callable[..., Tensor]:
    """The network's forward pass in the job's precision and mode, without gradients."""
    if "autocast" not in job.precision:
        model.to(job.dtype)
    if job.mode == "trt":
        with torch.no_grad():
            return torch.no_grad()(tensorrt(model, inputs[0]))
    if job.mode != "eager":
        compile_blocks(model)

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad(), attention_kernel(kernel), precision_context(job.precision, job.device):
            return model(x, t, y)

    return predict


def _plain(model: nn.Module, inputs: Inputs) -> Tensor:
    """What the network predicts for a few images in fp32, eager."""
    x, t, y = (tensor[:CHECKED] for tensor in inputs)
    with torch.inference_mode():
        return model(x.float(), t, y).clone()
