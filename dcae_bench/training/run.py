"""The run of a phase: from photographs to finished weights, log and record."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dcae_bench.base.files import sha256_json, write_text
from dcae_bench.base.terminal import Console
from dcae_bench.data.crops import describe_enlarged
from dcae_bench.data.photo_sets import FilePhotos, JoinedPhotos, TrainingSet, open_training_set
from dcae_bench.extractors.embedded import embedded_sha256
from dcae_bench.extractors.lpips import NETS
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.weight_files import weights_sha256
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Device, Stopwatch, collect
from dcae_bench.records.record import Data, Metric, Record, save
from dcae_bench.records.subject import Subject, TrainedPhase
from dcae_bench.running import device
from dcae_bench.specs.autoencoders import PCASpec
from dcae_bench.specs.protocols import COMPONENTS, THREE_PHASES
from dcae_bench.subjects.initial import Initial, find_initial
from dcae_bench.subjects.trained import phases_behind, require_autoencoder, require_description
from dcae_bench.training.autoencoder import PhaseRun, PhaseTrainer
from dcae_bench.training.finished import remove_state, skip_if_finished
from dcae_bench.training.fit import fit_components
from dcae_bench.training.log import read_log
from dcae_bench.training.phases import frozen_settings
from dcae_bench.training.progress import train_with_progress
from dcae_bench.training.run_folder import is_first_process, keep_recipe, sole_training
from dcae_bench.weights.trained import TrainedWeights, model_sha256


def train_phase(
    profile: Profile,
    autoencoder: str,
    phase: int,
    *,
    data: Path,
    initial: Path | None,
    output: Path,
    run_dir: Path,
) -> None:
    """Train one phase and write ``output`` (safetensors) with ``log.jsonl`` and ``record.json`` beside it.

    ``data`` is the folder of the prepared data sets, ``initial`` the weights of the phase before; the first
    phase starts from those that the profile names, or from random ones. ``run_dir`` holds the state of an unfinished
    run, which is deleted when the phase is finished. A phase that is already finished is left as it is. Raises
    :class:`DataError`, :class:`WeightsError`, :class:`TrainingError` and :class:`ResultsError`.
    """
    if initial is not None:
        trained, before = profile.before(autoencoder, phase) or (autoencoder, None)
        require_autoencoder(initial, trained, profile.autoencoders[autoencoder].model, before)
        require_description(initial)
    named = None
    if initial is None and (wanted := profile.initial_of(autoencoder, phase)) is not None:
        named = find_initial(wanted, "autoencoder", f"autoencoders.{autoencoder}.initial")
    names = profile.training_sets(autoencoder, phase)
    packs = [open_training_set(name, data, profile.pack_short_side) for name in names]
    loss, fitted = profile.required_training.loss, profile.is_fitted(autoencoder)
    recipe = {
        **training_recipe(profile, autoencoder, phase),
        "packs": [pack.sha256 for pack in packs],
        "initial": weights_sha256(start) if (start := named.path if named else initial) else None,
        "lpips": embedded_sha256(NETS[loss.lpips_net]) if loss.lpips and not fitted else None,
        "code": fingerprint(__name__),
    }
    recipe_sha256 = sha256_json(recipe)
    # One folder per recipe: a changed recipe starts a new run, and changing it back continues the old run.
    directory = run_dir / recipe_sha256[:12]
    name = f"{autoencoder}, phase {phase}"
    with sole_training(output, directory):
        if skip_if_finished(name, output, directory, recipe_sha256):
            return
        spec, model = profile.phase(autoencoder, phase), profile.autoencoders[autoencoder].model
        photos = JoinedPhotos(packs, spec.min_side)
        console = Console(stderr=True, quiet=not is_first_process())
        enlarged = describe_enlarged(photos.sides, spec.resolution, spec.crop)
        if enlarged is not None:
            remedy = f"'min_side: {spec.resolution}' of the phase leaves them out"
            console.print(f"{name}: {enlarged}; {remedy}", soft_wrap=True)
        settings = {"crop": spec.crop, **({"enlarged": enlarged} if enlarged else {})}
        if isinstance(model, PCASpec):
            clock = Stopwatch()
            components, explained = fit_components(profile, autoencoder, model, phase, photos)
            finished = _Finished(
                state=components.state_dict(),
                parameters=components.count_parameters(),
                images=model.images,
                phases=(TrainedPhase(phase=phase, datasets=names, images=model.images),),
                log=json.dumps({"images": model.images, "explained": explained}) + "\n",
                protocol=COMPONENTS,
                metrics={"explained": Metric(label="explained variance", value=explained, better="higher")},
                device=device.describe(device.choose(profile), profile),
                clock=clock,
            )
            _write(finished, profile, autoencoder, phase, packs, settings, recipe, output)
            remove_state(directory)
            seen = f"fitted to {model.images} images"
            console.print(f"{name}: {seen} in {clock.seconds:.0f} s -> {output}", soft_wrap=True)
            return
        run = PhaseRun(
            profile=profile,
            autoencoder=autoencoder,
            phase=phase,
            photos=photos,
            initial=named.opened if named else initial,
            directory=directory,
            recipe_sha256=recipe_sha256,
            readers=profile.threads if any(isinstance(pack, FilePhotos) for pack in packs) else 0,
        )
        trainer = PhaseTrainer(run)
        keep_recipe(name, directory, recipe)
        clock = Stopwatch(trainer.seconds_before)
        if trainer.images:
            console.print(f"{name}: resumed at image {trainer.images} of {spec.images}")
        train_with_progress(trainer, clock, console)
        if trainer.accelerator.is_main_process:
            settings |= profile.layout | frozen_settings(trainer.autoencoder, spec.freeze)
            through = _phases(run, names, named)
            _write(_trained(trainer, clock, through), profile, autoencoder, phase, packs, settings, recipe, output)
            remove_state(directory)
            console.print(f"{name}: {spec.images} images in {clock.seconds:.0f} s -> {output}", soft_wrap=True)


@dataclass(frozen=True)
class _Finished:
    """What a finished training or fit leaves, besides what the profile says of it."""

    state: dict[str, Tensor]
    parameters: int
    images: int
    """Images seen."""
    phases: tuple[TrainedPhase, ...] | None
    """Phases that the weights went through; None if nothing is said of those that they started from."""
    log: str
    protocol: str
    metrics: dict[str, Metric]
    device: Device
    clock: Stopwatch


def _trained(trainer: PhaseTrainer, clock: Stopwatch, phases: tuple[TrainedPhase, ...] | None) -> _Finished:
    run = trainer.run
    training = run.profile.required_training
    log = run.directory / "log.jsonl"
    lines = read_log(log)
    tail = lines[-max(1, len(lines) // 10) :]
    labels = {
        "loss": "loss",
        "l1": "L1",
        "lpips": f"LPIPS ({training.loss.lpips_net})",
        "gan": "GAN, autoencoder",
        "disc": "GAN, discriminator",
    }
    note = f"mean over the last {len(tail) * training.log_images} images, weights before averaging"
    metrics = {
        name: Metric(label=label, value=sum(values) / len(values), better="lower", notes=(note,))
        for name, label in labels.items()
        # The discriminator's values begin where it starts, which may be within these lines.
        if (values := [line[name] for line in tail if name in line])
    }
    metrics["images_per_s"] = Metric(
        label="training speed",
        value=run.phase_spec.images / clock.seconds,
        better="higher",
        unit="img/s",
        notes=("whole loop with data, checkpoints and logging; not a throughput protocol",),
    )
    return _Finished(
        state=trainer.average,
        parameters=trainer.autoencoder.count_parameters(),
        images=run.phase_spec.images,
        phases=phases,
        log=log.read_text(encoding="utf-8"),
        protocol=THREE_PHASES,
        metrics=metrics,
        device=device.describe(trainer.device, run.profile, run.profile.world),
        clock=clock,
    )


def _write(
    finished: _Finished,
    profile: Profile,
    autoencoder: str,
    phase: int,
    packs: Sequence[TrainingSet],
    settings: dict[str, str],
    recipe: dict[str, Any],
    output: Path,
) -> None:
    """Write weights and log, and then the record, so that a record never exists without them."""
    spec = profile.autoencoders[autoencoder].model
    trained = TrainedWeights(
        kind="autoencoder",
        name=autoencoder,
        phase=phase,
        model_sha256=model_sha256(spec),
        trained=finished.phases,
    )
    weights_sha256 = save_weights(finished.state, output, trained=trained)
    write_text(output.parent / "log.jsonl", finished.log)
    record = Record(
        kind="training",
        profile=profile.name,
        protocol=finished.protocol,
        subject=Subject(
            autoencoder=autoencoder,
            family=spec.family,
            compression=spec.compression,
            latent_channels=spec.latent_channels,
            weights_source="retrained",
            phase=phase,
            parameters=finished.parameters,
            weights_sha256=weights_sha256,
            variant=profile.variant_of(autoencoder, phase),
            trained=finished.phases,
        ),
        data=Data(
            name="+".join(pack.name for pack in packs),
            split="train",
            resolution=profile.phase(autoencoder, phase).resolution,
            images=finished.images,
            sha256=sha256_json([pack.manifest_sha256 for pack in packs]),
        ),
        metrics=finished.metrics,
        settings=settings,
        provenance=collect(
            code=fingerprint(__name__),
            config=recipe,
            recipe=training_recipe(profile, autoencoder, phase),
            seed=profile.training_seed,
            device=finished.device,
            clock=finished.clock,
        ),
    )
    save(record, output.parent / "record.json")


def _phases(run: PhaseRun, datasets: tuple[str, ...], named: Initial | None) -> tuple[TrainedPhase, ...] | None:
    """Phases that the finished weights went through; None if nothing is said of those of the phase before.

    ``named`` are the weights that the profile lets the first phase start from.
    """
    before = phases_behind(run.initial) if run.initial is not None and named is None else ()
    if before is None:
        return None
    phase = TrainedPhase(
        phase=run.phase,
        datasets=datasets,
        images=run.phase_spec.images,
        initial=named.name if named else None,
        initial_sha256=weights_sha256(named.path) if named else None,
        frozen=run.phase_spec.freeze,
    )
    return (*before, phase)
