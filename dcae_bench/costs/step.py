"""The cost of a training step per image: operations and memory, counted on tensors that have shapes but no values."""

from collections.abc import Sequence

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.base.typed import Strict
from dcae_bench.costs.cache import autoencoder_key, cached
from dcae_bench.costs.saved import SavedTensors
from dcae_bench.execution.blocks import known_blocks
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.models.cost import without_values
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.training import PhaseSpec, ReconstructionLossSpec
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.denoisers import DenoiserSpec
from dcae_bench.training.discriminator import PatchDiscriminator
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import Freezer

BATCH = 2  # a BatchNorm in training mode needs more than one value per channel
FP32 = 4  # bytes
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepCost(Strict):
    """Cost of training on one image or latent.

    Multiply-accumulates (``mac``) are those of convolutions and matrix products, in the losses too.
    """

    forward_mac: float
    backward_mac: float
    recompute_mac: float = 0.0
    """Further operations with checkpointed activations: a second forward pass of each block that has a gradient."""
    kept_bytes: float
    """Activations that the backward pass needs, without activation checkpointing."""
    kept_inputs_bytes: float
    """Activations that stay with checkpointing: the blocks' inputs, and all activations outside of blocks."""
    largest_block_bytes: float
    """Activations of the largest block, which checkpointing needs on top while the block is computed again."""
    parameters: int
    trained: int
    largest_block_parameters: int
    parameters_outside: int
    """Parameters outside of blocks."""
    other_parameters: int = 0
    """Parameters of LPIPS and the discriminator."""
    other_trained: int = 0
    """Parameters of the discriminator."""


def step_cost(spec: AutoencoderSpec, phase: PhaseSpec, loss: ReconstructionLossSpec, precision: str) -> StepCost:
    """Cost of one image of a phase, whatever the learning rate and the number of images.

    Operations are a mean over batches with and without LPIPS and the discriminator, memory is that of one with both.
    The result is cached on disk.
    """
    if loss.lpips_every > 1:
        whole = step_cost(spec, phase, loss.model_copy(update={"lpips_every": 1}), precision)
        plain = step_cost(spec, phase, loss.model_copy(update={"lpips_every": 1, "lpips": 0.0}), precision)
        return _mean_cost(whole, plain, 1 / loss.lpips_every)
    if phase.gan is not None and phase.gan.start_images:
        started = phase.gan.model_copy(update={"start_images": 0})
        return _mean_cost(
            step_cost(spec, phase.model_copy(update={"gan": started}), loss, precision),
            step_cost(spec, phase.model_copy(update={"gan": None}), loss, precision),
            1 - phase.gan.start_images / phase.images,
        )
    shape: dict[str, object] = {"resolution": phase.resolution, "trainable": phase.trainable}
    shape |= {"freeze": phase.freeze} if phase.freeze else {}
    gan = {"net": phase.gan.discriminator.model_dump(), "adaptive": phase.gan.adaptive} if phase.gan else None
    key = ["step", autoencoder_key(spec), shape, gan, loss.model_dump(mode="json"), precision]
    return cached(StepCost, key, lambda: _count_step(spec, phase, loss, precision))


def _mean_cost(whole: StepCost, plain: StepCost, share: float) -> StepCost:
    """Cost where a ``share`` of the images costs ``whole`` and the rest ``plain``; memory is that of ``whole``."""
    mean = {
        name: getattr(plain, name) + (getattr(whole, name) - getattr(plain, name)) * share
        for name in ("forward_mac", "backward_mac")
    }
    return whole.model_copy(update=mean)


def denoiser_step_cost(spec: DenoiserSpec, precision: str) -> StepCost:
    """Cost of one latent of a denoiser's training. The result is cached on disk."""
    key = ["denoiser step", spec.model_dump(mode="json"), precision]
    return cached(StepCost, key, lambda: _count_denoiser_step(spec, precision))


def training_bytes(cost: StepCost, images: int, precision: str, execution: ExecutionSpec, *, shards: int = 1) -> float:
    """Device memory in bytes of a step that computes ``images`` images at a time.

    The sum of weights and their average (4 + 4 bytes per parameter), gradient and Adam's moments (4 + 8 bytes per
    trained parameter), autocast's half-precision copy of the weights (2 bytes per parameter), LPIPS, the discriminator,
    and the activations. Of ``shards`` processes each keeps a share of the first two, and gathers the weights outside of
    blocks, those of the block that computes and of the next one; one block's gradients are whole at a time.
    """
    fixed = (2 * FP32 * cost.parameters + 3 * FP32 * cost.trained) / shards
    fixed += FP32 * cost.other_parameters + 3 * FP32 * cost.other_trained
    copied = cost.parameters
    if shards > 1:
        fixed += FP32 * (2 * cost.parameters_outside + 3 * cost.largest_block_parameters)
        if execution.checkpoint_activations:  # without it the backward pass keeps the copies of all blocks
            copied = cost.parameters_outside + cost.largest_block_parameters
    if AUTOCAST[precision] is not None:
        fixed += 2 * copied
    kept = cost.kept_bytes
    if execution.checkpoint_activations:
        kept = cost.kept_inputs_bytes + cost.largest_block_bytes
    return fixed + kept * images


def unfinished_run_bytes(cost: StepCost) -> float:
    """Disk space of an unfinished run in bytes: its last checkpoint, and the next one while it is written."""
    return 2 * FP32 * (2 * cost.parameters + 2 * cost.trained + 3 * cost.other_trained)


def _count_step(spec: AutoencoderSpec, phase: PhaseSpec, loss: ReconstructionLossSpec, precision: str) -> StepCost:
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flop})
    with without_values(spec) as model, counter:
        Freezer(model, phase.trainable, phase.freeze).train_mode()
        criterion = ReconstructionLoss(loss.model_copy(update={"lpips": 0.0}))
        criterion.spec = loss
        criterion.lpips = LPIPS(loss.lpips_net) if loss.lpips else None
        discriminator = PatchDiscriminator(phase.gan.discriminator) if phase.gan else None
        images = torch.empty(BATCH, 3, phase.resolution, phase.resolution)
        with SavedTensors(model, counter) as saved:
            dtype = AUTOCAST[precision]
            objective = Objective(
                model,
                criterion,
                gan=phase.gan,
                discriminator=discriminator,
                autoencoder=model,
                autocast=lambda: torch.autocast("cpu", dtype, enabled=dtype is not None),
            )
            total, d_total, _ = objective(images)
            forward = counter.get_total_flops()
        total.backward()
        if d_total is not None:
            d_total.backward()
        backward = counter.get_total_flops() - forward
    others = [p for net in (criterion, discriminator) if net is not None for p in net.parameters()]
    return StepCost(
        **saved.per_image(BATCH),
        **_block_parameters(model),
        forward_mac=forward / 2 / BATCH,
        backward_mac=backward / 2 / BATCH,
        parameters=model.count_parameters(),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        other_parameters=sum(p.numel() for p in others),
        other_trained=sum(p.numel() for p in others if p.requires_grad),
    )


def _count_denoiser_step(spec: DenoiserSpec, precision: str) -> StepCost:
    latent, dtype = spec.latent, AUTOCAST[precision]
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flop})
    empty = EmptyDenoiser(spec)
    with FakeTensorMode(), counter:
        model = empty.build().train()
        x = torch.empty(BATCH, latent.channels, latent.side, latent.side)
        y = None if spec.classes is None else torch.zeros(BATCH, dtype=torch.int64)
        with SavedTensors(model, counter) as saved, torch.autocast("cpu", dtype, enabled=dtype is not None):
            # Any loss will do: every process's loss costs next to nothing compared with the prediction.
            loss = model(x, torch.zeros(BATCH), y).float().square().mean()
            forward = counter.get_total_flops()
        loss.backward()
        backward = counter.get_total_flops() - forward
    return StepCost(
        **saved.per_image(BATCH),
        **_block_parameters(model),
        forward_mac=forward / 2 / BATCH,
        backward_mac=backward / 2 / BATCH,
        parameters=model.count_parameters(trainable=False),
        trained=model.count_parameters(),
    )


def _block_parameters(model: nn.Module) -> dict[str, int]:
    """The fields of :class:`StepCost` that tell how the parameters lie in blocks."""
    sizes = [sum(p.numel() for p in block.parameters()) for block in known_blocks(model)]
    parameters = sum(p.numel() for p in model.parameters())
    return {"largest_block_parameters": max(sizes, default=0), "parameters_outside": parameters - sum(sizes)}


class EmptyDenoiser:
    """A denoiser whose parameters have shapes but no values. Normal initialisation fails under FakeTensorMode."""

    def __init__(self, spec: DenoiserSpec) -> None:
        """Note the shapes of a denoiser of ``spec``. Call before entering the mode."""
        with torch.device("meta"):
            self._model = build_denoiser(spec)
        self._shapes = {key: value.shape for key, value in self._model.state_dict().items()}

    def build(self) -> Denoiser:
        """Return the denoiser. Call inside the mode, once."""
        self._model.load_state_dict({key: torch.empty(shape) for key, shape in self._shapes.items()}, assign=True)
        return self._model


def _conv_backward_flop(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: object,
    mask: Sequence[bool],
    out_shape: object,
) -> int:
    """FLOPs of a convolution's gradients. torch's own count is too high for grouped convolutions."""
    once = 2 * w_shape[1] * w_shape[2] * w_shape[3]
    for side in x_shape if transposed else grad_shape:
        once *= side
    return once * (bool(mask[0]) + bool(mask[1]))
