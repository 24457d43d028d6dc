"""External autoencoders: any class with encode and decode, classes of the user's own, and folded latents."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import read_bytes
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.outputs import DECODE_RETURNS, ENCODE_RETURNS, describe_output, image_of, latent_of
from dcae_bench.models.own_state import OwnState, find_state
from dcae_bench.specs.autoencoders import CustomSpec, SpaceToChannelSpec
from dcae_bench.weights.user_class import (
    cannot_be_imported,
    current_folder_importable,
    is_missing_module,
    source_modules,
)


class External(Autoencoder):
    """An autoencoder around an object with ``encode`` and ``decode``, for evaluation but not for training in phases.

    The object may return tensors, posteriors, tuples, or objects that name one of them (:mod:`.outputs`). Of a
    posterior the mode is the latent.
    """

    net: Any  # a class of diffusers or of the user's

    def raw_latent(self, x: Tensor) -> Tensor:
        """Latent of images, of whatever shape. Raises :class:`ConfigError` where ``encode`` returned none."""
        output = self.net.encode(x)
        if (z := latent_of(output)) is None:
            raise ConfigError(f"{_name(self.spec)}: encode returned {describe_output(output)}; {ENCODE_RETURNS}")
        return z

    def raw_image(self, z: Tensor) -> Tensor:
        """Images of latents, of whatever shape. Raises :class:`ConfigError` where ``decode`` returned none."""
        output = self.net.decode(z)
        if (x := image_of(output)) is None:
            raise ConfigError(f"{_name(self.spec)}: decode returned {describe_output(output)}; {DECODE_RETURNS}")
        if not x.is_floating_point():  # pixels from 0 to 255 would be taken for white
            kind = str(x.dtype).removeprefix("torch.")
            raise ConfigError(f"{_name(self.spec)}: decode returned {kind} numbers; return floats from -1 to 1")
        return x

    def _encode(self, x: Tensor) -> Tensor:
        z = self.raw_latent(x).to(x.device)
        n, _, h, w = x.shape
        if not self.has_grid:
            if z.ndim != 3 or (len(z), z.shape[2]) != (n, self.latent_channels):
                raise ConfigError(
                    f"{_name(self.spec)}: encode turned {tuple(x.shape)} into {tuple(z.shape)}, expected ({n}, tokens, "
                    f"{self.latent_channels}), as 'grid: false' says; correct the stated values"
                )
            return z
        if z.ndim == 3:
            raise ConfigError(
                f"{_name(self.spec)}: encode turned {tuple(x.shape)} into {tuple(z.shape)}, a sequence of tokens "
                "without a grid; say 'grid: false' in its model, or leave out --f and --c"
            )
        self._require_shape(z, (n, self.latent_channels, h // self.compression, w // self.compression), "encode", x)
        return z

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        posterior = getattr(self.net.encode(x.clone()), "latent_dist", None)
        if posterior is None:
            return self._encode(x)
        return posterior.mean + posterior.std * noise(posterior.mean.shape[1:])

    def _decode(self, z: Tensor) -> Tensor:
        x = self.raw_image(z).to(z.device)
        if not self.has_grid:
            if x.ndim != 4 or (len(x), x.shape[1]) != (len(z), 3):
                raise ConfigError(
                    f"{_name(self.spec)}: decode turned {tuple(z.shape)} into {tuple(x.shape)}, expected ({len(z)}, 3, "
                    "height, width); correct it"
                )
            return x
        n, _, h, w = z.shape
        self._require_shape(x, (n, 3, h * self.compression, w * self.compression), "decode", z)
        return x

    def _require_shape(self, found: Tensor, wanted: tuple[int, ...], verb: str, given: Tensor) -> None:
        shape = tuple(found.shape)
        if shape != wanted:
            raise ConfigError(
                f"{_name(self.spec)}: {verb} turned {tuple(given.shape)} into {shape}, expected {wanted} for "
                f"f{self.compression} c{self.latent_channels}; correct the stated values (--f, --c)"
            )

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """One set of all layers, because the layers of an external class are unknown."""
        return {"all": [self]}

    @property
    def last_layer(self) -> Tensor:
        """Unknown for an external class. Raises :class:`ConfigError`."""
        raise ConfigError(f"{_name(self.spec)}: has no known last layer; use 'adaptive: false' in the phase's gan")


class CustomAutoencoder(External):
    """A class of the user's own: ``encode`` maps (n, 3, H, W) in [-1, 1] to (n, c, H/f, W/f), ``decode`` maps back."""

    family = "custom"
    spec: CustomSpec

    def __init__(self, spec: CustomSpec):
        super().__init__()
        self.has_grid = spec.grid
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        self.net = instantiate(spec.class_name, spec.kwargs)
        self.search()

    def raw_latent(self, x: Tensor) -> Tensor:
        """Latent of a copy of the images, as the user's code may write into its argument."""
        return super().raw_latent(x.clone())

    def raw_image(self, z: Tensor) -> Tensor:
        """Images of a copy of the latents."""
        return super().raw_image(z.clone())

    def search(self) -> None:
        """Find the networks, tensors and arrays of the object, which may have made some since the last search.

        Networks of an object that is no module become parts of this module, under the names that lead to them, so that
        weights can be loaded into them.
        """
        own = {type(self.net).__module__, self.spec.class_name.partition(":")[0], *self._own_modules()}
        self.found = find_state(self.net, own)
        if not isinstance(self.net, nn.Module):
            self._modules["parts"] = _tree(self.found.modules)
        self.train(self.training)

    @property
    def identity(self) -> str | None:
        """What the class itself says that its weights are, in an attribute ``identity``; None if it says nothing."""
        text = getattr(self.net, "identity", None)
        return text if isinstance(text, str) and text else None

    @property
    def unidentified(self) -> str | None:
        """Why the weights cannot be told from others; None where they can.

        A class whose weights are not found may say in its attribute ``identity`` what they are. Code that can only
        compute from its arguments has no weights, and is told by its source.
        """
        if self.identity is not None:
            return None
        if self.found.opaque:
            return f"{self.found.opaque[0]} cannot be looked into"
        if self.found.lazy or not (self.found.numeric or self.found.pure):
            return "no network and no tensor was found"
        return None

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every network that was found, too."""
        super().train(mode)
        for module in self._found().modules.values():
            module.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move what was found as torch moves parameters, in place, and tell the object of another device."""
        super()._apply(fn, recurse)
        found = self._found()
        registered = {id(module) for module in self.modules()}
        for module in found.modules.values():
            if id(module) not in registered:
                module._apply(fn)
        for tensor in found.tensors.values():
            move_in_place(tensor, fn)
        device = fn(torch.empty(0)).device
        for attributes, name in found.devices:
            attributes[name] = device if isinstance(attributes[name], torch.device) else str(device)
        return self

    def count_parameters(self) -> int:
        """Count parameters, and the numbers of tensors and arrays that no network registers."""
        found = self._found()
        networks = nn.ModuleList([self, *found.modules.values()])
        loose = sum(tensor.numel() for tensor in found.tensors.values())
        return sum(p.numel() for p in networks.parameters()) + loose + sum(a.size for a in found.arrays.values())

    def weights(self) -> Iterator[tuple[str, Tensor | np.ndarray | float | complex]]:
        """Everything that was found, by name: parameters, all buffers, tensors, arrays, and numbers."""
        found = self._found()
        for path, module in found.modules.items():
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                yield f"{path}.{name}", tensor
        yield from found.tensors.items()
        yield from found.arrays.items()
        yield from found.numbers.items()

    def _found(self) -> OwnState:
        return getattr(self, "found", None) or OwnState()

    def _own_modules(self) -> Collection[str]:
        try:
            return source_modules(self.spec.class_name)
        except ConfigError:  # the module was made in memory
            return ()

    def source(self) -> bytes:
        """Content of the user's source files, which define the function beside the weights; empty without files.

        The file of the class is first. The others are those of :func:`source_modules`, each after its module's name.
        """
        try:
            file = Path(inspect.getfile(type(self.net))).resolve()
            content = read_bytes(file)
        except (TypeError, OSError):  # a built-in class, or a class typed at a prompt
            file, content = None, b""
        try:
            modules = source_modules(self.spec.class_name)
        except ConfigError:  # the module was made in memory
            modules = {}
        for name, other in modules.items():
            if other.resolve() != file:
                content += f"\n{name}\n".encode() + read_bytes(other)
        return content


class SpaceToChannel(Autoencoder):
    """A base autoencoder whose latent is folded: factor x factor cells become the channels of one cell. No training.

    The order of channels is torch's pixel_unshuffle: channel c, then row, then column inside the cell.
    """

    family = "space-to-channel"
    spec: SpaceToChannelSpec

    def __init__(self, spec: SpaceToChannelSpec, base: Autoencoder):
        super().__init__()
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        self.take_over(base)
        self.base = base

    def _encode(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.base.encode(x), self.spec.factor)

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        return F.pixel_unshuffle(self.base.draw(x, noise), self.spec.factor)

    def _decode(self, z: Tensor) -> Tensor:
        return self.base.decode(F.pixel_shuffle(z, self.spec.factor))

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """The base's layer sets, with this model as ``all``."""
        return {**self.base.layer_sets(), "all": [self]}

    @property
    def last_layer(self) -> Tensor:
        """The base's last layer."""
        return self.base.last_layer


def instantiate(class_name: str, kwargs: dict[str, Any]) -> Any:
    """Make an object of ``module:Class``. Modules in the current folder can be imported too.

    Raises :class:`ConfigError` when the class cannot be imported or built, or lacks ``encode`` or ``decode``.
    """
    module_name, _, name = class_name.partition(":")
    try:
        with current_folder_importable():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        if isinstance(error, ModuleNotFoundError) and is_missing_module(module_name, error):
            raise cannot_be_imported(class_name, error) from error
        raise ConfigError(f"{class_name}: importing {module_name} failed ({_describe(error)}); correct it") from error
    cls = getattr(module, name, None)
    if cls is None:
        raise ConfigError(f"{class_name}: module {module_name} has no {name}; correct the name")
    if not callable(cls):
        raise ConfigError(f"{class_name}: is an object; name its class, or a function that returns it")
    try:
        inspect.signature(cls).bind(**kwargs)
    except TypeError as error:
        raise ConfigError(
            f"{class_name}: cannot be called with kwargs {kwargs} ({error}); correct 'kwargs' of its model in a "
            "profile, or give its arguments defaults"
        ) from error
    except ValueError:  # the class has no signature, as a class written in C
        pass
    try:
        made = cls(**kwargs)
    except (Exception, SystemExit) as error:  # a user's constructor may fail in any way
        raise ConfigError(f"{class_name}: building it failed ({_describe(error)}); correct it") from error
    # The methods may be attributes of the object alone, as those of a wrapper are.
    missing = [verb for verb in ("encode", "decode") if not callable(getattr(made, verb, None))]
    if missing:
        raise ConfigError(f"{class_name}: has no method {missing[0]}; an autoencoder has encode and decode")
    return made


def _describe(error: BaseException) -> str:
    """Class, first line and place of an error in the user's code."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (place.filename, place.lineno)
    reason = (str(error.msg if isinstance(error, SyntaxError) else error) or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {reason}, line {line} of {file}"


def move_in_place(tensor: Tensor, fn: Callable[[Tensor], Tensor]) -> None:
    """Apply ``fn`` to a tensor for all who hold it."""
    moved = fn(tensor.data)
    try:
        tensor.data = moved
    except RuntimeError:  # of another kind, as on the device "meta"
        other = nn.Parameter(moved, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
        torch.utils.swap_tensors(tensor, other)


def _tree(modules: dict[str, nn.Module]) -> nn.Module:
    """A module that holds others under paths, one level for each name. Names may be any text, as in a dict.

    What hangs hidden inside one of the modules is left out: no file of weights has names for it.
    """
    root = nn.Module()
    for path, module in modules.items():
        if any(path.startswith(f"{other}.") for other in modules):
            continue
        *parents, last = path.split(".")
        place = root
        for name in parents:
            place = place._modules.setdefault(name, nn.Module())  # type: ignore[assignment]
        place._modules[last] = module
    return root


def _name(spec: Any) -> str:
    return spec.class_name if isinstance(spec, CustomSpec) else getattr(spec, "source", spec.family)
