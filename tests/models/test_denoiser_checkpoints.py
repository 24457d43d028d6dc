"""Denoisers' weights in every published layout, and each way in which a file can be wrong."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcae_bench.base.errors import WeightsError
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.denoiser_checkpoints import load_denoiser
from dcae_bench.models.denoiser_keys import to_diffusers
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec

SIZE = {"latent": LatentSpace(channels=3, side=4), "width": 16, "depth": 2, "heads": 2, "classes": 5}
SPECS = {"uvit": UViTSpec(family="uvit", **SIZE), "dit": DiTSpec(family="dit", **SIZE)}


@pytest.fixture
def states(randomise):
    states = {name: dict(randomise(build_denoiser(spec, seed=0)).state_dict()) for name, spec in SPECS.items()}
    states["dit"]["pos_embed"] = build_denoiser(SPECS["dit"]).pos_embed.detach()
    return states


def prefixed(state, prefix):
    return {prefix + key: value.clone() for key, value in state.items()}


def same(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(own[key].equal(state[key]) for key in own)


@pytest.mark.parametrize("family", SPECS)
def test_our_own_weights(family, states, tmp_path):
    sha256 = save_weights(states[family], tmp_path / "model.safetensors")
    model = build_denoiser(SPECS[family], seed=1)
    assert load_denoiser(model, tmp_path / "model.safetensors", sha256=sha256) == sha256
    assert same(model, states[family])


@pytest.mark.parametrize("family", SPECS)
def test_a_released_pipeline_without_its_autoencoder(family, states, tmp_path):
    state = prefixed(states[family], "diffusion_model.") | {"autoencoder.encoder.x": torch.full((2,), torch.nan)}
    save_file(state, tmp_path / "model.safetensors")
    model = build_denoiser(SPECS[family], seed=1)
    load_denoiser(model, tmp_path / "model.safetensors")
    assert same(model, states[family])


@pytest.mark.parametrize("family", SPECS)
def test_a_trainers_moving_average(family, states, tmp_path):
    path = tmp_path / "checkpoint.pt"
    averages = {0.9999: prefixed(states[family], f"{family}."), 0.999: prefixed(states[family], f"{family}.")}
    averages[0.999] = {key: value + 1 for key, value in averages[0.999].items()}
    torch.save({"ema": averages, "step": 7}, path)
    model = build_denoiser(SPECS[family], seed=1)
    with pytest.raises(WeightsError, match=r"checkpoint.pt: moving average of decay None .* choose one of 0.9999, 0.9"):
        load_denoiser(model, path)
    load_denoiser(model, path, ema=0.9999)
    assert same(model, states[family])
    torch.save({"ema": {"0.9999": averages[0.9999]}}, path)
    model = build_denoiser(SPECS[family], seed=1)
    load_denoiser(model, path)
    assert same(model, states[family]), "the only one needs no name"


def test_u_vits_own_name_of_its_labels(states, tmp_path):
    state = dict(states["uvit"])
    state["label_emb.weight"] = state.pop("label_emb.embedding_table.weight")
    torch.save(state, tmp_path / "model.pth")
    model = build_denoiser(SPECS["uvit"], seed=1)
    load_denoiser(model, tmp_path / "model.pth")
    assert same(model, states["uvit"])


def test_dit_of_diffusers(states, tmp_path):
    state = {key: value.clone() for key, value in to_diffusers(states["dit"], SPECS["dit"]).items()}
    save_file(state, tmp_path / "model.safetensors")
    model = build_denoiser(SPECS["dit"], seed=1)
    load_denoiser(model, tmp_path / "model.safetensors")
    assert same(model, states["dit"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"transformer_blocks.1.attn1.to_k.bias": None}, "key 'transformer_blocks.1.attn1.to_k.bias' is missing"),
        ({"transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight": 1.0}, "is not a copy of"),
        ({"transformer_blocks.1.attn1.to_k.weight": torch.zeros(2, 1, 1)}, "to_k.weight' has another shape than"),
        ({"proj_out_2.weight": None}, "key 'final_layer.linear.weight' is missing"),
        ({"caption.weight": 1.0}, "key 'caption.weight' is unknown to the model"),
    ],
)
def test_damaged_weights_of_diffusers(damage, words, states, tmp_path):
    state = {key: value.clone() for key, value in to_diffusers(states["dit"], SPECS["dit"]).items()}
    for key, value in damage.items():
        known = state.pop(key, torch.zeros(1))
        if value is not None:
            state[key] = known + value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=words):
        load_denoiser(build_denoiser(SPECS["dit"]), tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("norm.bias", None, "key 'norm.bias' is missing"),
        ("other", torch.zeros(1), "key 'other' is unknown to the model"),
        ("pos_embed", torch.zeros(1, 66, 16), r"key 'pos_embed' has another shape .* this uvit \(width 16, depth 2\)"),
        ("norm.bias", torch.full((16,), torch.inf), "key 'norm.bias' holds values that are not finite"),
    ],
)
def test_wrong_keys(key, value, words, states, tmp_path):
    state = dict(states["uvit"])
    state.pop(key, None)
    if value is not None:
        state[key] = value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        load_denoiser(build_denoiser(SPECS["uvit"]), tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


def test_other_files(states, tmp_path):
    model = build_denoiser(SPECS["uvit"])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_denoiser(model, tmp_path / "none.safetensors")
    sha256 = save_weights(states["dit"], tmp_path / "dit.safetensors")
    assert load_file(tmp_path / "dit.safetensors")
    # Positions have the same name in both families, which is told by the rest.
    with pytest.raises(WeightsError, match=r"is missing .* not weights of this uvit"):
        load_denoiser(model, tmp_path / "dit.safetensors")
    with pytest.raises(WeightsError, match=f"has SHA-256 {sha256}, expected 0000"):
        load_denoiser(model, tmp_path / "dit.safetensors", sha256="0" * 64)
    with pytest.raises(WeightsError, match="holds no moving averages"):
        load_denoiser(model, tmp_path / "dit.safetensors", ema=0.5)
    save_file({"autoencoder.x": torch.zeros(1)}, tmp_path / "ae.safetensors")
    with pytest.raises(WeightsError, match="no key is a uvit's"):
        load_denoiser(model, tmp_path / "ae.safetensors")
    torch.save({"ema": {"best": {}}}, tmp_path / "ema.pt")
    with pytest.raises(WeightsError, match="'ema' has the key 'best', which is no decay"):
        load_denoiser(model, tmp_path / "ema.pt")
