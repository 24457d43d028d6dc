"""Every autoencoder class of diffusers is taken and reconstructs as diffusers does, or is refused with its reason."""

import json
import re

import diffusers
import pytest
import torch
from diffusers.models import autoencoders
from safetensors.torch import save_file

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.costs.passes import autoencoder_passes
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.models.diffusers_autoencoder import DiffusersAutoencoder
from dcae_bench.models.diffusers_config import constructor_defaults
from dcae_bench.models.keys import layouts, write_layout
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.autoencoders import DiffusersSpec
from dcae_bench.specs.diffusers_classes import CLASSES, CLASSES_PAGE, REFUSED, DiffusersClass
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import choose_autoencoder
from tests.tiny_diffusers import ALL, Tiny, tiny

PAGE = REPOSITORY / CLASSES_PAGE
NOT_EXPORTED_HERE = {"PaellaVQModel"}
"""Classes that published configs name, but that are in no folder of autoencoders."""
SIGLIP = {"encoder_type": "siglip2", "encoder_patch_size": 16, "encoder_input_size": 128, "patch_size": 4}
SCALES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


def opened(one: Tiny) -> DiffusersAutoencoder:
    """A class with random weights, none of which is 0, so that each has an effect."""
    model = build(one.spec(), seed=0).eval()
    assert isinstance(model, DiffusersAutoencoder)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images(model: DiffusersAutoencoder, n: int = 2) -> torch.Tensor:
    side = model.side or 32
    return 2 * torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(2)) - 1


@torch.no_grad()
def as_diffusers(model: DiffusersAutoencoder, x: torch.Tensor) -> torch.Tensor:
    """Reconstruction of a single image by the class's own ``forward``, with the range of its own pipeline."""
    net, name = model.net, model.spec.class_name
    if name == "AutoencoderRAE":
        return 2 * net((x + 1) / 2).sample - 1
    if name == "ConsistencyDecoderVAE":
        return net(x, generator=torch.Generator().manual_seed(0)).sample
    if name == "AutoencoderTiny":  # whose forward also rounds latents to 8 bits
        return net.decode(net.encode(x).latents).sample
    if CLASSES[name].time == "none":
        return net(x).sample
    frame = x[:, :, None]
    if name == "AutoencoderVidTok":
        return net(frame, sample_posterior=False).sample[:, :, 0]
    if name == "Kandinsky6SRVAE":  # as the pipeline's encode_video and decode_latents
        y = net((frame + 1) * (127.5 / 128) - 1).sample
        return ((y + 1) * (128 / 127.5) - 1)[:, :, 0]
    if net.config.get("timestep_conditioning"):
        torch.manual_seed(0)  # of the noise in the decoder
        return net(frame, temb=torch.zeros(1)).sample[:, :, 0]
    if "alpha" in next(one.what for one in ALL if one.spec() == model.spec):
        return net(torch.cat([frame, torch.ones_like(frame[:, :1])], dim=1)).sample[:, :3, 0]
    return net(frame).sample[:, :, 0]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
def tried(one: Tiny) -> list[str]:
    """Cells of the table: what was tried, and what came out."""
    model = opened(one)
    how, x = model.how, images(model)
    z = model.encode(x)
    together, alone = model.decode(z), torch.cat([model.decode(model.encode(item[None])) for item in x])
    theirs = torch.cat([as_diffusers(model, item[None]) for item in x])
    # The two ways sum in other orders, and torch may choose other kernels for other batches.
    same, steady = error(alone, theirs) < 1e-4, error(together, alone) < 1e-4
    spread = "mean and spread" if model.has_posterior else "a single one"
    if model.has_posterior:
        drawn = model.draw(x, lambda shape: torch.ones(len(x), *shape))
        assert drawn.shape == z.shape and bool((drawn > z).all())
    stated = [name for name in SCALES if name in constructor_defaults(one.class_name)]
    scale = {
        "config": ", ".join(f"`{name}`" for name in stated) or "measured",
        "weights": "`latents_mean`, `latents_std` of the weights, `scaling_factor`",
        "batch norm": "`bn` of the weights, cells packed 2 x 2",
        "own": "`encode` normalises",
    }[how.scale]
    facts = [*([f"{model.side} px alone"] if model.side else []), *model.notes]
    facts += [f"pixels in {how.pixels}"] if how.pixels != "[-1, 1]" else []
    result = "as diffusers, in any batch" if same and steady else f"{same=}, {steady=}"
    name = f"`{one.class_name}`" + (f", {one.what}" if one.what else "")
    shape = f"f{x.shape[-1] // z.shape[-1]} c{z.shape[1]}"
    return [name, shape, how.time.replace("none", "-"), spread, scale, result, "; ".join(facts) or "-"]


def _refused(config: dict) -> str:
    """What transformers 5.6 has left of this encoder does not fit the class of diffusers any more."""
    with pytest.raises(ConfigError, match=r"does not build a AutoencoderRAE .*vision_model"):
        build(changed(tiny("AutoencoderRAE"), **config))
    return "its encoder in transformers 5.6 and later does not fit diffusers 0.42"


def table() -> str:
    """The table of the page."""
    head = ["class", "tried at", "time", "latent", "scale of the latents", "result", "how it is used"]
    rows = [tried(one) for one in ALL]
    rows.append(["`AutoencoderRAE`, SigLIP 2", *["-"] * 4, "refused", _refused(SIGLIP)])
    rows += [[f"`{name}`", *["-"] * 4, "refused", f"it {reason}"] for name, reason in sorted(REFUSED.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def test_the_table_of_the_page_is_what_is_tried_here():
    found = re.search(r"<!-- table -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    made = table()
    assert found is not None and found[1] == made, f"{PAGE}: put this table between its marks:\n{made}"


def test_every_class_of_diffusers_is_decided():
    theirs = {name for name in vars(autoencoders) if isinstance(getattr(autoencoders, name), type)}
    assert theirs == (CLASSES.keys() | REFUSED.keys()) - NOT_EXPORTED_HERE
    assert not CLASSES.keys() & REFUSED.keys()
    assert {one.class_name for one in ALL} == CLASSES.keys()
    assert all(hasattr(diffusers, name) for name in CLASSES)
    assert f"[{len(CLASSES)} classes]" in (REPOSITORY / "docs" / "bring-your-own.md").read_text()


@pytest.mark.parametrize(
    ("class_name", "words"),
    [
        ("AutoencoderOobleck", "AutoencoderOobleck codes audio, not images"),
        ("AutoencoderKLAllegro", "codes tiles of 24 frames"),
        ("UNet2DModel", f"UNet2DModel is no autoencoder of images that is known here ({CLASSES_PAGE} lists them)"),
    ],
)
def test_other_classes_are_refused_by_name(class_name, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": class_name}))
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        choose_autoencoder(load_profile("demo"), str(tmp_path), None)
    assert str(caught.value).startswith(f"--autoencoder {tmp_path}: its config.json is of another class")
    with pytest.raises(ValueError, match=re.escape(words)):
        DiffusersSpec(family="diffusers", source="a/b", class_name=class_name, compression=8, latent_channels=4)


@torch.no_grad()
def test_why_minimax_and_allegro_are_refused():
    """A later release of diffusers may code single frames."""
    h3 = {"latent_channels": 4, "block_out_channels": [32, 32], "layers_per_block": 1}
    h3 |= {"spatial_downsample_factors": [2, 2], "temporal_downsample_factors": [2, 2], "decoder_num_layers": 1}
    h3 |= {"decoder_num_attention_heads": 2, "decoder_attention_head_dim": 16}
    net = diffusers.AutoencoderKLMiniMaxH3(**h3, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    with pytest.raises(ValueError, match="non-empty list"):
        net(torch.zeros(1, 3, 1, 32, 32))
    allegro = {"block_out_channels": [8, 8], "down_block_types": ["AllegroDownBlock3D"] * 2, "layers_per_block": 1}
    allegro |= {"up_block_types": ["AllegroUpBlock3D"] * 2, "temporal_downsample_blocks": [True, False]}
    allegro |= {"temporal_upsample_blocks": [False, True], "norm_num_groups": 4, "temporal_compression_ratio": 2}
    net = diffusers.AutoencoderKLAllegro(**allegro, sample_size=16)
    net.enable_tiling()
    found = [net.encode(x).latent_dist.mean for x in (torch.zeros(1, 3, 1, 32, 32), torch.ones(1, 3, 1, 32, 32))]
    assert found[0].equal(found[1]), "its latent tells nothing of a single frame"


def changed(one: Tiny, **changes) -> DiffusersSpec:
    return one.spec().model_copy(update={"config": {**one.config, **changes}})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (changed(tiny("AutoencoderKL"), in_channels=4), "in_channels is 4, so this AutoencoderKL codes no RGB images"),
        (changed(tiny("AutoencoderKL"), out_channels=1), "out_channels is 1, so this"),
        (changed(tiny("AutoencoderKLWan"), in_channels=12), "in_channels is 12, so this AutoencoderKLWan codes no RGB"),
        (changed(tiny("AutoencoderKLQwenImage"), input_channels=5), "(which need 3 or 4)"),
        (changed(tiny("AutoencoderVidTok"), is_causal=False), "needs 16 frames"),
        (changed(tiny("AutoencoderRAE"), encoder_type="vit"), "does not build a AutoencoderRAE"),
        (changed(tiny("AutoencoderKLHunyuanVideo15"), block_out_channels=[16]), "does not build a"),
    ],
)
def test_configs_that_code_no_single_rgb_images_are_one_line(spec, words):
    with pytest.raises(ConfigError) as caught:
        build(spec)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_rae_takes_images_of_its_own_side_alone():
    """It would resize others, and give back its own side."""
    model = opened(tiny("AutoencoderRAE"))
    with pytest.raises(DataError, match="takes images of 32 x 32 px alone, and would resize others"):
        model.encode(torch.zeros(1, 3, 64, 64))


def test_without_its_package_rae_says_so(monkeypatch):
    monkeypatch.setattr(diffusers.utils, "is_transformers_available", lambda: False)
    with pytest.raises(
        ConfigError, match=re.escape("needs the package transformers; install it (pip install transformers)")
    ):
        build(tiny("AutoencoderRAE").spec())


def test_a_class_that_the_installed_release_lacks(monkeypatch):
    monkeypatch.setitem(CLASSES, "AutoencoderOfTomorrow", DiffusersClass())
    spec = tiny("AutoencoderKL").spec().model_copy(update={"class_name": "AutoencoderOfTomorrow"})
    with pytest.raises(ConfigError, match=r"diffusers [\d.]+ has no AutoencoderOfTomorrow; install a later release"):
        build(spec)


@torch.no_grad()
def test_an_error_of_the_class_is_one_line_that_names_it():
    model = opened(tiny("AutoencoderKLHunyuanVideo"))
    model.net.encoder.conv_in.conv.weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3, 3))
    with pytest.raises(ConfigError, match="encode of AutoencoderKLHunyuanVideo fails on") as caught:
        model.encode(images(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("class_name", "published"),
    [
        ("AutoencoderKLFlux2", {"force_upcast": True, "sample_size": 1024}),
        ("AutoencoderKLWan", {"clip_output": False}),
        ("AutoencoderKLLTXVideo", {"latents_mean": [0.5] * 8, "latents_std": [1.0] * 8}),
    ],
)
def test_keys_of_published_configs_that_change_no_image(class_name, published):
    one = tiny(class_name)
    found = {name: build(spec, seed=0) for name, spec in (("bare", one.spec()), ("full", changed(one, **published)))}
    x = images(found["bare"])
    assert found["bare"](x).equal(found["full"](x))


@pytest.mark.long
@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.class_name}-{one.what}")
def test_a_folder_that_diffusers_wrote_is_found_and_loaded(one, tmp_path, monkeypatch):
    """By its path alone: f and c from a grey image, every key of its config, and every tensor of its weights."""
    model = opened(one)
    model.net.save_pretrained(tmp_path / "vae")
    found = choose_autoencoder(load_profile("demo"), str(tmp_path), None, sets=())
    shape = (found.spec.class_name, found.spec.subfolder, found.spec.compression, found.spec.latent_channels)
    assert shape == (one.class_name, "vae", one.f, one.c)
    again, subject = open_autoencoder(found)
    assert all(value.equal(model.state_dict()[key]) for key, value in again.state_dict().items())
    assert subject.notes == model.notes
    x = images(model)
    with torch.no_grad():
        assert error(again(x), model(x)) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.class_name}-{one.what}")
def test_plans_can_count_a_pass(one):
    spec, side = one.spec(), 32
    found = autoencoder_passes(spec, side)
    assert found.parameters == build(spec).count_parameters() and found.encode.mac > 0 and found.decode.mac > 0
    assert found.encode.peak_bytes > 0
    assert autoencoder_cost(spec, [side]).passes[side].latent == (one.c, side // one.f, side // one.f)


@pytest.mark.parametrize("encoder", ["DINOv2", "MAE"])
def test_weights_of_rae_under_older_names(encoder, tmp_path):
    """Names of transformers 4, and a buffer that diffusers leaves out since."""
    one = tiny("AutoencoderRAE", encoder)
    model = opened(one)
    layout = layouts(one.spec(), model.state_dict())["transformers-4"]
    state = write_layout(model.state_dict(), layout)
    name = "encoder.encoder.layer.0.attention.attention.query.weight"
    assert name in state and ("encoder.encoder.layer.0.intermediate.dense.bias" in state) == (encoder == "MAE")
    save_file({**state, "decoder.decoder_pos_embed": torch.zeros(1)}, tmp_path / "rae.safetensors")
    other = build(one.spec(), seed=1)
    load_weights(other, tmp_path / "rae.safetensors")
    assert all(value.equal(model.state_dict()[key]) for key, value in other.state_dict().items())


def test_weights_of_2022_with_the_older_names_of_attention(tmp_path):
    one = tiny("VQModel")
    state = {key.removeprefix("net."): value for key, value in opened(one).state_dict().items()}
    renamed = {re.sub(r"(attentions.*)to_(q|k)\.", _of_2022, key): value for key, value in state.items()}
    renamed = {
        key.replace("to_v.", "value.").replace("to_out.0.", "proj_attn."): value for key, value in renamed.items()
    }
    assert renamed.keys() != state.keys()
    save_file(renamed, tmp_path / "vq.safetensors")
    other = build(one.spec(), seed=1)
    load_weights(other, tmp_path / "vq.safetensors")
    assert all(value.equal(state[key.removeprefix("net.")]) for key, value in other.state_dict().items())


def _of_2022(found: re.Match) -> str:
    return found[1] + {"q": "query.", "k": "key."}[found[2]]
