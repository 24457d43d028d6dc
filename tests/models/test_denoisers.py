"""UViT and DiT against restatements of their graphs, and what holds for both."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.base.errors import DataError
from dcae_bench.execution.blocks import checkpoint_blocks, compile_blocks
from dcae_bench.models.denoiser import PatchEmbed, time_embedding
from dcae_bench.models.denoiser_keys import to_diffusers
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec

LATENT = LatentSpace(channels=3, side=8, patch=2)
SIZE = {"latent": LATENT, "width": 32, "depth": 4, "heads": 4}
SPECS = {
    "uvit": UViTSpec(family="uvit", classes=10, **SIZE),
    "uvit-unconditional": UViTSpec(family="uvit", classes=None, **SIZE),
    "dit": DiTSpec(family="dit", classes=10, **SIZE),
    "dit-unconditional": DiTSpec(family="dit", classes=None, learn_sigma=False, **SIZE),
}


def inputs(spec, count: int = 3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, spec.latent.channels, spec.latent.side, spec.latent.side, generator=generator)
    t = 1000 * torch.rand(count, generator=generator)
    return x, t, None if spec.classes is None else torch.arange(count) * 7 % 11


@pytest.fixture(params=SPECS)
def model(request, randomise):
    return randomise(build_denoiser(SPECS[request.param], seed=0))


def reference_uvit(state, x, t, y, *, heads: int, patch: int, depth: int):
    """UViT restated token by token, with attention written out."""
    n, channels, side, _ = x.shape
    width = state["norm.weight"].numel()

    def linear(name, value):
        return F.linear(value, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name, value):
        centred = value - value.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name, value):
        q, k, v = linear(f"{name}.qkv", value).chunk(3, dim=-1)
        out, d = [], width // heads
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            weights = (q[..., part] @ k[..., part].mT / math.sqrt(d)).softmax(-1)
            out.append(weights @ v[..., part])
        return linear(f"{name}.proj", torch.cat(out, -1))

    def block(name, value):
        value = value + attention(f"{name}.attn", norm(f"{name}.norm1", value))
        inner = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", value))
        return value + linear(f"{name}.mlp.fc2", 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2))))

    time = torch.zeros(n, width)
    for index in range(width // 2):
        angle = t / 10_000 ** (index / (width // 2))
        time[:, index], time[:, width // 2 + index] = angle.cos(), angle.sin()
    tokens = [state["label_emb.embedding_table.weight"][y], time]
    for row in range(0, side, patch):
        for column in range(0, side, patch):
            cells = x[:, :, row : row + patch, column : column + patch].flatten(1)
            tokens.append(F.linear(cells, state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"]))
    value = torch.stack(tokens, 1) + state["pos_embed"]
    kept = []
    for index in range(depth // 2):
        value = block(f"in_blocks.{index}", value)
        kept.append(value)
    value = block("mid_block", value)
    for index in range(depth // 2):
        joined = torch.cat([value, kept[-1 - index]], -1)
        value = block(f"out_blocks.{index}", linear(f"out_blocks.{index}.skip_linear", joined))
    value = linear("decoder_pred", norm("norm", value))
    out = torch.empty(n, channels, side, side)
    for token in range(2, value.shape[1]):
        row, column = divmod(token - 2, side // patch)
        cells = value[:, token].reshape(n, patch, patch, channels).permute(0, 3, 1, 2)
        out[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = cells
    return out


@torch.no_grad()
def test_uvit_is_its_restatement(randomise):
    spec = SPECS["uvit"]
    model = randomise(build_denoiser(spec, seed=0))
    x, t, y = inputs(spec)
    wanted = reference_uvit(model.state_dict(), x, t, y, heads=4, patch=2, depth=4)
    assert wanted.std() > 0.1
    torch.testing.assert_close(model(x, t, y), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("channels", "side", "patch"), [(4, 16, 2), (32, 8, 1)])
@torch.no_grad()
def test_dit_agrees_with_diffusers(channels, side, patch, randomise):
    spec = DiTSpec(
        family="dit",
        latent=LatentSpace(channels=channels, side=side, patch=patch),
        width=96,
        depth=3,
        heads=4,
        classes=20,
    )
    model = randomise(build_denoiser(spec, seed=0))
    model.pos_embed.copy_(build_denoiser(spec).pos_embed)
    other = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=channels,
        out_channels=2 * channels,
        num_layers=3,
        sample_size=side,
        patch_size=patch,
        num_embeds_ada_norm=20,
        norm_eps=1e-6,
    ).eval()
    other.load_state_dict(to_diffusers(model.state_dict(), spec))
    for block in other.transformer_blocks:  # the frequencies of DiT itself, see dcae_bench/models/denoiser_keys.py
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    x, t, y = inputs(spec)
    wanted = other(x, timestep=t, class_labels=y).sample
    assert wanted.std() > 0.1
    torch.testing.assert_close(model(x, t, y), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_samples_do_not_depend_on_their_neighbours(model):
    x, t, y = inputs(model.spec, 5)
    together = model(x, t, y)
    assert together.shape == (5, model.spec.out_channels, 8, 8)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = model(x[order], t[order], None if y is None else y[order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(model(x[:1], t[:1], None if y is None else y[:1]), together[:1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_input_matters(model):
    x, t, y = inputs(model.spec)
    plain = model(x, t, y)
    assert (model(x + 0.1, t, y) - plain).abs().max() > 1e-3
    assert (model(x, t + 0.5, y) - plain).abs().max() > 1e-4, "fractions of a step count"
    if y is not None:
        assert (model(x, t, torch.full_like(y, model.spec.null_class)) - plain).abs().max() > 1e-3


def test_checkpointed_blocks_have_the_same_gradients(model):
    twin = copy.deepcopy(model)
    checkpoint_blocks(twin)
    assert twin.state_dict().keys() == model.state_dict().keys()
    for each in (model, twin):
        each(*inputs(model.spec)).square().mean().backward()
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (one.grad is None and not one.requires_grad) or one.grad.equal(other.grad), name


@pytest.mark.parametrize("name", ["uvit", "dit"])
@torch.no_grad()
def test_models_compile_without_a_break(name, randomise):
    model = randomise(build_denoiser(SPECS[name].model_copy(update={"depth": 2}), seed=0))
    x, t, y = inputs(model.spec)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, y), model(x, t, y), rtol=0, atol=1e-5)


@torch.no_grad()
def test_blocks_compile_one_by_one(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    compile_blocks(model)
    assert len(compiled) == model.spec.depth + (model.spec.family == "uvit")
    model(*inputs(model.spec))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.004), (torch.bfloat16, 0.03)])
@torch.no_grad()
def test_half_precision_stays_near_fp32(model, dtype, bound):
    x, t, y = inputs(model.spec)
    wanted = model(x, t, y)
    with torch.autocast("cpu", dtype=dtype):
        cast = model(x, t, y)
    half = copy.deepcopy(model).to(dtype)(x.to(dtype), t, y)
    assert half.dtype == dtype
    for found in (cast, half):
        assert 0 < (found.float() - wanted).square().mean().sqrt() < bound * wanted.square().mean().sqrt()


def test_dit_begins_as_zero_and_its_blocks_as_identity():
    model = build_denoiser(SPECS["dit"], seed=0)
    x, t, y = inputs(model.spec)
    assert not model(x, t, y).any()
    tokens, condition = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert all(block(tokens, condition).equal(tokens) for block in model.blocks)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_initial_deviations():
    wide = {"latent": LatentSpace(channels=32, side=8), "width": 256, "depth": 2, "heads": 4, "classes": 1000}
    uvit = build_denoiser(UViTSpec(family="uvit", **wide), seed=0)
    for weight in (uvit.pos_embed, uvit.decoder_pred.weight, uvit.out_blocks[0].skip_linear.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert uvit.label_emb.embedding_table.weight.std().item() == pytest.approx(1, rel=0.02)
    assert uvit.patch_embed.proj.weight.abs().max().item() == pytest.approx(1 / math.sqrt(32), rel=0.01)
    assert not uvit.mid_block.mlp.fc1.bias.any() and uvit.patch_embed.proj.bias.any()
    dit = build_denoiser(DiTSpec(family="dit", **wide), seed=0)
    for weight in (dit.y_embedder.embedding_table.weight, dit.t_embedder.mlp[0].weight, dit.t_embedder.mlp[2].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert dit.blocks[0].attn.qkv.weight.std().item() == pytest.approx(math.sqrt(2 / (256 + 768)), rel=0.03)
    assert dit.x_embedder.proj.weight.std().item() == pytest.approx(math.sqrt(2 / (256 + 32)), rel=0.03)
    assert uvit.state_dict()["norm.weight"].equal(torch.ones(256))


def test_a_seed_fixes_the_weights():
    one, same, other = (build_denoiser(SPECS["dit"], seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(one[key].equal(same[key]) for key in one)
    assert not one["blocks.0.mlp.fc1.weight"].equal(other["blocks.0.mlp.fc1.weight"])


@given(grid=st.integers(1, 5), patch=st.integers(1, 4), channels=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_patches_come_back_in_their_places(grid, patch, channels):
    latent = LatentSpace(channels=channels, side=grid * patch, patch=patch)
    with torch.device("meta"):
        model = build_denoiser(UViTSpec(family="uvit", latent=latent, width=4, depth=2, heads=1, classes=None))
    x = torch.rand(2, channels, grid * patch, grid * patch)
    numbers = patch * patch * channels
    embed = PatchEmbed(channels, numbers, patch)
    # A filter for every number of a patch, in the order (row, column, channel) that unpatchify expects.
    weight = torch.eye(numbers).reshape(numbers, patch, patch, channels).permute(0, 3, 1, 2)
    embed.load_state_dict({"proj.weight": weight, "proj.bias": torch.zeros(numbers)})
    torch.testing.assert_close(model.unpatchify(embed(x)), x)


def test_time_embedding_begins_with_cosines():
    found = time_embedding(torch.tensor([0.0, 2.5]), 8)
    assert found[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    angles = [2.5 / 10**exponent for exponent in range(4)]
    assert found[1].tolist() == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("uvit", {"x": (2, 4, 8, 8)}, r"takes \(n, 3, 8, 8\)"),
        ("dit", {"x": (2, 3, 8, 4)}, "latents of shape"),
        ("dit", {"t": (3,)}, "another number than the 2 latents"),
        ("uvit", {"y": None}, "labels are missing, but this uvit is of 10 classes"),
        ("dit-unconditional", {"y": (2,)}, "labels are given, but this dit is unconditional"),
    ],
)
def test_inputs_that_do_not_fit(name, change, words):
    shapes = {"x": (2, 3, 8, 8), "t": (2,), "y": None if "un" in name else (2,)} | change
    x, t = torch.zeros(shapes["x"]), torch.zeros(shapes["t"])
    y = None if shapes["y"] is None else torch.zeros(shapes["y"], dtype=torch.int64)
    with pytest.raises(DataError, match=words):
        build_denoiser(SPECS[name])(x, t, y)
