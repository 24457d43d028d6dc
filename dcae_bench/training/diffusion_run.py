"""The run of a denoiser's training: from cached latents to finished weights, log, previews and record."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import sha256_json, write_bytes
from dcae_bench.base.reading import load_array
from dcae_bench.base.terminal import Console
from dcae_bench.data.latents import LatentManifest, Latents, require_latents_of_weights
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.weight_files import weights_sha256
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import denoiser_recipe, diffusion_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Stopwatch, collect
from dcae_bench.records.record import Data, Metric, Record, save
from dcae_bench.records.subject import DenoiserSubject, Subject
from dcae_bench.running import device
from dcae_bench.specs.latent_scale import told
from dcae_bench.specs.protocols import DIFFUSION
from dcae_bench.subjects.denoisers import describe_denoiser, open_decoder, scale_of_others
from dcae_bench.subjects.initial import find_initial
from dcae_bench.training.diffusion import QUARTERS, DiffusionRun, DiffusionTrainer, require_fit
from dcae_bench.training.finished import remove_state, skip_if_finished
from dcae_bench.training.log import read_log
from dcae_bench.training.phases import frozen_settings
from dcae_bench.training.progress import train_with_progress
from dcae_bench.training.run_folder import keep_recipe, sole_training
from dcae_bench.weights.trained import TrainedWeights, model_sha256

FLOP_PER_MAC = 6
"""FLOPs of a training step for each multiply-accumulate of the forward pass: two in the forward pass, four in the
backward pass. Recomputed activations are not counted."""


def train_diffusion(
    profile: Profile, row: str, *, latents: Path, output: Path, run_dir: Path, autoencoder: Path | None = None
) -> None:
    """Train one row and write ``output`` (safetensors) with ``log.jsonl``, ``preview.npy`` and ``record.json``.

    ``latents`` is the folder of cached latents to train on. ``autoencoder`` is the path of the weights that encoded the
    latents; they decode previews. Released weights and the user's own need no path. ``preview.npy`` is uint8
    (checkpoints, k, H, W, 3). ``run_dir`` holds the state of an unfinished run, which is deleted when the training is
    finished. A training that is already finished is left as it is. Raises :class:`ConfigError`, :class:`DataError`,
    :class:`WeightsError`, :class:`TrainingError` and :class:`ResultsError`.
    """
    resolved, cache = profile.trained_row(row), Latents(latents)
    model, subject = open_decoder(profile, resolved, autoencoder)
    require_latents_of_weights(cache.manifest, subject.weights_sha256, cache.folder)
    require_fit(cache, profile, resolved)
    wanted = resolved.spec.initial
    initial = find_initial(wanted, "denoiser", f"rows.{row}.initial") if wanted is not None else None
    recipe = {
        **diffusion_recipe(profile, row),
        **({"initial": weights_sha256(initial.path)} if initial is not None else {}),
        "cache": cache_key(cache.manifest),
        "code": fingerprint(__name__),
    }
    recipe_sha256 = sha256_json(recipe)
    # One folder per recipe: a changed recipe starts a new run, and changing it back continues the old run.
    directory = run_dir / recipe_sha256[:12]
    beside = ("log.jsonl", "preview.npy") if resolved.training.previews else ("log.jsonl",)
    with sole_training(output, directory):
        if skip_if_finished(f"row {row}", output, directory, recipe_sha256, beside):
            return
        start = initial.path if initial is not None else None
        run = DiffusionRun(profile, resolved, cache, model, directory, recipe_sha256, start)
        trainer = DiffusionTrainer(run)
        keep_recipe(f"row {row}", directory, recipe)
        clock = Stopwatch(trainer.seconds_before)
        console = Console(stderr=True, quiet=not trainer.accelerator.is_main_process)
        if initial is not None and (other := scale_of_others(initial, cache.manifest)) is not None:
            console.print(f"row {row}: {other}", soft_wrap=True)
        if trainer.images:
            console.print(f"row {row}: resumed at image {trainer.images} of {resolved.spec.images}")
        train_with_progress(trainer, clock, console)
        if trainer.accelerator.is_main_process:
            written = save_weights(trainer.average, output, trained=_statement(run))
            described = describe_denoiser(resolved, written)
            if initial is not None:
                described = described.model_copy(update={"initial_sha256": recipe["initial"]})
            record = _record(trainer, clock, subject, recipe, described)
            write_bytes(output.parent / "log.jsonl", (run.directory / "log.jsonl").read_bytes())
            if resolved.training.previews:
                _write_previews(trainer, output.parent / "preview.npy")
            # The record is written last, so that a record never exists without the other files.
            save(record, output.parent / "record.json")
            remove_state(directory)
            console.print(
                f"row {row}: {resolved.spec.images} images in {clock.seconds:.0f} s -> {output}", soft_wrap=True
            )


def cache_key(manifest: LatentManifest) -> list[object]:
    """What of a cache shapes a training: its numbers and their scale."""
    # Without a shift the list has none, so that hashes from before it stay valid.
    shift = [manifest.shift] if manifest.shift != 0.0 else []
    return [manifest.sha256, manifest.labels_sha256, manifest.scaling_factor, *shift]


def _statement(run: DiffusionRun) -> TrainedWeights:
    """What the weights will say of themselves."""
    manifest = run.latents.manifest
    return TrainedWeights(
        kind="denoiser",
        name=run.resolved.name,
        model_sha256=model_sha256(run.resolved.denoiser),
        latents_sha256=manifest.sha256,
        scaling_factor=manifest.scaling_factor,
        shift=manifest.shift,
    )


def _record(
    trainer: DiffusionTrainer, clock: Stopwatch, subject: Subject, recipe: dict[str, Any], denoiser: DenoiserSubject
) -> Record:
    run = trainer.run
    resolved, manifest, images = run.resolved, run.latents.manifest, run.resolved.spec.images
    lines = read_log(run.directory / "log.jsonl")
    tail = lines[-max(1, len(lines) // 10) :]
    note = f"mean over the last {len(tail) * resolved.training.log_images} images, weights before averaging"
    metrics = {}
    for name in ("loss", *(f"loss_t{q + 1}" for q in range(QUARTERS))):
        values = [line[name] for line in tail if name in line]
        if values:
            label = "loss" if name == "loss" else f"loss, quarter {name[-1]} of the times"
            metrics[name] = Metric(label=label, value=sum(values) / len(values), better="lower", notes=(note,))
    flops = FLOP_PER_MAC * denoiser.gmacs * 1e9
    metrics["flops_per_image"] = Metric(label="training FLOPs per image", value=flops, unit="FLOP")
    metrics["training_flops"] = Metric(label="training FLOPs", value=flops * images, unit="FLOP")
    metrics["images_per_s"] = Metric(
        label="training speed",
        value=images / clock.seconds,
        better="higher",
        unit="img/s",
        notes=("whole loop with data, previews, checkpoints and logging; not a throughput protocol",),
    )
    metrics["waiting"] = Metric(
        label="time spent waiting for latents",
        value=100 * trainer.batches.waited_s / (clock.seconds - trainer.seconds_before),
        better="lower",
        unit="%",
        notes=("of the first process, since the last interruption",),
    )
    return Record(
        kind="diffusion_training",
        profile=run.profile.name,
        protocol=DIFFUSION,
        subject=subject,
        denoiser=denoiser,
        data=Data(
            name="+".join(manifest.datasets),
            split=manifest.split,
            resolution=manifest.resolution,
            images=images,
            sha256=manifest.data_sha256,
        ),
        metrics=metrics,
        settings={
            "precision": resolved.training.precision or run.profile.precision,
            "scaling_factor": f"{told(manifest.scaling_factor)} ({manifest.scaling})",
            **frozen_settings(trainer.denoiser, resolved.training.freeze),
            "posterior": manifest.posterior,
            "flips": "yes" if manifest.flips else "no",
            **run.profile.layout,
        },
        provenance=collect(
            code=fingerprint(__name__),
            config=recipe,
            recipe=denoiser_recipe(run.profile, resolved.name),
            seed=run.profile.seed,
            device=device.describe(trainer.device, run.profile, run.profile.world),
            clock=clock,
        ),
    )


def _write_previews(trainer: DiffusionTrainer, path: Path) -> None:
    """Write the previews of all checkpoints in order, uint8 (checkpoints, k, H, W, 3)."""
    every, images = trainer.spec.checkpoint_images, trainer.spec.images
    at = sorted({*range(every, images + 1, every), images})
    buffer = io.BytesIO()
    np.save(buffer, np.stack([_preview(trainer.preview_path(number)) for number in at]))
    write_bytes(path, buffer.getvalue())


def _preview(path: Path) -> np.ndarray:
    try:
        return load_array(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read ({error}); delete {path.parent} to train the row again") from error
