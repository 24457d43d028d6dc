"""The scaling declared for an autoencoder's latents: by the catalogue, or by the config or the weights of a source."""

import math
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.reading import read_json
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.models.autoencoder import Autoencoder, part_of
from dcae_bench.models.diffusers_autoencoder import DiffusersAutoencoder
from dcae_bench.models.diffusers_config import MODEL_NAME, names_model
from dcae_bench.specs.autoencoders import DiffusersSpec, SpaceToChannelSpec, unfolded
from dcae_bench.specs.latent_scale import folded, packing_of
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.weights.diffusers_folder import CONFIG, read_config


def declared_scaling(chosen: ChosenAutoencoder, model: Autoencoder) -> Scaling | None:
    """Scaling that is declared for the chosen autoencoder's weights; None for retrained ones, and where none is.

    A ``scaling_factor`` with a ``shift_factor``, and ``latents_mean`` with ``latents_std``, that stand in a diffusers
    config are taken, and none that the class has by default. Some classes keep the statistics in their weights, which
    ``model`` holds, and some return latents that are scaled already. Raises :class:`ConfigError` for values that are no
    such numbers, and :class:`WeightsError`.
    """
    if chosen.source == "retrained":
        return None
    if chosen.source == "released":
        return catalogue().preset(chosen.name).scaling
    config, where = _own_config(chosen)
    if names_model(config):
        preset = catalogue().autoencoders.get(str(config[MODEL_NAME]))
        return preset.scaling if preset is not None else None
    found = _of_class(model, config, where) or _of_config(config, where)
    if found is None or found.std is None:
        return found
    return _by_channel(found, chosen, where)


def _of_class(model: Autoencoder, config: dict[str, Any], where: str) -> Scaling | None:
    """Scaling of a class of diffusers that keeps statistics elsewhere than in its config."""
    inner = part_of(model, DiffusersAutoencoder)
    if inner is None:
        return None
    name = inner.spec.class_name
    if inner.normalises:
        return Scaling(factor=1, source=f"encode of {name}, which scales the latents itself")
    if (statistics := inner.statistics()) is None:
        return None
    factor = 1.0 if config.get("scaling_factor") is None else _number(config, "scaling_factor", where)
    source = f"weights of {inner.spec.source} ({name})"
    mean, std = (_vector({key: value}, key, source) for key, value in zip(("mean", "std"), statistics, strict=True))
    return _scaling(factor, 0.0, (mean, std), source)


def _of_config(config: dict[str, Any], where: str) -> Scaling | None:
    given = {key for key in ("scaling_factor", "latents_mean", "latents_std") if config.get(key) is not None}
    if not given or config.get("_class_name") == "AutoencoderRAE":  # whose encode applies what its config states
        return None
    factor = _number(config, "scaling_factor", where) if "scaling_factor" in given else 1.0
    shift = _number(config, "shift_factor", where)
    if not given & {"latents_mean", "latents_std"}:
        return _scaling(factor, shift, None, where)
    for key, other in (("latents_mean", "latents_std"), ("latents_std", "latents_mean")):
        if key not in given:
            raise ConfigError(f"{where}: has {other} without {key}; state both, or remove the key")
    if shift:
        raise ConfigError(f"{where}: has both shift_factor and latents_mean; remove the one that is not meant")
    mean, std = _vector(config, "latents_mean", where), _vector(config, "latents_std", where)
    return _scaling(factor, 0.0, (mean, std), where)


def _scaling(
    factor: float, shift: float, statistics: tuple[tuple[float, ...], tuple[float, ...]] | None, where: str
) -> Scaling:
    if not factor > 0:
        raise ConfigError(f"{where}: scaling_factor is {factor:g}, which scales nothing; correct it, or remove the key")
    if statistics is None:
        return Scaling(factor=factor, shift=shift, source=where)
    mean, std = statistics
    if len(mean) != len(std):
        raise ConfigError(f"{where}: has {len(mean)} means and {len(std)} deviations; correct it")
    if (least := min(std)) <= 0:
        raise ConfigError(f"{where}: has a deviation of {least:g}, which scales nothing; correct it")
    return Scaling(factor=factor, mean=mean, std=std, source=where)


def _by_channel(found: Scaling, chosen: ChosenAutoencoder, where: str) -> Scaling:
    """The statistics, one for each channel of the chosen autoencoder's latent. Raises :class:`ConfigError`."""
    spec = chosen.spec
    base = spec.base if isinstance(spec, SpaceToChannelSpec) else spec
    mean, std, channels = found.mean or (), found.std or (), base.latent_channels
    if isinstance(base, DiffusersSpec) and base.class_name == "AutoencoderKLCosmos" and not len(mean) % channels:
        frames = len(mean) // channels  # one number for each frame of a clip; a single image is the first
        mean, std = mean[::frames], std[::frames]
    try:
        packing_of(mean, channels)
        if isinstance(spec, SpaceToChannelSpec):
            mean, std = (folded(numbers, channels, spec.factor) for numbers in (mean, std))
    except ValueError as error:
        raise ConfigError(f"{found.source}: its statistics of latents do not fit: {error}; correct it") from error
    return found.model_copy(update={"mean": mean, "std": std})


def _own_config(chosen: ChosenAutoencoder) -> tuple[dict[str, Any], str]:
    """Config of the user's source, empty where there is none, and where it stands."""
    spec = unfolded(chosen.spec)
    if isinstance(spec, DiffusersSpec):
        if spec.config is not None:
            return {"_class_name": spec.class_name, **spec.config}, f"config of {chosen.name}"
        return {"_class_name": spec.class_name, **read_config(spec)}, f"{CONFIG} of {spec.source}"
    path = Path(chosen.weights or "").expanduser() / CONFIG
    if chosen.weights is None or not path.is_file():
        return {}, ""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is not a readable config ({error}); correct it") from error
    return (content if isinstance(content, dict) else {}), str(path)


def _number(config: dict[str, Any], key: str, where: str) -> float:
    value = config.get(key)
    if value is None and key == "shift_factor":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: {key} is {value}, which is no finite number; correct it, or remove the key")
    return float(value)


def _vector(config: dict[str, Any], key: str, where: str) -> tuple[float, ...]:
    values = config[key]
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"{where}: {key} is {values}, which is no list of numbers; correct it, or remove the key")
    return tuple(_number({key: value}, key, where) for value in values)
