"""Choice of the autoencoder to measure, by a name of the profile or catalogue, or by a source of the user's own."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ConfigError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.models.diffusers_config import MODEL_NAME, names_model
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.evaluation import EvaluationSet, EvaluationSpec
from dcae_bench.profile.profile import Profile
from dcae_bench.records.subject import TrainedPhase
from dcae_bench.specs.autoencoders import AutoencoderSpec, CustomSpec, DiffusersSpec
from dcae_bench.specs.diffusers_classes import CLASSES, refusal
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.specs.variants import Variant
from dcae_bench.subjects.own import latent_weights, own_files_sha256, own_weights
from dcae_bench.subjects.trained import phases_behind, require_autoencoder, require_phase
from dcae_bench.weights import hub
from dcae_bench.weights import released as weights
from dcae_bench.weights.diffusers_folder import AUTOENCODER_FOLDERS, OFFICIAL_FILE, read_config

CLASS = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
PROBE_SIDE = 256
"""Side in pixels of the grey image that is encoded to find f and c."""


@dataclass(frozen=True)
class ChosenAutoencoder:
    """An autoencoder to measure, and the weights to open it with."""

    name: str
    spec: AutoencoderSpec
    weights: Path | None
    """File or folder of weights; None: the autoencoder keeps the weights that its class builds it with."""
    source: WeightsSource
    phase: int | None = None
    """Last training phase of the weights; None: unknown or not retrained."""
    variant: Variant | None = None
    """Which training of an ablation the weights are of; None: the profile's own training, or not retrained."""
    files_sha256: str | None = None
    """Hash over the files that define an own autoencoder of the profile; None: another one."""
    trained: tuple[TrainedPhase, ...] | None = None
    """Phases that retrained weights went through; None: unknown or not retrained."""


def choose_autoencoder(
    profile: Profile,
    wanted: str,
    file: Path | None,
    *,
    f: int | None = None,
    c: int | None = None,
    sets: Sequence[EvaluationSet] | None = None,
    phase: int | None = None,
) -> ChosenAutoencoder:
    """Find the autoencoder that the user names with ``wanted``.

    ``wanted`` is tried in this order as a name of the profile, a name of the catalogue, ``module:Class``, a local
    folder (of diffusers, or of the authors' own form), and a hub id. ``f`` and ``c`` state compression and latent
    channels of a class or of a diffusers model; if one is missing, encoding a grey image shows it. ``file`` replaces
    the weights that come with the autoencoder. ``sets`` are the evaluation sets to measure on, by default all of the
    profile. ``phase`` is the last training phase of the weights. Raises :class:`ConfigError` and
    :class:`WeightsError`.
    """
    sets = profile.evaluation.sets if sets is None else sets
    fits = partial(_require_fit, profile.evaluation, sets)
    shape_given = f is not None or c is not None
    if wanted in profile.autoencoders:
        _refuse_shape(shape_given, wanted)
        return _choose_from_profile(profile, wanted, file, phase)
    if wanted in catalogue().autoencoders:
        _refuse_shape(shape_given, wanted)
        return _choose_from_catalogue(wanted, file, fits, phase)
    spec: AutoencoderSpec
    if CLASS.match(wanted):
        fields = _custom_fields(wanted, f or 1, c or 1)
        spec = CustomSpec(**fields) if f and c else CustomSpec(**fields | _probe_shape(CustomSpec(**fields), f, c))
    elif Path(wanted).expanduser().is_dir() or hub.HUB_ID.match(wanted):
        if (named := _named_model(wanted)) is not None:
            _refuse_shape(shape_given, wanted)
            return _choose_own(wanted, named, file or _named_weights(wanted), fits, phase)
        spec = _diffusers_spec(wanted, f, c)
    else:
        known = ", ".join(profile.autoencoders)
        raise ConfigError(
            f"--autoencoder {wanted}: profile {profile.name} has no such autoencoder (it has {known}), nor has the "
            "catalogue (dcae-bench zoo), and it is no module:Class, folder with config.json or hub id (owner/name)"
        )
    return _choose_own(wanted, spec, file, fits, phase)


def _refuse_shape(given: bool, name: str) -> None:
    if given:
        raise ConfigError(f"--f and --c do not apply to {name}: its model spec states both; leave them out")


def choose_for_latents(
    profile: Profile, source: LatentSource, spec: AutoencoderSpec, file: Path | None, option: str
) -> ChosenAutoencoder:
    """Choose the autoencoder behind latents. Released weights and the user's own are found by name.

    ``file`` is the weights file, which only retrained weights need. ``option`` is the command line's name of ``file``,
    for error messages. Raises :class:`ConfigError` where retrained weights have no file, and :class:`WeightsError`.
    """
    found = file if file is not None else latent_weights(profile, source, option)
    chosen = choose_without_weights(profile, source, spec)
    if source.weights == "retrained" and found is not None:
        require_autoencoder(found, source.autoencoder, spec, chosen.phase)
        chosen = replace(chosen, trained=phases_behind(found))
    return replace(chosen, weights=found)


def choose_without_weights(profile: Profile, source: LatentSource, spec: AutoencoderSpec) -> ChosenAutoencoder:
    """Choose the autoencoder behind latents for a description only: its weights are neither needed nor looked for."""
    name = source.autoencoder
    phase = max(profile.phases_of(name)) if source.weights == "retrained" else None
    files = own_files_sha256(name, profile.autoencoders[name]) if source.weights == "own" else None
    return ChosenAutoencoder(name, spec, None, source.weights, phase, files_sha256=files)


def _choose_from_profile(profile: Profile, name: str, file: Path | None, phase: int | None) -> ChosenAutoencoder:
    entry = profile.autoencoders[name]
    spec = entry.model
    if entry.weights == "released":
        return _choose_released(file, name, spec, phase)
    if entry.weights == "own":
        brought = _own_file(file or own_weights(entry), phase)
        files = own_files_sha256(name, entry if file is None else entry.model_copy(update={"file": file}))
        return ChosenAutoencoder(name, spec, brought, "own", phase, files_sha256=files)
    if file is not None:
        found = require_autoencoder(file, name, spec, phase)
        variant = profile.variant_of(name, found)
        return ChosenAutoencoder(name, spec, file, "retrained", found, variant, trained=phases_behind(file))
    if isinstance(spec, DiffusersSpec | CustomSpec):  # its source or class brings weights, from before any phase
        return ChosenAutoencoder(name, spec, own_weights(entry), "own", phase)
    raise ConfigError(f"--weights is missing: {name} of profile {profile.name} has no weights of its own")


def _choose_from_catalogue(
    name: str, file: Path | None, fits: Callable[[str, AutoencoderSpec], None], phase: int | None
) -> ChosenAutoencoder:
    spec = catalogue().spec(name)
    fits(name, spec)
    return _choose_released(file, name, spec, phase)


def _choose_released(file: Path | None, name: str, spec: AutoencoderSpec, phase: int | None) -> ChosenAutoencoder:
    """Choose the user's ``file``, which counts as own weights; without a file, the released weights."""
    if file is not None:
        return ChosenAutoencoder(name, spec, _own_file(file, phase), "own", phase)
    return ChosenAutoencoder(name, spec, weights.locate(name).path, "released", phase)


def _choose_own(
    wanted: str,
    spec: AutoencoderSpec,
    file: Path | None,
    fits: Callable[[str, AutoencoderSpec], None],
    phase: int | None,
) -> ChosenAutoencoder:
    name = re.sub(r"[^a-z0-9.-]+", "-", wanted.lower()).strip("-.") or "own"
    fits(name, spec)
    return ChosenAutoencoder(
        name, spec, _own_file(file, phase) or own_weights(AutoencoderEntry(model=spec)), "own", phase
    )


def _own_file(file: Path | None, phase: int | None) -> Path | None:
    """The user's file, which may be named otherwise than where it was trained, but not be of another phase."""
    if file is not None:
        require_phase(file, phase)
    return file


def _require_fit(evaluation: EvaluationSpec, sets: Sequence[EvaluationSet], name: str, spec: AutoencoderSpec) -> None:
    """Check that the sides of every evaluation set are multiples of f. Raises :class:`ConfigError`."""
    for item in sets:
        if evaluation.side_of(item) % spec.compression:
            raise ConfigError(
                f"--autoencoder {name}: {evaluation.side_text(item)} of evaluation set {item.label} is not a multiple "
                f"of {spec.compression}, its f; name other sets with --set, or another profile"
            )


def _custom_fields(class_name: str, f: int, c: int) -> dict[str, object]:
    return {"family": "custom", "class_name": class_name, "compression": f, "latent_channels": c}


def _source(
    source: str, class_name: str = "AutoencoderKL", subfolder: str = "", f: int = 1, c: int = 1
) -> DiffusersSpec:
    """Draft of a source, to read its files."""
    fields = {"source": source, "class_name": class_name, "subfolder": subfolder}
    return DiffusersSpec(family="diffusers", compression=f, latent_channels=c, **fields)


def _named_model(source: str) -> AutoencoderSpec | None:
    """Spec of the model that a folder of the authors' own form names; None for a source of another form.

    Raises :class:`ConfigError` for a name that the catalogue does not have.
    """
    try:
        config = read_config(_source(source))
    except hub.NoSuchFile:
        return None
    if not names_model(config):
        return None
    name = config[MODEL_NAME]
    if not isinstance(name, str) or name not in catalogue().autoencoders:
        raise ConfigError(
            f"--autoencoder {source}: its config.json has {MODEL_NAME} {name}, which is no autoencoder of the "
            "catalogue (dcae-bench zoo); name another folder"
        )
    return catalogue().spec(name)


def _named_weights(source: str) -> Path:
    """Folder of the authors' own form, or its weights on the hub. Raises :class:`WeightsError`."""
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else hub.download(source, OFFICIAL_FILE, None).path


def _diffusers_spec(source: str, f: int | None, c: int | None) -> DiffusersSpec:
    """Make a spec from the config.json of a source. The source may be a pipeline with its autoencoder in a folder."""
    subfolder, config = _find_config(source)
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in CLASSES:
        raise ConfigError(f"--autoencoder {source}: its config.json is of another class: {refusal(class_name)}")
    spec = _source(source, class_name, subfolder, f or 1, c or 1)
    return spec if f and c else spec.model_copy(update=_probe_shape(spec, f, c))


def _find_config(source: str) -> tuple[str, dict[str, Any]]:
    """The subfolder of a source that holds its autoencoder, and the config there. Raises :class:`WeightsError`."""
    for subfolder in ("", *AUTOENCODER_FOLDERS):
        with suppress(hub.NoSuchFile):
            return subfolder, read_config(_source(source, subfolder=subfolder))
    return AUTOENCODER_FOLDERS[0], read_config(_source(source, subfolder=AUTOENCODER_FOLDERS[0]))


def _probe_shape(spec: CustomSpec | DiffusersSpec, f: int | None, c: int | None) -> dict[str, Any]:
    """Find compression and latent channels by encoding a grey image; ``f`` and ``c`` win where they are given.

    The result also says where a class of the user's returns tokens without a grid.

    Raises :class:`ConfigError`.
    """
    import torch

    from dcae_bench.models.diffusers_autoencoder import DiffusersAutoencoder
    from dcae_bench.models.external import CustomAutoencoder

    model = CustomAutoencoder(spec) if isinstance(spec, CustomSpec) else DiffusersAutoencoder(spec)
    side = model.eval().side or PROBE_SIDE
    name = spec.class_name if isinstance(spec, CustomSpec) else spec.source
    try:
        with torch.inference_mode():
            z = model.raw_latent(torch.zeros(1, 3, side, side))
    except ConfigError as error:
        raise ConfigError(f"--autoencoder {error}") from error
    except Exception as error:  # code of the user may raise any error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--autoencoder {name}: encoding {side} px to find f and c failed ({reason}); if it takes other images, "
            "state --f and --c"
        ) from error
    if z.ndim and len(z) != 1:
        raise ConfigError(
            f"--autoencoder {name}: encode turned 1 image into {tuple(z.shape)}; return the latents of a batch as one "
            "tensor whose first axis is the batch"
        )
    if z.ndim == 3 and isinstance(spec, CustomSpec):
        return {"compression": f or 1, "latent_channels": c or z.shape[2], "grid": False}
    if z.ndim != 4:
        raise ConfigError(
            f"--autoencoder {name}: encode returned a tensor of shape {tuple(z.shape)}, which is no latent; return "
            "(n, c, H/f, W/f), or (n, tokens, c) for a latent without a grid"
        )
    channels, cells = z.shape[1], z.shape[-1]
    if not cells or side % cells:
        raise ConfigError(f"--autoencoder {name}: {side} px became a latent of {cells}; state --f and --c")
    return {"compression": f or side // cells, "latent_channels": c or channels}
