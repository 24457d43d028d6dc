import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dcae_bench.base.files import CONFIG, sha256_file
from dcae_bench.base.sealed import read_sealed
from dcae_bench.cli.main import main
from dcae_bench.data.external import external_datasets
from dcae_bench.data.manifest import ManifestInfo, info_path, write_info
from dcae_bench.data.packed import PackedPhoto, PackIndex, index_path, write_index
from dcae_bench.data.prepare import prepare_files
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import parse_profile
from dcae_bench.weights.trained import TrainedWeights
from tests.data.image_files import LAYOUTS, write_images
from tests.fixtures.packs import stamps

DEMO = yaml.safe_load((CONFIG / "demo.yaml").read_text())
del DEMO["ablations"]  # they need the parts that tests here replace


@pytest.fixture
def data(tmp_path) -> Path:
    """Packs of the demo's data sets, two grey photographs each."""
    for name in ("photos-indoor", "photos-mixed"):
        for split in ("train", "eval"):
            write_pack(tmp_path / "data" / name / f"{split}.npy", name, split)
    return tmp_path / "data"


def write_pack(path: Path, name: str, split: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    side = 130
    np.save(path, np.full(2 * side * side * 3, 100, np.uint8))
    photos = tuple(
        PackedPhoto(name=f"photo-{n}", offset=n * side * side * 3, height=side, width=side) for n in range(2)
    )
    index = PackIndex(name=name, split=split, short_side=256, sha256=sha256_file(path), photos=photos, **stamps(name))
    write_index(index, path)


@pytest.fixture(scope="session")
def good_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "good.safetensors"
    model = build(parse_profile(DEMO, "demo").autoencoders["dc-ae-f32c32"].model, seed=0)
    save_weights(model.state_dict(), path, trained=TrainedWeights(kind="autoencoder", name="dc-ae-f32c32"))
    return path


@pytest.fixture
def weights(good_weights, tmp_path) -> Path:
    """Good weights, to be damaged by the test."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(good_weights.read_bytes())
    return path


@pytest.fixture
def evaluate(tmp_path, data, weights):
    """Arguments of an evaluation that would succeed."""
    return [
        *("evaluate", "--autoencoder", "dc-ae-f32c32", "--weights", weights),
        *("--data", data, "--output", tmp_path / "out"),
    ]


@pytest.fixture
def train(tmp_path, data):
    """Arguments of a training run that would succeed: one batch."""
    content = yaml.safe_load(yaml.safe_dump(DEMO))
    content["training"] |= {"checkpoint_images": 8, "log_images": 8, "loss": {"lpips": 0.0, "lpips_net": "alex"}}
    content["training"]["phases"] = {1: {**content["training"]["phases"][1], "images": 8}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(content))
    return [
        *("train", "--autoencoder", "dc-ae-f32c32", "--phase", 1, "--profile", tmp_path / "short.yaml"),
        *("--data", data, "--output", tmp_path / "out" / "model.safetensors", "--run-dir", tmp_path / "run"),
    ]


def replaced(arguments: list, option: str, value) -> list:
    where = arguments.index(option) + 1
    return [*arguments[:where], value, *arguments[where + 1 :]]


def test_the_fixtures_commands_would_succeed(train, monkeypatch, tmp_path):
    """Otherwise the refusals below could have another reason than the one they test."""
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, train)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "log.jsonl", "record.json"}
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_unknown_profile(command, request, refused, tmp_path):
    arguments = request.getfixturevalue(command)
    arguments = replaced(
        [*arguments, "--profile", ""] if "--profile" not in arguments else arguments, "--profile", "dmeo"
    )
    assert "profile 'dmeo'" in (line := refused(*arguments)) and "demo" in line
    assert not (tmp_path / "out").exists()


def test_unknown_profile_of_prepare_and_table(refused, tmp_path):
    assert "profile 'dmeo'" in refused("prepare", "photos-indoor", "--output", tmp_path / "out", "--profile", "dmeo")
    assert "profile 'dmeo'" in refused("table", "x.json", "--output", tmp_path / "out" / "t.md", "--profile", "dmeo")
    assert not (tmp_path / "out").exists()


def test_misspelt_key(train, refused, tmp_path):
    text = (tmp_path / "short.yaml").read_text()
    (tmp_path / "short.yaml").write_text(text.replace("warmup_images", "warmup_image"))
    line = refused(*train)
    assert str(tmp_path / "short.yaml") in line
    assert "training.phases.1.optimizer.warmup_image" in line and "did you mean 'warmup_images'?" in line
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_unknown_autoencoder(command, request, refused, tmp_path):
    line = refused(*replaced(request.getfixturevalue(command), "--autoencoder", "dc-ae-f32"))
    assert "dc-ae-f32:" in line and "it has " in line and "dc-ae-f32c32, " in line
    assert not (tmp_path / "out").exists()


def test_phases_that_cannot_start(train, refused, weights):
    assert "profile demo has phases [1]" in refused(*replaced(train, "--phase", 2), "--initial", weights)
    assert "starts from nothing" in refused(*train, "--initial", weights)
    needs = replaced(replaced(train, "--phase", 3), "--profile", "demo")
    assert "--initial is missing" in refused(*needs)
    assert "gone.safetensors" in refused(*needs, "--initial", "gone.safetensors")


def test_released_weights_are_not_trained(train, refused):
    arguments = replaced(replaced(train, "--profile", "released"), "--autoencoder", "sd-vae-ft-ema")
    assert "profile released takes its released weights; it trains nothing" in refused(*arguments)


def test_unknown_evaluation_set(evaluate, refused, tmp_path):
    line = refused(*evaluate, "--set", "photos-indoor-64", "--set", "photos-65")
    assert "--set photos-65: profile demo has no such evaluation set; it has photos-indoor-64, " in line
    assert not (tmp_path / "out").exists()


def test_one_set_is_measured_where_one_is_asked_for(evaluate, data, monkeypatch, tmp_path):
    for path in data.glob("*/eval.npy"):
        np.save(path, np.random.default_rng(0).integers(0, 256, np.load(path).shape, np.uint8))
        index = read_sealed(index_path(path), PackIndex)
        write_index(index.model_copy(update={"sha256": sha256_file(path)}), path)
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, evaluate), "--set", "photos-mixed-64"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert {path.name.split(".")[0] for path in (tmp_path / "out").iterdir()} == {"photos-mixed-64"}


def test_unknown_data_set(refused, tmp_path):
    line = refused("prepare", "photos-outdoor", "--output", tmp_path / "out")
    assert "'photos-outdoor' does not exist" in line and "photos-indoor, photos-mixed" in line
    assert not (tmp_path / "out").exists()


def test_missing_weights(evaluate, weights, refused, tmp_path):
    weights.unlink()
    assert "weights.safetensors: weights cannot be read (No such file" in refused(*evaluate)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--phase", "9"], "Invalid value for '--phase': Input should be less than or equal to 3"),
        (["evaluate", "--phsae", "3"], "No such option: --phsae"),
        (["evaluat"], "No such command 'evaluat'"),
        (["table", "--output"], "Option '--output' requires an argument"),
        (["encode", "--latent", "[red]x[/red]"], "Missing option"),
        (["figure", "[bold]"], "No such command '[bold]'"),
        (["doctor", "br[/x]y"], "Got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, words, monkeypatch, capsys):
    """Without the box around it, which a log or a narrow terminal folds."""
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("dcae-bench: error: ") and told.count("\n") == 1
    assert words in told


@pytest.mark.parametrize("arguments", [[], ["figure"], ["weights"]])
def test_no_arguments_are_answered_with_the_help(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr()
    assert "Usage: dcae-bench" in printed.out + printed.err and "error" not in printed.err


def test_memory_that_ran_out_is_one_line(monkeypatch, capsys):
    """torch has no class for the CPU's; its error is a RuntimeError, as that of a fault of the program is."""
    monkeypatch.setattr("dcae_bench.cli.main.app", lambda **_: torch.zeros(1 << 50))
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("dcae-bench: error: memory ran out; make the sizes")
    assert told.count("\n") == 1
    monkeypatch.setattr("dcae_bench.cli.main.app", lambda **_: torch.zeros(2).view(3))
    with pytest.raises(RuntimeError, match="invalid for input of size 2"):
        main()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.9999))
def test_truncated_weights(evaluate, weights, good_weights, refused, tmp_path, keep):
    content = good_weights.read_bytes()
    weights.write_bytes(content[: int(keep * len(content))])
    assert "weights.safetensors: is not a whole" in (line := refused(*evaluate)) and "file" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda state: state.pop("decoder.project_out.conv.bias"), "key 'decoder.project_out.conv.bias' is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "key 'extra' is unknown to the model"),
        (
            lambda state: state.update({"encoder.project_in.conv.bias": torch.zeros(3)}),
            "key 'encoder.project_in.conv.bias' has another shape",
        ),
        (
            lambda state: state["decoder.stages.1.1.norm.running_mean"].fill_(float("nan")),
            "key 'decoder.stages.1.1.norm.running_mean' holds values that are not finite",
        ),
        (
            lambda state: state["encoder.project_in.conv.weight"][0].fill_(float("inf")),
            "key 'encoder.project_in.conv.weight' holds values that are not finite",
        ),
    ],
    ids=["missing", "extra", "misshapen", "nan", "inf"],
)
def test_weights_that_do_not_fit(evaluate, weights, refused, tmp_path, damage, reason):
    state = load_file(weights)
    damage(state)
    save_file(state, weights)
    assert reason in refused(*evaluate)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_autoencoder(evaluate, refused, weights):
    line = refused(*replaced(evaluate, "--autoencoder", "sd-vae-f32c32"))
    assert "holds weights of autoencoder dc-ae-f32c32, not of sd-vae-f32c32" in line
    save_file(load_file(weights), weights)  # without the statement
    assert "no key is this autoencoder" in refused(*replaced(evaluate, "--autoencoder", "sd-vae-f32c32"))


def move_photos(path: Path, sealed: bool) -> None:
    """Change where the photographs are in a pack, with the index's hash of itself or without."""
    index = read_sealed(index_path(path), PackIndex)
    photos = (PackedPhoto(name="x", offset=10**9, height=9, width=9),)
    if sealed:
        write_index(index.model_copy(update={"photos": photos}), path)
    else:
        content = json.loads(index_path(path).read_text())
        index_path(path).write_text(json.dumps(content | {"photos": [photo.model_dump() for photo in photos]}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "sha256 is"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "sha256 is"),
        (lambda path: path.write_bytes(b""), "sha256 is"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: index_path(path).unlink(), "cannot be read"),
        (lambda path: index_path(path).write_text("{"), "is not an index"),
        (lambda path: move_photos(path, sealed=True), "does not fit its index"),
        (lambda path: move_photos(path, sealed=False), "is not an index (it changed after it was written)"),
    ],
    ids=["flipped", "short", "empty", "no pack", "no index", "bad index", "wrong index", "edited index"],
)
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_corrupt_pack(command, request, data, refused, tmp_path, damage, reason):
    arguments = request.getfixturevalue(command)
    path = data / "photos-mixed" / ("eval.npy" if command == "evaluate" else "train.npy")
    damage(path)
    line = refused(*arguments)
    assert reason in line and "photos-mixed" in line
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


@pytest.fixture
def files(tmp_path, weights, monkeypatch):
    """Arguments of an evaluation on files laid out as ImageNet's flat validation set."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    content = yaml.safe_load(yaml.safe_dump(DEMO))
    content["evaluation"]["sets"] = [{"dataset": "imagenet", "resolution": 64}]
    (tmp_path / "files.yaml").write_text(yaml.safe_dump(content))
    for name in ("imagenet", "ffhq"):
        write_images(tmp_path / name, LAYOUTS[name, "eval"]["flat"], size=(80, 70))
        prepare_files(external_datasets()[name], "eval", tmp_path / name, tmp_path / "data" / name, partial=True)
    arguments = ["--autoencoder", "dc-ae-f32c32", "--weights", weights, "--data", tmp_path / "data"]
    return ["evaluate", "--profile", tmp_path / "files.yaml", *arguments, "--output", tmp_path / "out"]


def test_files_that_are_sound_are_measured(files, tmp_path, monkeypatch):
    """Otherwise the refusals below could have another reason than the one they test."""
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, files)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and (tmp_path / "out" / "imagenet-64.json").exists()


def test_an_unreadable_image_names_the_file(files, refused, tmp_path):
    path = tmp_path / "imagenet" / LAYOUTS["imagenet", "eval"]["flat"][1]
    path.write_bytes(path.read_bytes()[:-200])
    assert f"{path}: sha256 is" in refused(*files)
    path.unlink()
    assert f"{path}: unreadable (No such file" in refused(*files)
    assert not (tmp_path / "out" / "imagenet-64.json").exists()


def test_a_folder_that_was_moved_is_named(files, refused, tmp_path):
    (tmp_path / "imagenet").rename(tmp_path / "moved")
    line = refused(*files)
    assert f"{tmp_path / 'data' / 'imagenet' / 'eval.parquet'}: its images lay in {tmp_path / 'imagenet'}" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("dataset", "split"), [("ffhq", "eval"), ("imagenet", "train")])
def test_a_manifest_of_other_images_is_refused(files, refused, tmp_path, dataset, split):
    folder = tmp_path / "data" / "imagenet"
    if dataset == "ffhq":
        for path in (tmp_path / "data" / "ffhq").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    else:
        path = folder / "eval.parquet"
        write_info(read_sealed(info_path(path), ManifestInfo).model_copy(update={"split": split}), path)
    line = refused(*files)
    assert line.startswith(f"{folder / 'eval.parquet'}: lists {dataset} {split} images, not imagenet eval")
    assert not (tmp_path / "out").exists()


def test_a_pack_of_other_photographs_is_refused(evaluate, data, refused, tmp_path):
    for suffix in (".npy", ".json"):
        indoor, mixed = (data / name / f"eval{suffix}" for name in ("photos-indoor", "photos-mixed"))
        indoor.write_bytes(mixed.read_bytes())
    assert "eval.npy: holds photos-mixed eval photographs, not photos-indoor eval" in refused(*evaluate)
    assert not (tmp_path / "out").exists()


def test_unwritable_run_folder(train, refused, tmp_path):
    (tmp_path / "run").write_text("in the way")
    assert "cannot be written" in refused(*train)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_told_before_the_work(train, refused, tmp_path):
    (tmp_path / "out").write_text("in the way")
    assert "out: cannot be written" in refused(*train)
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.fixture
def lose_output(tmp_path, monkeypatch):
    """Put a file in the way of the output while the training runs."""
    from dcae_bench.training.autoencoder import PhaseTrainer

    close = PhaseTrainer.close

    def lose(self):
        close(self)
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("in the way")

    with monkeypatch.context() as patch:
        patch.setattr(PhaseTrainer, "close", lose)
        yield patch


def test_unwritable_output_keeps_the_finished_state(train, refused, lose_output, tmp_path, monkeypatch):
    """The work is not lost: with the obstacle gone, the same command only writes the result."""
    assert "model.safetensors: cannot be written" in refused(*train, worked=True)
    assert (tmp_path / "out").read_text() == "in the way"
    assert list((tmp_path / "run").glob("*/checkpoint.pt"))
    (tmp_path / "out").unlink()
    lose_output.undo()
    monkeypatch.setattr("dcae_bench.training.autoencoder.PhaseTrainer.step", lambda self: pytest.fail("trained again"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "log.jsonl", "record.json"}


def test_a_full_disk_leaves_no_part(train, refused, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written (No space left on device); free some space" in refused(*train)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.parent.name == "out"]


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("file/out/model.safetensors", "cannot be written; make it a writable folder"),
        ("x" * 250, "name is too long"),
        ("x" * 300 + "/x", "cannot be written (File name too long)"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    command, output, reason, request, refused, tmp_path
):
    if command == "evaluate" and "name is" in reason:
        return  # names a folder
    (tmp_path / "file").touch()
    arguments = replaced(request.getfixturevalue(command), "--output", tmp_path / output)
    assert reason in refused(*arguments)
    assert not (tmp_path / "run").exists()


def test_outputs_of_the_wrong_kind(train, refused, tmp_path):
    (tmp_path / "folder").mkdir()
    for output in ("/dev/null", tmp_path / "folder"):
        assert "is no file" in refused(*replaced(train, "--output", output))


def test_unwritable_folder_of_prepare(refused, tmp_path):
    (tmp_path / "out").write_text("in the way")
    assert "cannot be written" in refused("prepare", "photos-indoor", "--output", tmp_path / "out")


def test_damaged_checkpoint(train, refused, lose_output, tmp_path):
    refused(*train, worked=True)
    (tmp_path / "out").unlink()
    (checkpoint,) = (tmp_path / "run").glob("*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    line = refused(*train)
    assert f"{checkpoint}: " in line and "delete it to start the phase again" in line


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_show_and_table_of_no_record(content, refused, tmp_path):
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    for arguments in (["show"], ["table", "--output", tmp_path / "t.md"]):
        assert "r.json: " in refused(*arguments, tmp_path / "r.json")
    assert not (tmp_path / "t.md").exists()


def make_pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["weights", "profile", "data/photos-mixed/eval.npy", "data/photos-mixed/eval.json"])
def test_an_evaluation_waits_for_no_pipe(evaluate, refused, tmp_path, name):
    """Opening a named pipe waits for a writer, perhaps for ever."""
    if name == "profile":
        path = make_pipe(tmp_path / "pipe.yaml")
        line = refused(*evaluate, "--profile", path)
    elif name == "weights":
        path = make_pipe(tmp_path / "pipe.safetensors")
        line = refused(*replaced(evaluate, "--weights", path))
    else:
        path = make_pipe(tmp_path / name)
        line = refused(*evaluate)
    assert str(path) in line and "is a named pipe, not a regular file" in line
    assert not (tmp_path / "out").exists()


def test_files_that_became_pipes_are_refused(files, refused, tmp_path):
    path = make_pipe(tmp_path / "imagenet" / LAYOUTS["imagenet", "eval"]["flat"][1])
    assert f"{path}: unreadable (is a named pipe, not a regular file)" in refused(*files)
    prepare = ["prepare", "imagenet", "--root", tmp_path / "imagenet", "--output", tmp_path / "again", "--partial"]
    line = refused(*prepare, "--split", "eval", "--profile", tmp_path / "files.yaml", worked=True)
    assert f"{path}: unreadable (is a named pipe, not a regular file)" in line
    path = make_pipe(tmp_path / "data" / "imagenet" / "eval.parquet")
    assert f"{path}: cannot be read (is a named pipe, not a regular file)" in refused(*files)


@pytest.mark.parametrize("verb", ["show", "table", "table-throughput", "figure"])
def test_no_page_waits_for_a_pipe(verb, refused, tmp_path):
    path = make_pipe(tmp_path / "r.json")
    make_pipe(tmp_path / "r.samples.npy")
    output = [] if verb == "show" else ["--output", tmp_path / "t.md"]
    words = ["figure", "reconstructions"] if verb == "figure" else [verb]
    assert "is a named pipe, not a regular file" in refused(*words, *output, path)


def test_control_characters_of_a_name_do_not_reach_the_terminal(refused, tmp_path):
    line = refused("show", tmp_path / "a\x1b[2J\nb.json")
    assert "a\\x1b[2J b.json: cannot be read" in line and "\x1b" not in line


def test_a_factor_that_is_not_finite(refused, tmp_path, weights, data):
    arguments = ["--autoencoder", "dc-ae-f32c32", "--weights", weights, "--data", data, "--output", tmp_path / "l.json"]
    assert "--declared inf: is not a finite number" in refused("latents", *arguments, "--declared", "inf")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_sparse_weights(evaluate, weights, refused, tmp_path):
    state = load_file(weights)
    pickled = tmp_path / "sparse.pt"
    key = "encoder.project_in.conv.bias"
    torch.save({"state_dict": state | {key: state[key].to_sparse()}}, pickled)
    assert f"key '{key}' is sparse" in refused(*replaced(evaluate, "--weights", pickled))


def test_a_damaged_line_of_the_log_is_named(train, refused, tmp_path, monkeypatch):
    def damaged(trainer, *_arguments):
        trainer.log.path.write_text('{"images": 4, "loss": 1.0}\nhalf\n')

    monkeypatch.setattr("dcae_bench.training.run.train_with_progress", damaged)
    line = refused(*train, worked=True)
    assert "log.jsonl: line 2 is damaged" in line and "delete the folder of the run" in line


def test_a_deeply_nested_profile(train, refused, tmp_path):
    (tmp_path / "short.yaml").write_text("a: " + "[" * 10_000)
    assert "is not valid YAML" in refused(*train)


def test_brackets_in_the_output(train, tmp_path, monkeypatch, capsys):
    output = tmp_path / "br[/x]y" / "[backup]" / "model.safetensors"
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, replaced(train, "--output", output))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and output.exists()
    assert str(output) in capsys.readouterr().err
