import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.running.gpus import choose_gpu
from dcae_bench.running.lease import CPU, holder, lease

A, B = "GPU-aaaa", "GPU-bbbb"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def other():
    """Another process that holds a device."""
    started = []

    def hold(device: str) -> subprocess.Popen:
        code = (
            "import sys\nfrom dcae_bench.running.lease import lease\n"
            f"with lease([{device!r}]):\n print('held', flush=True)\n sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_second_holder_fails_after_its_timeout_with_one_line(other):
    process = other(A)
    assert f"process {process.pid} " in holder(A)
    refusal = rf"{A}: is leased by process {process.pid} .* waited 0 s"
    with pytest.raises(MeasurementError, match=refusal) as error, lease([A], timeout_s=0):
        pytest.fail("held twice")
    assert "\n" not in str(error.value)
    with lease([B, CPU], timeout_s=0):  # others are free
        pass


def test_a_holder_is_named_by_a_command_that_one_can_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/dcae_bench/__main__.py", "measure", "--plan", "a plan"])
    with lease([A], timeout_s=0):
        assert holder(A).endswith("(python -m dcae_bench measure --plan 'a plan')")


def test_second_holder_waits_tells_once_and_goes_on(other):
    process = other(A)
    said, waits = [], []

    def sleep(_seconds: float) -> None:
        waits.append(1)
        if len(waits) == 3:
            process.stdin.close()
            process.wait()

    with lease([A], timeout_s=60, say=said.append, sleep=sleep):
        assert holder(A)
    assert len(waits) == 3 and len(said) == 1 and f"process {process.pid}" in said[0]
    assert holder(A) is None


def test_kill_frees_the_lease(other):
    process = other(A)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(A) is None
    with lease([A], timeout_s=0):
        pass


def test_error_inside_frees_the_lease_and_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RuntimeError), lease([A, CPU], timeout_s=0):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == A
        raise RuntimeError
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert holder(A) is None and holder(CPU) is None


@pytest.mark.parametrize("used", [A, B])
def test_gpu_that_cuda_did_not_start_with_is_refused(monkeypatch, used):
    properties = SimpleNamespace(uuid=used.removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: properties)
    if used == A:
        with lease([A], timeout_s=0):
            pass
    else:
        with pytest.raises(MeasurementError, match="before the first use"), lease([A], timeout_s=0):
            pass


def test_lease_of_the_processors_hides_no_gpu():
    with lease([CPU], timeout_s=0):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_lease_folder_is_everyones(tmp_path):
    with lease([A], timeout_s=0):
        pass
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert next((tmp_path / "leases").iterdir()).stat().st_mode & 0o777 == 0o666


def test_lease_that_cannot_be_opened_says_where(tmp_path):
    (tmp_path / "leases").write_text("a file")
    with pytest.raises(MeasurementError, match="DCAE_BENCH_LEASES"), lease([A], timeout_s=0):
        pass


def test_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "leases").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "leases" / f"{A}.lock").symlink_to(victim)
    with pytest.raises(MeasurementError), lease([A], timeout_s=0):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("uuids", "visible", "order", "chosen"),
    [
        ([A, B], None, None, A),
        ([A, B], B, None, B),
        ([A, B], "GPU-b", None, B),
        ([A, B], f"{B},{A}", None, B),
        ([A, B], "1", "PCI_BUS_ID", B),
        ([A], "0", None, A),
        ([A], "MIG-1", None, "MIG-1"),
    ],
)
def test_gpu_is_chosen_by_uuid(uuids, visible, order, chosen):
    assert choose_gpu(uuids, visible, order) == chosen


@pytest.mark.parametrize(
    ("uuids", "visible", "message"),
    [
        ([A, B], "1", "index"),
        ([A, B], "GPU-", "no such"),
        ([A], "", "hides"),
        ([A], "-1", "hides"),
        ([A], "4", "hides"),
        ([], None, "no GPU"),
    ],
)
def test_unclear_choice_of_a_gpu_is_refused(uuids, visible, message):
    with pytest.raises(MeasurementError, match=message):
        choose_gpu(uuids, visible, None)
