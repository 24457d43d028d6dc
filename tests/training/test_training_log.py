import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.training.log import TrainingLog, read_log


def fill(log: TrainingLog, first: int, last: int) -> None:
    """Batches of 4 images, the loss being the number of images seen."""
    for images in range(first + 4, last + 1, 4):
        log.add(images, {"loss": float(images), "lr": 0.5})


def test_a_line_is_the_mean_over_its_batches(tmp_path):
    log = TrainingLog(tmp_path / "new" / "log.jsonl", 0, every=12)
    fill(log, 0, 28)
    assert read_log(tmp_path / "new" / "log.jsonl") == [
        {"images": 12, "loss": 8.0, "lr": 0.5},
        {"images": 24, "loss": 20.0, "lr": 0.5},
    ]


@given(
    resumed_at=st.integers(0, 6).map(lambda n: 8 * n),
    killed_at=st.integers(0, 12).map(lambda n: 4 * n),
    torn=st.integers(0, 40),
)
def test_a_resumed_log_equals_an_unbroken_one(tmp_path_factory, resumed_at, killed_at, torn):
    folder = tmp_path_factory.mktemp("log")
    fill(TrainingLog(folder / "unbroken", 0, every=4), 0, 64)
    path = folder / "log"
    fill(TrainingLog(path, 0, every=4), 0, max(resumed_at, killed_at))
    with open(path, "a") as file:  # the line that a kill cut off
        file.write('{"images": 1000, "loss": 1000.0, "lr": 0.5}'[:torn])
    fill(TrainingLog(path, resumed_at, every=4), resumed_at, 64)
    assert path.read_bytes() == (folder / "unbroken").read_bytes()


@pytest.mark.parametrize("at", [0, 8])
def test_lines_past_the_checkpoint_are_dropped(tmp_path, at):
    path = tmp_path / "log"
    fill(TrainingLog(path, 0, every=4), 0, 20)
    TrainingLog(path, at, every=4)
    assert [line["images"] for line in read_log(path)] == list(range(4, at + 1, 4))


def test_a_missing_log_is_empty(tmp_path):
    assert read_log(tmp_path / "log") == []
