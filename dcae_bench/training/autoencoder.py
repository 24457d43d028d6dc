"""Training an autoencoder: one phase on the common loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcae_bench.config import Profile
from dcae_bench.data.batches import TrainBatches
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.zoo import build
from dcae_bench.training.batch_norm import share_batch_norms
from dcae_bench.training.blocks import checkpoint_blocks, compile_blocks
from dcae_bench.training.discriminator import build_discriminator
from dcae_bench.training.loop import Loop, LoopSpec
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import EMA, Freezer, make_optimizer, set_learning_rate
from dcae_bench.training_spec import PhaseSpec


@dataclass(frozen=True)
class PhaseRun:
    """One phase of one autoencoder: its plan, its data, where it starts and where its state lives."""

    profile: Profile
    autoencoder: str
    phase: int
    photos: PhotoSet
    initial: Path | None
    directory: Path
    recipe_sha256: str
    readers: int = 0
    """Threads that decode photographs ahead."""

    @property
    def plan(self) -> PhaseSpec:
        """The phase's part of the profile."""
        return self.profile.phase(self.autoencoder, self.phase)


class Trainer(Loop):
    """Trains one phase."""

    def __init__(self, run: PhaseRun):
        """Build models and optimisers and pick up the run's last checkpoint.

        Raises :class:`WeightsError` if the initial weights do not fit, :class:`TrainingError` if the checkpoint is of
        another recipe.
        """
        profile, plan = run.profile, run.plan
        self.run, self.plan = run, plan
        super().__init__(
            LoopSpec(
                name=f"{run.autoencoder}, phase {run.phase}",
                directory=run.directory,
                recipe_sha256=run.recipe_sha256,
                images=plan.images,
                batch_size=plan.batch_size,
                checkpoint_images=profile.training.checkpoint_images,
                log_images=profile.training.log_images,
            ),
            profile,
            profile.precision,
        )
        model = build(profile.autoencoders[run.autoencoder].model, seed=profile.seed)
        if run.initial is not None:
            load_weights(model, run.initial)
        if self.accelerator.num_processes > 1:
            share_batch_norms(model)
        self.freezer = Freezer(model, plan.trainable)
        execution = profile.training.execution
        self.memory_format = torch.channels_last if execution.channels_last else torch.contiguous_format
        self.ema = EMA(model.to(self.device, memory_format=self.memory_format), profile.training.ema)
        if execution.compile:
            compile_blocks(model)
        if execution.checkpoint_activations:
            checkpoint_blocks(model)
        optimizer = make_optimizer(model.parameters(), plan.optimizer)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

        self.discriminator: nn.Module | None = None
        if plan.gan is not None:
            discriminator = build_discriminator(plan.gan.discriminator, seed=profile.seed)
            if self.accelerator.num_processes > 1:
                share_batch_norms(discriminator)
            d_optimizer = make_optimizer(discriminator.parameters(), plan.gan.optimizer)
            self.discriminator, self.d_optimizer = self.accelerator.prepare(discriminator, d_optimizer)
        self.objective = Objective(
            self.model,
            ReconstructionLoss(profile.training.loss).to(self.device),
            gan=plan.gan,
            discriminator=self.discriminator,
            autoencoder=self.autoencoder,
            autocast=self.accelerator.autocast,
            over_processes=self.over_processes,
        )

        # Each phase sees crops of its own, the same for every autoencoder.
        crop_seed = int(np.random.SeedSequence([profile.seed, run.phase]).generate_state(1)[0])
        self.batches = TrainBatches(
            run.photos,
            crop_seed,
            # Parts are the same images for every number of processes: a BatchNorm sees those of a part together.
            share=self.share // plan.accumulate,
            stride=plan.batch_size // plan.accumulate,
            end=plan.images,
            resolution=plan.resolution,
            crop=plan.crop,
            threads=run.readers,
        )
        self.begin()

    @property
    def autoencoder(self) -> Autoencoder:
        """The bare model, without what distributed training wraps around it."""
        return self.accelerator.unwrap_model(self.model)

    def close(self) -> None:
        """Stop reading ahead."""
        self.batches.close()

    def step(self) -> dict[str, float]:
        """One batch: losses and gradients of both nets, then both updates, so that a bad batch changes nothing.

        With ``accumulate`` n the batch goes through in n parts, and gradients and logged losses are the parts' means.
        That is the whole batch's gradient up to rounding wherever images are computed apart. A BatchNorm in training
        mode sees one part at a time: it normalises by each part's statistics and moves its averages n times. LDM's
        adaptive GAN weight, a ratio of norms, is taken per part too. A part is that of all processes together.
        """
        plan, gan = self.plan, self.plan.gan
        self.freezer.train_mode()
        kept = [(buffer, buffer.clone()) for buffer in self.buffers()]
        end = self.images + plan.batch_size
        lr = set_learning_rate(self.optimizer, plan.optimizer, end)
        if gan is not None:
            set_learning_rate(self.d_optimizer, gan.optimizer, end)
        values: dict[str, float] = {}
        nets = [self.model] if self.discriminator is None else [self.model, self.discriminator]
        for number in range(plan.accumulate):
            images = self.batch(number)
            with self.part(number, plan.accumulate, *nets):
                loss, d_loss, parts = self.objective(images)
                parts = {"loss": loss.detach(), **parts}
                means = self.over_processes(torch.stack([*parts.values()])).tolist()
                for name, mean in zip(parts, means, strict=True):
                    values[name] = values.get(name, 0.0) + mean / plan.accumulate
                self.require_finite(values, kept)
                self.accelerator.backward(loss / plan.accumulate)
                if d_loss is not None:
                    self.accelerator.backward(d_loss / plan.accumulate)
        values["lr"] = lr
        values["grad_norm"] = self.clip(self.model, plan.optimizer)
        if gan is not None:
            values["disc_grad_norm"] = self.clip(self.discriminator, gan.optimizer)
        # A scaler (fp16) meets infinite gradients now and then, skips the step and lowers its scale.
        if self.accelerator.scaler is None:
            self.require_finite(values, kept)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if gan is not None:
            self.d_optimizer.step()
            self.d_optimizer.zero_grad(set_to_none=True)
        self.images = end
        self.ema.update(self.autoencoder, end // plan.batch_size)
        return values

    def batch(self, part: int = 0) -> Tensor:
        """What this process has of a part of the next batch: (batch / accumulate / processes, 3, R, R) in [-1, 1]."""
        plan = self.plan
        share = self.share // plan.accumulate
        first = self.images + part * (plan.batch_size // plan.accumulate) + self.accelerator.process_index * share
        return self.batches(first).to(self.device, memory_format=self.memory_format)

    def buffers(self) -> list[Tensor]:
        """State that a forward pass moves: BatchNorm's statistics of both nets."""
        return [*self.model.buffers(), *(self.discriminator.buffers() if self.discriminator is not None else ())]

    def state(self, seconds: float) -> dict[str, Any]:
        """Everything an unbroken run would have at this image."""
        state = {
            **super().state(seconds),
            "model": self.autoencoder.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.discriminator is not None:
            state["discriminator"] = self.accelerator.unwrap_model(self.discriminator).state_dict()
            state["d_optimizer"] = self.d_optimizer.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        super().load_state(state)
        self.autoencoder.load_state_dict(state["model"])
        self.ema.load(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminator is not None:
            self.accelerator.unwrap_model(self.discriminator).load_state_dict(state["discriminator"])
            self.d_optimizer.load_state_dict(state["d_optimizer"])
