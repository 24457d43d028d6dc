"""One training on several nodes: two commands of this machine, each with two processes, against one command."""

import socket
from signal import SIGTERM

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dcae_bench.profile.profile import load_profile
from dcae_bench.records.record import load
from dcae_bench.running.nodes import MEETING
from dcae_bench.running.stop import EXIT_CODE
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.log import read_log
from dcae_bench.training.run import train_phase
from tests.training import workers

LAYOUTS = {"alone": (1, 1), "one-node": (1, 4), "two-nodes": (2, 2)}


@pytest.fixture(scope="module")
def profiles(folder, tiny):
    """Profiles with the same training by one process, by four of one node, and by two of each of two nodes."""
    for name, (nodes, processes) in LAYOUTS.items():
        content = tiny({("nodes",): nodes, ("processes",): processes, ("training", "phases", 1, "images"): 16})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def train(server, profiles):
    """Run the training's command as the nodes of a layout; give exit codes and the errors of each node."""

    def run(layout, output, *ending):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            meeting = f"127.0.0.1:{probe.getsockname()[1]}"
        words = ["train", "--profile", f"{profiles / layout}.yaml", "--autoencoder", "dc-ae", "--phase", "1"]
        words += ["--data", str(profiles / "data"), "--run-dir", str(output / "run")]
        words += ["--output", str(output / "model.safetensors")]
        output.mkdir(exist_ok=True)
        errors = [output / f"node-{number}.err" for number in range(LAYOUTS[layout][0])]
        started = [
            server.Process(target=workers.node, args=(words, {MEETING: meeting}, file, *ending)) for file in errors
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(timeout=120)
        for process in started:
            process.kill()  # one that hangs would keep the tests from ending
        return [process.exitcode for process in started], [file.read_text().splitlines() for file in errors]

    return run


def weights(output):
    return load_file(output / "model.safetensors")


def is_told(line):
    """Whether a line is an error or a traceback.

    torch's warnings stand there too: the processes of these tests have loaded torch before the command asks for less.
    """
    return line.startswith(("dcae-bench: ", "Traceback", "[rank")) and " Warning: " not in line


@pytest.mark.long
def test_two_nodes_train_as_one_does_and_go_on_after_the_death_of_one(train, profiles, tmp_path):
    alone, one, two, broken = (tmp_path / name for name in ("alone", "one", "two", "broken"))
    profile = load_profile(profiles / "alone.yaml")
    train_phase(
        profile, "dc-ae", 1, data=profiles / "data", initial=None, output=alone / "model.safetensors", run_dir=alone
    )
    assert train("one-node", one)[0] == [0]
    assert train("two-nodes", two)[0] == [0, 0]
    logs = {output.name: read_log(output / "log.jsonl") for output in (alone, one, two)}
    assert logs["two"][0] == pytest.approx(logs["alone"][0], rel=1e-5, abs=1e-6)
    assert all(line == pytest.approx(other, rel=1e-4) for line, other in zip(logs["two"], logs["one"], strict=True))
    assert all(torch.allclose(weights(two)[key], value, atol=1e-4) for key, value in weights(one).items())
    made = [load(output / "record.json") for output in (one, two)]
    assert made[0].provenance.config_sha256 == made[1].provenance.config_sha256
    assert [record.provenance.device.processes for record in made] == [4, 4]
    assert [record.settings.get("nodes") for record in made] == [None, "2"]

    codes, told = train("two-nodes", broken, 1)
    assert sorted(codes) == [-9, 2]
    errors = [line for line in told[codes.index(2)] if is_told(line)]
    assert len(errors) == 1 and errors[0].startswith("dcae-bench: error: node ")
    assert errors[0].endswith("; run the same command again on each node to go on")
    assert list(broken.rglob(CHECKPOINT)) and not (broken / "model.safetensors").exists()
    assert train("two-nodes", broken)[0] == [0, 0]
    assert any("resumed at image 8 of 16" in file.read_text() for file in broken.glob("*.err"))
    assert read_log(broken / "log.jsonl") == logs["two"]
    assert not [key for key, value in weights(two).items() if not weights(broken)[key].equal(value)]


@pytest.mark.long
def test_a_signal_to_one_node_stops_both_with_a_checkpoint(train, tmp_path):
    codes, told = train("two-nodes", tmp_path, 1, SIGTERM)
    assert codes == [EXIT_CODE, EXIT_CODE]
    for lines in told:
        (line,) = [line for line in lines if is_told(line)]
        assert "stopped by" in line and "at image 12 of 16, with a checkpoint; run the same command again" in line
    (path,) = tmp_path.rglob(CHECKPOINT)
    assert torch.load(path, weights_only=True)["images"] == 12
