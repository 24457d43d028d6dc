"""A denoiser from cached latents to finished weights, log, previews and record."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dcae_bench import device
from dcae_bench.config import Profile
from dcae_bench.data.latents import Latents, require_weights
from dcae_bench.diffusion_plan import ReleasedPlan, RowPlan
from dcae_bench.files import sha256_json, write_bytes
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.cost import denoiser_cost
from dcae_bench.models.opening import open_model
from dcae_bench.own import profile_weights
from dcae_bench.provenance import Stopwatch, collect, fingerprint
from dcae_bench.records import Data, Denoiser, Metric, Record, Subject, save
from dcae_bench.training import DIFFUSION_CODE
from dcae_bench.training.diffusion import QUARTILES, DiffusionRun, DiffusionTrainer
from dcae_bench.training.finished import clear, finished_before
from dcae_bench.training.log import read_log
from dcae_bench.training.progress import with_progress

PROTOCOL = "training/diffusion-v1"
FLOP_PER_MAC = 6
"""Of a training step: two in the forward pass and four in the backward one; computing activations again not counted."""


def train_diffusion(
    profile: Profile, row: str, *, latents: Path, output: Path, run_dir: Path, autoencoder: Path | None = None
) -> None:
    """Train one row and write ``output`` (safetensors) with ``log.jsonl``, ``preview.npy`` and ``record.json``.

    ``latents`` is the cache to learn from, ``autoencoder`` the weights that made it, which decode previews; released
    ones and the user's own are found by name. ``preview.npy`` is uint8 (checkpoints, k, H, W, 3). ``run_dir`` holds the
    state of an unfinished run, which goes when it is finished; a finished one is left as it is. Raises
    :class:`ConfigError`, :class:`DataError`, :class:`WeightsError`, :class:`TrainingError` and :class:`ResultsError`.
    """
    plan, cache = profile.trained_row(row), Latents(latents)
    model, subject = open_autoencoder(profile, plan, autoencoder)
    require_weights(cache.manifest, subject.weights_sha256, cache.folder)
    recipe = {
        **profile.diffusion_recipe(row),
        "cache": [cache.manifest.sha256, cache.manifest.labels_sha256, cache.manifest.scaling_factor],
        "code": fingerprint(*DIFFUSION_CODE),
    }
    recipe_sha256 = sha256_json(recipe)
    # One folder per recipe: a changed recipe starts afresh, and going back finds the old state.
    directory = run_dir / recipe_sha256[:12]
    beside = ("log.jsonl", "preview.npy") if plan.training.previews else ("log.jsonl",)
    if finished_before(f"row {row}", output, directory, recipe_sha256, beside):
        return
    run = DiffusionRun(profile, plan, cache, model, directory, recipe_sha256)
    trainer = DiffusionTrainer(run)
    clock = Stopwatch(trainer.seconds_before)
    console = Console(stderr=True, quiet=not trainer.accelerator.is_main_process)
    if trainer.images:
        console.print(f"row {row}: resumed at image {trainer.images} of {plan.row.images}")
    with_progress(trainer, clock, console)
    if trainer.accelerator.is_main_process:
        record = _record(trainer, clock, subject, recipe, save_weights(trainer.ema.state, output))
        write_bytes(output.parent / "log.jsonl", (run.directory / "log.jsonl").read_bytes())
        if plan.training.previews:
            _write_previews(trainer, output.parent / "preview.npy")
        # The record comes last, so it never stands alone.
        save(record, output.parent / "record.json")
        clear(directory)
        console.print(f"row {row}: {plan.row.images} images in {clock.seconds:.0f} s -> {output}", soft_wrap=True)


def open_autoencoder(profile: Profile, plan: RowPlan, path: Path | None) -> tuple[Autoencoder, Subject]:
    """The autoencoder of a row in evaluation mode, and what records say of it.

    Raises :class:`ConfigError` where ``path`` is missing for a retrained one, and :class:`WeightsError`.
    """
    source = plan.row.source
    if path is None:
        path = profile_weights(profile, source, "--autoencoder")
    model, weights_sha256 = open_model(plan.autoencoder, path, source.weights)
    return model, describe_autoencoder(profile, plan, model.count_parameters(), weights_sha256)


def describe_autoencoder(profile: Profile, plan: RowPlan, parameters: int, weights_sha256: str) -> Subject:
    """A row's autoencoder as records hold it."""
    source, spec = plan.row.source, plan.autoencoder
    return Subject(
        autoencoder=source.autoencoder,
        family=spec.family,
        compression=spec.compression,
        latent_channels=spec.latent_channels,
        weights_source=source.weights,
        phase=max(profile.phases) if source.weights == "retrained" else None,
        parameters=parameters,
        weights_sha256=weights_sha256,
    )


def describe_denoiser(plan: RowPlan, weights_sha256: str) -> Denoiser:
    """A row's denoiser as records hold it."""
    cost, spec = denoiser_cost(plan.denoiser), plan.denoiser
    released = plan.row.released if isinstance(plan, ReleasedPlan) else None
    return Denoiser(
        row=plan.name,
        name=plan.row.denoiser,
        family=spec.family,
        process=plan.process,
        patch=spec.latent.patch,
        tokens=spec.latent.tokens,
        classes=spec.classes,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        weights_sha256=weights_sha256,
        weights_source="retrained" if released is None else "released",
        released=released,
    )


def _record(
    trainer: DiffusionTrainer, clock: Stopwatch, subject: Subject, recipe: dict[str, Any], weights_sha256: str
) -> Record:
    run = trainer.run
    plan, manifest, images = run.plan, run.latents.manifest, run.plan.row.images
    lines = read_log(run.directory / "log.jsonl")
    tail = lines[-max(1, len(lines) // 10) :]
    note = f"mean over the last {len(tail) * plan.training.log_images} images, weights before averaging"
    metrics = {}
    for name in ("loss", *(f"loss_t{q + 1}" for q in range(QUARTILES))):
        values = [line[name] for line in tail if name in line]
        if values:
            label = "loss" if name == "loss" else f"loss, quarter {name[-1]} of the times"
            metrics[name] = Metric(label=label, value=sum(values) / len(values), better="lower", notes=(note,))
    denoiser = describe_denoiser(plan, weights_sha256)
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
        protocol=PROTOCOL,
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
            "precision": plan.training.precision or run.profile.precision,
            "scaling_factor": f"{manifest.scaling_factor:.6g} ({manifest.scaling})",
            "posterior": manifest.posterior,
            "flips": "yes" if manifest.flips else "no",
        },
        provenance=collect(
            config=recipe,
            seed=run.profile.seed,
            device=device.describe(trainer.device, run.profile, run.profile.processes),
            clock=clock,
        ),
    )


def _write_previews(trainer: DiffusionTrainer, path: Path) -> None:
    """Previews of all checkpoints in order, uint8 (checkpoints, k, H, W, 3)."""
    every, images = trainer.spec.checkpoint_images, trainer.spec.images
    at = sorted({*range(every, images + 1, every), images})
    buffer = io.BytesIO()
    np.save(buffer, np.stack([np.load(trainer.preview_path(number)) for number in at]))
    write_bytes(path, buffer.getvalue())
