"""Training shared by processes, each with a part of every batch, against training by one."""

import pytest
from safetensors.torch import load_file

from dcae_bench.base.errors import TrainingError
from dcae_bench.records.record import load
from dcae_bench.running.stop import EXIT_CODE
from dcae_bench.training.checkpoint import CHECKPOINT, DIVERGED
from dcae_bench.training.log import read_log
from tests.training import workers


@pytest.mark.parametrize("train", [workers.first_phase, workers.third_phase_in_parts, workers.denoiser])
def test_two_processes_train_as_one_does(in_two, folder, diffusion_folder, tmp_path, train):
    """Gradients, logged losses, BatchNorm of both nets and the adaptive weight of a GAN are the whole batch's, or
    with ``accumulate`` those of the same parts of it.

    Rounding differs, and Adam makes more of it with every step.
    """
    folder = diffusion_folder if train is workers.denoiser else folder
    train(folder, tmp_path / "1")
    assert in_two(train, folder, tmp_path / "2") == [0, 0]
    made = load(tmp_path / "2" / "record.json").provenance.device
    assert made.processes == 2 and made.machine.endswith(", 1 threads, 2 processes")
    found, wanted = (read_log(tmp_path / count / "log.jsonl") for count in ("2", "1"))
    assert len(found) == len(wanted)
    for number, (line, other) in enumerate(zip(found, wanted, strict=True)):
        assert line == pytest.approx(other, rel=1e-5 if number == 0 else 1e-2, abs=1e-6), number


@pytest.mark.long
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_late_discriminator_and_frozen_layers_are_the_same_in_two_processes(in_two, folder, tmp_path, sharding):
    train = workers.third_phase_with_a_late_start
    train(folder, tmp_path / "1")
    assert in_two(train, folder, tmp_path / "2", SHARDING=sharding) == [0, 0]
    found, wanted = (read_log(tmp_path / count / "log.jsonl") for count in ("2", "1"))
    assert ["disc" in line for line in found] == ["disc" in line for line in wanted] == [False] * 2 + [True] * 8
    for number, (line, other) in enumerate(zip(found, wanted, strict=True)):
        assert line == pytest.approx(other, rel=1e-5 if number == 0 else 5e-2, abs=1e-5), number
    before, after = load_file(folder / "initial.safetensors"), load_file(tmp_path / "2" / "model.safetensors")
    assert all(value.equal(before[key]) for key, value in after.items() if key.startswith("encoder."))
    assert "encoder.*" in load(tmp_path / "2" / "record.json").settings["freeze"]


def test_processes_stopped_at_a_checkpoint_go_on_to_the_same_bits(in_two, folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert in_two(workers.third_phase, folder, whole) == [0, 0]
    assert in_two(workers.stopped_at_a_checkpoint, folder, broken) == [9, 9]
    assert list(broken.rglob(CHECKPOINT))
    assert in_two(workers.third_phase, folder, broken) == [0, 0]
    assert read_log(broken / "log.jsonl") == read_log(whole / "log.jsonl")
    found, wanted = (load_file(path / "model.safetensors") for path in (broken, whole))
    assert not [key for key in wanted if not found[key].equal(wanted[key])]


@pytest.mark.long
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(in_two, folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert in_two(workers.third_phase, folder, whole) == [0, 0]
    assert in_two(workers.stopped_by_a_signal_to_the_second_process, folder, broken) == [EXIT_CODE, EXIT_CODE]
    assert list(broken.rglob(CHECKPOINT))
    assert in_two(workers.third_phase, folder, broken) == [0, 0]
    assert read_log(broken / "log.jsonl") == read_log(whole / "log.jsonl")
    found, wanted = (load_file(path / "model.safetensors") for path in (broken, whole))
    assert not [key for key in wanted if not found[key].equal(wanted[key])]


def test_a_bad_image_of_one_process_stops_both(in_two, folder, tmp_path):
    """The other would wait for its gradients for ever."""
    assert in_two(workers.bad_image_of_the_second_process, folder, tmp_path) == [2, 2]
    assert list(tmp_path.rglob(DIVERGED))
    assert not list(tmp_path.rglob("model.safetensors"))


def test_as_many_processes_as_the_profile_has_are_needed(start, tmp_path):
    with pytest.raises(TrainingError, match="phase 1: 1 processes were started, and profile tiny has 'processes: 2'"):
        start(tmp_path, "dc-ae", 1, {("processes",): 2})
