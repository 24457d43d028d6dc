import pytest
import torch
from pydantic import ValidationError
from torch._subclasses.fake_tensor import FakeTensorMode

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.models import efficientvit
from dcae_bench.models.autoencoder import LAYER_SETS
from dcae_bench.models.dc_ae import BLOCKS, DCAE
from dcae_bench.models.efficientvit import relu_attention
from dcae_bench.models.residual import Downsample, Upsample
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.autoencoders import DCAESpec


def released(stages: int, latent_channels: int) -> DCAESpec:
    """The released f32c32, f64c128 or f128c512: six to eight stages."""
    deep = stages - 6
    widths = [128, 256, 512, 512, 1024, 1024, 2048, 2048][:stages]
    blocks = ["res"] * 3 + ["evit_glu"] * (stages - 3)
    return DCAESpec(
        family="dc-ae",
        latent_channels=latent_channels,
        encoder={"widths": widths, "depths": [0, 4, 8, 2, 2, 2] + [2] * deep, "blocks": blocks},
        decoder={
            "widths": widths,
            "depths": [0, 5, 10, 2, 2, 2] + [2] * deep,
            "blocks": blocks,
            "norms": ["bn2d"] * 3 + ["trms2d"] * (stages - 3),
            "activations": ["relu"] * 3 + ["silu"] * (stages - 3),
        },
    )


def sana() -> DCAESpec:
    """The f32c32 autoencoder of SANA."""
    widths = [128, 256, 512, 512, 1024, 1024]
    blocks = ["res"] * 3 + ["evits5_glu"] * 3
    return DCAESpec(
        family="dc-ae",
        latent_channels=32,
        encoder={"widths": widths, "depths": [2, 2, 2, 3, 3, 3], "blocks": blocks, "resample": "conv"},
        decoder={"widths": widths, "depths": [3] * 6, "blocks": blocks, "resample": "conv"},
    )


def lite() -> DCAESpec:
    """DC-AE-Lite: SANA's encoder, and a decoder of residual blocks with SiLU, in its head too."""
    decoder = {"widths": [128, 256, 512, 512, 1024, 1024], "depths": [0, 3, 5, 4, 4, 4], "blocks": ["res"] * 6}
    content = {**sana().model_dump(), "decoder": decoder, "head_activation": "silu"}
    return DCAESpec.model_validate(content)


PAPER = {"f32c32": released(6, 32), "f64c128": released(7, 128), "f128c512": released(8, 512)}
PAPER |= {"sana": sana(), "lite": lite()}
OTHERS = ("sana", "lite")
"""Of the authors, but not of the paper."""


def test_the_catalogue_has_the_papers_graphs():
    known = catalogue()
    for name, spec in PAPER.items():
        assert known.architectures[f"dc-ae-f32c32-{name}" if name in OTHERS else f"dc-ae-{name}"] == spec
    for kind in ("in-1.0", "mix-1.0"):
        for name in ("f32c32", "f64c128", "f128c512"):
            assert known.spec(f"dc-ae-{name}-{kind}") == PAPER[name]
    assert known.spec("dc-ae-f32c32-sana-1.0") == known.spec("dc-ae-f32c32-sana-1.1") == PAPER["sana"]
    assert known.spec("dc-ae-lite-f32c32") == known.spec("dc-ae-lite-f32c32-sana-1.1") == PAPER["lite"]
    trained = load_profile("paper").autoencoders
    assert {name: entry.model for name, entry in trained.items() if entry.model.family == "dc-ae"} == {
        f"dc-ae-{name}-{data}": spec for name, spec in PAPER.items() if name not in OTHERS for data in ("in", "mix")
    }
    assert [entry.model for name, entry in trained.items() if name.startswith("sd-vae")] == [
        known.architectures[name.rpartition("-")[0]] for name in trained if name.startswith("sd-vae")
    ]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(spec: DCAESpec) -> DCAE:
    with torch.device("meta"):
        return DCAE(spec)


@pytest.mark.parametrize(
    ("name", "total", "encoder", "decoder", "edges", "tensors", "keys"),
    [
        ("f32c32", 323_356_460, 123_172_384, 200_184_076, (1_792, 294_944, 295_936, 28_172), 293, 338),
        ("f64c128", 676_896_140, 264_550_528, 412_345_612, (1_792, 2_359_424, 2_361_344, 28_172), 341, 386),
        ("f128c512", 1_120_682_252, 415_661_056, 705_021_196, (1_792, 9_437_696, 9_439_232, 28_172), 389, 434),
        ("sana", 312_250_275, 153_027_104, 159_223_171, (3_584, 294_944, 295_936, 3_715), 339, 339),
    ],
)
def test_paper_sizes_have_the_released_parameter_counts(name, total, encoder, decoder, edges, tensors, keys):
    model = on_meta(PAPER[name])
    found = [model.encoder.project_in, model.encoder.project_out, model.decoder.project_in, model.decoder.project_out]
    assert model.count_parameters() == total
    assert (count(model.encoder), count(model.decoder)) == (encoder, decoder)
    assert tuple(map(count, found)) == edges
    assert (len(list(model.parameters())), len(model.state_dict())) == (tensors, keys)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        (
            "f32c32",
            [0, 5_016_704, 38_350_976, 9_662_720, 36_102_400, 33_742_848],
            [0, 10_621_696, 56_640_512, 27_359_232, 71_495_680, 33_742_848],
        ),
        (
            "f64c128",
            [0, 5_016_704, 38_350_976, 9_662_720, 36_102_400, 38_461_952, 134_594_560],
            [0, 10_621_696, 56_640_512, 27_359_232, 71_495_680, 109_244_416, 134_594_560],
        ),
        (
            "f128c512",
            [0, 5_016_704, 38_350_976, 9_662_720, 36_102_400, 38_461_952, 144_032_256, 134_594_560],
            [0, 10_621_696, 56_640_512, 27_359_232, 71_495_680, 109_244_416, 285_597_696, 134_594_560],
        ),
    ],
)
def test_paper_sizes_have_the_released_counts_stage_by_stage(name, encoder, decoder):
    model = on_meta(PAPER[name])
    assert [count(stage) for stage in model.encoder.stages] == encoder
    assert [count(stage) for stage in model.decoder.stages] == decoder


@pytest.mark.parametrize("c", [32, 64, 256, 512])
def test_blocks_have_their_closed_forms(c):
    with torch.device("meta"):
        assert count(BLOCKS["res"](c, "trms2d", "silu")) == 18 * c**2 + 3 * c
        assert count(BLOCKS["evit_glu"](c, "trms2d", "silu")) == 16 * c**2 + 92 * c
        # One more scale: a depthwise 5x5, a grouped 1x1 within each head, and twice the width into the projection.
        assert count(BLOCKS["evits5_glu"](c, "trms2d", "silu")) == 17 * c**2 + (92 + 75 + 96) * c
        assert count(Downsample(c, 2 * c, resample="pixel", shortcut=True)) == 9 * c * 2 * c // 4 + 2 * c // 4
        assert count(Upsample(2 * c, c, resample="pixel", shortcut=True)) == 36 * 2 * c * c + 4 * c


def test_multi_scale_blocks_have_the_released_counts():
    with torch.device("meta"):
        assert count(BLOCKS["evits5_glu"](512, "trms2d", "silu")) == 4_591_104
        assert count(BLOCKS["evits5_glu"](1024, "trms2d", "silu")) == 18_095_104


@pytest.mark.parametrize(
    ("name", "resolution", "latent"),
    [
        ("f32c32", 256, (32, 8, 8)),
        ("f64c128", 256, (128, 4, 4)),
        ("f128c512", 1024, (512, 8, 8)),
        ("sana", 512, (32, 16, 16)),
    ],
)
def test_paper_sizes_have_the_papers_latents(name, resolution, latent):
    with FakeTensorMode():  # shapes only; the meta device has no autocast to switch off
        model = DCAE(PAPER[name])
        z = model.encode(torch.zeros(1, 3, resolution, resolution))
        assert tuple(z.shape[1:]) == latent == (model.latent_channels, *(2 * [resolution // model.compression]))
        assert model.decode(z).shape == (1, 3, resolution, resolution)


def test_nano_and_paper_sizes_are_one_class_with_the_same_parts():
    nano = build(load_profile("demo").autoencoders["dc-ae-f32c32"].model)
    paper = on_meta(PAPER["f32c32"])
    assert type(nano) is type(paper) is DCAE
    assert {type(module) for module in nano.modules()} == {type(module) for module in paper.modules()}
    assert nano.compression == paper.compression and nano.latent_channels == paper.latent_channels


def small(which: str) -> DCAESpec:
    """Reduced widths with every kind of layer: four stages, BatchNorm, equal and doubling widths."""
    if which == "sana":
        widths, blocks = [8, 16, 32, 64], ["res", "res", "evits5_glu", "evits5_glu"]
        coder = {"widths": widths, "depths": [1, 2, 1, 2], "blocks": blocks, "resample": "conv"}
        return DCAESpec(family="dc-ae", latent_channels=4, encoder=coder, decoder=coder)
    widths, blocks = [8, 16, 32, 32, 64], ["res", "res", "res", "evit_glu", "evit_glu"]
    encoder = {"widths": widths, "depths": [0, 1, 2, 1, 2], "blocks": blocks}
    norms, activations = ["bn2d"] * 3 + ["trms2d"] * 2, ["relu"] * 3 + ["silu"] * 2
    decoder = {**encoder, "depths": [0, 2, 1, 1, 2], "norms": norms, "activations": activations}
    return DCAESpec(family="dc-ae", latent_channels=8, encoder=encoder, decoder=decoder)


def diffusers_twin(spec: DCAESpec):
    from diffusers import AutoencoderDC

    kinds = {"res": "ResBlock", "evit_glu": "EfficientViTBlock", "evits5_glu": "EfficientViTBlock"}
    arguments = {}
    for side, coder in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        arguments[f"{side}_block_types"] = [kinds[block] for block in coder.blocks]
        arguments[f"{side}_block_out_channels"] = coder.widths
        arguments[f"{side}_layers_per_block"] = coder.depths
        arguments[f"{side}_qkv_multiscales"] = [(5,) if block == "evits5_glu" else () for block in coder.blocks]
    stages = range(len(spec.decoder.widths))
    return AutoencoderDC(
        latent_channels=spec.latent_channels,
        downsample_block_type="pixel_unshuffle" if spec.encoder.resample == "pixel" else "Conv",
        upsample_block_type="pixel_shuffle" if spec.decoder.resample == "pixel" else "interpolate",
        decoder_conv_act_fn=spec.head_activation,
        decoder_norm_types=["batch_norm" if spec.decoder.norm(s) == "bn2d" else "rms_norm" for s in stages],
        decoder_act_fns=[spec.decoder.activation(s) for s in stages],
        **arguments,
    ).eval()


def narrow(name: str) -> DCAESpec:
    """The graph of a paper size, every stage and block of it, at a sixteenth of its width."""
    content = PAPER[name].model_dump()
    for side in ("encoder", "decoder"):
        content[side]["widths"] = [width // 16 for width in content[side]["widths"]]
    return DCAESpec.model_validate({**content, "latent_channels": content["latent_channels"] // 16})


@pytest.mark.parametrize("name", PAPER)
@torch.no_grad()
def test_encoder_and_decoder_equal_diffusers(name, to_diffusers, randomise):
    spec = narrow(name)
    ours, theirs = randomise(DCAE(spec)), diffusers_twin(spec)
    theirs.load_state_dict(to_diffusers(ours.state_dict(), spec), strict=True)
    generator = torch.Generator().manual_seed(0)
    f = spec.compression
    # 1 and 6 positions at the coarsest stage take the quadratic path, 36 and 35 the linear one.
    for height, width in [(1, 1), (2, 3), (6, 6), *([(5, 7)] if f < 128 else [])]:
        x = 2 * torch.rand(2 if height < 3 else 1, 3, height * f, width * f, generator=generator) - 1
        z = ours.encode(x)
        torch.testing.assert_close(z, theirs.encode(x).latent, rtol=0, atol=1e-4)
        assert z.std() > 0.1, "no comparison of zeros"
        z = torch.randn(z.shape, generator=generator)
        y = ours.decode(z)
        torch.testing.assert_close(y, theirs.decode(z).sample, rtol=0, atol=1e-4)
        assert y.std() > 0.1


def test_the_activation_of_the_head_is_followed(randomise):
    """ReLU in place of Lite's SiLU is another function of the same weights."""
    spec = narrow("lite")
    other = spec.model_copy(update={"head_activation": "relu"})
    net, relu = randomise(DCAE(spec)), DCAE(other).eval()
    relu.load_state_dict(net.state_dict())
    z = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = net.decode(z), relu.decode(z)
    assert (wanted - found).norm() > 0.05 * wanted.norm()
    assert "head_activation" not in released(6, 32).model_dump(), "recipes from before the field stay as they are"


def test_shortcut_switch_changes_the_function_and_not_the_weights(randomise):
    spec = small("released")
    without = DCAE(spec.model_copy(update={"shortcuts": False}))
    ours = DCAE(spec)
    assert {k: v.shape for k, v in without.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    for model in (ours, without):
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not key.endswith("running_var"):
                value.zero_()
        model.eval()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # All convolutions at zero but the stem's, which hands a constant on: only the shortcuts can carry it to the latent.
    for model in (ours, without):
        model.encoder.project_in.conv.bias.data.fill_(2.0)
    torch.testing.assert_close(ours.encode(x), torch.full((1, 8, 2, 2), 2.0))
    assert not without.encode(x).any()


def test_layer_sets_are_named_as_the_harness_names_them():
    sets = DCAE(small("released")).layer_sets()
    assert tuple(sets) == LAYER_SETS


def test_last_layer_writes_the_image():
    model = DCAE(small("released"))
    model.last_layer.data.zero_()
    model.decoder.project_out.conv.bias.data.zero_()
    assert not model.decode(torch.ones(1, 8, 2, 2)).any()


def qkv_map(heads: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(2, 96 * heads, height, width, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 8), (3, 11), (8, 8)])
def test_linear_and_quadratic_attention_are_the_same_function(height, width, monkeypatch):
    # float64 is kept up to the normalisation, which is in float32 by design.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    qkv = qkv_map(2, height, width)
    monkeypatch.setattr(efficientvit, "QUADRATIC_MAX_POSITIONS", 0)
    linear = relu_attention(qkv)
    monkeypatch.setattr(efficientvit, "QUADRATIC_MAX_POSITIONS", 10**6)
    quadratic = relu_attention(qkv)
    torch.testing.assert_close(linear, quadratic, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0, 10**6])
def test_attention_is_the_weighted_mean_of_the_values_head_by_head(threshold, monkeypatch):
    monkeypatch.setattr(efficientvit, "QUADRATIC_MAX_POSITIONS", threshold)
    qkv = qkv_map(3, 2, 3)
    out = relu_attention(qkv).flatten(2)
    for head in range(3):
        query, key, value = qkv[1, 96 * head : 96 * (head + 1)].flatten(1).split(32)
        for position in range(6):
            weights = key.relu().T @ query.relu()[:, position]
            wanted = value @ (weights / weights.sum())
            torch.testing.assert_close(out[1, 32 * head : 32 * (head + 1), position], wanted, rtol=1e-5, atol=1e-6)


def test_few_positions_take_the_quadratic_path_and_more_the_linear_one(monkeypatch):
    """The paths differ in the order of bf16 products, so the choice at 32 positions is part of the function."""

    def forced(qkv: torch.Tensor, threshold: int) -> torch.Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(efficientvit, "QUADRATIC_MAX_POSITIONS", threshold)
            return relu_attention(qkv)

    for height, width, quadratic in [(4, 8, True), (3, 11, False)]:
        qkv = qkv_map(2, height, width, torch.bfloat16)
        paths = {True: forced(qkv, 10**6), False: forced(qkv, 0)}
        assert not paths[True].equal(paths[False])
        assert relu_attention(qkv).equal(paths[quadratic])


@pytest.mark.parametrize("positions", [(4, 4), (12, 12)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_keeps_half_precision(positions, dtype):
    qkv = qkv_map(2, *positions)
    out = relu_attention(qkv.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), relu_attention(qkv), rtol=0.05, atol=0.05)


def test_fp16_attention_is_computed_in_fp32():
    qkv = qkv_map(1, 16, 16, torch.float16)
    assert relu_attention(qkv).equal(relu_attention(qkv.float()).half())
    # Sums of 256 products of 300 * 300 overflow fp16, the weighted mean of equal values does not.
    constant = torch.full((1, 96, 16, 16), 300.0, dtype=torch.float16)
    torch.testing.assert_close(relu_attention(constant), constant[:, :32])


def test_bf16_attention_multiplies_in_bf16():
    qkv = qkv_map(1, 16, 16, torch.bfloat16)
    assert not relu_attention(qkv).equal(relu_attention(qkv.float()).bfloat16())


def test_attention_ignores_autocast():
    qkv = qkv_map(2, 8, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = relu_attention(qkv)
    assert inside.dtype == torch.float32 and inside.equal(relu_attention(qkv))


def test_attention_without_any_active_key_is_zero():
    assert not relu_attention(-qkv_map(1, 3, 3).abs()).any()
    assert not relu_attention(-qkv_map(1, 9, 9).abs()).any()


VALID = small("released").model_dump()


def changed(side: str, **fields) -> dict:
    return {**VALID, side: {**VALID[side], **fields}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("encoder", depths=[0, 1]), "'depths' has 2 entries but 'widths' has 5"),
        (changed("decoder", blocks=["res"]), "'blocks' has 1 entries but 'widths' has 5"),
        (changed("decoder", norms=["bn2d"]), "'norms' has 1 entries but 'widths' has 5"),
        (changed("decoder", activations=["relu"] * 6), "'activations' has 6 entries but 'widths' has 5"),
        (changed("encoder", depths=[0, 1, 0, 1, 1]), "only stage 0 may be left out"),
        (changed("encoder", depths=[-1, 1, 1, 1, 1]), "only stage 0 may be left out"),
        (changed("encoder", widths=[8, 16, 32, 48, 64]), "width 48 of an evit_glu stage is not a multiple of 32"),
        (changed("encoder", widths=[8, 18, 32, 32, 64]), "a multiple of 4"),
        (
            {**VALID, "latent_channels": 24},
            "encoder width 64 of the last stage is not a multiple of latent_channels 24",
        ),
        ({**VALID, "latent_channels": 0}, "greater than 0"),
        (
            {**VALID, "encoder": {"widths": [8], "depths": [1], "blocks": ["res"]}},
            "at least 2 stages",
        ),
        (
            {**VALID, "encoder": {"widths": [16, 32], "depths": [1, 1], "blocks": ["res"] * 2}},
            "different numbers of stages",
        ),
        (changed("encoder", blocks=["res", "res", "res", "conv", "res"]), "'evits5_glu'"),
        # Widths that no shortcut and no pixel shuffle can join.
        (changed("encoder", widths=[8, 16, 24, 32, 64]), "widths 16 and 24"),
        (changed("decoder", widths=[8, 16, 24, 32, 64]), "widths 16 and 24"),
    ],
)
def test_impossible_specs_are_refused(content, message):
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        DCAESpec.model_validate(content)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("second", [4, 6, 8, 12, 16, 20, 32, 64, 96])
@pytest.mark.parametrize("resample", ["pixel", "conv"])
@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_every_spec_that_is_accepted_works(side, second, resample, shortcuts, skip):
    coder = {"widths": [8, 16, 16], "depths": [0 if skip else 1, 1, 1], "blocks": ["res"] * 3, "resample": resample}
    content = {"family": "dc-ae", "latent_channels": 4, "encoder": coder, "decoder": coder, "shortcuts": shortcuts}
    content[side] = {**coder, "widths": [8, second, 16]}
    try:
        spec = DCAESpec.model_validate(content)
    except ValidationError:
        assert second not in (8, 16, 32), "joins 8 and 16 in every way"
        return
    model = on_meta(spec)
    assert model(torch.zeros(1, 3, 8, 16, device="meta")).shape == (1, 3, 8, 16)
