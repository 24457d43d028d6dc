"""UViT, the denoiser of most of the paper's diffusion results: U-ViT without its last convolution."""

import torch
from torch import Tensor, nn

from dcae_bench.denoiser_specs import UViTSpec
from dcae_bench.models.denoiser import MLP, Attention, Denoiser, LabelEmbedding, PatchEmbed, time_embedding


class UViTBlock(nn.Module):
    """A pre-norm transformer block (n, l, width); in the second half it first takes in the skip of its twin."""

    def __init__(self, width: int, heads: int, *, skip: bool = False) -> None:
        super().__init__()
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, approximate="none")

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Transform tokens; ``skip`` has their shape."""
        if self.skip_linear is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class UViT(Denoiser):
    """UViT: the tokens are label, time and patches, and long skips join the first half of the blocks to the second.

    Names of parameters are those of the authors' released weights.
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
        # The released models take the embedded time as a token directly, without an MLP.
        tokens = [time_embedding(t, self.spec.width).to(self.pos_embed.dtype)[:, None], patches]
        if self.label_emb is not None:
            tokens.insert(0, self.label_emb(y)[:, None])
        x = torch.cat(tokens, dim=1) + self.pos_embed
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        # The tokens of label and time are predicted from too and dropped then: the published cost counts them.
        x = self.decoder_pred(self.norm(x))
        return self.unpatchify(x[:, -self.spec.latent.tokens :])

    def _initialise(self) -> None:
        """Truncated normal, deviation 0.02, for matrices and positions; patches and labels keep PyTorch's default."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
