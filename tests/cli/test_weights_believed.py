"""Weights are opened before they are believed, and are what they say they are."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile
from dcae_bench.records.record import load, save
from dcae_bench.weights import released as store
from dcae_bench.weights.trained import TrainedWeights, model_sha256, read_statement
from tests import tiny_diffusion as tiny
from tests import tiny_released
from tests.training.conftest import CONTENT

NAMES = (tiny_released.AUTOENCODER, tiny_released.UVIT)


@pytest.fixture
def released(monkeypatch, tmp_path):
    """Files of an autoencoder and of a denoiser by name, as their authors publish them."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    tiny_released.install(monkeypatch)
    autoencoder, denoiser = NAMES
    return {
        autoencoder: tiny_released.write_autoencoder(tmp_path / "vae.safetensors"),
        denoiser: tiny_released.write_pipeline(denoiser, tmp_path / "uvit.safetensors"),
    }


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_fit_are_accepted(name, released, monkeypatch, capsys):
    assert run(monkeypatch, "weights", "fetch", name, "--path", released[name]) == 0
    assert run(monkeypatch, "weights", "verify") == 0
    assert f"SHA-256 {sha256_file(released[name])} as recorded" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_holds_no_such_weights_is_not_accepted(name, released, refused, tmp_path):
    fetch = ["weights", "fetch", name, "--path"]
    assert "/etc/hostname: is not a whole" in refused(*fetch, "/etc/hostname")
    (other,) = [path for key, path in released.items() if key != name]
    assert f"{other}: no key is" in refused(*fetch, other)
    state = load_file(released[name])
    key = min(key for key in state if not key.startswith("autoencoder."))
    for change, words in (
        (torch.zeros(1), "has another shape than the model's"),
        (torch.full_like(state[key], torch.nan), "holds values that are not finite"),
        (state[key].to(torch.int8), "holds int8 numbers, not float32 numbers"),
    ):
        save_file(state | {key: change}, tmp_path / "changed.safetensors")
        assert words in refused(*fetch, tmp_path / "changed.safetensors")
    assert store.receipt(name) is None
    # A receipt of an earlier version is not believed either.
    store.fetch(name, path=Path("/etc/hostname"))
    assert "/etc/hostname: is not a whole" in refused("weights", "verify")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of an autoencoder as its phases write them, and of another one."""
    folder = tmp_path_factory.mktemp("trained")
    profile = parse_profile(CONTENT, "tiny")
    for name in ("dc-ae", "sd-vae"):
        spec = profile.autoencoders[name].model
        state = build(spec, seed=0).state_dict()
        for phase in (1, 2):
            about = TrainedWeights(kind="autoencoder", name=name, phase=phase, model_sha256=model_sha256(spec))
            save_weights(state, folder / f"{name}-{phase}.safetensors", trained=about)
        save_weights(state, folder / f"{name}-silent.safetensors")
        renamed = TrainedWeights(kind="autoencoder", name=name, phase=2, model_sha256="0" * 64)
        save_weights(state, folder / f"{name}-changed.safetensors", trained=renamed)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONTENT))
    return folder


WRONG = [
    ("dc-ae-1", "holds weights of phase 1, not of phase 2; pass those of phase 2"),
    ("sd-vae-2", "holds weights of autoencoder sd-vae, not of dc-ae; pass those of dc-ae"),
    ("dc-ae-changed", "was trained as dc-ae when the profile had another model for it; train dc-ae again"),
]


@pytest.mark.parametrize(("weights", "words"), WRONG)
def test_weights_of_something_else_are_not_measured_or_trained(weights, words, trained, refused, tmp_path):
    file = trained / f"{weights}.safetensors"
    shared = ["--profile", trained / "tiny.yaml", "--autoencoder", "dc-ae", "--data", tmp_path]
    evaluate = ["evaluate", *shared, "--output", tmp_path / "out", "--phase", 2]
    assert refused(*evaluate, "--weights", file) == f"{file}: {words}"
    train = ["train", *shared, "--output", tmp_path / "out" / "m.safetensors", "--run-dir", tmp_path / "run"]
    assert refused(*train, "--phase", 3, "--initial", file) == f"{file}: {words}"
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


def test_the_phase_that_weights_state_is_recorded(trained):
    from dcae_bench.subjects.choose import choose_autoencoder

    profile = parse_profile(CONTENT, "tiny")
    for name, given, phase in (("dc-ae-1", None, 1), ("dc-ae-2", 2, 2)):
        chosen = choose_autoencoder(profile, "dc-ae", trained / f"{name}.safetensors", phase=given)
        assert (chosen.phase, chosen.source) == (phase, "retrained")


def test_weights_that_nothing_is_said_of_are_not_taken_for_trained_ones(trained, refused, tmp_path):
    from dcae_bench.subjects.autoencoders import open_autoencoder
    from dcae_bench.subjects.choose import choose_autoencoder

    silent = trained / "dc-ae-silent.safetensors"
    words = (
        f"{silent}: does not say of which model and phase it is, and no record.json of its training lies beside it; "
        "pass the file that training wrote, or measure it as your own ('weights: own' in the profile)"
    )
    train = ["train", "--profile", trained / "tiny.yaml", "--autoencoder", "dc-ae", "--data", tmp_path, "--phase", 3]
    place = ["--output", tmp_path / "out" / "m.safetensors", "--run-dir", tmp_path / "run"]
    assert refused(*train, *place, "--initial", silent) == words and not (tmp_path / "run").exists()
    chosen = choose_autoencoder(parse_profile(CONTENT, "tiny"), "dc-ae", silent, phase=2)
    with pytest.raises(WeightsError) as caught:
        open_autoencoder(chosen)
    assert str(caught.value) == words


def test_own_weights_are_of_no_phase_that_they_do_not_state(trained):
    from dcae_bench.subjects.choose import choose_autoencoder

    profile, silent = parse_profile(CONTENT, "tiny"), trained / "dc-ae-silent.safetensors"
    with pytest.raises(WeightsError, match=r"--phase 2: .*dc-ae-silent\.safetensors does not say its phase; leave"):
        choose_autoencoder(profile, "sd-vae-ft-ema", silent, phase=2, sets=())
    assert choose_autoencoder(profile, "sd-vae-ft-ema", silent, sets=()).phase is None


def test_training_says_what_its_weights_are(tmp_path, monkeypatch, refused):
    """From phase to latents to a denoiser, whose weights belong to these latents and this scale."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
    tiny.write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    profile = ["--profile", "tiny.yaml"]
    train = ["train", "--autoencoder", "sd-vae", "--phase", 1, "--data", "data", "--run-dir", "run"]
    assert run(monkeypatch, *train, *profile, "--output", "vae/model.safetensors") == 0
    model = tiny.profile().autoencoders["sd-vae"].model
    found = read_statement(Path("vae/model.safetensors"))
    about = {"kind": "autoencoder", "name": "sd-vae", "phase": 1, "model_sha256": model_sha256(model)}
    (phase,) = found.trained
    assert (phase.phase, phase.images, phase.datasets) == (1, 8, ("bright", "dark"))
    assert found == TrainedWeights(**about, trained=(phase,))
    assert load(Path("vae/record.json")).subject.weights_sha256 == sha256_file(Path("vae/model.safetensors"))
    encode = ["encode", "--latent", "sd-vae@retrained", "--images", "two", "--data", "data"]
    assert run(monkeypatch, *encode, *profile, "--weights", "vae/model.safetensors", "--output", "two") == 0
    inputs = ["--latents", "two", "--autoencoder", "vae/model.safetensors"]
    for row in ("uvit", "dit"):
        train = ["train-diffusion", "--row", row, *inputs, "--run-dir", "run"]
        assert run(monkeypatch, *train, *profile, "--output", f"{row}/model.safetensors") == 0
    stated = read_statement(Path("uvit/model.safetensors"))
    assert (stated.kind, stated.name) == ("denoiser", "uvit")
    assert stated.latents_sha256 == sha256_file(Path("two/latents.npy"))
    sample = ["sample", "--row", "uvit", *inputs, *profile, "--output", "out"]
    line = refused(*sample, "--weights", "dit/model.safetensors")
    assert line == "dit/model.safetensors: holds weights of denoiser dit, not of row uvit; pass those of the row"
    line = refused(*encode, *profile, "--weights", "uvit/model.safetensors", "--output", "more")
    assert line == "uvit/model.safetensors: holds weights of denoiser uvit, not of sd-vae; pass those of sd-vae"
    state = load_file("uvit/model.safetensors")
    save_weights(state, Path("scaled.safetensors"), trained=stated.model_copy(update={"scaling_factor": 3.0}))
    assert "scaled.safetensors: learned from latents" in refused(*sample, "--weights", "scaled.safetensors")
    # Without a statement, the record of the training beside the weights says what they are.
    sha256 = save_weights(state, Path("uvit/silent.safetensors"))
    assert "does not say of which model" in refused(*sample, "--weights", "uvit/silent.safetensors")
    record = load(Path("uvit/record.json"))
    denoiser = record.denoiser.model_copy(update={"row": "other", "weights_sha256": sha256})
    save(record.model_copy(update={"denoiser": denoiser}), Path("uvit/record.json"))
    line = refused(*sample, "--weights", "uvit/silent.safetensors")
    assert line == "uvit/silent.safetensors: holds weights of denoiser other, not of row uvit; pass those of the row"
    assert not Path("out").exists() and not Path("more").exists()
