"""What autograd keeps for the backward pass, counted in each block and outside of blocks."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dcae_bench.execution.blocks import known_blocks


class SavedTensors:
    """Counts the bytes that autograd saves during a forward pass, in each block and outside of blocks.

    Each storage counts once. Weights and their half-precision copies do not count.
    """

    def __init__(self, model: nn.Module, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.own = _WeightStorages([*model.parameters(), *model.buffers()])
        self.blocks = known_blocks(model)
        self.by_block = {id(block): 0 for block in self.blocks}
        self.flops = {id(block): 0 for block in self.blocks}
        self.outside = 0
        # A dict by storage, because a skip connection is an input of two blocks. References keep the storages alive, so
        # that no new storage gets the address of a freed one.
        self._inputs: dict[int, torch.UntypedStorage] = {}
        self._seen: set[int] = set()
        self._current: int | None = None

    def __enter__(self) -> "SavedTensors":
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

    def per_image(self, images: int) -> dict[str, float]:
        """The fields of a step's cost that depend on saved tensors, after a pass of ``images`` images."""
        on_graph = [bytes_ for bytes_ in self.by_block.values() if bytes_]
        inputs = sum(storage.nbytes() for storage in self._inputs.values())
        return {
            "recompute_mac": sum(self.flops[block] for block, kept in self.by_block.items() if kept) / 2 / images,
            "kept_bytes": (self.outside + sum(on_graph)) / images,
            "kept_inputs_bytes": (self.outside + inputs) / images,
            "largest_block_bytes": max(on_graph, default=0) / images,
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
