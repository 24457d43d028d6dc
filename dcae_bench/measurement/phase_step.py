"""A training step of an autoencoder in one of the paper's three phases (section 3.3), from the code that trains it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.cases import Case
from dcae_bench.measurement.job import BUFFERS, Inputs, Job, Ready, precision_context
from dcae_bench.measurement.paper_phases import PROFILE, paper_phase, paper_training
from dcae_bench.measurement.training_step import Step, training
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.zoo import build
from dcae_bench.training.discriminator import build_discriminator
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import Freezer, make_optimizer


class PhaseStep(Step):
    """Forward, L1 + LPIPS and in phase 3 the GAN's losses, backward, AdamW on what the phase trains."""

    def __init__(self, model: Autoencoder, job: Job, inputs: Sequence[Inputs]):
        """A step of the autoencoder ``model`` over images. Raises :class:`WeightsError` without LPIPS' weights."""
        super().__init__(model, job, inputs)
        self.plan = paper_phase(job.case.work)
        gan = self.plan.gan
        Freezer(model, self.plan.trainable).train_mode()
        discriminator = build_discriminator(gan.discriminator, seed=job.seed).to(job.device) if gan else None
        self.objective = Objective(
            model,
            ReconstructionLoss(paper_training().loss).to(job.device),
            gan=gan,
            discriminator=discriminator,
            autoencoder=model,
            autocast=lambda: precision_context(job.precision, job.device),
        )
        self.optimizers = [make_optimizer(model.parameters(), self.plan.optimizer, **self.optimizer_switches)]
        if gan is not None:
            self.optimizers.append(make_optimizer(discriminator.parameters(), gan.optimizer, **self.optimizer_switches))

    def step(self, images: Tensor) -> Tensor:
        """One step of all nets on images (n, 3, R, R) in [-1, 1]."""
        loss, d_loss, _ = self.objective(images)
        losses = [loss] if d_loss is None else [loss, d_loss]
        for one in losses:
            one.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).detach()

    @property
    def settings(self) -> dict[str, str]:
        """What a record says of it: where the plan is from, what trains, and what is minimised."""
        loss, gan = paper_training().loss, self.plan.gan
        terms = [f"{loss.l1:g} L1", f"{loss.lpips:g} LPIPS ({loss.lpips_net})"]
        terms += [f"{gan.weight:g} hinge GAN"] if gan else []
        return {
            **super().settings,
            "plan": f"profile {PROFILE}",
            "trains": ", ".join(self.plan.trainable),
            "trained_parameters": str(sum(p.numel() for p in self.model.parameters() if p.requires_grad)),
            "loss": " + ".join(terms),
            "channels_last": str(self.job.recipe.channels_last).lower(),
        }


def phase_inputs(job: Job) -> list[Inputs]:
    """Images (n, 3, R, R) of uniform noise in [-1, 1], in rotation.

    Raises :class:`MeasurementError` where the phase cannot be trained at the case's resolution.
    """
    _require_side(job.case)
    side = job.case.resolution
    generator = torch.Generator(job.device).manual_seed(job.seed)
    images = (torch.rand((job.batch, 3, side, side), generator=generator, device=job.device) for _ in range(BUFFERS))
    return [((2 * image - 1).contiguous(memory_format=job.memory_format),) for image in images]


def _require_side(case: Case) -> None:
    phase, needed = paper_phase(case.work), {"LPIPS": paper_training().loss.min_resolution}
    if phase.gan is not None:
        needed["the discriminator"] = phase.gan.discriminator.min_resolution
    part, smallest = max(needed.items(), key=lambda item: item[1])
    if case.resolution < smallest:
        raise MeasurementError(f"{case.name}: --resolution {case.resolution} is below {smallest}, which {part} needs")
    case.space  # noqa: B018 (raises where the side is not a multiple of f)


def phase_training(job: Job) -> Ready:
    """The case's autoencoder in training. Raises as :func:`training` does, and :class:`WeightsError`."""
    inputs = phase_inputs(job)
    return training(
        job,
        inputs,
        network=lambda: build(job.case.autoencoder, seed=job.seed).to(job.device, memory_format=job.memory_format),
        make=lambda model: PhaseStep(model, job, inputs),
    )
