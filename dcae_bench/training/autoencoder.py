"""Training of an autoencoder: one phase on the training loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import ConfigError
from dcae_bench.data.batches import TrainBatches
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.execution.batch_norm import share_batch_norms
from dcae_bench.execution.blocks import checkpoint_blocks, compile_blocks
from dcae_bench.execution.sharding import load_model, load_optimizer
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.training import PhaseSpec
from dcae_bench.training.discriminator import build_discriminator
from dcae_bench.training.initial import initialise
from dcae_bench.training.loop import Loop, LoopSpec
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import EMA, Freezer, crop_seed, head_norms, make_optimizer, set_learning_rate


@dataclass(frozen=True)
class PhaseRun:
    """One phase of one autoencoder: its photographs, its initial weights, and the folder of its state."""

    profile: Profile
    autoencoder: str
    phase: int
    photos: PhotoSet
    initial: Path | None
    """Weights that the phase starts from; None starts from random weights."""
    directory: Path
    recipe_sha256: str
    readers: int = 0
    """Threads that decode photographs in advance; 0 decodes them when needed."""

    @property
    def phase_spec(self) -> PhaseSpec:
        """The phase's settings in the profile."""
        return self.profile.phase(self.autoencoder, self.phase)


class PhaseTrainer(Loop):
    """Trains an autoencoder through one phase."""

    def __init__(self, run: PhaseRun):
        """Build models and optimisers, and load the run's last checkpoint.

        Raises :class:`WeightsError` if the initial weights do not fit, :class:`ConfigError` for layers that cannot be
        frozen, and :class:`TrainingError` if the checkpoint is of another recipe.
        """
        profile, phase_spec = run.profile, run.phase_spec
        training = profile.required_training
        self.run, self.phase_spec = run, phase_spec
        super().__init__(
            LoopSpec(
                name=f"{run.autoencoder}, phase {run.phase}",
                directory=run.directory,
                recipe_sha256=run.recipe_sha256,
                images=phase_spec.images,
                batch_size=phase_spec.batch_size,
                checkpoint_images=training.checkpoint_images,
                log_images=training.log_images,
            ),
            profile,
            profile.precision,
        )
        model = build(profile.autoencoders[run.autoencoder].model, seed=profile.training_seed)
        if run.initial is not None:
            load_weights(model, run.initial)
        else:
            initialise(model, profile.autoencoders[run.autoencoder].init, seed=profile.training_seed)
        if self.accelerator.num_processes > 1:
            share_batch_norms(model)
        self.freezer = Freezer(model, phase_spec.trainable, phase_spec.freeze)
        if phase_spec.gan is not None and phase_spec.gan.adaptive and not model.last_layer.requires_grad:
            raise ConfigError(
                f"{run.autoencoder}, phase {run.phase}: 'adaptive' of the gan compares gradients at the last layer, "
                "which this phase freezes; train 'decoder_head', or use 'adaptive: false'"
            )
        execution = training.execution
        self.memory_format = torch.channels_last if execution.channels_last else torch.contiguous_format
        model.to(self.device).to(memory_format=self.memory_format)
        if execution.compile:
            compile_blocks(model)
        if execution.checkpoint_activations:
            checkpoint_blocks(model)
        self.model = self.distribute(model)
        self.ema = EMA(model, training.ema)
        decay_too = head_norms(model) if phase_spec.optimizer.decay_head_norm else ()
        optimizer = make_optimizer(model.parameters(), phase_spec.optimizer, decay_too=decay_too)
        self.optimizer = self.accelerator.prepare(optimizer)

        self.discriminator: nn.Module | None = None
        if phase_spec.gan is not None:
            discriminator = build_discriminator(phase_spec.gan.discriminator, seed=profile.training_seed)
            if self.accelerator.num_processes > 1:
                share_batch_norms(discriminator)
            d_optimizer = make_optimizer(discriminator.parameters(), phase_spec.gan.optimizer)
            self.discriminator, self.d_optimizer = self.accelerator.prepare(discriminator, d_optimizer)
        self.objective = Objective(
            self.model,
            ReconstructionLoss(training.loss).to(self.device),
            gan=phase_spec.gan,
            discriminator=self.discriminator,
            autoencoder=self.autoencoder,
            autocast=self.accelerator.autocast,
            over_processes=self.over_processes,
        )

        self.batches = TrainBatches(
            run.photos,
            crop_seed(profile.training_seed, run.phase),
            # A part holds the same images for every number of processes, because a BatchNorm normalises a part's images
            # together.
            share=self.share // phase_spec.accumulate,
            stride=phase_spec.batch_size // phase_spec.accumulate,
            end=phase_spec.images,
            resolution=phase_spec.resolution,
            crop=phase_spec.crop,
            flips=phase_spec.flips,
            threads=run.readers,
        )
        self.begin()

    @property
    def autoencoder(self) -> Autoencoder:
        """The model without distributed training's wrapper."""
        return self.accelerator.unwrap_model(self.model)

    def close(self) -> None:
        """Stop the threads that decode photographs."""
        self.batches.close()

    def step(self) -> dict[str, float]:
        """Train on one batch and return its values for the log.

        Both nets' losses and gradients are computed before either net is updated, so that a bad batch changes nothing.
        With ``accumulate`` n the batch is computed in n parts; gradients and logged losses are means over the parts.
        The mean gradient equals the whole batch's gradient, up to rounding, for layers that treat each image by itself.
        A BatchNorm in training mode sees one part at a time: it normalises by the part's statistics and updates its
        averages n times. LDM's adaptive GAN weight is a ratio of norms and is computed per part too. A part covers all
        processes.
        """
        phase_spec, gan, discriminator = self.phase_spec, self.phase_spec.gan, self.discriminator
        self.freezer.train_mode()
        kept = [(buffer, buffer.clone()) for buffer in self.buffers()]
        end = self.images + phase_spec.batch_size
        lr = set_learning_rate(self.optimizer, phase_spec.optimizer, end, phase_spec.images)
        adversarial = gan is not None and self.images >= gan.start_images
        if gan is not None and adversarial:
            start = gan.start_images
            set_learning_rate(self.d_optimizer, gan.optimizer, end - start, phase_spec.images - start)
        values: dict[str, float] = {}
        nets = [self.model] if discriminator is None or not adversarial else [self.model, discriminator]
        every = self.run.profile.required_training.loss.lpips_every
        perceptual = self.images // phase_spec.batch_size % every == 0
        for number in range(phase_spec.accumulate):
            images = self.batch(number)
            with self.part(number, phase_spec.accumulate, *nets):
                loss, d_loss, parts = self.objective(images, perceptual=perceptual, adversarial=adversarial)
                parts = {"loss": loss.detach(), **parts}
                means = self.over_processes(torch.stack([*parts.values()])).tolist()
                for name, mean in zip(parts, means, strict=True):
                    values[name] = values.get(name, 0.0) + mean / phase_spec.accumulate
                self.require_finite(values, kept)
                self.accelerator.backward(loss / phase_spec.accumulate)
                if d_loss is not None:
                    self.accelerator.backward(d_loss / phase_spec.accumulate)
        values["lr"] = lr
        values["grad_norm"] = self.clip(self.model, phase_spec.optimizer)
        if gan is not None and discriminator is not None and adversarial:
            values["disc_grad_norm"] = self.clip(discriminator, gan.optimizer)
        # In fp16 a scaled gradient may be infinite; the gradient scaler then skips the step and lowers its scale.
        if self.accelerator.scaler is None:
            self.require_finite(values, kept)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if adversarial:
            self.d_optimizer.step()
            self.d_optimizer.zero_grad(set_to_none=True)
        self.images = end
        self.ema.update(self.autoencoder, end // phase_spec.batch_size)
        return values

    def batch(self, part: int = 0) -> Tensor:
        """Images of this process in a part of the next batch: (batch / accumulate / processes, 3, R, R) in [-1, 1]."""
        phase_spec = self.phase_spec
        share = self.share // phase_spec.accumulate
        first = (
            self.images
            + part * (phase_spec.batch_size // phase_spec.accumulate)
            + self.accelerator.process_index * share
        )
        return self.batches(first).to(self.device, memory_format=self.memory_format)

    def buffers(self) -> list[Tensor]:
        """Tensors that a forward pass changes: the BatchNorm statistics of both nets."""
        return [*self.model.buffers(), *(self.discriminator.buffers() if self.discriminator is not None else ())]

    def state(self, seconds: float) -> dict[str, Any]:
        """The loop's state, and weights, average and optimisers of both nets."""
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
        """Continue from a state that :meth:`state` returned."""
        super().load_state(state)
        load_model(self.autoencoder, state["model"])
        self.ema.load(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.discriminator is not None:
            self.accelerator.unwrap_model(self.discriminator).load_state_dict(state["discriminator"])
            self.d_optimizer.load_state_dict(state["d_optimizer"])
