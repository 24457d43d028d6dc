"""A training step of a denoiser, as the authors' measuring code takes it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dcae_bench.diffusion.processes import build_process
from dcae_bench.measurement.denoisers import network, process_of, train_inputs
from dcae_bench.measurement.job import Inputs, Job, Ready, precision_context
from dcae_bench.measurement.training_step import Step, training

LEARNING_RATE = 1e-4


class DenoiserStep(Step):
    """Forward, loss of the case's diffusion process, backward, AdamW."""

    def __init__(self, model: nn.Module, job: Job, inputs: Sequence[Inputs]):
        """A step of the denoiser ``model`` over latents, times, noise and labels."""
        super().__init__(model, job, inputs)
        self.process = build_process(process_of(job.case))
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, **self.optimizer_switches)

    def step(self, x: Tensor, t: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        """One step on latents (n, c, h, w), times (n,), noise and labels (n,)."""
        loss = self.process.loss(self._predict, x, t, noise, y).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().reshape(1)

    def _predict(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with precision_context(self.job.precision, self.job.device):
            return self.model(x, t, y)


def denoiser_training(job: Job) -> Ready:
    """The case's denoiser in training. Raises as :func:`training` does."""
    inputs = train_inputs(job)
    return training(
        job,
        inputs,
        network=lambda: network(job.case, job.device, job.seed).train(),
        make=lambda model: DenoiserStep(model, job, inputs),
    )
