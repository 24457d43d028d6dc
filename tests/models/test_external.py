"""Autoencoders made elsewhere behave as our own do."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcae_bench.base.errors import ConfigError, DataError, WeightsError
from dcae_bench.costs.cache import autoencoder_key
from dcae_bench.models.checkpoints import load_weights, save_weights
from dcae_bench.models.zoo import build
from dcae_bench.specs.autoencoders import CustomSpec, DiffusersSpec, SDVAESpec, SpaceToChannelSpec
from dcae_bench.subjects.autoencoders import state_sha256
from dcae_bench.weights.diffusers_folder import source_weights

TINY = SDVAESpec(family="sd-vae", latent_channels=4, widths=(8, 8, 16), layers_per_block=1, norm_groups=4)
KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
}
DC = {
    "latent_channels": 4,
    **{f"{side}_block_types": "ResBlock" for side in ("encoder", "decoder")},
    **{f"{side}_block_out_channels": [8, 8, 16] for side in ("encoder", "decoder")},
    **{f"{side}_layers_per_block": [1, 1, 1] for side in ("encoder", "decoder")},
    **{f"{side}_qkv_multiscales": [[], [], []] for side in ("encoder", "decoder")},
}
TAESD = {
    "encoder_block_out_channels": [8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8],
    "num_encoder_blocks": [1, 1, 1],
    "num_decoder_blocks": [1, 1, 1],
}
ASYMMETRIC = {
    **{key: value for key, value in KL.items() if key != "latent_channels"},
    "down_block_out_channels": [8, 8],
    "up_block_out_channels": [8, 16],
    "latent_channels": 3,
}


class Doubled(nn.Module):
    """A user's class; ``wrong`` makes its latent one row too small."""

    def __init__(self, wrong: bool = False):
        super().__init__()
        self.gain, self.wrong = nn.Parameter(torch.tensor(2.0)), wrong

    def encode(self, x):
        z = self.gain * F.avg_pool2d(x, 4)
        return z[:, :, 1:] if self.wrong else z

    def decode(self, z):
        return F.interpolate(z / self.gain, scale_factor=4)


class OneWay:
    def encode(self, x):
        return x


def theirs(class_name: str, config: dict, f: int, c: int, source: str = "some/where") -> DiffusersSpec:
    return DiffusersSpec(
        family="diffusers", source=source, class_name=class_name, config=config, compression=f, latent_channels=c
    )


def custom(name: str = "Doubled", f: int = 4, c: int = 3, **kwargs) -> CustomSpec:
    return CustomSpec(family="custom", class_name=f"{__name__}:{name}", kwargs=kwargs, compression=f, latent_channels=c)


SPECS = {
    "AutoencoderKL": theirs("AutoencoderKL", {**KL, "block_out_channels": [8, 8]}, 2, 3),
    "AutoencoderDC": theirs("AutoencoderDC", DC, 4, 4),
    "AutoencoderTiny": theirs("AutoencoderTiny", TAESD, 4, 4),
    "AsymmetricAutoencoderKL": theirs("AsymmetricAutoencoderKL", ASYMMETRIC, 2, 3),
    "custom": custom(),
    "space-to-channel": SpaceToChannelSpec(family="space-to-channel", base=TINY, factor=2),
    "sd-vae": TINY,
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The test module under its own name, as a user's module would be."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__("types").ModuleType(__name__))
    for cls in (Doubled, OneWay):
        monkeypatch.setattr(sys.modules[__name__], cls.__name__, cls, raising=False)


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def images(height: int, width: int) -> torch.Tensor:
    return 2 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) - 1


@torch.no_grad()
def test_shapes_are_the_stated_ones_and_coding_is_deterministic(spec):
    model = build(spec, seed=0).eval()
    f, c = spec.compression, spec.latent_channels
    x = images(2 * f, 3 * f)
    z = model.encode(x)
    assert z.shape == (2, c, 2, 3) and model.encode(x).equal(z)
    assert model.decode(z).shape == model(x).shape == x.shape
    assert (model.family, model.compression, model.latent_channels) == (spec.family, f, c)
    assert model.layer_sets()["all"] == [model]


@pytest.mark.parametrize("shape", [(1, 3, 9, 8), (1, 3, 8, 9), (1, 1, 8, 8), (3, 8, 8)])
def test_inputs_that_do_not_fit_are_one_clear_error_everywhere(spec, shape):
    model = build(spec)
    f = model.compression
    with pytest.raises(DataError) as caught:
        model.encode(torch.zeros(shape))
    assert str(shape) in str(caught.value) and f"multiples of {f}" in str(caught.value)
    with pytest.raises(DataError, match="latent of shape"):
        model.decode(torch.zeros(1, model.latent_channels + 1, 2, 2))


def test_weights_come_back_bit_for_bit(spec, tmp_path):
    state = build(spec, seed=0).state_dict()
    from dcae_bench.models.keys import layouts

    for layout in layouts(spec, state):
        save_weights(state, tmp_path / f"{layout}.safetensors", layout=layout, spec=spec)
        model = build(spec, seed=1)
        load_weights(model, tmp_path / f"{layout}.safetensors")
        assert all(value.equal(state[key]) for key, value in model.state_dict().items()), layout


@torch.no_grad()
def test_folding_keeps_every_number_and_the_reconstruction(tmp_path):
    base, folded = build(TINY, seed=0).eval(), build(SPECS["space-to-channel"]).eval()
    save_weights(base.state_dict(), tmp_path / "base.safetensors", layout="official", spec=TINY)
    load_weights(folded, tmp_path / "base.safetensors")
    x = images(16, 24)
    z, wide = base.encode(x), folded.encode(x)
    assert wide.shape == (2, 16, 2, 3) and F.pixel_shuffle(wide, 2).equal(z)
    assert folded(x).equal(base(x))
    assert folded.last_layer is folded.base.last_layer


def test_a_local_folder_of_diffusers_is_built_from_its_config_and_loaded(tmp_path):
    from diffusers import AutoencoderTiny

    twin = AutoencoderTiny(**TAESD).eval()
    twin.save_pretrained(tmp_path / "pipeline" / "vae")
    found = theirs("AutoencoderTiny", None, 4, 4, str(tmp_path / "pipeline")).model_copy(update={"subfolder": "vae"})
    model = build(found).eval()
    load_weights(model, source_weights(found))
    x = images(8, 8)
    with torch.no_grad():
        assert model.encode(x).equal(twin.encode(x).latents)
        assert model(x).equal(twin.decode(twin.encode(x).latents).sample)


def test_a_source_that_is_not_what_it_is_said_to_be(tmp_path):
    folder = tmp_path / "vae"
    with pytest.raises(WeightsError, match="neither a folder nor a hub id"):
        build(theirs("AutoencoderKL", None, 8, 4, str(folder)))
    folder.mkdir()
    with pytest.raises(WeightsError, match="put diffusers' config"):
        build(theirs("AutoencoderKL", None, 8, 4, str(folder)))
    (folder / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="is not a JSON object"):
        build(theirs("AutoencoderKL", None, 8, 4, str(folder)))
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ConfigError, match="is a UNet2DModel, not the stated AutoencoderKL"):
        build(theirs("AutoencoderKL", None, 8, 4, str(folder)))
    with pytest.raises(ConfigError, match="does not build a AutoencoderKL"):
        build(theirs("AutoencoderKL", {"down_block_types": ["NoSuchBlock"]}, 8, 4))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (custom().model_copy(update={"class_name": "no_such_module:X"}), "cannot be imported"),
        (custom("Missing"), "has no Missing"),
        (custom("OneWay"), "has no method decode"),
        (custom(no_such=1), "cannot be called with kwargs {'no_such': 1}"),
    ],
)
def test_classes_that_are_no_autoencoders(spec, words):
    with pytest.raises(ConfigError) as caught:
        build(spec)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class AE(:\n", "importing broken failed (SyntaxError: invalid syntax, line 1 of"),
        ("\nraise RuntimeError('no GPU\\nat all')", "failed (RuntimeError: no GPU, line 2 of"),
        ("import sys\nsys.exit(0)", "failed (SystemExit: 0, line 2 of"),
        ("import no_such_library", "failed (ModuleNotFoundError: No module named 'no_such_library', line 1 of"),
        ("from os import AE", "failed (ImportError: cannot import name 'AE'"),
        ("import os\nos.nothing", "failed (AttributeError: module 'os' has no attribute 'nothing', line 2 of"),
        (
            "class AE:\n    def encode(self, x): ...\n    decode = encode\n    def __init__(self): open('none.pt')",
            "building it failed (FileNotFoundError: [Errno 2] No such file or directory: 'none.pt', line 4 of",
        ),
    ],
    ids=["syntax", "raises", "exits", "library", "name", "attribute", "constructor"],
)
def test_classes_that_fail_say_where(code, words, tmp_path, monkeypatch):
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    (tmp_path / "broken.py").write_text(code)
    spec = CustomSpec(family="custom", class_name="broken:AE", compression=4, latent_channels=3)
    with pytest.raises(ConfigError) as caught:
        build(spec)
    sys.modules.pop("broken", None)
    message = str(caught.value)
    assert words in message and message.endswith("; correct it") and "\n" not in message
    assert code.startswith("from os") or str(tmp_path / "broken.py") in message


@pytest.mark.parametrize(("spec", "found"), [(custom(wrong=True), (2, 3, 1, 2)), (custom(c=4), (2, 3, 2, 2))])
def test_a_latent_of_another_shape_than_stated(spec, found):
    with pytest.raises(ConfigError) as caught:
        build(spec).encode(images(8, 8))
    assert str(found) in str(caught.value) and "correct the stated values" in str(caught.value)


def test_an_unknown_last_layer_is_said():
    with pytest.raises(ConfigError, match="adaptive: false"):
        _ = build(SPECS["AutoencoderDC"]).last_layer


def test_only_the_whole_of_it_can_be_trained():
    from dcae_bench.training.phases import Freezer

    model = build(SPECS["custom"])
    Freezer(model, ["all"])
    assert model.net.gain.requires_grad
    with pytest.raises(ConfigError, match="'encoder_head': an autoencoder of family custom has only all"):
        Freezer(model, ["encoder_head"])
    del model.net.gain
    with pytest.raises(ConfigError, match="trainable all: this autoencoder of family custom has no parameters there"):
        Freezer(model, ["all"])


def test_an_edit_of_a_module_that_a_class_imports_makes_another_autoencoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with_helper.py").write_text(
        "from its_helper import factor\nclass AE:\n    encode = decode = staticmethod(lambda x: factor * x)\n"
    )
    spec = CustomSpec(family="custom", class_name="with_helper:AE", compression=4, latent_channels=3)
    helper = tmp_path / "its_helper.py"
    hashes, keys = [], []
    for content in ("factor = 1\n", "factor = 2\n", "factor = 1\n"):
        helper.write_text(content)
        hashes.append(state_sha256(build(spec)))
        keys.append(autoencoder_key(spec))
    for found in (hashes, keys):
        assert found[0] == found[2] != found[1]
    assert build(spec).source().startswith((tmp_path / "with_helper.py").read_bytes())


def test_a_key_that_the_installed_class_does_not_know_is_refused():
    """diffusers itself would only warn, and build another network than the config's."""
    with pytest.raises(
        ConfigError, match="its config has new_attention, which the installed AutoencoderKL does not know"
    ):
        build(theirs("AutoencoderKL", {"new_attention": True, "_diffusers_version": "9"}, 8, 4))
