"""What the user asked to evaluate: a name of the profile or of the catalogue, or an autoencoder of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dcae_bench import hub, weights
from dcae_bench.config import AutoencoderEntry, Profile
from dcae_bench.diffusers_source import read_config
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation_spec import EvaluationSet
from dcae_bench.own import own_weights
from dcae_bench.presets import catalogue
from dcae_bench.records import WeightsSource
from dcae_bench.specs import AutoencoderSpec, CustomSpec, DiffusersSpec

CLASS = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
PROBE_SIDE = 256


@dataclass(frozen=True)
class Chosen:
    """A profile that has the autoencoder, its name there, and the weights to load."""

    profile: Profile
    name: str
    weights: Path | None
    source: WeightsSource


def choose(
    profile: Profile,
    wanted: str,
    file: Path | None,
    *,
    f: int | None = None,
    c: int | None = None,
    sets: Sequence[EvaluationSet] | None = None,
) -> Chosen:
    """Find an autoencoder by what the user wrote.

    In this order: a name of the profile, a name of the catalogue, ``module:Class``, a local diffusers folder, a hub id.
    ``f`` and ``c`` state the compression and latent channels of the last three; without them they are probed by
    encoding one grey image. ``file`` overrides the weights that come with the autoencoder. ``sets`` are those that it
    is measured on, by default all of the profile. Raises :class:`ConfigError` and :class:`WeightsError`.
    """
    sets = profile.evaluation.sets if sets is None else sets
    own = f is not None or c is not None
    if wanted in profile.autoencoders:
        _refuse_shape(own, wanted)
        return _of_profile(profile, wanted, file)
    if wanted in catalogue().autoencoders:
        _refuse_shape(own, wanted)
        return _of_catalogue(profile, wanted, file, sets)
    spec: AutoencoderSpec
    if CLASS.match(wanted):
        f, c = (f, c) if f and c else _probe(CustomSpec(**_custom(wanted, f or 1, c or 1)), f, c)
        spec = CustomSpec(**_custom(wanted, f, c))
    elif Path(wanted).expanduser().is_dir() or hub.HUB_ID.match(wanted):
        spec = _diffusers(wanted, f, c)
    else:
        known = ", ".join(profile.autoencoders)
        raise ConfigError(
            f"--autoencoder {wanted}: profile {profile.name} has no such autoencoder (it has {known}), nor has the "
            "catalogue (dcae-bench zoo), and it is no module:Class, diffusers folder or hub id (owner/name)"
        )
    return _own(profile, wanted, spec, file, sets)


def _refuse_shape(given: bool, name: str) -> None:
    if given:
        raise ConfigError(f"--f and --c do not apply to {name}: its model spec states both; leave them out")


def _of_profile(profile: Profile, name: str, file: Path | None) -> Chosen:
    entry = profile.autoencoders[name]
    spec = entry.model
    if entry.weights == "released":
        return Chosen(profile, name, file or weights.locate(name).path, "own" if file else "released")
    if entry.weights == "own":
        return Chosen(profile, name, file or own_weights(entry), "own")
    if file is not None:
        return Chosen(profile, name, file, "retrained")
    if isinstance(spec, DiffusersSpec | CustomSpec):  # before any phase, as its source or its class has it
        return Chosen(profile, name, own_weights(entry), "own")
    raise ConfigError(f"--weights is missing: {name} of profile {profile.name} has no weights of its own")


def _of_catalogue(profile: Profile, name: str, file: Path | None, sets: Sequence[EvaluationSet]) -> Chosen:
    plan = _with(profile, name, catalogue().spec(name), sets)
    if file is not None:
        return Chosen(plan, name, file, "own")
    return Chosen(plan, name, weights.locate(name).path, "released")


def _own(
    profile: Profile, wanted: str, spec: AutoencoderSpec, file: Path | None, sets: Sequence[EvaluationSet]
) -> Chosen:
    name = re.sub(r"[^a-z0-9.-]+", "-", wanted.lower()).strip("-.") or "own"
    plan = _with(profile, name, spec, sets)
    return Chosen(plan, name, file or own_weights(plan.autoencoders[name]), "own")


def _with(profile: Profile, name: str, spec: AutoencoderSpec, sets: Sequence[EvaluationSet]) -> Profile:
    """The profile with one more autoencoder, whose f fits ``sets``. Raises :class:`ConfigError`."""
    for item in sets:
        if item.resolution % spec.compression:
            raise ConfigError(
                f"--autoencoder {name}: resolution {item.resolution} of evaluation set {item.label} is not a multiple "
                f"of {spec.compression}, its f; name other sets with --set, or another profile"
            )
    entries = {**profile.autoencoders, name: AutoencoderEntry(model=spec)}
    return profile.model_copy(update={"autoencoders": entries})


def _custom(class_name: str, f: int, c: int) -> dict[str, object]:
    return {"family": "custom", "class_name": class_name, "compression": f, "latent_channels": c}


def _diffusers(source: str, f: int | None, c: int | None) -> DiffusersSpec:
    """A spec from a source's own config.json; a pipeline's autoencoder is looked for in its folder ``vae``."""

    def draft(class_name: str, subfolder: str) -> DiffusersSpec:
        fields = {"source": source, "class_name": class_name, "subfolder": subfolder}
        return DiffusersSpec(family="diffusers", compression=f or 1, latent_channels=c or 1, **fields)

    subfolder = ""
    try:
        config = read_config(draft("AutoencoderKL", ""))
    except hub.NoSuchFile:
        config = read_config(draft("AutoencoderKL", subfolder := "vae"))
    known = DiffusersSpec.model_fields["class_name"].annotation.__args__
    if (class_name := config.get("_class_name")) not in known:
        raise ConfigError(f"--autoencoder {source}: its config.json is of {class_name}, not of {', '.join(known)}")
    spec = draft(class_name, subfolder)
    f, c = (f, c) if f and c else _probe(spec, f, c)
    return spec.model_copy(update={"compression": f, "latent_channels": c})


def _probe(spec: CustomSpec | DiffusersSpec, f: int | None, c: int | None) -> tuple[int, int]:
    """Compression and latent channels as the latent of one grey image shows them. Raises :class:`ConfigError`."""
    import torch

    from dcae_bench.models.external import latent_of
    from dcae_bench.models.zoo import build

    net = build(spec).eval().net
    name = spec.class_name if isinstance(spec, CustomSpec) else spec.source
    try:
        with torch.inference_mode():
            z = latent_of(net.encode(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE)))
        channels, side = z.shape[1], z.shape[-1]
    except Exception as error:  # the user's own code may fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--autoencoder {name}: encoding {PROBE_SIDE} px to find f and c failed ({reason}); state --f and --c"
        ) from error
    if not side or PROBE_SIDE % side:
        raise ConfigError(f"--autoencoder {name}: {PROBE_SIDE} px became a latent of {side}; state --f and --c")
    return f or PROBE_SIDE // side, c or channels
