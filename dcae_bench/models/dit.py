"""DiT with adaLN-Zero: time and label modulate every block."""

import torch
from torch import Tensor, nn

from dcae_bench.denoiser_specs import DiTSpec
from dcae_bench.models.denoiser import MAX_PERIOD, MLP, Attention, Denoiser, LabelEmbedding, PatchEmbed, time_embedding

TIME_WIDTH = 256
NORM_EPS = 1e-6


class TimeEmbedding(nn.Module):
    """Time (n,) to (n, width): sines and cosines through two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times."""
        return self.mlp(time_embedding(t, TIME_WIDTH).to(self.mlp[0].weight.dtype))


class DiTBlock(nn.Module):
    """Attention and MLP on tokens (n, l, width), shifted, scaled and gated by a condition (n, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = MLP(width, approximate="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Transform tokens under the condition."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn(_modulate(self.norm1(x), shift1, scale1))
        return x + gate2 * self.mlp(_modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Modulated tokens (n, l, width) to the numbers of their patches."""

    def __init__(self, width: int, patch_numbers: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, patch_numbers)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Predict patches under the condition."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


class DiT(Denoiser):
    """DiT; names of parameters are those of its authors' released weights."""

    spec: DiTSpec

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__(spec)
        width, latent = spec.width, spec.latent
        self.x_embedder = PatchEmbed(latent.channels, width, latent.patch)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = None if spec.classes is None else LabelEmbedding(spec.classes, width)
        # A parameter that is not trained, as in the released weights.
        self.pos_embed = nn.Parameter(positions(latent.grid, width), requires_grad=False)
        self.blocks = nn.ModuleList(DiTBlock(width, spec.heads) for _ in range(spec.depth))
        self.final_layer = FinalLayer(width, latent.patch**2 * spec.out_channels)
        self._initialise()

    def transformer_blocks(self) -> list[nn.Module]:
        """All blocks in order."""
        return list(self.blocks)

    def _forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        x = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(t)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(y)
        for block in self.blocks:
            x = block(x, condition)
        return self.unpatchify(self.final_layer(x, condition))

    def _initialise(self) -> None:
        """adaLN-Zero: every block begins as the identity, and the prediction as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        for embedding in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(embedding.weight, std=0.02)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (*(block.adaLN_modulation[1] for block in self.blocks), self.final_layer.adaLN_modulation[1]):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.final_layer.linear.weight)


def positions(grid: int, width: int) -> Tensor:
    """Fixed sines and cosines of column and row (1, grid * grid, width), as DiT has them from MAE."""
    frequencies = MAX_PERIOD ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    columns, rows = line[None].expand(grid, -1, -1), line[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)[None].float()


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
