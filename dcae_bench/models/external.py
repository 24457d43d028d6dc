"""Autoencoders made elsewhere: classes of diffusers, classes of your own, and folded latents of either."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.diffusers_source import read_config
from dcae_bench.errors import ConfigError
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.own_class import cannot_be_imported, current_folder_importable, is_not_there
from dcae_bench.specs import CustomSpec, DiffusersSpec, SpaceToChannelSpec


class External(Autoencoder):
    """An autoencoder around an object with ``encode`` and ``decode``; it is evaluated, not trained in phases.

    Latents and images may come as tensors or in diffusers' output classes; of a posterior the mean is taken.
    """

    net: Any

    def _encode(self, x: Tensor) -> Tensor:
        z = latent_of(self.net.encode(x))
        n, _, h, w = x.shape
        self._expect(z, (n, self.latent_channels, h // self.compression, w // self.compression), "encode", x)
        return z

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        posterior = getattr(self.net.encode(x), "latent_dist", None)
        if posterior is None:
            return self._encode(x)
        return posterior.mean + posterior.std * noise(posterior.mean.shape[1:])

    def _decode(self, z: Tensor) -> Tensor:
        x = self.net.decode(z)
        x = getattr(x, "sample", x)
        n, _, h, w = z.shape
        self._expect(x, (n, 3, h * self.compression, w * self.compression), "decode", z)
        return x

    def _expect(self, found: Any, wanted: tuple[int, ...], verb: str, given: Tensor) -> None:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != wanted:
            raise ConfigError(
                f"{_name(self.spec)}: {verb} turned {tuple(given.shape)} into {shape}, expected {wanted} for "
                f"f{self.compression} c{self.latent_channels}; correct the stated values (--f, --c)"
            )

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Everything, as one set: what the phases train apart is not known here."""
        return {"all": [self]}

    @property
    def last_layer(self) -> nn.Parameter:
        """Not known here. Raises :class:`ConfigError`."""
        raise ConfigError(f"{_name(self.spec)}: has no known last layer; use 'adaptive: false' in the phase's gan")


class DiffusersAutoencoder(External):
    """An autoencoder class of diffusers, built from its config; its weights are loaded like any other's."""

    family = "diffusers"

    def __init__(self, spec: DiffusersSpec):
        super().__init__()
        import diffusers  # slow import, wanted only here

        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        config = read_config(spec) if spec.config is None else spec.config
        self.has_posterior = spec.class_name in ("AutoencoderKL", "AsymmetricAutoencoderKL")
        found = config.get("_class_name", spec.class_name)
        if found != spec.class_name:
            raise ConfigError(f"{spec.source}: is a {found}, not the stated {spec.class_name}; correct class_name")
        if spec.class_name == "AutoencoderTiny":  # writes it into its config, and warns of it there when it reads it
            config = {key: value for key, value in config.items() if key != "block_out_channels"}
        try:
            self.net = getattr(diffusers, spec.class_name).from_config(dict(config))
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{spec.source}: its config does not build a {spec.class_name} ({reason})") from error


class CustomAutoencoder(External):
    """A class of your own: ``encode`` maps (n, 3, H, W) in [-1, 1] to (n, c, H/f, W/f), ``decode`` maps back."""

    family = "custom"

    def __init__(self, spec: CustomSpec):
        super().__init__()
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        self.net = instantiate(spec.class_name, spec.kwargs)

    def source(self) -> bytes:
        """The file of the class, which is part of the function; nothing where there is none."""
        try:
            return Path(inspect.getfile(type(self.net))).read_bytes()
        except (TypeError, OSError):  # built in, or typed at a prompt
            return b""


class SpaceToChannel(Autoencoder):
    """Another autoencoder with factor x factor cells of its latent folded into the channels of one; no training.

    Channel order is torch's pixel_unshuffle: channel c, then row, then column inside the cell.
    """

    family = "space-to-channel"

    def __init__(self, spec: SpaceToChannelSpec, base: Autoencoder):
        super().__init__()
        self.spec, self.compression, self.latent_channels = spec, spec.compression, spec.latent_channels
        self.base = base

    @property
    def has_posterior(self) -> bool:
        """That of the base."""
        return self.base.has_posterior

    def _encode(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.base.encode(x), self.spec.factor)

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        return F.pixel_unshuffle(self.base.draw(x, noise), self.spec.factor)

    def _decode(self, z: Tensor) -> Tensor:
        return self.base.decode(F.pixel_shuffle(z, self.spec.factor))

    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Those of the base."""
        return {**self.base.layer_sets(), "all": [self]}

    @property
    def last_layer(self) -> nn.Parameter:
        """That of the base."""
        return self.base.last_layer


def instantiate(class_name: str, kwargs: dict[str, Any]) -> Any:
    """An object of ``module:Class``, the current folder importable. Raises :class:`ConfigError`."""
    module_name, _, name = class_name.partition(":")
    try:
        with current_folder_importable():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module of the user's may fail in any way
        if isinstance(error, ModuleNotFoundError) and is_not_there(module_name, error):
            raise cannot_be_imported(class_name, error) from error
        raise ConfigError(f"{class_name}: importing {module_name} failed ({_failure(error)}); correct it") from error
    cls = getattr(module, name, None)
    if cls is None:
        raise ConfigError(f"{class_name}: module {module_name} has no {name}; correct the name")
    missing = [verb for verb in ("encode", "decode") if not callable(getattr(cls, verb, None))]
    if missing:
        raise ConfigError(f"{class_name}: has no method {missing[0]}; an autoencoder has encode and decode")
    try:
        inspect.signature(cls).bind(**kwargs)
    except TypeError as error:
        raise ConfigError(f"{class_name}: cannot be called with kwargs {kwargs} ({error}); correct 'kwargs'") from error
    except ValueError:  # no signature to check, as for classes written in C
        pass
    try:
        return cls(**kwargs)
    except (Exception, SystemExit) as error:  # and so may its constructor
        raise ConfigError(f"{class_name}: building it failed ({_failure(error)}); correct it") from error


def _failure(error: BaseException) -> str:
    """Kind, first line and place of an error in code of the user's."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (place.filename, place.lineno)
    reason = (str(error.msg if isinstance(error, SyntaxError) else error) or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {reason}, line {line} of {file}"


def latent_of(output: Any) -> Any:
    """The latent tensor in what an ``encode`` returned."""
    if (posterior := getattr(output, "latent_dist", None)) is not None:
        return posterior.mode()
    for attribute in ("latent", "latents"):  # AutoencoderDC, AutoencoderTiny
        if (latent := getattr(output, attribute, None)) is not None:
            return latent
    return output


def _name(spec: Any) -> str:
    return spec.class_name if isinstance(spec, CustomSpec) else getattr(spec, "source", spec.family)
