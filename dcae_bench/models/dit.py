"""DiT, the denoiser with adaLN-Zero: time and label modulate every block (Peebles and Xie, 2023)."""

import torch
from torch import Tensor, nn

from dcae_bench.models.denoiser import MAX_PERIOD, MLP, Attention, Denoiser, LabelEmbedding, PatchEmbed, time_embedding
from dcae_bench.specs.denoisers import DiTSpec

TIME_WIDTH = 256
NORM_EPS = 1e-6


class TimeEmbedding(nn.Module):
    """Embeds times (n,) as (n, width): sines and cosines, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Times (n,) to embeddings (n, width) in the type of the weights."""
        return self.mlp(time_embedding(t, TIME_WIDTH).to(_linears(self.mlp)[0].weight.dtype))


class DiTBlock(nn.Module):
    """Attention and MLP on tokens (n, l, width); a condition (n, width) shifts, scales and gates both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = MLP(width, approximate="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (n, l, width) and condition (n, width) to tokens (n, l, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn(_modulate(self.norm1(x), shift1, scale1))
        return x + gate2 * self.mlp(_modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Maps tokens (n, l, width), modulated by a condition (n, width), to patches (n, l, patch_numbers)."""

    def __init__(self, width: int, patch_numbers: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, patch_numbers)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (n, l, width) and condition (n, width) to patches (n, l, patch_numbers)."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


class DiT(Denoiser):
    """DiT. Parameters have the names in the authors' released weights."""

    spec: DiTSpec

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__(spec)
        width, latent = spec.width, spec.latent
        self.x_embedder = PatchEmbed(latent.channels, width, latent.patch)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = None if spec.classes is None else LabelEmbedding(spec.classes, width)
        # A parameter although it is not trained, because the released weights contain the positions.
        self.pos_embed = nn.Parameter(positions(latent.grid, width), requires_grad=False)
        self.blocks = nn.ModuleList(DiTBlock(width, spec.heads) for _ in range(spec.depth))
        self.final_layer = FinalLayer(width, latent.patch**2 * spec.out_channels)
        self._initialise()

    def transformer_blocks(self) -> list[nn.Module]:
        """All blocks in order."""
        return [*self.blocks]

    def _forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        x = self.as_stream(self.x_embedder(x) + self.pos_embed)
        condition = self.t_embedder(t)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(y)
        for block in self.blocks:
            x = block(x, condition)
        return self.unpatchify(self.final_layer(x, condition))

    def _initialise(self) -> None:
        """adaLN-Zero: every block begins as the identity, and every prediction as zero."""
        for layer in _linears(self):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        projection = self.x_embedder.proj
        nn.init.xavier_uniform_(projection.weight.flatten(1))
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        for layer in _linears(self.t_embedder):
            nn.init.normal_(layer.weight, std=0.02)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, DiTBlock | FinalLayer):
                for layer in _linears(module.adaLN_modulation):
                    nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.final_layer.linear.weight)


def positions(grid: int, width: int) -> Tensor:
    """Fixed positions (1, grid * grid, width): sines and cosines of column and row, which DiT takes from MAE."""
    frequencies = MAX_PERIOD ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    columns, rows = line[None].expand(grid, -1, -1), line[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)[None].float()


def _linears(module: nn.Module) -> list[nn.Linear]:
    """The linear layers inside a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
