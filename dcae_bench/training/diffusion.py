"""Training of a denoiser: one row of a profile's diffusion part, on the training loop."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError, WeightsError
from dcae_bench.base.files import write_bytes
from dcae_bench.data.latent_batches import LatentBatch, LatentBatches
from dcae_bench.data.latents import Latents, require_latents_of_row
from dcae_bench.diffusion.decode import decode
from dcae_bench.diffusion.noise import SampleNoise
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.execution.blocks import checkpoint_blocks, compile_blocks
from dcae_bench.execution.sharding import load_model, load_optimizer
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.denoiser_checkpoints import load_denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import TrainedRow
from dcae_bench.training.loop import Loop, LoopSpec
from dcae_bench.training.phases import EMA, freeze_layers, make_optimizer, set_learning_rate

QUARTERS = 4
"""Parts of the range of times for which the log holds a loss each."""


@dataclass(frozen=True)
class DiffusionRun:
    """One denoiser: its resolved row, its latents, the autoencoder for its previews, and the folder of its state."""

    profile: Profile
    resolved: TrainedRow
    latents: Latents
    autoencoder: Autoencoder
    directory: Path
    recipe_sha256: str
    initial: Path | None = None
    """Weights that the training starts from; None: random weights."""


class DiffusionTrainer(Loop):
    """Trains one denoiser."""

    def __init__(self, run: DiffusionRun):
        """Build model and optimiser, and load the run's last checkpoint.

        Raises :class:`WeightsError` if the initial weights do not fit, :class:`ConfigError` for layers that cannot be
        frozen, and :class:`TrainingError` for a checkpoint of another recipe.
        """
        profile, resolved, training = run.profile, run.resolved, run.resolved.training
        self.run = run
        super().__init__(
            LoopSpec(
                name=f"row {resolved.name}",
                directory=run.directory,
                recipe_sha256=run.recipe_sha256,
                images=resolved.spec.images,
                batch_size=training.batch_size,
                checkpoint_images=training.checkpoint_images,
                log_images=training.log_images,
            ),
            profile,
            training.precision or profile.precision,
        )
        self.process = build_process(training.process)
        model = build_denoiser(resolved.denoiser, seed=profile.seed)
        if run.initial is not None:
            load_denoiser(model, run.initial)
        self.kept = freeze_layers(model, training.freeze, family=resolved.denoiser.family)
        """Layers that stay in evaluation mode."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f"freeze {', '.join(training.freeze)}: leaves nothing to train; freeze fewer layers")
        model.to(self.device)
        if training.execution.compile:
            compile_blocks(model)
        if training.execution.checkpoint_activations:
            checkpoint_blocks(model)
        self.model = self.distribute(model)
        self.ema = EMA(model, training.ema)
        self.optimizer = self.accelerator.prepare(make_optimizer(model.parameters(), training.optimizer))
        self.batches = LatentBatches(
            run.latents,
            profile.seed,
            share=self.share,
            stride=training.batch_size,
            end=resolved.spec.images,
            label_dropout=training.label_dropout,
            pin=self.device.type == "cuda",
            # Drawing and reading release Python's lock most of the time. More than four threads would wait for it.
            threads=min(4, profile.threads),
        )
        self.begin()

    @property
    def denoiser(self) -> Denoiser:
        """The model without distributed training's wrapper."""
        return self.accelerator.unwrap_model(self.model)

    def close(self) -> None:
        """Stop the threads that read latents."""
        self.batches.close()

    def step(self) -> dict[str, float]:
        """Train on one batch, in ``accumulate`` parts whose gradients are averaged, and return its values for the log.

        The values contain the mean loss and the mean loss of each quarter of the times that the batch has samples in;
        ``loss_t1`` is the quarter of the lowest times.
        """
        training = self.run.resolved.training
        self.model.train()
        for layer in self.kept:
            layer.eval()
        end = self.images + training.batch_size
        lr = set_learning_rate(self.optimizer, training.optimizer, end, self.spec.images)
        batch = self.batches(self.images + self.accelerator.process_index * self.share)
        losses = []
        for number, part in enumerate(batch.chunk(training.accumulate)):
            with self.part(number, training.accumulate, self.model):
                each = self.losses(part.to(self.device))
                losses.append(each.detach())
                self.accelerator.backward(each.mean() / training.accumulate)
        whole = self.accelerator.gather((torch.cat(losses), batch.uniform.to(self.device)))
        values = loss_by_quarter(*(tensor.cpu() for tensor in whole))
        self.require_finite(values)
        values["lr"] = lr
        values["grad_norm"] = self.clip(self.model, training.optimizer)
        # In fp16 a scaled gradient may be infinite; the gradient scaler then skips the step and lowers its scale.
        if self.accelerator.scaler is None:
            self.require_finite(values)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.images = end
        self.ema.update(self.denoiser, end // training.batch_size)
        return values

    def losses(self, batch: LatentBatch) -> Tensor:
        """Loss of each latent of a batch (n,)."""
        return self.process.loss(self.model, batch.x0, self.process.times(batch.uniform), batch.noise, batch.labels)

    def previews(self) -> None:
        """Write previews sampled from the averaged weights."""
        if self.run.resolved.training.previews:
            average = self.whole(self.ema.state)
            if self.accelerator.is_main_process:
                self.preview(average)

    def preview(self, average: dict[str, Tensor]) -> None:
        """Sample a few latents from the averaged weights, decode them, and write the images (k, H, W, 3)."""
        resolved, count = self.run.resolved, self.run.resolved.training.previews
        with torch.device("meta"):
            model = build_denoiser(resolved.denoiser)
        # The model uses the average's own tensors, to save memory.
        model.load_state_dict({key: value.to(self.device) for key, value in average.items()}, assign=True)
        noise = SampleNoise(self.run.profile.seed, range(count), self.run.latents.manifest.shape, self.device)
        classes = resolved.denoiser.classes
        labels = None if classes is None else torch.arange(count, device=self.device) % classes
        try:
            latents = sample(
                model.eval(), self.process, resolved.training.chosen_sampler, noise, labels, resolved.guidance[0]
            )
        except WeightsError:
            # Samples from early weights may not be finite. That does not stop the training, because the loss is the
            # better sign of divergence; the previews decode zeros instead.
            latents = torch.zeros((count, *self.run.latents.manifest.shape), device=self.device)
        images = decode(self.run.autoencoder.to(self.device), latents, self.run.latents.manifest)
        buffer = io.BytesIO()
        np.save(buffer, images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        write_bytes(self.preview_path(self.images), buffer.getvalue())

    def preview_path(self, images: int) -> Path:
        """Path of the previews that are sampled after ``images`` images."""
        return self.run.directory / f"preview-{images}.npy"

    def state(self, seconds: float) -> dict[str, Any]:
        """The loop's state, and the denoiser's weights, average and optimiser."""
        return {
            **super().state(seconds),
            "model": self.denoiser.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        super().load_state(state)
        load_model(self.denoiser, state["model"])
        self.ema.load(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])


def loss_by_quarter(losses: Tensor, uniform: Tensor) -> dict[str, float]:
    """Mean of losses (n,), over all samples and over each quarter of the times that has samples.

    ``uniform`` (n,) are the numbers in [0, 1) that the samples' times were made from.
    """
    quarter = (uniform * QUARTERS).long().clamp(max=QUARTERS - 1)
    parts = {f"loss_t{q + 1}": losses[quarter == q] for q in range(QUARTERS)}
    return {"loss": losses.mean().item()} | {name: part.mean().item() for name, part in parts.items() if len(part)}


def require_fit(latents: Latents, profile: Profile, resolved: TrainedRow) -> None:
    """Check that a cache holds the latents that a row learns from, with labels of its classes.

    Raises :class:`DataError`.
    """
    manifest = latents.manifest
    require_latents_of_row(manifest, profile, resolved, latents.folder)
    if manifest.classes is not None:
        labels = latents.labels
        if bad := int(((labels < 0) | (labels >= manifest.classes)).sum()):
            wrong = labels[(labels < 0) | (labels >= manifest.classes)][0]
            raise DataError(
                f"{latents.folder}: {bad} labels are outside of 0 to {manifest.classes - 1} (the first is {wrong}); "
                "correct 'classes' and encode again"
            )
