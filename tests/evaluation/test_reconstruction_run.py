"""The verb ``evaluate`` end to end: its files, its settings, and one, two and three processes."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGTERM

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dcae_bench.cli.main import main
from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction, settings_of
from dcae_bench.evaluation.store import Store
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.record import load
from dcae_bench.running.stop import EXIT_CODE
from dcae_bench.specs.autoencoders import SDVAESpec
from dcae_bench.subjects.choose import choose_autoencoder
from tests.fixtures.commands import run_command

LABEL = "photos-indoor-32"


def evaluate(tiny, output, monkeypatch):
    return run_command(monkeypatch, "evaluate", *tiny.options, "--output", output)


def test_every_file_of_a_set_agrees_with_its_record(tiny, monkeypatch):
    output = tiny.folder / "out"
    assert evaluate(tiny, output, monkeypatch) == 0
    names = {f"{LABEL}.{end}" for end in ("json", "images.parquet", "samples.npy", "gallery.npz")}
    assert {path.name for path in output.iterdir()} == names, "and no state of the pass is left"
    record = load(output / f"{LABEL}.json")
    assert record.data.images == 14 and record.settings == {}
    table = pq.read_table(output / f"{LABEL}.images.parquet").to_pydict()
    assert table["index"] == list(range(14)) and len(set(table["key"])) == 14
    for name in ("psnr", "ssim", "lpips_alex_u8"):
        metric = record.metrics[name]
        assert np.mean(table[name]) == pytest.approx(metric.value, rel=1e-12)
        half = 1.96 * np.std(table[name], ddof=1) / np.sqrt(14)
        assert metric.interval.half_width == pytest.approx(half, rel=0.15)
    assert record.metrics["rfd_efficientnet_lite0"].interval is not None
    assert np.load(output / f"{LABEL}.samples.npy").shape == (3, 2, 32, 32, 3)
    with np.load(output / f"{LABEL}.gallery.npz") as gallery:
        assert gallery["key"][0] == table["key"][int(np.argmax(table["lpips_alex_u8"]))]


class Stopped(Exception):
    """Stands for a kill."""


def test_the_record_of_a_resumed_pass_has_the_seconds_of_all_runs(tiny, monkeypatch):
    output, write = tiny.folder / "out", Store.write

    def stopped(self, *arguments):
        write(self, *arguments)
        time.sleep(0.7)
        raise Stopped

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Store, "write", stopped)
            patch.setattr("sys.argv", ["dcae-bench", "evaluate", *tiny.options, "--output", str(output)])
            main()
    assert evaluate(tiny, output, monkeypatch) == 0
    assert load(output / f"{LABEL}.json").provenance.seconds > 1.4
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]


def test_a_signal_keeps_what_is_measured(tiny, monkeypatch):
    output, write, written = tiny.folder / "out", Store.write, []

    def stopped(self, indices, *arguments):
        write(self, indices, *arguments)
        written.append(indices.start)
        if len(written) == 1:
            os.kill(os.getpid(), SIGTERM)

    monkeypatch.setattr(Store, "write", stopped)
    assert evaluate(tiny, output, monkeypatch) == EXIT_CODE and len(written) == 1
    assert evaluate(tiny, output, monkeypatch) == 0
    assert len(written) == len(set(written)) > 1, "no batch is measured twice"


def test_evaluations_at_once_take_turns(tiny, monkeypatch):
    output = tiny.folder / "out"
    profile = load_profile(tiny.folder / "tiny.yaml")
    chosen = choose_autoencoder(profile, "sd-vae-f2c4", tiny.folder / "model.safetensors")

    def run(_):
        evaluate_reconstruction(profile, chosen, data=tiny.folder / "data", output=output)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert load(output / f"{LABEL}.json").data.images == 14
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]


WORKER = """
import os
os.environ.update({environment!r})
from dcae_bench.profile.profile import load_profile
from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction
from dcae_bench.subjects.choose import choose_autoencoder
from tests.fixtures.commands import run_command
from pathlib import Path
folder = Path({folder!r})
profile = load_profile(folder / "tiny.yaml")
chosen = choose_autoencoder(profile, "sd-vae-f2c4", folder / "model.safetensors")
evaluate_reconstruction(profile, chosen, data=folder / "data", output=Path({output!r}))
"""


def run_processes(server, tiny, count, output, caches=None):
    """Start what ``torchrun`` would start, on this machine's loopback; ``caches`` are those of each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"GLOO_SOCKET_IFNAME": "lo"}
    caches = caches or [os.environ["DCAE_BENCH_CACHE"]] * count
    started = []
    for rank in range(count):
        environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "DCAE_BENCH_CACHE": caches[rank]}
        code = WORKER.format(environment=environment, folder=str(tiny.folder), output=str(output))
        started.append(server.Process(target=exec, args=(code, {})))
        started[-1].start()
    for process in started:
        process.join(timeout=120)
    assert [process.exitcode for process in started] == [0] * count
    return load(output / f"{LABEL}.json"), pq.read_table(output / f"{LABEL}.images.parquet")


@pytest.mark.long
def test_one_two_and_three_processes_give_the_same_bits(server, tiny, monkeypatch, another_cache):
    """14 images in batches of 2 divide by none of these; each is counted once, in the same order."""
    assert evaluate(tiny, tiny.folder / "1", monkeypatch) == 0
    alone = load(tiny.folder / "1" / f"{LABEL}.json")
    table = pq.read_table(tiny.folder / "1" / f"{LABEL}.images.parquet")
    for count in (2, 3):
        # A cache of its own, so that the originals are shared out as well.
        another_cache()
        record, images = run_processes(server, tiny, count, tiny.folder / str(count))
        assert record.data.images == 14
        assert images.equals(table)
        for name, metric in record.metrics.items():
            assert (metric.value, metric.interval) == (alone.metrics[name].value, alone.metrics[name].interval), name


@pytest.mark.long
def test_processes_need_no_cache_in_common(server, tiny, monkeypatch, another_cache):
    """Of two machines the first keeps the originals' features from an earlier evaluation, the other has none."""
    assert evaluate(tiny, tiny.folder / "1", monkeypatch) == 0
    filled = os.environ["DCAE_BENCH_CACHE"]
    another_cache()
    caches = [filled, os.environ["DCAE_BENCH_CACHE"]]
    _, images = run_processes(server, tiny, 2, tiny.folder / "2", caches)
    assert images.equals(pq.read_table(tiny.folder / "1" / f"{LABEL}.images.parquet"))


@pytest.mark.parametrize(
    ("source", "protocol", "found"),
    [
        ("retrained", "reconstruction/paper-v1", None),
        ("released", "reconstruction/paper-v1", "sample"),
        ("released", "reconstruction/photos-v1", "mean"),
    ],
)
def test_only_posteriors_that_were_trained_are_sampled(source, protocol, found, tiny):
    profile = load_profile(tiny.folder / "tiny.yaml")
    evaluation = profile.evaluation.model_copy(update={"protocol": protocol})
    profile = profile.model_copy(update={"evaluation": evaluation})
    model = build(profile.autoencoders["sd-vae-f2c4"].model)
    assert isinstance(model.spec, SDVAESpec)

    class Subject:
        weights_source = source

    assert settings_of(profile, model, Subject).get("posterior") == found


def test_a_posterior_is_drawn_around_its_mean():
    spec = SDVAESpec(family="sd-vae", latent_channels=4, widths=[8, 8], layers_per_block=1, norm_groups=4)
    model = build(spec, seed=0).eval()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.inference_mode():
        posterior = model.net.encode(x).latent_dist
        assert torch.equal(model.draw(x, lambda shape: torch.zeros(2, *shape)), model.encode(x))
        drawn = model.draw(x, lambda shape: torch.ones(2, *shape))
    torch.testing.assert_close(drawn, posterior.mean + posterior.std)
