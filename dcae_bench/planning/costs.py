"""Arithmetic and memory of one image of training, counted on tensors without content."""

import json

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.denoiser_specs import DenoiserSpec
from dcae_bench.errors import ConfigError
from dcae_bench.execution import ExecutionSpec
from dcae_bench.files import cache_dir, sha256_file, sha256_json, write_text
from dcae_bench.metrics.lpips import LPIPS
from dcae_bench.models.cost import without_content
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.own_class import source_file
from dcae_bench.provenance import fingerprint
from dcae_bench.specs import AutoencoderSpec, CustomSpec, core
from dcae_bench.training.blocks import blocks
from dcae_bench.training.discriminator import PatchDiscriminator
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import Freezer
from dcae_bench.training_spec import PhaseSpec, ReconstructionLossSpec

BATCH = 2  # BatchNorm wants more than one value per channel
FP32 = 4  # bytes
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepCost(BaseModel):
    """Cost of one training image. Multiply-accumulates are of convolutions and matrix products, losses included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    forward_mac: float
    backward_mac: float
    recompute_mac: float = 0.0
    """Added by checkpointed activations: the forward pass of every block that the gradient goes through."""
    kept_bytes: float
    """Activations that the backward pass needs, without checkpointing."""
    kept_inputs_bytes: float
    """The same with checkpointing, less the largest block's, which is computed again while it is needed."""
    largest_block_bytes: float
    parameters: int
    trained: int
    other_parameters: int = 0
    """Of LPIPS and the discriminator."""
    other_trained: int = 0


def step_cost(spec: AutoencoderSpec, phase: PhaseSpec, loss: ReconstructionLossSpec, precision: str) -> StepCost:
    """Cost of one image of a phase; learning rates and image counts do not matter. Remembered between runs."""
    shape = {"resolution": phase.resolution, "trainable": phase.trainable}
    gan = {"net": phase.gan.discriminator.model_dump(), "adaptive": phase.gan.adaptive} if phase.gan else None
    key = ["step", identity(spec), shape, gan, loss.model_dump(mode="json"), precision]
    return StepCost(**remembered(key, lambda: _count_step(spec, phase, loss, precision).model_dump()))


def denoiser_step_cost(spec: DenoiserSpec, precision: str) -> StepCost:
    """Cost of one latent of a denoiser's training. Remembered between runs."""
    key = ["denoiser step", spec.model_dump(mode="json"), precision]
    return StepCost(**remembered(key, lambda: _count_denoiser_step(spec, precision).model_dump()))


def training_bytes(cost: StepCost, images: int, precision: str, execution: ExecutionSpec) -> float:
    """Device memory of a step that computes ``images`` at a time, in bytes.

    Weights and their average (4 + 4 bytes a parameter), gradient and Adam's moments (4 + 8 a trained one), the
    half-precision copy that autocast keeps (2), LPIPS and discriminator, and the activations.
    """
    fixed = 2 * FP32 * cost.parameters + 3 * FP32 * cost.trained
    fixed += FP32 * cost.other_parameters + 3 * FP32 * cost.other_trained
    if AUTOCAST[precision] is not None:
        fixed += 2 * cost.parameters
    kept = cost.kept_bytes
    if execution.checkpoint_activations:
        kept = cost.kept_inputs_bytes + cost.largest_block_bytes
    return fixed + kept * images


def unfinished_bytes(cost: StepCost) -> float:
    """Disk of an unfinished run: its last state, and the next one while that is written."""
    return 2 * FP32 * (2 * cost.parameters + 2 * cost.trained + 3 * cost.other_trained)


def _count_step(spec: AutoencoderSpec, phase: PhaseSpec, loss: ReconstructionLossSpec, precision: str) -> StepCost:
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flop})
    with without_content(spec) as model, counter:
        Freezer(model, phase.trainable).train_mode()
        criterion = ReconstructionLoss(loss.model_copy(update={"lpips": 0.0}))
        criterion.spec = loss
        criterion.lpips = LPIPS(loss.lpips_net) if loss.lpips else None
        discriminator = PatchDiscriminator(phase.gan.discriminator) if phase.gan else None
        images = torch.empty(BATCH, 3, phase.resolution, phase.resolution)
        with _Saved(model, counter) as saved:
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
        for one in (total, d_total) if phase.gan else (total,):
            one.backward()
        backward = counter.get_total_flops() - forward
    others = [p for net in (criterion, discriminator) if net is not None for p in net.parameters()]
    return StepCost(
        **saved.per_image(),
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
        with _Saved(model, counter) as saved, torch.autocast("cpu", dtype, enabled=dtype is not None):
            # What is made of the prediction costs nothing beside it, whatever the process.
            loss = model(x, torch.zeros(BATCH), y).float().square().mean()
            forward = counter.get_total_flops()
        loss.backward()
        backward = counter.get_total_flops() - forward
    return StepCost(
        **saved.per_image(),
        forward_mac=forward / 2 / BATCH,
        backward_mac=backward / 2 / BATCH,
        parameters=model.count_parameters(trainable=False),
        trained=model.count_parameters(),
    )


class EmptyDenoiser:
    """A denoiser without content, for fake modes: drawing its first weights would look at values."""

    def __init__(self, spec: DenoiserSpec) -> None:
        """Outside of the mode."""
        with torch.device("meta"):
            self._model = build_denoiser(spec)
        self._shapes = {key: value.shape for key, value in self._model.state_dict().items()}

    def build(self) -> Denoiser:
        """Inside of the mode, once."""
        self._model.load_state_dict({key: torch.empty(shape) for key, shape in self._shapes.items()}, assign=True)
        return self._model


class _Saved:
    """Bytes that autograd keeps during a forward pass, each storage once, by block and outside of blocks."""

    def __init__(self, model: nn.Module, counter: FlopCounterMode):
        self.counter = counter
        self.own = _Copies([*model.parameters(), *model.buffers()])
        self.blocks = _blocks(model)
        self.by_block = {id(block): 0 for block in self.blocks}
        self.flops = {id(block): 0 for block in self.blocks}
        self.outside = 0
        # A skip is the input of two blocks. Held, so that no other storage takes the place of one that is gone.
        self._inputs: dict[int, torch.UntypedStorage] = {}
        self._seen: set[int] = set()
        self._current: int | None = None

    def __enter__(self) -> "_Saved":
        self._handles = [block.register_forward_pre_hook(self._enter_block) for block in self.blocks]
        self._handles += [block.register_forward_hook(self._leave_block) for block in self.blocks]
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        self.own.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.own.__exit__(*error)
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def per_image(self) -> dict[str, float]:
        """The fields of a step's cost that come from blocks."""
        on_graph = [bytes_ for bytes_ in self.by_block.values() if bytes_]
        inputs = sum(storage.nbytes() for storage in self._inputs.values())
        return {
            "recompute_mac": sum(self.flops[block] for block, kept in self.by_block.items() if kept) / 2 / BATCH,
            "kept_bytes": (self.outside + sum(on_graph)) / BATCH,
            "kept_inputs_bytes": (self.outside + inputs) / BATCH,
            "largest_block_bytes": max(on_graph, default=0) / BATCH,
        }

    def _enter_block(self, block: nn.Module, inputs: tuple) -> None:
        self._current, self._start = id(block), self.counter.get_total_flops()

    def _leave_block(self, block: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.flops[id(block)] = self.counter.get_total_flops() - self._start
        if self.by_block[id(block)]:
            storages = [x.untyped_storage() for x in inputs if isinstance(x, Tensor)]
            self._inputs.update({storage._cdata: storage for storage in storages})
        self._current = None

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen and storage._cdata not in self.own.storages:
            self._seen.add(storage._cdata)
            if self._current is None:
                self.outside += storage.nbytes()
            else:
                self.by_block[self._current] += storage.nbytes()
        return tensor


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks there are; classes made elsewhere may have none that are known."""
    try:
        return blocks(model)
    except ConfigError:
        return []


class _Copies(TorchDispatchMode):
    """Storages of weights, and of the copies in half precision that autocast makes of them, whatever the batch."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        # Held, so that no other storage takes the place of one that is gone.
        self.storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in weights}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self.storages:
            self.storages[output.untyped_storage()._cdata] = output.untyped_storage()
        return output


def _conv_backward_flop(
    grad_shape, x_shape, w_shape, bias, stride, padding, dilation, transposed, output_padding, groups, mask, out_shape
) -> int:
    """FLOPs of a convolution's gradients; torch's own count overstates grouped ones."""
    once = 2 * w_shape[1] * w_shape[2] * w_shape[3]
    for side in x_shape if transposed else grad_shape:
        once *= side
    return once * (bool(mask[0]) + bool(mask[1]))


COUNTED = (
    "dcae_bench.denoiser_specs",
    "dcae_bench.metrics.image",
    "dcae_bench.metrics.lpips",
    "dcae_bench.models",
    "dcae_bench.planning",
    "dcae_bench.specs",
    "dcae_bench.training",
)
"""The code that is counted, and that counts."""


def identity(spec: AutoencoderSpec) -> list:
    """An autoencoder in a key: its spec, and the code of a class of the user's."""
    own = core(spec)
    file = source_file(own.class_name) if isinstance(own, CustomSpec) else None
    return [spec.model_dump(mode="json"), *([sha256_file(file)] if file is not None else [])]


def remembered(key: list, count):
    """Look the key up in the user's cache, which other code or another torch does not share."""
    key = [*key, torch.__version__, fingerprint(*COUNTED)]
    path = cache_dir() / "costs" / f"{sha256_json(key)[:24]}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        value = count()
    write_text(path, json.dumps(value))
    return value
