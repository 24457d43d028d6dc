"""UViT, the denoiser of most diffusion results in the paper: U-ViT (Bao et al., 2023) without its last convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.models.denoiser import MLP, Attention, Denoiser, LabelEmbedding, PatchEmbed, time_embedding
from dcae_bench.specs.denoisers import UViTSpec


class UViTBlock(nn.Module):
    """A pre-norm transformer block on tokens (n, l, width).

    A block with ``skip`` (those in the second half) first merges the output of its twin in the first half.
    """

    splits_merge = False
    """Whether the merge is a sum of two products instead of a product of concatenated tokens."""

    def __init__(self, width: int, heads: int, *, skip: bool = False) -> None:
        super().__init__()
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, approximate="none")

    def forward(self, x: Tensor, *skip: Tensor) -> Tensor:
        """Transform tokens (n, l, width); a block with ``skip`` also takes its twin's output, of the same shape."""
        if self.skip_linear is not None:
            x = self._merge(self.skip_linear, x, *skip)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _merge(self, linear: nn.Linear, x: Tensor, skip: Tensor) -> Tensor:
        if not self.splits_merge:
            return linear(torch.cat([x, skip], dim=-1))
        of_x, of_skip = linear.weight.chunk(2, dim=1)
        # addmm adds the first product to the second before it rounds.
        merged = torch.addmm(F.linear(x, of_x, linear.bias).flatten(0, 1), skip.flatten(0, 1), of_skip.t())
        return merged.view_as(x)


class UViT(Denoiser):
    """UViT: label, time and patches are the tokens, and long skips link the first half of the blocks to the second.

    Parameters have the names in the authors' released weights.
    """

    spec: UViTSpec

    def __init__(self, spec: UViTSpec) -> None:
        super().__init__(spec)
        width, heads, half = spec.width, spec.heads, spec.depth // 2
        self.patch_embed = PatchEmbed(spec.latent.channels, width, spec.latent.patch)
        self.label_emb = None if spec.classes is None else LabelEmbedding(spec.classes, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, spec.sequence, width))
        self.in_blocks = nn.ModuleList(UViTBlock(width, heads) for _ in range(half))
        self.mid_block = UViTBlock(width, heads)
        self.out_blocks = nn.ModuleList(UViTBlock(width, heads, skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, spec.latent.patch_numbers)
        self._initialise()

    def transformer_blocks(self) -> list[nn.Module]:
        """All blocks in order."""
        return [*self.in_blocks, self.mid_block, *self.out_blocks]

    def _forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        patches = self.patch_embed(x)
        # In the released models the embedded time is a token as it is, without an MLP.
        tokens = [time_embedding(t, self.spec.width).to(self.pos_embed.dtype)[:, None], patches]
        if self.label_emb is not None:
            tokens.insert(0, self.label_emb(y)[:, None])
        x = self.as_stream(torch.cat(tokens, dim=1) + self.pos_embed)
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        # The published cost counts the prediction of all tokens, so label and time are dropped after the prediction.
        x = self.decoder_pred(self.norm(x))
        return self.unpatchify(x[:, -self.spec.latent.tokens :])

    def _initialise(self) -> None:
        """Draw matrices and positions from a truncated normal, deviation 0.02; patches and labels keep the default."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
