"""The training step of a denoiser, as the authors' measuring code takes it."""

import torch
from torch import Tensor

from dcae_bench.diffusion.processes import build_process
from dcae_bench.measurement.workloads.denoisers import process_of, random_denoiser, train_inputs
from dcae_bench.measurement.workloads.job import Job, Ready, precision_context
from dcae_bench.measurement.workloads.training_step import TimedStep, training_workload
from dcae_bench.models.denoiser import Denoiser

LEARNING_RATE = 1e-4


class DenoiserStep(TimedStep):
    """Forward pass, loss of the case's diffusion process, backward pass, AdamW."""

    def __init__(self, model: Denoiser, job: Job):
        """Train ``model``."""
        super().__init__(model, job)
        self.denoiser = model
        self.process = build_process(process_of(job.case))
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=self.fused, capturable=self.capturable)
        self.optimizers = [self.optimizer]

    def step(self, *inputs: Tensor) -> Tensor:
        """One step on latents (n, c, h, w), times (n,), noise (n, c, h, w) and labels (n,)."""
        x, t, noise, y = inputs
        loss = self.process.loss(self._predict, x, t, noise, y).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().reshape(1)

    def _predict(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with precision_context(self.job.precision, self.job.device):
            return self.denoiser(x, t, y)


def denoiser_training_workload(job: Job) -> Ready:
    """The training step of the case's denoiser. Raises as :func:`training_workload` does."""
    inputs = train_inputs(job)
    return training_workload(
        job,
        inputs,
        make_network=lambda: random_denoiser(job.case, job.device, job.seed).train(),
        make_step=lambda model: DenoiserStep(model, job),
    )
