"""The training step of an autoencoder in one of the paper's three phases (section 3.3), made of the trainer's parts."""

import torch
from torch import Tensor

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.job import BUFFERS, Inputs, Job, Ready, precision_context
from dcae_bench.measurement.workloads.paper_phases import PROFILE, paper_phase, paper_training
from dcae_bench.measurement.workloads.training_step import TimedStep, training_workload
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.models.zoo import build
from dcae_bench.profile.training import OptimizerSpec
from dcae_bench.training.discriminator import build_discriminator
from dcae_bench.training.losses import ReconstructionLoss
from dcae_bench.training.objective import Objective
from dcae_bench.training.phases import Freezer, make_optimizer


class PhaseStep(TimedStep):
    """Forward pass, L1 + LPIPS (in phase 3 also the GAN's losses), backward pass, AdamW on the layers that train."""

    def __init__(self, model: Autoencoder, job: Job):
        """Train ``model``. Raises :class:`WeightsError` if the weights of LPIPS are missing."""
        super().__init__(model, job)
        self.phase = paper_phase(job.case.work)
        gan = self.phase.gan
        Freezer(model, self.phase.trainable, self.phase.freeze).train_mode()
        discriminator = build_discriminator(gan.discriminator, seed=job.seed).to(job.device) if gan else None
        self.objective = Objective(
            model,
            ReconstructionLoss(paper_training().loss).to(job.device),
            gan=gan,
            discriminator=discriminator,
            autoencoder=model,
            autocast=lambda: precision_context(job.precision, job.device),
        )
        self.optimizers = [self._optimizer(model, self.phase.optimizer)]
        if gan is not None and discriminator is not None:
            self.networks.append(discriminator)
            self.optimizers.append(self._optimizer(discriminator, gan.optimizer))

    def _optimizer(self, network: torch.nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
        return make_optimizer(network.parameters(), spec, fused=self.fused, capturable=self.capturable)

    def step(self, *inputs: Tensor) -> Tensor:
        """One step of the autoencoder, and of the discriminator if there is one, on images (n, 3, R, R) in [-1, 1]."""
        (images,) = inputs
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
        """Settings for the record: the profile they come from, the trained layers and the loss."""
        loss, gan = paper_training().loss, self.phase.gan
        terms = [f"{loss.l1:g} L1", f"{loss.lpips:g} LPIPS ({loss.lpips_net})"]
        terms += [f"{gan.weight:g} hinge GAN"] if gan else []
        return {
            **super().settings,
            "plan": f"profile {PROFILE}",
            "trains": ", ".join(self.phase.trainable),
            "trained_parameters": str(sum(p.numel() for p in self.model.parameters() if p.requires_grad)),
            "loss": " + ".join(terms),
            "channels_last": str(self.job.recipe.channels_last).lower(),
        }


def phase_inputs(job: Job) -> list[Inputs]:
    """Several batches of images (n, 3, R, R): uniform noise in [-1, 1].

    Raises :class:`MeasurementError` if the phase cannot train at the case's resolution.
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
    case.space  # noqa: B018 (the property raises if the resolution is not a multiple of f)


def phase_training_workload(job: Job) -> Ready:
    """The training step of the case's autoencoder.

    Raises as :func:`training_workload` does, and :class:`WeightsError` if the weights of LPIPS are missing.
    """
    inputs = phase_inputs(job)

    def make_network() -> Autoencoder:
        return build(job.case.autoencoder, seed=job.seed, device=job.device).to(memory_format=job.memory_format)

    return training_workload(job, inputs, make_network=make_network, make_step=lambda model: PhaseStep(model, job))
