"""Weights in every published layout, and each way in which a file can be wrong."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL
from diffusers.loaders.single_file_utils import (
    convert_autoencoder_dc_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import load_file, save_file

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.cli.main import main
from dcae_bench.models.checkpoints import load_weights, save_weights
from dcae_bench.models.diffusers_config import (
    CLASSES,
    IRRELEVANT,
    config_conflict,
    constructor_defaults,
    diffusers_config,
)
from dcae_bench.models.keys import layouts, write_layout
from dcae_bench.models.weight_files import read_part, read_state
from dcae_bench.models.zoo import build
from dcae_bench.specs.autoencoders import AutoencoderSpec, DCAESpec, SDVAESpec, SpaceToChannelSpec
from dcae_bench.weights.trained import TrainedWeights, model_sha256, read_statement

DC_AE = ("dc-ae-f32c32", "dc-ae-f64c128", "dc-ae-f128c512", "dc-ae-f32c32-sana", "dc-ae-f32c32-lite")
SD_VAE = ("sd-vae-f8c4", "ldm-f16c16", "ldm-f32c64", "flux-vae-f8c16")
NARROW = {128: 8, 256: 16, 512: 32, 1024: 64, 2048: 128}


def reduced(name: str) -> AutoencoderSpec:
    """The published graph, every stage and depth of it, at a sixteenth of its width."""
    content = catalogue().architectures[name].model_dump()
    if name in DC_AE:
        for side in ("encoder", "decoder"):
            content[side]["widths"] = [NARROW[width] for width in content[side]["widths"]]
        content["latent_channels"] = 8
        return DCAESpec.model_validate(content)
    content["widths"] = [NARROW[width] for width in content["widths"]]
    return SDVAESpec.model_validate({**content, "norm_groups": 4})


@pytest.fixture(scope="module", params=DC_AE + SD_VAE)
def trained(request):
    """A spec and a state with values that no other key has."""
    spec = reduced(request.param)
    state = build(spec, seed=1).state_dict()
    for number, value in enumerate(state.values()):
        value.copy_(value + number if value.is_floating_point() else torch.tensor(number))
    return spec, state


@pytest.fixture
def small(tmp_path):
    """A spec, and good weights of it in our layout to be damaged."""
    spec = reduced("dc-ae-f32c32")
    path = tmp_path / "weights.safetensors"
    save_weights(build(spec, seed=0).state_dict(), path)
    return spec, path


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) and a[key].dtype == b[key].dtype for key in a)


def twin(spec):
    """diffusers' own class of the spec, without values."""
    with torch.device("meta"):
        return (AutoencoderDC if isinstance(spec, DCAESpec) else AutoencoderKL)(**diffusers_config(spec))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("native", "model.safetensors"),
        ("official", "model.safetensors"),
        ("official", "model.pt"),
        ("diffusers", "folder"),
    ],
)
def test_every_layout_comes_back_bit_for_bit(trained, layout, name, tmp_path):
    spec, state = trained
    sha256 = save_weights(state, tmp_path / name, layout=layout, spec=spec)
    model = build(spec, seed=2)
    assert load_weights(model, tmp_path / name, sha256=sha256) == sha256
    assert same(model.state_dict(), state)


@pytest.mark.parametrize("name", ["sd-vae-f8c4", "ldm-f16c16"])
def test_the_attention_names_of_2022_are_known(name, tmp_path):
    """As the hub has sd-vae-ft-ema and sd-vae-ft-mse."""
    spec = reduced(name)
    state = build(spec, seed=0).state_dict()
    save_weights(state, tmp_path / "model.safetensors", layout="diffusers-2022", spec=spec)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert {f"encoder.mid_block.attentions.0.{part}.weight" for part in ("query", "key", "value", "proj_attn")} <= keys
    model = build(spec, seed=1)
    load_weights(model, tmp_path / "model.safetensors")
    assert same(model.state_dict(), state)


def test_diffusers_takes_what_we_write_and_we_take_what_diffusers_writes(trained, tmp_path):
    spec, state = trained
    save_weights(state, tmp_path / "ours", layout="diffusers", spec=spec)
    theirs = (AutoencoderDC if isinstance(spec, DCAESpec) else AutoencoderKL).from_pretrained(tmp_path / "ours")
    assert same(theirs.state_dict(), load_file(tmp_path / "ours" / "diffusion_pytorch_model.safetensors"))
    theirs.save_pretrained(tmp_path / "theirs")
    model = build(spec)
    load_weights(model, tmp_path / "theirs")
    assert same(model.state_dict(), state)


# The converter takes the decoder's form from the encoder's, and Lite's differ.
@pytest.mark.parametrize("name", [*(name for name in DC_AE if not name.endswith("lite")), "sd-vae-f8c4"])
def test_official_names_are_those_that_diffusers_converts(name):
    """An independent reading of the authors' and LDM's layouts."""
    spec = reduced(name)
    state = build(spec, seed=1).state_dict()
    known = layouts(spec, state)
    official = write_layout(state, known["official"])
    if isinstance(spec, DCAESpec):
        converted = convert_autoencoder_dc_checkpoint_to_diffusers(official)
    else:
        converted = convert_ldm_vae_checkpoint(official, diffusers_config(spec))
    assert same(converted, write_layout(state, known["diffusers"]))


@pytest.mark.parametrize(
    ("name", "official", "diffusers"),
    [
        ("dc-ae-f32c32", 338, 362),
        ("dc-ae-f64c128", 386, 418),
        ("dc-ae-f128c512", 434, 474),
        ("dc-ae-f32c32-sana", 339, 375),
    ],
)
def test_released_sizes_have_the_published_key_sets(name, official, diffusers):
    spec = catalogue().architectures[name]
    with torch.device("meta"):
        state = build(spec).state_dict()
    known = layouts(spec, state)
    assert len(write_layout(state, known["official"])) == official
    ours = {key: value.shape for key, value in write_layout(state, known["diffusers"]).items()}
    assert ours == {key: value.shape for key, value in twin(spec).state_dict().items()} and len(ours) == diffusers


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "dc-ae-f32c32",
            """encoder.project_in.conv.conv.weight
            encoder.stages.1.op_list.0.main.conv1.conv.bias
            encoder.stages.1.op_list.0.main.conv2.norm.weight
            encoder.stages.1.op_list.4.main.conv.conv.weight
            encoder.stages.3.op_list.0.context_module.main.qkv.conv.weight
            encoder.stages.5.op_list.1.context_module.main.proj.norm.bias
            encoder.stages.5.op_list.1.local_module.main.depth_conv.conv.bias
            encoder.project_out.main.op_list.0.conv.weight
            decoder.project_in.main.conv.bias
            decoder.stages.1.op_list.0.main.conv.conv.weight
            decoder.stages.2.op_list.10.main.conv2.norm.running_var
            decoder.project_out.op_list.0.bias
            decoder.project_out.op_list.2.conv.conv.weight""",
        ),
        (
            "dc-ae-f32c32-sana",
            """encoder.project_in.conv.weight
            encoder.stages.0.op_list.2.main.conv.weight
            encoder.stages.3.op_list.0.context_module.main.aggreg.0.1.weight
            decoder.stages.0.op_list.0.main.conv.conv.weight
            decoder.project_out.op_list.2.conv.bias""",
        ),
        (
            "ldm-f16c16",
            """encoder.down.1.downsample.conv.weight
            encoder.down.2.block.0.nin_shortcut.weight
            encoder.down.4.attn.1.proj_out.bias
            encoder.mid.attn_1.norm.weight
            encoder.norm_out.bias
            decoder.mid.block_2.conv2.weight
            decoder.up.4.attn.2.q.weight
            decoder.up.4.upsample.conv.weight
            decoder.up.0.block.2.norm1.weight
            post_quant_conv.weight""",
        ),
    ],
)
def test_official_names(name, keys):
    spec = reduced(name)
    state = build(spec).state_dict()
    official = write_layout(state, layouts(spec, state)["official"])
    assert set(keys.split()) <= official.keys()
    attention = [value for key, value in official.items() if key.endswith((".q.weight", "qkv.conv.weight"))]
    assert attention and all(value.shape[2:] == (1, 1) for value in attention)


def test_ldms_training_parts_are_left_out(tmp_path):
    spec = reduced("sd-vae-f8c4")
    state = build(spec, seed=0).state_dict()
    official = write_layout(state, layouts(spec, state)["official"])
    official |= {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.ones(2)}
    torch.save({"state_dict": official}, tmp_path / "model.ckpt")
    model = build(spec, seed=1)
    load_weights(model, tmp_path / "model.ckpt")
    assert same(model.state_dict(), state)
    folded = build(SpaceToChannelSpec(family="space-to-channel", base=spec, factor=2), seed=2)
    load_weights(folded, tmp_path / "model.ckpt")
    assert same(folded.base.state_dict(), state)


def test_half_precision_files_load_into_fp32_models(small, tmp_path):
    spec, path = small
    halves = {key: value.half() if value.is_floating_point() else value for key, value in load_file(path).items()}
    save_file(halves, tmp_path / "half.safetensors")
    model = build(spec)
    load_weights(model, tmp_path / "half.safetensors")
    assert all(value.equal(halves[key].to(value.dtype)) for key, value in model.state_dict().items())


@pytest.mark.parametrize("change", [{"norms": "bn2d"}, {"activations": "relu"}, {"resample": "conv"}])
def test_graphs_that_were_not_published_have_only_our_layout(small, change):
    spec, path = small
    content = spec.model_dump()
    content["encoder"] |= change
    assert list(layouts(DCAESpec.model_validate(content), load_file(path))) == ["native"]


def test_the_ablation_without_shortcuts_has_no_published_layout(small, tmp_path):
    spec, path = small
    without = spec.model_copy(update={"shortcuts": False})
    state = load_file(path)
    with pytest.raises(WeightsError, match="layout 'official' cannot hold this autoencoder; choose one of native"):
        save_weights(state, tmp_path / "x.safetensors", layout="official", spec=without)
    save_weights(state, tmp_path / "official.safetensors", layout="official", spec=spec)
    with pytest.raises(WeightsError, match=r"no key is this autoencoder's: the file holds .*main"):
        load_weights(build(without), tmp_path / "official.safetensors")


def refusal(spec, path, **arguments) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(build(spec), path, **arguments)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize("layout", ["native", "official", "diffusers"])
def test_a_missing_extra_misshapen_or_infinite_key_is_named_as_the_file_has_it(small, layout, tmp_path):
    spec, native = small
    state = write_layout(load_file(native), layouts(spec, load_file(native))[layout])
    key = max(state)  # a weight of the deepest decoder stage, in each layout
    path = tmp_path / "damaged.safetensors"
    for damage, words in [
        ({k: v for k, v in state.items() if k != key}, f"key '{key}' is missing"),
        ({**state, "some.key": torch.zeros(1)}, "key 'some.key' is unknown"),
        ({**state, key: torch.zeros(3)}, f"key '{key}' has another shape"),
        ({**state, key: torch.full_like(state[key], torch.nan)}, f"key '{key}' holds values that are not finite"),
    ]:
        save_file({k: v.contiguous() for k, v in damage.items()}, path)
        assert words in refusal(spec, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.to(torch.int8), "holds int8 numbers, not float32 numbers"),
        (lambda value: value.to(torch.complex64), "holds complex64 numbers, not float32 numbers"),
        (lambda value: value > 0, "holds bool numbers, not float32 numbers"),
        (lambda value: value.to(torch.float8_e4m3fn), "holds float8_e4m3fn numbers, not float32 numbers"),
        (lambda value: value.to_sparse(), "is sparse, quantized or empty"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "is sparse, quantized or empty"),
    ],
    ids=["int8", "complex", "bool", "float8", "sparse", "quantised"],
)
@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_only_floating_point_numbers_are_weights(small, tmp_path, change, words):
    spec, native = small
    state = load_file(native)
    key = max(key for key in state if state[key].ndim == 4)
    path = tmp_path / "changed.pt"
    torch.save(state | {key: change(state[key])}, path)
    assert f"key '{key}' {words}" in refusal(spec, path)


def test_names_in_a_file_are_texts(small, tmp_path):
    spec, native = small
    path = tmp_path / "changed.pt"
    torch.save(load_file(native) | {1: torch.zeros(1)}, path)
    assert "holds no dict of tensors" in refusal(spec, path)


def test_what_weights_say_of_themselves_changes_no_tensor(small, tmp_path):
    spec, native = small
    state = load_file(native)
    trained = TrainedWeights(kind="autoencoder", name="dc-ae", phase=2, model_sha256=model_sha256(spec))
    path = tmp_path / "model.safetensors"
    assert save_weights(state, path, trained=trained) == sha256_file(path)
    found = load_file(path)
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    load_weights(build(spec), path)
    assert read_statement(path) == trained and read_statement(native) is None


def test_a_wrong_hash_is_refused_before_reading(small):
    spec, path = small
    assert "expected " + "0" * 64 in refusal(spec, path, sha256="0" * 64)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_files(small, suffix, keep, tmp_path):
    spec, native = small
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    save_weights(load_file(native), whole)
    content = whole.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert "is not a whole" in refusal(spec, path)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch pwned",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_with_code_is_not_run(small, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    write({"state_dict": {"a": Evil()}}, path)
    line = refusal(small[0], path)
    assert "holds no dict of tensors" in line or "is not a whole file of `torch.save`" in line
    assert not (tmp_path / "pwned").exists()


class Callback:
    """Stands for the callbacks, optimisers and parameters that PyTorch Lightning keeps beside the weights."""

    def __init__(self):
        self.best, self.scores = torch.ones(2), {"a": [1, 2]}

    def __reduce__(self):
        return Callback, (), {"best": torch.zeros(2)}, iter([1, 2]), iter([("key", torch.ones(1))])


def written(state, path, **options):
    torch.save(state, path, **options)
    return path


CONTENTS = {
    "on top": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "lightning": lambda state: {
        "state_dict": {f"autoencoder.{key}": value for key, value in state.items()} | {"loss.disc.w": torch.ones(1)},
        "callbacks": {Callback: Callback(), "evil": Evil()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(1)}}}],
        "hparams": Callback(),
    },
    "compiled": lambda state: {"model": {f"module._orig_mod.{key}": value for key, value in state.items()}},
    "parts compiled, parts sharded": lambda state: {
        key.replace("encoder.", "encoder._orig_mod.").replace(".conv.", "._fsdp_wrapped_module.conv."): value
        for key, value in state.items()
    },
    "beside numbers of a trainer": lambda state: {**state, "epoch": 3, "lr": 0.1, "best": None},
    "one level down": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "two levels down": lambda state: {"checkpoint": {"model": state}, "step": torch.tensor(3)},
    "loss": lambda state: {**state, "loss.perceptual.w": torch.ones(3)},
    "a pipeline": lambda state: {
        **{f"first_stage_model.{key}": value for key, value in state.items()},
        "model.diffusion_model.w": torch.ones(1),
    },
    "of another average": lambda state: {"ema": {"w": torch.ones(1)}, "model": state},
}


@pytest.mark.parametrize("form", CONTENTS)
@pytest.mark.parametrize("layout", ["native", "official", "diffusers"])
def test_weights_are_found_where_trainers_put_them(small, tmp_path, monkeypatch, form, layout):
    spec, native = small
    monkeypatch.chdir(tmp_path)
    save_weights(load_file(native), tmp_path / "given.safetensors", layout=layout, spec=spec)
    path = written(CONTENTS[form](load_file(tmp_path / "given.safetensors")), tmp_path / "model.ckpt")
    model = build(spec, seed=7)
    assert load_weights(model, path) == sha256_file(path)
    assert all(torch.equal(value, load_file(native)[key]) for key, value in model.state_dict().items())
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_every_protocol_of_torch_save(small, tmp_path, protocol, old):
    spec, native = small
    content = {"state_dict": load_file(native), "callback": Callback()}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": not old}
    path = written(content, tmp_path / "model.pt", **options)
    load_weights(build(spec), path)
    other = written({"state_dict": load_file(native)}, tmp_path / "plain", **options)  # no suffix tells what it is
    load_weights(build(spec), other)


def test_of_two_sets_of_weights_one_is_chosen_by_the_user(small, tmp_path, monkeypatch, capsys):
    spec, native = small
    state = load_file(native)
    ema = {key: 0.5 * value if value.is_floating_point() else value for key, value in state.items()}
    path = written({"model": state, "ema": {f"net.{key}": value for key, value in ema.items()}}, tmp_path / "both.pt")
    line = refusal(spec, path)
    assert "holds weights of this autoencoder under 'model' and 'ema/net.'; choose one" in line
    assert f"`dcae-bench weights extract {path} --part model --output FILE.safetensors`" in line
    for part, expected in (("model", state), ("ema/net.", ema)):
        output = tmp_path / "chosen.safetensors"
        monkeypatch.setattr(
            sys, "argv", ["dcae-bench", "weights", "extract", str(path), "--part", part, "--output", str(output)]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        model = build(spec)
        load_weights(model, output)
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    for part in ("emma", "ema/nett.", "ema/ne", "model/encoder"):
        with pytest.raises(WeightsError, match=rf"--part {part}: .*holds 'model' \(.* tensors\), 'ema' \("):
            read_part(path, part)


def test_weights_in_several_files(small, tmp_path):
    """As diffusers writes large models: an index that names the file of each tensor."""
    spec, native = small
    folder = tmp_path / "sharded"
    save_weights(load_file(native), folder, layout="diffusers", spec=spec)
    whole = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    names = [f"diffusion_pytorch_model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    place = {key: names[number % 3] for number, key in enumerate(sorted(state))}
    for name in names:
        save_file({key: state[key] for key in state if place[key] == name}, folder / name)
    whole.unlink()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    model = build(spec, seed=7)
    found = load_weights(model, folder)
    assert found == load_weights(build(spec), index)
    assert all(torch.equal(value, load_file(native)[key]) for key, value in model.state_dict().items())
    (shard := folder / names[1]).write_bytes(shard.read_bytes() + b" ")
    assert "is not a whole safetensors file" in refusal(spec, folder)
    shard.unlink()
    assert f"{names[1]}: does not exist, but {index.name} lists it" in refusal(spec, folder)
    for content in ("{", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": []}'):
        index.write_text(content)
        assert "is not an index of weights" in refusal(spec, folder)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "lists ../secret.safetensors" in refusal(spec, folder)


def test_a_variant_is_used_where_it_is_the_only_one(small, tmp_path):
    spec, native = small
    folder = tmp_path / "folder"
    save_weights(load_file(native), folder, layout="diffusers", spec=spec)
    whole, half = (folder / f"diffusion_pytorch_model{part}.safetensors" for part in ("", ".fp16"))
    floats = {key: value.half() if value.is_floating_point() else value for key, value in load_file(whole).items()}
    save_file(floats, half)
    assert load_weights(build(spec), folder) == sha256_file(whole)
    whole.unlink()
    assert load_weights(build(spec), folder) == sha256_file(half)
    half.with_name("diffusion_pytorch_model.bf16.safetensors").write_bytes(half.read_bytes())
    assert "holds the variants diffusion_pytorch_model.bf16.safetensors, diffusion_pytorch_model.fp16" in refusal(
        spec, folder
    )


class Whole(torch.nn.Linear):
    """A network that is stored whole, with its class."""


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (Whole(1, 1), "a Whole"),
        ({"model": Whole(1, 1), "epoch": 3}, "'model': Whole, 'epoch': int"),
        ({"w": np.ones(2)}, "'w': ndarray"),
        ([torch.ones(1)], "a list"),
        ({}, "nothing"),
    ],
)
def test_a_file_without_tensors_says_what_it_holds_and_how_to_save_them(small, tmp_path, content, holds):
    line = refusal(small[0], written(content, tmp_path / "whole.pt"))
    assert f"(it holds {holds}); save the tensors alone, as torch.save(model.state_dict(), FILE)" in line


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page; download the file itself"),
        (b"", "is not a whole file of weights (it is empty)"),
    ],
)
def test_what_often_lies_in_the_place_of_weights(small, tmp_path, suffix, content, words):
    (tmp_path / f"given{suffix}").write_bytes(content)
    assert words in refusal(small[0], tmp_path / f"given{suffix}")


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_program_of_torchscript_is_not_run(small, tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)), tmp_path / "program.pt")
    line = refusal(small[0], tmp_path / "program.pt")
    assert line.endswith("is a program of TorchScript, which is not run; save the tensors of its state_dict()")


def test_other_contents(small, tmp_path):
    spec, path = small
    other = tmp_path / "other.pt"
    torch.save([1, 2], other)
    assert "holds no dict of tensors" in refusal(spec, other)
    save_file({"x": torch.zeros(1)}, path)
    line = refusal(spec, path)
    assert (
        "no key is this autoencoder's: the file holds 1 tensors, the first 'x', this autoencoder's first key is" in line
    )
    assert "cannot be read" in refusal(spec, tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("_class_name", "AutoencoderKL", "_class_name is AutoencoderKL"),
        ("downsample_block_type", "Conv", "downsample_block_type is Conv, expected pixel_unshuffle"),
        ("decoder_act_fns", "silu", "decoder_act_fns has silu in stage 1, expected relu"),
        ("decoder_conv_act_fn", "silu", "decoder_conv_act_fn is silu, expected relu"),
        ("attention_head_dim", 8, "attention_head_dim is 8, expected 32"),
        ("encoder_out_shortcut", False, "encoder_out_shortcut is False, expected True"),
        ("decoder_norm_types", "rms_norm", "decoder_norm_types has rms_norm in stage 1, expected batch_norm"),
        ("encoder_layers_per_block", [0, 4], "encoder_layers_per_block is [0, 4], expected [0, 4, 8, 2, 2, 2]"),
        ("dropout", 0.1, "dropout is 0.1, which this AutoencoderDC does not follow"),
        ("_class_name", "DCAE", "_class_name is DCAE, this autoencoder is a AutoencoderDC"),
        ("_class_name", ["AutoencoderDC"], "_class_name is ['AutoencoderDC']"),
        ("decoder_conv_act_fn", "mish", "decoder_conv_act_fn is mish, expected relu"),
        ("decoder_conv_act_fn", None, "decoder_conv_act_fn is None, expected relu"),
        ("decoder_norm_types", "layer_norm", "decoder_norm_types has layer_norm in stage 1, expected batch_norm"),
        ("decoder_norm_types", {"0": "batch_norm"}, "decoder_norm_types is {'0': 'batch_norm'}, expected"),
        ("encoder_block_types", "EViTGLU", "encoder_block_types has EViTGLU in stage 1, expected ResBlock"),
        ("encoder", {"act": "relu"}, "encoder is {'act': 'relu'}, which this AutoencoderDC does not follow"),
        ("quantization_config", {"bits": 8}, "quantization_config is {'bits': 8}, which this AutoencoderDC does not"),
    ],
)
def test_a_folder_of_another_graph_is_refused_although_its_keys_fit(small, field, value, words, tmp_path):
    spec, path = small
    folder = tmp_path / "folder"
    save_weights(load_file(path), folder, layout="diffusers", spec=spec)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    assert words in refusal(spec, folder)
    (folder / "config.json").write_text("{")
    assert "is not valid JSON" in refusal(spec, folder)
    (folder / "config.json").write_text("[]")
    assert "is not a JSON object" in refusal(spec, folder)


CHANGED = {
    "act_fn": "relu",
    "mid_block_add_attention": False,
    "attention_head_dim": 16,
    "decoder_conv_act_fn": "gelu",
    "downsample_block_type": "other",
    "upsample_block_type": "other",
}


@pytest.mark.parametrize("name", ["dc-ae-f32c32", "dc-ae-f32c32-sana", "dc-ae-f32c32-lite", "ldm-f16c16"])
def test_every_key_of_the_installed_class_is_followed_or_has_no_effect(name):
    """Another value of any key is refused by its name, unless the key does not change what the networks compute."""
    spec = reduced(name)
    wanted = diffusers_config(spec)
    defaults = constructor_defaults(CLASSES[spec.family])
    assert defaults.keys() - set(IRRELEVANT) == wanted.keys()
    assert config_conflict({**defaults, **wanted}, spec) is None
    for key, value in wanted.items():
        if isinstance(value, list):
            changed = [*value[:-1], "other"]
        else:
            changed = CHANGED.get(key, not value if isinstance(value, bool) else 7)
        clause = config_conflict({**wanted, key: changed}, spec)
        # Activations are of residual blocks alone, and scales of attention: a last stage has one or the other.
        unused = key == ("decoder_qkv_multiscales" if name.endswith("lite") else "decoder_act_fns")
        assert clause is None if unused else clause.startswith(key), key


def test_spellings_that_diffusers_reads_alike_agree():
    spec = reduced("dc-ae-f32c32")
    wanted = diffusers_config(spec)
    same = {"decoder_act_fns": ["ReLU"] * 3 + ["swish"] * 3, "decoder_conv_act_fn": "ReLU", "_diffusers_version": "0"}
    assert (
        config_conflict(
            {**wanted, **same, "encoder_block_out_channels": [7, *wanted["encoder_block_out_channels"][1:]]}, spec
        )
        is None
    )


def test_a_missing_key_has_the_default_of_diffusers():
    spec = reduced("ldm-f16c16")
    old = diffusers_config(spec)
    for key in ("act_fn", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"):
        del old[key]  # configs from before these arguments
    assert config_conflict(old, spec) is None
    del old["norm_num_groups"]
    assert config_conflict(old, spec) == "norm_num_groups is 32 (the default, as the key is missing), expected 4"


def test_attention_keeps_its_norm_in_diffusers_too():
    """Only residual blocks have a choice of norm; a diffusers config states the norm of attention in the same list."""
    spec = reduced("dc-ae-f32c32").model_copy()
    decoder = spec.decoder.model_copy(update={"norms": "bn2d"})
    spec = spec.model_copy(update={"decoder": decoder})
    assert diffusers_config(spec)["decoder_norm_types"] == ["batch_norm"] * 3 + ["rms_norm"] * 3
    assert set(twin(spec).state_dict()) == set(write_layout(*_state_and_layout(spec)))


def _state_and_layout(spec):
    state = build(spec, seed=0).state_dict()
    return state, layouts(spec, state)["diffusers"]


def test_a_config_that_is_not_read_is_told(small, tmp_path):
    """LDM's form of a config: what it asks for could not be followed, so its folder is not taken without a word."""
    spec, path = small
    folder = tmp_path / "folder"
    save_weights(load_file(path), folder, layout="diffusers", spec=spec)
    (folder / "config.yaml").write_text("model: {params: {ddconfig: {act: silu}}}")
    load_weights(build(spec), folder)
    (folder / "config.json").unlink()
    assert "config.yaml: may ask for another graph, and is not read" in refusal(spec, folder)
    load_weights(build(spec), folder / "diffusion_pytorch_model.safetensors")


def test_a_folder_without_weights(small, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds none of diffusion_pytorch_model.safetensors" in refusal(small[0], tmp_path / "empty")
