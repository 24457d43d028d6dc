"""The cost of a training step per image: operations and memory, counted on tensors that have shapes but no values."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cache_dir, sha256_file, sha256_json, write_text
from dcae_bench.base.reading import read_json
from dcae_bench.base.typed import Strict
from dcae_bench.execution.blocks import known_blocks
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.models.cost import without_values
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.training import PhaseSpec, ReconstructionLossSpec
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.specs.autoencoders import AutoencoderSpec, CustomSpec, unfolded
from dcae_bench.specs.denoisers import DenoiserSpec
from dcae_bench.training.discriminator import PatchDiscriminator
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import Freezer
from dcae_bench.weights.user_class import source_modules

logger = logging.getLogger(__name__)

BATCH = 2  # a BatchNorm in training mode needs more than one value per channel
FP32 = 4  # bytes
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

Cost = TypeVar("Cost", bound=Strict)
"""A kind of cost that is cached on disk."""


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
        with _SavedTensors(model, counter) as saved:
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
        with _SavedTensors(model, counter) as saved, torch.autocast("cpu", dtype, enabled=dtype is not None):
            # Any loss will do: every process's loss costs next to nothing compared with the prediction.
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


class _SavedTensors:
    """Counts the bytes that autograd saves during a forward pass, in each block and outside of blocks.

    Each storage counts once. Weights and their half-precision copies do not count.
    """

    def __init__(self, model: nn.Module, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.own = _WeightStorages([*model.parameters(), *model.buffers()])
        self.blocks = known_blocks(model)
        self._parameters = sum(p.numel() for p in model.parameters())
        self._sizes = [sum(p.numel() for p in block.parameters()) for block in self.blocks]
        self.by_block = {id(block): 0 for block in self.blocks}
        self.flops = {id(block): 0 for block in self.blocks}
        self.outside = 0
        # A dict by storage, because a skip connection is an input of two blocks. References keep the storages alive, so
        # that no new storage gets the address of a freed one.
        self._inputs: dict[int, torch.UntypedStorage] = {}
        self._seen: set[int] = set()
        self._current: int | None = None

    def __enter__(self) -> "_SavedTensors":
        self._handles = [block.register_forward_pre_hook(self._enter_block) for block in self.blocks]
        self._handles += [block.register_forward_hook(self._leave_block) for block in self.blocks]
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        self.own.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.own.__exit__(*error)
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def per_image(self) -> dict[str, Any]:
        """The fields of :class:`StepCost` that depend on saved tensors and on blocks."""
        on_graph = [bytes_ for bytes_ in self.by_block.values() if bytes_]
        inputs = sum(storage.nbytes() for storage in self._inputs.values())
        return {
            "recompute_mac": sum(self.flops[block] for block, kept in self.by_block.items() if kept) / 2 / BATCH,
            "kept_bytes": (self.outside + sum(on_graph)) / BATCH,
            "kept_inputs_bytes": (self.outside + inputs) / BATCH,
            "largest_block_bytes": max(on_graph, default=0) / BATCH,
            "largest_block_parameters": max(self._sizes, default=0),
            "parameters_outside": self._parameters - sum(self._sizes),
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


class _WeightStorages(TorchDispatchMode):
    """The storages of weights and of the half-precision copies that autocast makes of the weights."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        # References keep the storages alive, so that no new storage gets the address of a freed one.
        self.storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in weights}

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        source = args[0] if function is torch.ops.aten._to_copy.default else None
        if isinstance(source, Tensor) and isinstance(output, Tensor) and self._holds(source):
            self.storages[output.untyped_storage()._cdata] = output.untyped_storage()
        return output

    def _holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.storages


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


def autoencoder_key(spec: AutoencoderSpec) -> list[object]:
    """An autoencoder's part of a cache key: its spec, and for a user's class the hash of the class's code."""
    own = unfolded(spec)
    files = source_modules(own.class_name).values() if isinstance(own, CustomSpec) else ()
    return [spec.model_dump(mode="json"), *map(sha256_file, files)]


def cached(kind: type[Cost], key: Sequence[object], count: Callable[[], Cost]) -> Cost:
    """Read a cost from the user's cache, or count it and write it to the cache.

    Costs counted by other code or by another version of torch are not read.
    """
    key = [*key, torch.__version__, fingerprint(__name__, f"{__package__}.passes")]
    path = cache_dir() / "costs" / f"{sha256_json(key)[:24]}.json"
    try:
        kept = read_json(path)
        if kept["sha256"] == sha256_json(kept["cost"]):
            return kind(**kept["cost"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: count again
        pass
    cost = count()
    counted = cost.model_dump(mode="json")
    try:
        write_text(path, json.dumps({"cost": counted, "sha256": sha256_json(counted)}))
    except ResultsError as error:  # a missing cache costs only time
        logger.warning("%s; the cost is counted again next time", error)
    return cost
