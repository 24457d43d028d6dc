"""USiT's process: flow matching on the straight path from noise to data (SiT; Ma et al., 2024)."""

from torch import Tensor

from dcae_bench.diffusion.process import Model, Process, mean_per_sample, per_sample


class FlowMatching(Process):
    """x_t = (1 - t) noise + t x0, t in [0, 1]; the model predicts the velocity x0 - noise."""

    name = "flow"

    def times(self, uniform: Tensor) -> Tensor:
        """Times (n,) in float32: the uniform numbers, unchanged."""
        return uniform.float()

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean squared error of the predicted velocity, for each sample (n,)."""
        share = per_sample(t, x0)
        x = (1 - share) * noise + share * x0
        return mean_per_sample((model(x, t, y).float() - (x0 - noise)).square())
