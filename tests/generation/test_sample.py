"""Images from a trained denoiser."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier, local

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from dcae_bench.base.errors import ConfigError, DataError, ResultsError, WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.sample_manifest import read_sample_manifest
from dcae_bench.data.samples import Samples
from dcae_bench.diffusion.decode import decode
from dcae_bench.diffusion.noise import paper_labels
from dcae_bench.diffusion.processes import build_process
from dcae_bench.generation import sample as sampling
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.pngs import write_pngs
from dcae_bench.generation.sample import Sampling, sample_images
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.running.processes import Worker
from dcae_bench.specs.diffusion import GuidanceSpec
from dcae_bench.subjects.denoisers import open_trained
from dcae_bench.weights.trained import METADATA, TrainedWeights
from tests import tiny_diffusion as tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    data, weights = tiny.write_data(folder / "data"), tiny.write_weights(folder / "sd-vae.safetensors")
    for name in ("two", "plain"):
        encode_dataset(tiny.profile(), "sd-vae@retrained", name, data=data, output=folder / name, weights=weights)
    for row in tiny.CONTENT["diffusion"]["rows"]:
        model = build_denoiser(tiny.profile().row(row).denoiser, seed=1)
        generator = torch.Generator().manual_seed(2)  # DiT begins as zero, which says nothing
        state = {k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
        save_weights(state, folder / f"{row}.safetensors", trained=TrainedWeights(kind="denoiser", name=row))
    return folder


@pytest.fixture(scope="module")
def draw(folder):
    def draw(row, output, changes=None, **others):
        options = {"weights": folder / f"{row}.safetensors", "autoencoder": folder / "sd-vae.safetensors"}
        options["latents"] = folder / tiny.CONTENT["diffusion"]["rows"][row]["data"]
        return sample_images(tiny.profile(changes), row, output=output, **{**options, **others})

    return draw


@pytest.mark.parametrize("row", ["uvit", "dit", "usit"])
def test_samples_do_not_depend_on_the_batch(draw, tmp_path, row):
    manifest = draw(row, tmp_path / "2")
    draw(row, tmp_path / "5", {("diffusion", "sample_batch"): 5})
    two, five = (np.load(tmp_path / name / "samples.npy") for name in "25")
    assert two.shape == (5, 16, 16, 3) and two.dtype == np.uint8 and two.std() > 0
    # Sums in another order may round a pixel the other way.
    assert np.abs(two.astype(int) - five.astype(int)).max() <= 1
    assert len({image.tobytes() for image in two}) == 5
    labels = np.load(tmp_path / "2" / "labels.npy")
    assert labels.tolist() == ([-1] * 5 if row == "usit" else [0, 1, 0, 1, 0])
    assert manifest.nfe == (None if row == "usit" else 3) and manifest.sha256 == sha256_file(tmp_path / "2/samples.npy")


@pytest.mark.parametrize("row", ["uvit", "dit"])
def test_a_released_pipeline_gives_the_samples_of_its_denoiser(draw, folder, tmp_path, row):
    """The published layout: the denoiser beside an autoencoder, which is left alone."""
    state = load_file(folder / f"{row}.safetensors")
    pipeline = {f"diffusion_model.{key}": value for key, value in state.items()}
    pipeline["autoencoder.decoder.weight"] = torch.full((3,), torch.nan)
    about = TrainedWeights(kind="denoiser", name=row)
    save_file(pipeline, tmp_path / "model.safetensors", {METADATA: about.model_dump_json()})
    released = draw(row, tmp_path / "released", weights=tmp_path / "model.safetensors")
    own = draw(row, tmp_path / "own")
    assert released.sha256 == own.sha256 and released.denoiser_sha256 != own.denoiser_sha256


def test_guidance_in_both_conventions(draw, tmp_path):
    plain = draw("uvit", tmp_path / "plain")
    s = draw("uvit", tmp_path / "s", guidance=GuidanceSpec(s=3))
    w = draw("uvit", tmp_path / "w", guidance=GuidanceSpec(w=2))
    assert s.guidance_scale == w.guidance_scale == 3 and s.sha256 == w.sha256 != plain.sha256
    with pytest.raises(ConfigError, match=r"guidance s = 1\.5: row usit is unconditional; use s = 1"):
        draw("usit", tmp_path / "usit", guidance=GuidanceSpec(s=1.5))
    undropped = {("diffusion", "trainings", "uvit"): tiny.TRAINING | {"label_dropout": 0, "guidance": [{"s": 1}]}}
    with pytest.raises(ConfigError, match=r"row uvit was trained with label_dropout 0, so its null class"):
        draw("uvit", tmp_path / "undropped", undropped, guidance=GuidanceSpec(s=1.5))


def test_an_interrupted_pass_goes_on_where_it_was(draw, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    whole, calls = Sampling._sample, []

    def counted(self, rows, noise):
        if len(calls) == 1 and not stopped:
            stopped.append(True)
            time.sleep(0.7)
            raise Stopped
        calls.append(rows.start)
        return whole(self, rows, noise)

    stopped: list[bool] = []
    monkeypatch.setattr(Sampling, "_sample", counted)
    with pytest.raises(Stopped):
        draw("dit", tmp_path / "parts")
    first = draw("dit", tmp_path / "parts")
    assert calls == [0, 2, 4]
    assert first.seconds > 0.7, "the seconds of the stopped run count too"
    again = draw("dit", tmp_path / "parts")
    assert calls == [0, 2, 4] and again == first
    assert draw("dit", tmp_path / "whole").sha256 == first.sha256
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["labels.npy", "samples.json", "samples.npy"]


def test_commands_at_once_take_turns(draw, tmp_path):
    def run(_):
        return draw("uvit", tmp_path / "shared", png=tmp_path / "png")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(4)))
    assert all(manifest == found[0] for manifest in found), "the first one samples, the others find it done"
    assert len(list((tmp_path / "png").iterdir())) == found[0].count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["png", "shared"]


@pytest.mark.parametrize(("row", "scale"), [("uvit", 1), ("dit", 1), ("dit", 2)])
def test_the_authors_streams_are_replayed_whatever_was_there_before(draw, tmp_path, monkeypatch, row, scale):
    changes = {("diffusion", "seed_policy"): "paper_8gpu", ("diffusion", "samples"): 11}
    guidance = GuidanceSpec(s=scale)
    # Two batches of each rank, so that a batch begins where the one before it has left the streams.
    monkeypatch.setattr("dcae_bench.diffusion.noise.PAPER_BATCH", 1)
    whole, calls = Sampling._sample, []

    def killed(self, rows, noise):
        calls.append(rows)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(self, rows, noise)

    first = draw(row, tmp_path / "a", changes, guidance=guidance)
    monkeypatch.setattr(Sampling, "_sample", killed)
    with pytest.raises(KeyboardInterrupt):
        draw(row, tmp_path / "b", changes, guidance=guidance)
    assert draw(row, tmp_path / "b", changes, guidance=guidance).sha256 == first.sha256
    assert calls.count(calls[0]) == 1, "a finished batch is not sampled again"
    labels = np.load(tmp_path / "b" / "labels.npy")
    assert labels.tolist() == paper_labels(11, 2, 3).tolist()
    assert first.noise.startswith("cpu: "), "the manifest says whose generators drew the noise"


def test_samples_of_the_authors_streams_are_those_of_their_loop(draw, folder, tmp_path):
    """DiT with guidance: the doubled batch, torch's default generator, and a draw that the last step does not add."""
    changes = {("diffusion", "seed_policy"): "paper_8gpu", ("diffusion", "samples"): 16}
    draw("dit", tmp_path / "out", changes, guidance=GuidanceSpec(s=2))
    found = np.load(tmp_path / "out" / "samples.npy")
    resolved = tiny.profile(changes).row("dit")
    model, process = build_denoiser(resolved.denoiser).eval(), build_process("learned-range")
    model.load_state_dict(load_file(folder / "dit.safetensors"))
    steps, labels, latents = process.spaced(3), paper_labels(16, 2, 3), []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        for rank in range(8):
            torch.manual_seed(3 + rank)
            start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3 + rank))
            x, y = torch.cat([start, start]), labels[2 * rank : 2 * rank + 2]
            y = torch.cat([y, torch.full_like(y, 2)])
            for step in (2, 1, 0):
                t = torch.full((4,), step)
                half = torch.cat([x[:2], x[:2]])
                eps, rest = model(half, torch.full((4,), int(steps.times[step])), y).chunk(2, dim=1)
                guided = eps[2:] + 2 * (eps[:2] - eps[2:])
                mean, log_variance = steps.predicted(x, t, torch.cat([torch.cat([guided, guided]), rest], dim=1))
                x = mean + (step > 0) * (0.5 * log_variance).exp() * torch.randn_like(x)
            latents.append(x[:2])
    denoiser = open_trained(
        tiny.profile(changes), resolved, folder / "dit.safetensors", folder / "two", folder / "sd-vae.safetensors"
    )
    with torch.inference_mode():
        images = decode(denoiser.autoencoder, torch.cat(latents), denoiser).permute(0, 2, 3, 1).numpy()
    assert np.abs(found.astype(int) - images.astype(int)).max() <= 1 and found.std() > 0


@pytest.mark.parametrize("policy", ["sample", "paper_8gpu"])
def test_two_processes_draw_the_same_samples(draw, tmp_path, monkeypatch, policy):
    changes = {("diffusion", "seed_policy"): policy, ("diffusion", "samples"): 11}
    alone = draw("uvit", tmp_path / "alone", changes)
    barrier, current, drawn = Barrier(2, timeout=60), local(), {0: 0, 1: 0}

    class Together(Worker):
        def wait(self):
            barrier.wait()

    whole = Sampling._sample

    def counted(self, rows, noise):
        drawn[self.process.rank] += len(rows)
        return whole(self, rows, noise)

    def one(rank):
        current.process = Together(rank, 2)
        return draw("uvit", tmp_path / "together", changes)

    monkeypatch.setattr(Sampling, "_sample", counted)
    monkeypatch.setattr(sampling, "join_processes", lambda: nullcontext(current.process))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, range(2)))
    # The authors' first six ranks draw two each, one of which is past the count; the others have nothing to draw.
    assert drawn == ({0: 6, 1: 5} if policy == "sample" else {0: 6, 1: 6})
    assert [manifest.sha256 for manifest in found] == [alone.sha256] * 2


def test_what_does_not_belong_together_is_refused(draw, tmp_path, folder):
    draw("uvit", tmp_path / "out")
    before = read_sample_manifest(tmp_path / "out")
    with pytest.raises(DataError, match=r"holds samples of denoiser .* take another folder"):
        draw("uvit", tmp_path / "out", guidance=GuidanceSpec(s=2))
    assert read_sample_manifest(tmp_path / "out") == before
    other = tiny.write_weights(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(DataError, match="holds latents of sd-vae with weights"):
        draw("uvit", tmp_path / "new", autoencoder=other)
    with pytest.raises(WeightsError, match=r"holds weights of denoiser dit, not of row uvit; pass those of the row"):
        draw("uvit", tmp_path / "new", weights=folder / "dit.safetensors")
    with pytest.raises(DataError, match="sample first"):
        read_sample_manifest(tmp_path / "new")


def test_latents_of_other_images_are_refused(draw, tmp_path, folder):
    """Of the same autoencoder, but with another scale than the denoiser learned with."""
    with pytest.raises(DataError, match=r"plain: its data sets is \('dark',\), row uvit needs \('bright', 'dark'\)"):
        draw("uvit", tmp_path / "out", latents=folder / "plain")
    assert not (tmp_path / "out").exists()


def test_files_for_those_who_ask(draw, tmp_path, monkeypatch):
    draw("uvit", tmp_path / "out", png=tmp_path / "png")
    samples = np.load(tmp_path / "out" / "samples.npy")
    paths = sorted((tmp_path / "png").iterdir())
    assert [path.name for path in paths] == [f"00000{index}.png" for index in range(5)]
    assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in paths]), samples)
    # Asked for later, of samples that are there: nothing is drawn again.
    monkeypatch.setattr(Sampling, "run", lambda self: pytest.fail("drawn again"))
    paths[3].unlink()
    draw("uvit", tmp_path / "out", png=tmp_path / "png")
    assert len(list((tmp_path / "png").iterdir())) == 5
    paths[3].rename(tmp_path / "png" / "mine.png")
    with pytest.raises(ResultsError, match=r"png: holds 1 other images \(mine\.png\); take a folder of its own"):
        draw("uvit", tmp_path / "out", png=tmp_path / "png")


def test_processes_share_the_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (130, 2, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "samples.npy", images)
    np.save(tmp_path / "labels.npy", np.zeros(130, np.int64))
    hashes = {"sha256": sha256_file(tmp_path / "samples.npy"), "labels_sha256": sha256_file(tmp_path / "labels.npy")}
    samples = Samples(tmp_path, **hashes)
    found = []
    for rank in (0, 1):
        process = Worker(rank, 2)
        object.__setattr__(process, "wait", lambda: None)
        write_pngs(samples, tmp_path / str(rank), process, threads=2)
        found.append({int(path.stem) for path in (tmp_path / str(rank)).iterdir()})
    assert not found[0] & found[1] and found[0] | found[1] == set(range(130))


def test_the_command(tmp_path, folder, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
    options = ["--profile", tmp_path / "tiny.yaml", "--latents", folder / "two", "--output", tmp_path / "out"]
    options += ["--row", "uvit", "--weights", folder / "uvit.safetensors"]

    def command(*more):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "sample", *map(str, options), *map(str, more)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code

    autoencoder = ("--autoencoder", folder / "sd-vae.safetensors")
    assert command() == 2 and "--autoencoder is missing" in capsys.readouterr().err
    assert command(*autoencoder, "--s", 2, "--w", 1) == 2 and "leave one out" in capsys.readouterr().err
    for scale in ("--s", "--w"):
        assert command(*autoencoder, scale, "inf") == 2
        assert f"error: {scale} inf: is not a finite number" in capsys.readouterr().err
    assert command(*autoencoder, "--w", 0.5) == 0
    assert read_sample_manifest(tmp_path / "out").guidance_scale == 1.5
    capsys.readouterr()
    assert command(*autoencoder, "--s", 1.5, "--png", tmp_path / "png") == 0
    assert (
        "row uvit: these 5 samples are in" in capsys.readouterr().err and len(list((tmp_path / "png").iterdir())) == 5
    )
