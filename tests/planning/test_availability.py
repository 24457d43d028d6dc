"""What is missing on this machine, by row of a profile."""

import json
import subprocess
import sys

import pytest
import yaml

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import CONFIG
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.data.external import ROOT_VARIABLE
from dcae_bench.extractors import inception_weights
from dcae_bench.planning.availability import missing_evaluations, missing_networks, missing_rows
from dcae_bench.planning.workflow import Workflow
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.weights.released import Receipt, _Receipts, receipts_path

NAME, SET = "dc-ae-f64c128-in-1.0", "imagenet-512"


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No weights, no data."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    for variable in (ROOT_VARIABLE, inception_weights.VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def fetched(tmp_path):
    """Makes a receipt of released weights."""

    def fetch(name=NAME, commit=None, content=b"weights"):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        receipt = Receipt(path=path, sha256="0" * 64, size=7, commit=commit)
        receipts_path().parent.mkdir(exist_ok=True)
        receipts_path().write_text(_Receipts(receipts={name: receipt}).model_dump_json())
        return path

    return fetch


@pytest.fixture
def released():
    return load_profile("released")


def test_a_bare_machine_lacks_every_row_and_says_what_each_takes(released, tmp_path):
    found = missing_evaluations(released, tmp_path / "data")
    assert set(found) == {(name, item.label) for name in released.autoencoders for item in released.sets_of(name)}
    data, weights, inception = found[NAME, SET]
    assert "50,000 evaluation images from https://image-net.org" in data and "$DCAE_BENCH_DATA/imagenet" in data
    assert weights.endswith(f"`dcae-bench weights fetch {NAME}`")
    assert inception.endswith("`dcae-bench weights fetch inception`")
    assert "kl-f16.zip, then `dcae-bench weights fetch ldm-kl-f16 --path FILE`" in found["ldm-kl-f16", SET][1]


def test_each_thing_that_comes_takes_its_reason_away(released, tmp_path, monkeypatch, fetched):
    def reasons():
        return missing_evaluations(released, tmp_path / "data").get((NAME, SET), ())

    assert len(reasons()) == 3
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert f"put them at {tmp_path}/imagenet" in reasons()[0]
    (tmp_path / "imagenet").mkdir()
    assert len(reasons()) == 2
    path = fetched()
    assert len(reasons()) == 1
    inception = tmp_path / "cache" / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    inception.parent.mkdir()
    inception.touch()
    assert reasons() == ()
    path.unlink()
    assert len(reasons()) == 1


def test_a_named_inception_file_counts_as_there(released, tmp_path, monkeypatch):
    """A wrong name is an error of the evaluation, which says so, not a reason to leave rows out."""
    monkeypatch.setenv(inception_weights.VARIABLE, "/somewhere.pth")
    assert not any(
        "Inception" in reason for reasons in missing_evaluations(released, tmp_path).values() for reason in reasons
    )


def test_weights_of_another_commit_than_the_pinned_are_not_there(released, tmp_path, fetched):
    name = "dc-ae-f128c512-mix-1.0"
    fetched(name, commit="f" * 40)
    assert any("released weights" in reason for reason in missing_evaluations(released, tmp_path)[name, "ffhq-1024"])
    fetched(name, commit=catalogue().preset(name).weights.revision)
    assert not any(
        "released weights" in reason for reason in missing_evaluations(released, tmp_path)[name, "ffhq-1024"]
    )


def test_prepared_data_count_while_their_images_are_there(released, tmp_path):
    index = tmp_path / "data" / "imagenet" / "eval.json"
    index.parent.mkdir(parents=True)
    for content, reasons in (({"root": str(tmp_path)}, 2), ({"root": str(tmp_path / "gone")}, 3), ({}, 3), ([], 3)):
        index.write_text(json.dumps(content))
        assert len(missing_evaluations(released, tmp_path / "data")[NAME, SET]) == reasons, content


def test_a_folder_that_the_user_names_is_never_missing(released, tmp_path):
    named = released.model_copy(update={"data_roots": {"imagenet": "/wrong"}})
    assert len(missing_evaluations(named, tmp_path)[NAME, SET]) == 2


def test_a_data_set_to_train_on_is_never_missing_but_one_to_measure_on_may_be(tmp_path):
    paper = load_profile("paper")
    found = missing_evaluations(paper, tmp_path)
    assert set(found) == {(name, "mjhq-1024") for name in paper.autoencoders}
    assert all(len(reasons) == 1 and reasons[0].startswith("MJHQ-30K is not here") for reasons in found.values())


def test_the_demo_lacks_nothing(tmp_path):
    assert missing_evaluations(load_profile("demo"), tmp_path) == {}


def test_damaged_receipts_are_one_error(released, tmp_path):
    receipts_path().parent.mkdir()
    receipts_path().write_text("{")
    with pytest.raises(WeightsError, match="not a record of fetched weights"):
        missing_evaluations(released, tmp_path)


@pytest.mark.parametrize("module", ["dcae_bench.planning.availability", "dcae_bench.cli"])
def test_looking_and_the_commands_help_need_no_torch(module):
    code = f"import sys; import {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_rows_of_denoisers_say_what_they_lack(tmp_path):
    reasons = missing_rows(load_profile("paper"), tmp_path)["uvit-h-dc-ae-f64-p1"]
    assert any(f"weights fetch {NAME}" in reason for reason in reasons)
    assert any("weights fetch inception" in reason for reason in reasons)
    mjhq = missing_rows(load_profile("paper"), tmp_path)["dit-s-dc-ae-f32-p1-mjhq-1024"]
    assert any("MJHQ" in reason and "evaluation images" in reason for reason in mjhq)


def test_rows_on_embedded_photographs_lack_nothing(tmp_path):
    assert missing_rows(load_profile("demo"), tmp_path) == {}


def test_rows_of_released_denoisers_say_what_they_lack(released, tmp_path, fetched):
    row, weights = "uvit-h-dc-ae-f64-p1", "dc-ae-f64c128-in-1.0-uvit-h-in-512px"
    data, autoencoder, denoiser, inception = missing_rows(released, tmp_path)[row]
    assert "1,281,167 training images" in data and autoencoder.endswith(f"`dcae-bench weights fetch {NAME}`")
    assert denoiser == f"released weights of {weights} are not here: `dcae-bench weights fetch {weights}`"
    assert "weights fetch inception" in inception
    fetched(weights)
    assert missing_rows(released, tmp_path)[row] == (data, autoencoder, inception)


@pytest.mark.parametrize(
    ("extractor", "words"),
    [
        ("dinov2", "dinov2: its code is not in {home}/hub/facebookresearch_dinov2_main; clone"),
        ("inception-clean-fid", "`dcae-bench weights fetch inception`"),
    ],
)
def test_networks_of_further_metrics_are_missed_before_any_work(tmp_path, monkeypatch, extractor, words):
    """Otherwise the first evaluation would fail, perhaps after days of training."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    content = yaml.safe_load((CONFIG / "demo.yaml").read_text())
    content["evaluation"]["extractors"] = [extractor]
    profile = Profile.model_validate(content)
    (reason,) = missing_networks(profile)
    assert words.format(home=tmp_path) in reason and missing_networks(load_profile("demo")) == []
    assert all(reason in reasons for reasons in missing_rows(profile, tmp_path / "data").values())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert f"evaluations after the trainings will fail: {reason}" in list(Workflow("mine.yaml").complaints())
