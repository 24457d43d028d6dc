"""The scaling that is declared for an autoencoder's latents, by the catalogue or by the config of the user's source."""

import math
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.reading import read_json
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.models.diffusers_config import MODEL_NAME, names_model
from dcae_bench.specs.autoencoders import DiffusersSpec, unfolded
from dcae_bench.subjects.choose import ChosenAutoencoder
from dcae_bench.weights.diffusers_folder import CONFIG, read_config


def declared_scaling(chosen: ChosenAutoencoder) -> Scaling | None:
    """Scaling that is declared for the chosen autoencoder's weights; None for retrained ones, and where none is.

    A ``scaling_factor`` and a ``shift_factor`` that stand in a diffusers config are taken, and none that the class has
    by default. Raises :class:`ConfigError` for values that are no such numbers, and :class:`WeightsError`.
    """
    if chosen.source == "retrained":
        return None
    if chosen.source == "released":
        return catalogue().preset(chosen.name).scaling
    config, where = _own_config(chosen)
    if names_model(config):
        preset = catalogue().autoencoders.get(str(config[MODEL_NAME]))
        return preset.scaling if preset is not None else None
    if config.get("scaling_factor") is None:
        return None
    factor, shift = (_number(config, key, where) for key in ("scaling_factor", "shift_factor"))
    if not factor > 0:
        raise ConfigError(f"{where}: scaling_factor is {factor:g}, which scales nothing; correct it, or remove the key")
    return Scaling(factor=factor, shift=shift, source=where)


def _own_config(chosen: ChosenAutoencoder) -> tuple[dict[str, Any], str]:
    """Config of the user's source, empty where there is none, and where it stands."""
    spec = unfolded(chosen.spec)
    if isinstance(spec, DiffusersSpec):
        if spec.config is not None:
            return spec.config, f"config of {chosen.name}"
        return read_config(spec), f"{CONFIG} of {spec.source}"
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
