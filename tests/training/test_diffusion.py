import os
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dcae_bench.base.errors import ConfigError, DataError, TrainingError, WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.labelled import open_labelled
from dcae_bench.data.latent_batches import LatentBatches
from dcae_bench.data.latents import LABELS, LATENTS, MANIFEST, Latents, read_latent_manifest, write_latent_manifest
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.profile.recipes import diffusion_recipe
from dcae_bench.records.record import load
from dcae_bench.specs.denoisers import Architecture
from dcae_bench.specs.diffusion import ProcessName
from dcae_bench.subjects.denoisers import scale_of_others
from dcae_bench.subjects.initial import Initial
from dcae_bench.training.checkpoint import DIVERGED
from dcae_bench.training.diffusion import DiffusionTrainer, loss_by_quarter
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.training.log import read_log
from tests import tiny_diffusion as tiny

LATENT = "sd-vae@retrained"
FILES = ("log.jsonl", "model.safetensors", "preview.npy")


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion")
    data, weights = tiny.write_data(folder / "data"), tiny.write_weights(folder / "sd-vae.safetensors")
    for name in ("two", "plain"):
        encode_dataset(tiny.profile(), LATENT, name, data=data, output=folder / name, weights=weights)
    return folder


@pytest.fixture(scope="module")
def train(folder):
    def train(row, output, changes=None, run_dir=None, **others):
        options = {"latents": folder / tiny.CONTENT["diffusion"]["rows"][row]["data"], **others}
        options.setdefault("autoencoder", folder / "sd-vae.safetensors")
        run_dir = run_dir or output / "run"
        train_diffusion(tiny.profile(changes), row, output=output / "model.safetensors", run_dir=run_dir, **options)

    return train


@pytest.mark.parametrize("row", ["uvit", "dit", "usit"])
def test_killed_at_every_checkpoint_a_run_ends_the_same(train, tmp_path, monkeypatch, row):
    train(row, tmp_path / "whole")
    checkpoint = DiffusionTrainer.checkpoint

    def killed(self, name, seconds):
        checkpoint(self, name, seconds)
        if self.images < self.spec.images:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTrainer, "checkpoint", killed)
        for _ in range(2):
            with pytest.raises(Stopped):
                train(row, tmp_path / "parts")
    # And once between a batch and its checkpoint.
    step, steps = DiffusionTrainer.step, iter(range(10))

    def interrupted(self):
        if next(steps) == 1:
            raise Stopped
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTrainer, "step", interrupted)
        with pytest.raises(Stopped):
            train(row, tmp_path / "parts")
    train(row, tmp_path / "parts")
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    assert not list((tmp_path / "parts" / "run").iterdir())


@pytest.mark.parametrize("denoiser", get_args(Architecture.model_fields["family"].annotation))
@pytest.mark.parametrize("process", get_args(ProcessName))
def test_every_denoiser_learns_every_process_or_is_refused_when_the_profile_is_read(train, tmp_path, denoiser, process):
    sampler = {"vp": {"name": "dpm-solver", "nfe": 3}, "learned-range": {"name": "ddpm", "steps": 3}}
    plan = {"process": process, "sampler": sampler.get(process, {"name": "dopri5", "rtol": 0.1, "atol": 0.1})}
    changes = {
        ("diffusion", "trainings", "uvit"): {**tiny.TRAINING, **plan},
        ("diffusion", "rows", "uvit"): {**tiny.ROW, "denoiser": f"{denoiser}-nano"},
    }
    if (denoiser, process) == ("uvit", "learned-range"):
        with pytest.raises(ConfigError, match=r"row uvit: process 'learned-range' needs .*; use 'vp' or 'flow'$"):
            tiny.profile(changes)
        return
    train("uvit", tmp_path, changes)
    record = load(tmp_path / "record.json")
    assert (record.denoiser.family, record.denoiser.process) == (denoiser, process)
    assert np.load(tmp_path / "preview.npy").shape == (3, 2, 16, 16, 3)  # at three checkpoints
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


def test_the_record_counts_what_was_computed(train, tmp_path):
    train("uvit", tmp_path)
    record = load(tmp_path / "record.json")
    assert record.kind == "diffusion_training" and record.denoiser.tokens == 16 and record.denoiser.classes == 2
    assert record.subject.autoencoder == "sd-vae" and record.data.images == 24
    # Two blocks and the middle one of width 16 on 18 tokens, two skip layers less one, patches in and out.
    blocks = 3 * (18 * 12 * 16**2 + 2 * 18**2 * 16) + 18 * 2 * 16**2
    macs = blocks + 16 * 3 * 16 + 18 * 16 * 3
    assert record.metrics["flops_per_image"].value == 6 * macs
    assert record.metrics["training_flops"].value == 24 * 6 * macs
    assert 0 <= record.metrics["waiting"].value <= 100 and record.metrics["waiting"].unit == "%"
    log = read_log(tmp_path / "log.jsonl")
    assert [line["images"] for line in log] == [4, 8, 12, 16, 20, 24]
    assert [line["lr"] for line in log] == pytest.approx([5e-4, *[1e-3] * 5])
    assert any("loss_t1" in line for line in log) and "loss_t4" in {name for line in log for name in line}
    previews = np.load(tmp_path / "preview.npy")
    assert previews.shape == (3, 2, 16, 16, 3) and previews.dtype == np.uint8 and previews.std() > 0
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


def test_a_finished_row_is_left_as_it_is_until_its_recipe_or_its_files_change(train, tmp_path, monkeypatch):
    stepped = []
    step = DiffusionTrainer.step
    monkeypatch.setattr(DiffusionTrainer, "step", lambda self: stepped.append(1) or step(self))
    longer = {("diffusion", "rows", "uvit", "images"): 32}
    train("uvit", tmp_path)
    before = (tmp_path / "record.json").read_bytes()
    train("uvit", tmp_path)
    assert len(stepped) == 6 and (tmp_path / "record.json").read_bytes() == before
    for damage in (
        lambda: (tmp_path / "preview.npy").unlink(),
        lambda: (tmp_path / "record.json").write_text("{"),
        lambda: (tmp_path / "model.safetensors").write_bytes(b"other"),
    ):
        damage()
        del stepped[:]
        train("uvit", tmp_path)
        assert len(stepped) == 6
    train("uvit", tmp_path, longer)
    assert len(stepped) == 6 + 8


def test_a_denoiser_learns(train, tmp_path):
    plan = {"lr": 3.0e-3, "weight_decay": 0.0}
    changes = {
        ("diffusion", "rows", "uvit", "images"): 400,
        ("diffusion", "trainings", "uvit"): {
            **tiny.TRAINING,
            "optimizer": plan,
            "log_images": 40,
            "checkpoint_images": 400,
            "previews": 0,
        },
    }
    train("uvit", tmp_path, changes)
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl")]
    assert sum(losses[-3:]) / 3 < 0.5 * losses[0]
    assert not (tmp_path / "preview.npy").exists()


def test_what_an_image_meets_depends_on_seed_latent_and_epoch_alone(folder):
    latents = Latents(folder / "two")

    def all_of(share, seed=0, end=28):
        batches = LatentBatches(latents, seed, share=share, stride=share, end=end, label_dropout=0.5, threads=share)
        parts = [batches(first) for first in range(0, end, share)]
        batches.close()
        return [torch.cat(field) for field in zip(*parts, strict=True)]

    one, seven = all_of(1), all_of(7)
    assert all(a.equal(b) for a, b in zip(one, seven, strict=True))
    x0, labels, uniform, noise = one
    # Two epochs: each latent once in each, in another order and with other noise.
    for epoch in (x0[:14], x0[14:]):
        assert sorted(x.sum().item() for x in epoch) == sorted(
            float(x.sum()) for x in torch.from_numpy(latents.read(range(14)))
        )
    assert not x0[:14].equal(x0[14:]) and len({value.item() for value in uniform}) == 28
    assert noise.unique().numel() > 0.99 * noise.numel()
    assert uniform.min() >= 0 and uniform.max() < 1 and set(labels.tolist()) == {0, 1, 2}
    assert not all_of(7, seed=1)[3].equal(noise)


def test_a_million_latents_are_opened_and_read_with_flat_memory(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(Latents, "_verify", lambda self: None)  # hashing 42 GB takes a minute
    count = 1_281_167
    cache = copied(folder, tmp_path / "cache", count=count, shape=(4, 64, 64), dtype="float16")
    with open(cache / LATENTS, "wb") as file:  # 42 GB of zeros that take no room
        header = {"descr": "<f2", "fortran_order": False, "shape": (count, 4, 64, 64)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * 4 * 64 * 64 * 2)
    np.save(cache / LABELS, np.zeros(count, np.int64))
    before = resident()
    batches = LatentBatches(Latents(cache), 0, share=64, stride=64, end=1 << 40)
    seen = [(len(batches(first).x0), resident()) for first in range(0, 64 * 64, 64)]
    batches.close()
    assert {length for length, _ in seen} == {64}
    # An order of all latents (10 MB), their labels, and what is read ahead; then nothing more, though 117 MB are read.
    assert seen[7][1] - before < 100 << 20
    assert max(after for _, after in seen[8:]) - seen[7][1] < 16 << 20


def resident() -> int:
    """Bytes of this process in memory now; pages of files that are mapped count, unlike those that are read."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_label_dropout_is_the_share_it_says(folder):
    latents = Latents(folder / "two")
    batches = LatentBatches(latents, 0, share=2000, stride=2000, end=2000, label_dropout=0.1)
    batch = batches.make(0)
    batches.close()
    kept = batch.labels < 2
    place = {row.tobytes(): label for row, label in zip(latents.read(range(14)), latents.labels, strict=True)}
    assert [place[x.numpy().tobytes()] for x in batch.x0[kept]] == batch.labels[kept].tolist()
    assert 0.07 < (batch.labels == 2).float().mean() < 0.13
    assert abs(batch.uniform.mean() - 0.5) < 0.03 and abs(batch.noise.std() - 1) < 0.01


def test_losses_by_quarter_of_the_times():
    losses, uniform = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([0.0, 0.2, 0.5, 0.999])
    assert loss_by_quarter(losses, uniform) == {"loss": 4.0, "loss_t1": 2.0, "loss_t3": 5.0, "loss_t4": 7.0}


def copied(folder, target, name="two", **changes):
    """A cache with some of its manifest's fields changed."""
    target.mkdir()
    for file in (LATENTS, LABELS, MANIFEST):
        (target / file).write_bytes((folder / name / file).read_bytes())
    write_latent_manifest(read_latent_manifest(target).model_copy(update=changes), target)
    return target


def seal(folder):
    """Write the hashes of the files into the manifest, as if they had been encoded so."""
    hashes = {"sha256": sha256_file(folder / LATENTS), "labels_sha256": sha256_file(folder / LABELS)}
    write_latent_manifest(read_latent_manifest(folder).model_copy(update=hashes), folder)


def test_latents_that_are_not_the_rows_are_refused(train, tmp_path, folder):
    other = tiny.write_weights(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(DataError, match=r"holds latents of sd-vae with weights [0-9a-f]{64}, not of [0-9a-f]{64}"):
        train("uvit", tmp_path, autoencoder=other)
    with pytest.raises(DataError, match=r"its data sets is \('dark',\), row uvit needs"):
        train("uvit", tmp_path, latents=folder / "plain")
    with pytest.raises(DataError, match="number of classes is 3, row uvit needs 2"):
        train("uvit", tmp_path, latents=copied(folder, tmp_path / "classes", classes=3))
    with pytest.raises(DataError, match="its seed is 4, row uvit needs 3"):
        train("uvit", tmp_path, latents=copied(folder, tmp_path / "seed", seed=4))
    halves = copied(folder, tmp_path / "type", dtype="float16")
    np.save(halves / LATENTS, np.load(halves / LATENTS).astype(np.float16))
    seal(halves)
    with pytest.raises(DataError, match="its type is float16, row uvit needs float32"):
        train("uvit", tmp_path, latents=halves)
    wrong = copied(folder, tmp_path / "labels")
    np.save(wrong / LABELS, np.full(14, 7))
    seal(wrong)
    with pytest.raises(DataError, match=r"14 labels are outside of 0 to 1 \(the first is 7\)"):
        train("uvit", tmp_path, latents=wrong)
    broken = copied(folder, tmp_path / "nan")
    values = np.load(broken / LATENTS)
    np.save(broken / LATENTS, np.full_like(values, np.nan))
    seal(broken)
    with pytest.raises(DataError, match="is not finite; delete"):
        train("uvit", tmp_path, latents=broken)
    with pytest.raises(ConfigError, match="--autoencoder is missing"):
        train("uvit", tmp_path, autoencoder=None)


def test_a_loss_that_is_not_finite_stops_before_it_reaches_a_weight(train, tmp_path, monkeypatch):
    losses, calls = DiffusionTrainer.losses, iter(range(10))
    monkeypatch.setattr(
        DiffusionTrainer, "losses", lambda self, part: losses(self, part) * (float("nan") if next(calls) == 2 else 1)
    )
    with pytest.raises(TrainingError, match="row uvit: the loss or its gradient is not finite at image 8") as caught:
        train("uvit", tmp_path)
    (saved,) = (tmp_path / "run").glob(f"*/{DIVERGED}")
    assert str(saved) in str(caught.value)
    state = torch.load(saved, weights_only=True)
    assert state["images"] == 8 and all(value.isfinite().all() for value in state["model"].values())


def test_accumulated_parts_train_as_the_whole_batch(train, tmp_path):
    for parts in (1, 2):
        changes = {("diffusion", "trainings", "uvit"): {**tiny.TRAINING, "accumulate": parts, "previews": 0}}
        train("uvit", tmp_path / str(parts), changes)
    one, two = (load_file(tmp_path / part / "model.safetensors") for part in "12")
    assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)


def test_a_denoiser_starts_from_named_weights(train, tmp_path, capsys):
    train("uvit", tmp_path / "first")
    first = tmp_path / "first" / "model.safetensors"
    changes = {("diffusion", "rows", "uvit", "initial"): str(first)}
    assert "initial_weights" not in diffusion_recipe(tiny.profile(), "uvit")
    assert diffusion_recipe(tiny.profile(changes), "uvit")["initial_weights"] == str(first)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        step = DiffusionTrainer.step
        patch.setattr(DiffusionTrainer, "step", lambda self: seen.append(_state(self)) or step(self))
        train("uvit", tmp_path / "second", changes)
    wanted = load_file(first)
    assert all(value.equal(wanted[key]) for key, value in seen[0].items())
    denoiser = load(tmp_path / "second" / "record.json").denoiser
    assert (denoiser.initial, denoiser.initial_sha256) == (str(first), sha256_file(first))
    with pytest.raises(WeightsError, match=r"another shape than the model's|is missing|is unknown to the model"):
        train("dit", tmp_path / "third", {("diffusion", "rows", "dit", "initial"): str(first)})


def test_frozen_layers_of_a_denoiser_stay_bit_identical(train, tmp_path):
    """Nothing else differs: the same layers move, from the same start."""
    train("uvit", tmp_path / "first", SHORT)
    first = tmp_path / "first" / "model.safetensors"
    freeze = {("diffusion", "trainings", "uvit", "freeze"): ["in_blocks.*", "*.bias"]}
    train("uvit", tmp_path / "out", SHORT | freeze | {("diffusion", "rows", "uvit", "initial"): str(first)})
    before, after = load_file(first), load_file(tmp_path / "out" / "model.safetensors")
    for key, value in after.items():
        if key.startswith("in_blocks.") or key.endswith(".bias"):
            assert value.equal(before[key]), key
    assert not after["mid_block.attn.qkv.weight"].equal(before["mid_block.attn.qkv.weight"])
    record = load(tmp_path / "out" / "record.json")
    assert record.denoiser.frozen == ("in_blocks.*", "*.bias") and record.settings["freeze"] == "in_blocks.*, *.bias"
    assert " of " in record.settings["frozen"]
    for patterns, says in ((["*.nothing"], "matches no layer and no weight"), (["*"], "leaves nothing to train")):
        with pytest.raises(ConfigError, match=says):
            train("uvit", tmp_path / "none", SHORT | {("diffusion", "trainings", "uvit", "freeze"): patterns})


SHORT = {("diffusion", "rows", "uvit", "images"): 8}


def _state(trainer):
    return {key: value.clone() for key, value in trainer.denoiser.state_dict().items()}


def test_initial_weights_of_another_scale_are_told(train, tmp_path, folder):
    train("uvit", tmp_path)
    start = Initial("mine", tmp_path / "model.safetensors")
    manifest = read_latent_manifest(folder / "two")
    assert scale_of_others(start, manifest) is None
    line = scale_of_others(start, manifest.model_copy(update={"scaling_factor": 2.0}))
    assert "its initial weights mine learned from latents scaled by" in line and "these are scaled by 2" in line


def test_the_command_trains_and_names_a_row_that_is_not_there(tmp_path, folder, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
    options = ["--latents", folder / "two", "--autoencoder", folder / "sd-vae.safetensors", "--profile"]
    options += [tmp_path / "tiny.yaml", "--run-dir", tmp_path / "run", "--output", tmp_path / "model.safetensors"]

    def command(row):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "train-diffusion", "--row", row, *map(str, options)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code

    assert command("uvot") == 2
    assert "--row uvot: profile tiny has no such row; it has" in capsys.readouterr().err
    assert command("uvit") == 0 and load(tmp_path / "record.json").denoiser.row == "uvit"


def test_labels_of_folders_are_places_in_their_sorted_list(tmp_path):
    with pytest.raises(DataError, match="take labels 'dataset' or none"):
        spec = tiny.profile().diffusion.data["plain"].model_copy(update={"labels": "folder", "classes": 2})
        open_labelled(tiny.profile(), spec, tiny.write_data(tmp_path))
