"""Workloads ready to be timed: a network with random weights, inputs that stand ready, and one call an iteration."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from torch import Tensor, nn

from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.diffusion_specs import GuidanceSpec, ProcessName, SamplerSpec, paper_sampler
from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.cases import CLASSES, Case
from dcae_bench.measurement.modes import CAPTURE_WARM_UP, attention_kernel, captured, fastest_attention, tensorrt
from dcae_bench.measurement.recipes import Mode, Precision, Recipe
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.timing import Workload
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.presets import catalogue
from dcae_bench.training.blocks import checkpoint_blocks, compile_blocks

Inputs = tuple[Tensor, ...]
BUFFERS = 3
"""Inputs in rotation: one alone may stay in a cache."""
LEARNING_RATE = 1e-4
GUIDANCE = GuidanceSpec(s=1.5)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LIMITS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05}
"""Largest error that counts as the same function, by precision."""
CHECKED = 4
"""Images that outputs are compared on."""


@dataclass(frozen=True)
class Ready:
    """A workload, warm or not, and what must be known of it."""

    call: Workload
    batch: int
    settings: dict[str, str]
    agreement: Agreement | None


@dataclass(frozen=True)
class Job:
    """What to build: a case under a protocol, at a batch, on a device."""

    case: Case
    recipe: Recipe
    batch: int
    device: torch.device
    checkpointing: bool = False
    mode: Mode = "eager"
    check: bool = True
    seed: int = 0

    @property
    def precision(self) -> Precision:
        """Of this case under the protocol."""
        return self.recipe.precision(self.case)

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic; weights have it only without autocast."""
        return DTYPES[self.precision.split()[0]]

    @property
    def kernel(self) -> str | None:
        """Attention kernel to use, None for torch's choice."""
        if self.recipe.attention == "torch's choice" or self.device.type == "cpu":
            return None
        return fastest_attention(self.case.spec, self.batch, self.dtype, self.device, train=self.case.work == "train")


def prepare(job: Job) -> Ready:
    """Build a case's workload and show first that it computes what plain eager PyTorch does.

    Weights are random (normal, 0.02, where a network starts at zero), latents and noise standard normal as scaled
    latents are: zeros run faster. Raises :class:`MeasurementError` where the two disagree, and torch's own errors.
    """
    if job.case.work == "train":
        return _train(job)
    if job.case.denoiser is None:
        return _autoencoder(job)
    return _forward(job) if job.case.work == "forward" else _sample(job)


def process_of(case: Case) -> ProcessName:
    """The diffusion process that the paper trains a denoiser on."""
    return "vp" if case.spec.family == "uvit" else "learned-range"


def sampler_of(case: Case) -> tuple[SamplerSpec, int]:
    """The paper's sampler for a denoiser, and its number of function evaluations (each two passes under guidance)."""
    sampler = paper_sampler(process_of(case))
    return sampler, sampler.nfe if sampler.name == "dpm-solver" else sampler.steps


def network(case: Case, device: torch.device, seed: int) -> nn.Module:
    """The case's denoiser with weights under which nothing is zero: DiT's own start predicts zero for all inputs."""
    model = build_denoiser(case.spec, seed=seed).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=generator)
    return model


def precision_context(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Autocast where the precision asks for it. Without its cache of cast weights, which a CUDA graph must not keep."""
    name, _, autocast = precision.partition(" ")
    return torch.autocast(device.type, DTYPES[name], cache_enabled=False) if autocast else nullcontext()


class TrainStep:
    """Forward, loss of the case's diffusion process, backward, AdamW; no scaler, no EMA, no clipping, no data."""

    def __init__(self, model: nn.Module, job: Job, inputs: Sequence[Inputs]):
        """A step over ``inputs`` in rotation."""
        self.model, self.process = model, build_process(process_of(job.case))
        self.precision, self.device = job.precision, job.device
        trained = [p for p in model.parameters() if p.requires_grad]
        # Capturable: the step's number lives on the GPU, so that a graph can count it.
        capturable = job.mode == "compile+cudagraph"
        fused = job.recipe.fused_optimizer or None
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, capturable=capturable, fused=fused)
        self.inputs = cycle(inputs)

    def __call__(self) -> Tensor:
        """One step; the loss before it."""
        return self.step(*next(self.inputs))

    def step(self, x: Tensor, t: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        """One step on given inputs."""
        loss = self.process.loss(self._predict, x, t, noise, y).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _predict(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with precision_context(self.precision, self.device):
            return self.model(x, t, y)


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


def train_inputs(job: Job) -> list[Inputs]:
    """Latents (n, c, h, w), times (n,), noise (n, c, h, w) and labels (n,), in rotation."""
    process = build_process(process_of(job.case))
    return [
        (x, process.times(torch.rand(job.batch, generator=generator, device=job.device)), torch.randn_like(x), y)
        for x, y, generator in _latents(job)
    ]


def forward_inputs(job: Job) -> list[Inputs]:
    """Latents (n, c, h, w), times (n,) and labels (n,), in rotation."""
    weights = job.dtype if "autocast" not in job.precision else torch.float32
    return [
        (x.to(weights), 1000 * torch.rand(job.batch, generator=generator, device=job.device), y)
        for x, y, generator in _latents(job)
    ]


def _latents(job: Job) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    space = job.case.space
    for number in range(BUFFERS):
        generator = torch.Generator(job.device).manual_seed(job.seed + number)
        shape = (job.batch, space.channels, space.side, space.side)
        x = torch.randn(shape, generator=generator, device=job.device)
        yield x, torch.randint(0, CLASSES, (job.batch,), generator=generator, device=job.device), generator


def _train(job: Job) -> Ready:
    if job.mode == "trt":
        raise MeasurementError("mode trt: TensorRT cannot train; it is for forward passes")
    inputs = train_inputs(job)

    def make(*, plain: bool) -> TrainStep:
        model = network(job.case, job.device, job.seed).train()
        if job.mode != "eager" and not plain:
            compile_blocks(model)
        if plain or job.checkpointing:
            checkpoint_blocks(model)
        return TrainStep(model, job, inputs)

    def losses(step: TrainStep) -> list[float]:
        for _ in range(CAPTURE_WARM_UP):
            step.step(*inputs[0])
        return [float(step()) for _ in inputs]

    kernel, agreement, fast = job.kernel, None, job.mode != "eager"
    # The plain model is gone before the other is made: both do not fit.
    wanted = losses(make(plain=True)) if fast and job.check else None
    step = make(plain=False)
    with attention_kernel(kernel):
        call: Workload = captured(step.step, inputs) if job.mode == "compile+cudagraph" else step
    call = _under(kernel, call)
    if wanted is not None:
        if job.mode == "compile+cudagraph":
            found = [float(call()) for _ in inputs]
        else:
            with attention_kernel(kernel):
                found = losses(step)
        error = max(abs(ours - theirs) / abs(theirs) for ours, theirs in zip(found, wanted, strict=True))
        agreement = _agree(job, f"losses of {len(found)} steps, {job.mode} beside eager, both {job.precision}", error)
    settings = {
        "optimizer": "AdamW, fused" if job.recipe.fused_optimizer else "AdamW",
        "checkpointing": "full" if job.checkpointing else "none",
    }
    return Ready(call, job.batch, settings | _kernel_setting(kernel), agreement)


def _forward(job: Job) -> Ready:
    inputs = forward_inputs(job)
    model = network(job.case, job.device, job.seed).eval()
    wanted = _plain(model, inputs[0]) if job.check and _fast(job) else None
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
        agreement = _agree(job, what, _relative(found, wanted))
    return Ready(call, job.batch, _kernel_setting(kernel), agreement)


def _sample(job: Job) -> Ready:
    """Full sampling under guidance; with ``sample_decode`` the images too, in parts of a size that fits."""
    (sampler, nfe), space = sampler_of(job.case), job.case.space
    doubled = replace(job, batch=2 * job.batch)
    inputs = forward_inputs(doubled)
    model = network(job.case, job.device, job.seed).eval()
    wanted = _plain(model, inputs[0]) if job.check and _fast(job) else None
    kernel = job.kernel
    predict = _predictor(model, doubled, inputs, kernel)
    agreement = None
    if wanted is not None:
        what = f"one prediction of {len(wanted)} images, {job.mode} {job.precision} beside eager fp32"
        agreement = _agree(job, what, _relative(predict(*inputs[0])[: len(wanted)], wanted))
    weights = inputs[0][0].dtype
    network_ = Predictor(model, lambda x, t, y: predict(x.to(weights), t, y))
    noise = DeviceNoise((job.batch, space.channels, space.side, space.side), job.device, job.seed)
    labels = torch.randint(0, CLASSES, (job.batch,), device=job.device)
    process = build_process(process_of(job.case))
    decode = _decoder(job) if job.case.work == "sample_decode" else None

    def call() -> Tensor:
        z = sample(network_, process, sampler, noise, labels, GUIDANCE)
        return z if decode is None else decode(z)

    settings = {"nfe": str(nfe), "guidance": "doubled batch", **_kernel_setting(kernel)}
    return Ready(call, job.batch, settings, agreement)


def _autoencoder(job: Job) -> Ready:
    layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
    spec = catalogue().spec(job.case.latent.autoencoder)
    model = build(spec, seed=job.seed).to(job.device).eval()
    side = job.case.resolution // (1 if job.case.work == "encode" else spec.compression)
    channels = 3 if job.case.work == "encode" else spec.latent_channels
    generator = torch.Generator(job.device).manual_seed(job.seed)
    inputs = [
        torch.randn((job.batch, channels, side, side), generator=generator, device=job.device) for _ in range(BUFFERS)
    ]
    method = model.encode if job.case.work == "encode" else model.decode
    wanted = None
    if job.check and _fast(job):
        with torch.inference_mode():
            wanted = method(inputs[0][:1]).clone()
    model.to(job.dtype, memory_format=layout)
    inputs = [x.to(job.dtype, memory_format=layout) for x in inputs]
    if job.mode != "eager":
        compile_blocks(model)
    run = torch.no_grad()(method)
    if job.mode == "compile+cudagraph":
        call = captured(run, [(x,) for x in inputs])
    else:
        rotation = cycle(inputs)

        def call() -> Tensor:
            return run(next(rotation))

    agreement = None
    if wanted is not None:
        what = f"output of one image, {job.mode} {job.precision} beside eager fp32"
        agreement = _agree(job, what, _relative(call()[:1], wanted))
    return Ready(call, job.batch, {"channels_last": str(job.recipe.channels_last).lower()}, agreement)


def _decoder(job: Job, part: int = 8) -> Callable[[Tensor], Tensor]:
    model = build(catalogue().spec(job.case.latent.autoencoder), seed=job.seed).to(job.device, job.dtype).eval()

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


def _fast(job: Job) -> bool:
    return job.mode != "eager" or job.precision != "fp32"


def _under(kernel: str | None, call: Workload) -> Workload:
    if kernel is None:
        return call

    def inside() -> object:
        with attention_kernel(kernel):
            return call()

    return inside


def _relative(found: Tensor, wanted: Tensor) -> float:
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def _agree(job: Job, what: str, error: float) -> Agreement:
    """The agreement; raises :class:`MeasurementError` beyond its limit. Not a number is beyond every limit."""
    limit = LIMITS[job.precision.split()[0]]
    if not error <= limit:
        raise MeasurementError(f"{job.case.name}: {what}: error {error:.3g} is above {limit:g}; do not use this mode")
    return Agreement(what=what, error=error, limit=limit)


def _kernel_setting(kernel: str | None) -> dict[str, str]:
    return {} if kernel is None else {"attention": kernel}
