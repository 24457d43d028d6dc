"""What can be named on the command line, and that it measures the same whoever's class runs."""

import re
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderTiny

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import REPOSITORY, sha256_file
from dcae_bench.catalogue.autoencoders import Catalogue, Preset, catalogue
from dcae_bench.evaluation.reconstruction import reconstructor
from dcae_bench.models import diffusers_config as diffusers_config_module
from dcae_bench.models.checkpoints import load_weights, save_weights
from dcae_bench.models.diffusers_config import diffusers_config
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.autoencoders import CustomSpec, DCAESpec, DiffusersSpec
from dcae_bench.subjects import choose as subject
from dcae_bench.subjects.autoencoders import open_autoencoder, state_sha256
from dcae_bench.subjects.choose import choose_autoencoder

DEMO = load_profile("demo")
TAESD = {
    "encoder_block_out_channels": [8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8],
    "num_encoder_blocks": [1, 1, 1],
    "num_decoder_blocks": [1, 1, 1],
}
BLOCKS = ["res", "res", "evit_glu", "evit_glu"]
CODER = {"widths": [16, 16, 32, 64], "depths": [0, 1, 1, 1], "blocks": BLOCKS}
NORMS = {"norms": ["bn2d", "bn2d", "trms2d", "trms2d"], "activations": ["relu", "relu", "silu", "silu"]}
NANO = DCAESpec(family="dc-ae", latent_channels=8, encoder=CODER, decoder={**CODER, **NORMS})


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The documented example, in a module of its own in the current folder."""
    page = (REPOSITORY / "docs" / "bring-your-own.md").read_text()
    code = re.search(r"`(\w+)\.py`:\n\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / f"{code[1]}.py").write_text(code[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, code[1], raising=False)  # of another test's folder
    return page, code[2]


def test_diffusers_weights_measure_the_same_in_our_class_and_in_theirs(evaluator, make_crops, metrics_of, tmp_path):
    """A checkpoint that diffusers wrote from random weights, through the harness's own evaluator."""
    torch.manual_seed(0)
    twin = AutoencoderDC(**diffusers_config(NANO))
    for buffer_name, buffer in twin.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    twin.save_pretrained(tmp_path)
    theirs = DiffusersSpec(
        family="diffusers", source=str(tmp_path), class_name="AutoencoderDC", compression=8, latent_channels=8
    )
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 64, 64), dtype=np.uint8))
    crops = make_crops(images)
    metrics, reconstructions = {}, {}
    for spec in (NANO, theirs):
        model = build(spec)
        load_weights(model, tmp_path)
        reconstruct = reconstructor(model.eval(), None)
        measured = evaluator.measure(reconstruct, crops, tmp_path / spec.family)
        metrics[spec.family] = metrics_of(measured, crops)
        with torch.inference_mode():
            reconstructions[spec.family] = reconstruct(images, range(6)).numpy().astype(int)
    ours, other = metrics["dc-ae"], metrics["diffusers"]
    assert ours.keys() == other.keys() and len(ours) == 4
    for name in ours:
        assert ours[name].value == pytest.approx(other[name].value, rel=1e-4), name
    # Both round to uint8, where fp32 sums in another order may cross a rounding edge by one level.
    levels = np.abs(reconstructions["dc-ae"] - reconstructions["diffusers"])
    assert levels.max() <= 1 and (levels > 0).mean() < 1e-3


def test_names_of_the_profile_need_weights_and_come_first(tmp_path):
    chosen = choose_autoencoder(DEMO, "dc-ae-f32c32", tmp_path / "w.safetensors")
    assert (chosen.name, chosen.source) == ("dc-ae-f32c32", "retrained")
    assert chosen.spec == DEMO.autoencoders["dc-ae-f32c32"].model
    with pytest.raises(ConfigError, match="--weights is missing"):
        choose_autoencoder(DEMO, "dc-ae-f32c32", None)
    with pytest.raises(ConfigError, match="leave them out"):
        choose_autoencoder(DEMO, "dc-ae-f32c32", None, f=32)


def test_names_of_the_catalogue_bring_their_released_weights(monkeypatch, tmp_path):
    class Fetched:
        path = tmp_path / "released.safetensors"

    monkeypatch.setattr(subject.weights, "locate", lambda name: Fetched)
    chosen = choose_autoencoder(DEMO, "dc-ae-f64c128-in-1.0", None)
    assert (chosen.weights, chosen.source) == (Fetched.path, "released")
    assert chosen.spec.compression == 64
    own = choose_autoencoder(DEMO, "dc-ae-f64c128-in-1.0", tmp_path / "mine.pt")
    assert (own.weights, own.source) == (tmp_path / "mine.pt", "own")


def test_an_f_that_does_not_fit_the_sets_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="resolution 64 of evaluation set photos-indoor-64 is not a multiple of 128"):
        choose_autoencoder(DEMO, "dc-ae-f128c512-in-1.0", tmp_path / "w.pt")


def test_only_the_sets_asked_for_must_fit(tmp_path):
    wide = [item for item in DEMO.evaluation.sets if item.resolution == 128]
    chosen = choose_autoencoder(DEMO, "dc-ae-f128c512-in-1.0", tmp_path / "w.pt", sets=wide)
    assert chosen.spec.compression == 128


def test_a_class_of_ones_own_is_probed_or_stated(example):
    chosen = choose_autoencoder(DEMO, "mymodel:Thumbnail", None)
    spec = chosen.spec
    assert spec == CustomSpec(family="custom", class_name="mymodel:Thumbnail", compression=8, latent_channels=3)
    assert (chosen.name, chosen.source, chosen.weights) == ("mymodel-thumbnail", "own", None)
    stated = choose_autoencoder(DEMO, "mymodel:Thumbnail", None, f=4, c=12)
    assert stated.spec.compression == 4


def test_a_class_that_cannot_be_probed(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(
        "class AE:\n    def encode(self, x):\n        raise RuntimeError('only 512')\n    decode = encode\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"\(only 512\); if it takes other images, state --f and --c"):
        choose_autoencoder(DEMO, "broken:AE", None)


def test_a_diffusers_folder_states_itself(tmp_path):
    torch.manual_seed(0)
    AutoencoderTiny(**TAESD).save_pretrained(tmp_path / "My VAE" / "vae")
    chosen = choose_autoencoder(DEMO, str(tmp_path / "My VAE"), None)
    spec = chosen.spec
    assert (spec.class_name, spec.subfolder, spec.compression, spec.latent_channels) == ("AutoencoderTiny", "vae", 4, 4)
    assert chosen.weights == tmp_path / "My VAE" / "vae" and chosen.name.endswith("my-vae")
    load_weights(build(spec), chosen.weights)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("dc-ae-f32c33", "no such autoencoder"),
        ("no_such_module:X", "cannot be imported"),
        ("json:JSONDecoder", "has no method encode"),
        ("json:codecs", "is an object; name its class"),
        ("argparse:Namespace.py", "no such autoencoder"),
        ("json.py:JSONDecoder", "name the module, json:JSONDecoder"),
        ("/no/such/folder", "no such autoencoder"),
    ],
)
def test_what_cannot_be_named(wanted, words):
    with pytest.raises(ConfigError) as caught:
        choose_autoencoder(DEMO, wanted, None)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_entry_with_released_weights_takes_them_and_a_file_instead_is_the_users_own(monkeypatch, tmp_path):
    profile = load_profile("released")
    fetched = subject.weights.VerifiedWeights(tmp_path / "fetched", "0" * 64, 1, None, recorded=True)
    monkeypatch.setattr(subject.weights, "locate", {"sd-vae-ft-ema": fetched}.__getitem__)
    chosen = choose_autoencoder(profile, "sd-vae-ft-ema", None)
    assert (chosen.weights, chosen.source) == (tmp_path / "fetched", "released")
    assert chosen.spec == profile.autoencoders["sd-vae-ft-ema"].model
    chosen = choose_autoencoder(profile, "sd-vae-ft-ema", tmp_path / "mine")
    assert (chosen.weights, chosen.source) == (tmp_path / "mine", "own")


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A folder in the form of the authors' own repositories, of a small model that the catalogue names."""
    whole = catalogue()
    small = Catalogue(
        architectures={**whole.architectures, "nano": NANO},
        autoencoders={**whole.autoencoders, "dc-ae-nano-in-1.0": Preset(architecture="nano", notes="small")},
    )
    for module in (subject, diffusers_config_module):
        monkeypatch.setattr(module, "catalogue", lambda: small)
    folder = tmp_path / "Official_Nano"
    state = build(NANO, seed=4).state_dict()
    save_weights(state, folder / "model.safetensors", layout="official", spec=NANO)
    (folder / "config.json").write_text('{"model_name": "dc-ae-nano-in-1.0"}')
    return folder, state


def test_a_folder_of_the_authors_own_form_is_the_model_that_it_names(official):
    folder, state = official
    chosen = choose_autoencoder(DEMO, str(folder), None, sets=[])
    assert (chosen.spec, chosen.weights, chosen.source) == (NANO, folder, "own")
    model, described = open_autoencoder(chosen)
    assert described.autoencoder == chosen.name and described.weights_sha256 == sha256_file(
        folder / "model.safetensors"
    )
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
    with pytest.raises(ConfigError, match="leave them out"):
        choose_autoencoder(DEMO, str(folder), None, f=8)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ('{"model_name": "no-such"}', ConfigError, "model_name no-such, which is no autoencoder of the catalogue"),
        ('{"model_name": null}', ConfigError, "model_name None, which is no autoencoder"),
        ('{"model_name": "dc-ae-nano-in-1.0", "act": "gelu"}', WeightsError, "act is gelu, which nothing follows"),
    ],
)
def test_a_folder_that_is_not_what_its_config_names(official, config, error, words):
    folder, _ = official
    (folder / "config.json").write_text(config)
    with pytest.raises(error, match=words):
        open_autoencoder(choose_autoencoder(DEMO, str(folder), None, sets=[]))


def test_a_folder_of_the_authors_own_form_does_not_load_into_another_graph(official):
    folder, _ = official
    (folder / "config.json").write_text('{"model_name": "dc-ae-f64c128-in-1.0"}')
    assert choose_autoencoder(DEMO, str(folder), None, sets=[]).spec == catalogue().spec("dc-ae-f64c128-in-1.0")
    with pytest.raises(WeightsError, match=r"model_name is dc-ae-f64c128-in-1\.0, whose graph is another"):
        load_weights(build(NANO), folder)


def test_a_hub_id_of_the_authors_own_form(official, monkeypatch):
    folder, _ = official

    class Found:
        def __init__(self, path):
            self.path = path

    monkeypatch.setattr(subject.hub, "download", lambda repo, file, revision, **_: Found(folder / file))
    chosen = choose_autoencoder(DEMO, "mit-han-lab/dc-ae-nano", None, sets=[])
    assert (chosen.spec, chosen.weights) == (NANO, folder / "model.safetensors")


def test_a_hub_id_without_a_network_is_one_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"owner/vae/config\.json: not in the hub cache .*name its folder in place"):
        choose_autoencoder(DEMO, "owner/vae", None)


def test_the_hash_of_a_class_without_a_file_follows_its_state_and_its_spec(example):
    spec = CustomSpec(family="custom", class_name="mymodel:Thumbnail", compression=8, latent_channels=3)
    nano = build(NANO, seed=0)
    assert state_sha256(build(spec)) == state_sha256(build(spec)) != state_sha256(nano)
    before = state_sha256(nano)
    nano.last_layer.data[0] += 1
    assert state_sha256(nano) != before


def test_the_hash_of_a_class_without_a_file_follows_its_code(example, tmp_path):
    spec = CustomSpec(family="custom", class_name="mymodel:Thumbnail", compression=8, latent_channels=3)
    model = build(spec)
    before = state_sha256(model)
    path = tmp_path / "mymodel.py"
    path.write_text(path.read_text().replace("bicubic", "nearest"))
    assert state_sha256(model) != before


def test_the_documented_example_is_short_and_its_model_specs_are_valid(example):
    import yaml

    from dcae_bench.profile.autoencoders import AutoencoderEntry

    page, code = example
    assert len(code.splitlines()) <= 15
    trained, own = (yaml.safe_load(text)["autoencoders"] for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    for entries, weights, families in (
        (trained, "retrained", {"custom", "diffusers", "space-to-channel"}),
        (own, "own", {"custom", "diffusers", "dc-ae"}),
    ):
        read = [AutoencoderEntry.model_validate(entry) for entry in entries.values()]
        assert {entry.model.family for entry in read} == families and {entry.weights for entry in read} == {weights}
