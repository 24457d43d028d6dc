"""The profiles that need data got by hand: their whole plan, and their table, without any data."""

import os
import re
import subprocess
import sys

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.planning.meaning import MODULES
from dcae_bench.planning.targets import Needs, needs_of
from dcae_bench.profile.profile import load_profile
from dcae_bench.profile.recipes import reconstruction_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Device, Stopwatch, collect
from dcae_bench.records.record import Data, Interval, Metric, Record, save
from dcae_bench.records.subject import Subject
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.weights.released import Receipt, _Receipts

TABLE = "results/table_rfid.md"
GENERATION = "results/table_diffusion.md"
ABLATION = "results/table_ablation.md"
DENOISERS = sorted({row.released for row in load_reported_generation() if row.released})


@pytest.fixture
def snakemake(tmp_path):
    """Runs Snakemake in an empty folder on a machine without data and weights; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DCAE_BENCH_")}
    scripts = os.path.dirname(sys.executable)
    environment |= {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "DCAE_BENCH_CACHE": str(tmp_path / "cache"),
    }

    def run(*arguments, code=0, **variables) -> str:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--cores", "1", "--directory", str(tmp_path), *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment | variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def jobs(printed: str) -> dict[str, int]:
    table = printed.split("Job stats:")[-1]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M) if rule != "total"}


def fetch_everything(tmp_path) -> None:
    """What a machine holds after every fetch: receipts of all released weights, and the Inception file."""
    file = tmp_path / "cache" / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    receipt = Receipt(path=file, sha256="0" * 64, size=0, commit=None)
    receipts = _Receipts(receipts=dict.fromkeys([*load_profile("released").autoencoders, *DENOISERS], receipt))
    (tmp_path / "cache" / "weights.json").write_text(receipts.model_dump_json())


@pytest.mark.long
def test_a_dry_run_of_the_paper_shows_its_jobs_without_data(snakemake):
    tables = (TABLE, GENERATION)
    printed = snakemake("-n", *tables, "--configfile", str(REPOSITORY / "config" / "paper.yaml"))
    # MJHQ-30K is only measured on, so it may be missing; what is trained on may not. Denoisers need released weights,
    # which are not here: their table only says so.
    planned = {"prepare_files": 6, "train_phase": 36, "evaluate_reconstruction": 36, "table_rfid": 1}
    assert jobs(printed) == {**planned, "table_diffusion": 1}


@pytest.mark.long
def test_a_dry_run_of_the_papers_ablations_trains_nothing_twice(snakemake):
    printed = snakemake("-n", ABLATION, "--configfile", str(REPOSITORY / "config" / "paper.yaml"))
    planned = {"prepare_files": 6, "train_phase": 6, "train_variant": 15, "evaluate_reconstruction": 4}
    assert jobs(printed) == {**planned, "evaluate_variant": 8, "table_ablation": 1}
    needs = needs_of(load_profile("paper"), ABLATION)
    assert (len(needs.trainings), len(needs.evaluations)) == (6 + 15, 4 + 8)


@pytest.mark.long
def test_generation_with_everything_fetched_shows_its_jobs(snakemake, tmp_path):
    fetch_everything(tmp_path)
    rows = ["uvit-h-dc-ae-f64-p1", "dit-xl-dc-ae-f32-p1"]
    targets = [f"results/paper/generation/{row}/s1.json" for row in rows]
    printed = snakemake("-n", *targets, "--configfile", str(REPOSITORY / "config" / "paper.yaml"))
    each = dict.fromkeys(("encode", "train_diffusion", "sample", "evaluate_samples"), 2)
    assert jobs(printed) == {"prepare_files": 1, **each}
    paper, needs = load_profile("paper"), Needs()
    for target in targets:
        needs |= needs_of(paper, target)
    planned = (needs.encodings, needs.denoisers, needs.samplings, needs.generations)
    assert dict(zip(each, map(len, planned), strict=True)) == each and not needs.trainings and not needs.tables


@pytest.mark.long
def test_a_guidance_sweep_is_one_command(snakemake):
    target = "results/demo/guidance-sweep/uvit-nano-dc-ae-f32c32.png"
    found = jobs(snakemake("-n", target, "--config", "profile=demo", "scales=1,2.50,4"))
    assert (found["sample"], found["evaluate_samples"], found["guidance_sweep"]) == (3, 3, 1)
    assert (found["encode"], found["train_diffusion"]) == (1, 1)


@pytest.mark.long
def test_adms_reference_batch_reaches_the_command(snakemake, tmp_path):
    (tmp_path / "batch.npz").touch()
    target = "results/demo/generation/uvit-nano-dc-ae-f32c32/s1.json"
    shown = ("-n", "-p", target, "--quiet", "host")  # the profile of Snakemake keeps commands out of sight
    printed = snakemake(*shown, "--config", "profile=demo", "adm_batch=batch.npz")
    (command,) = [line for line in printed.splitlines() if "dcae-bench evaluate-samples" in line]
    assert " --adm-batch batch.npz " in command


@pytest.mark.long
def test_the_released_profile_asks_for_what_can_be_measured_here(snakemake, tmp_path):
    fetch_everything(tmp_path)
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    check = "results/released/check/dc-ae-f64c128-in-1.0@released/imagenet-512.json"
    printed = snakemake("-n", TABLE, check, "--config", "profile=released", DCAE_BENCH_DATA=str(tmp_path / "data"))
    assert jobs(printed) == {"prepare_files": 1, "evaluate_as_is": 10, "table_rfid": 1, "check": 1}


@pytest.mark.long
def test_released_denoisers_are_sampled_and_measured_without_any_training(snakemake, tmp_path):
    fetch_everything(tmp_path)
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    check = "results/released/check/generation/uvit-h-dc-ae-f64-p1/s1.5.json"
    configured = ("--config", "profile=released")
    printed = snakemake("-n", GENERATION, check, *configured, DCAE_BENCH_DATA=str(tmp_path / "data"))
    wanted = {"prepare_files": 1, "sample": 22, "evaluate_samples": 22, "table_diffusion": 1}
    assert jobs(printed) == {**wanted, "check_samples": 1}
    needs = needs_of(load_profile("released"), GENERATION)
    assert (len(needs.samplings), len(needs.generations), needs.encodings, needs.denoisers) == (22, 22, (), ())
    target = "results/released/generation/usit-2b-dc-ae-f32-p1/s1.15.json"
    printed = snakemake("-n", "-p", target, "--quiet", "host", *configured)
    sample, evaluate = [
        line for line in printed.splitlines() if "dcae-bench sample" in line or "dcae-bench evaluate" in line
    ]
    assert (
        not any(option in sample for option in ("--weights", "--latents", "--autoencoder")) and " --s 1.15 " in sample
    )
    assert "--training" not in evaluate


@pytest.mark.long
def test_released_samples_without_snakemakes_memory_are_drawn_again_if_they_are_others(snakemake, tmp_path):
    """Nothing that their job reads is an input, and so nothing could be younger than an old time stamp."""
    fetch_everything(tmp_path)
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    configured = ("--config", "profile=released")
    folder = tmp_path / "results/released/samples/usit-2b-dc-ae-f32-p1/s1.15"
    folder.mkdir(parents=True)
    for name in ("samples.npy", "labels.npy", "samples.json"):
        (folder / name).write_text("of an older version")
    target = str((folder / "samples.npy").relative_to(tmp_path))
    printed = snakemake("-n", target, *configured, DCAE_BENCH_DATA=str(tmp_path / "data"))
    assert jobs(printed) == {"sample": 1} and "are made again" in printed
    assert all(path.stat().st_mtime > 1e9 for path in folder.iterdir()), "a dry run gives the time stamps back"


@pytest.mark.long
def test_the_generation_table_without_data_explains_every_row(snakemake, tmp_path):
    snakemake(GENERATION, "--config", "profile=released")
    page = (tmp_path / GENERATION).read_text()
    assert page.startswith("Profile `released` · no record yet\n")
    rows = [line for line in page.splitlines() if re.match(r"\| +[1345] \| (ImageNet|FFHQ|MJHQ|Mapillary)", line)]
    assert len(rows) == len(load_reported_generation()) and all("not_run" in row for row in rows)
    assert sum("released: not_run" in row and "retrained: not_run" in row for row in rows) == len(rows) - 2
    for name in DENOISERS:
        assert f"released weights of {name} are not here: `dcae-bench weights fetch {name}`" in page
    for remedy in ("weights fetch inception`", "1,281,167 training images", "table_diffusion.md PROFILE=paper`"):
        assert remedy in page
    assert "the authors did not publish the weights of this denoiser" in page
    for row in load_profile("released").diffusion.rows:
        assert f"- {row}<sup>" in page
    fetch_everything(tmp_path)
    assert jobs(snakemake("-n", GENERATION, "--config", "profile=released")) == {"table_diffusion": 1}


@pytest.mark.long
def test_the_table_without_data_explains_every_row_and_knows_what_other_runs_left(snakemake, tmp_path):
    """Records of this profile whose data went away, and those of the paper profile, are in the table all the same."""
    own = tmp_path / "results" / "released" / "reconstruction" / "dc-ae-f64c128-in-1.0@released" / "imagenet-512.json"
    beside = tmp_path / "results" / "paper" / "reconstruction" / "dc-ae-f64c128-in@retrained" / "phase3" / own.name
    save(measured(), own)
    save(measured(profile="paper", weights_source="retrained", autoencoder="dc-ae-f64c128-in", psnr=24.0), beside)
    snakemake("--config", "profile=released")  # the default target: no figure can be drawn
    page = (tmp_path / TABLE).read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| (ImageNet|FFHQ|Mapillary|MJHQ)", line)]
    assert len(rows) == 25
    for source in ("released", "retrained"):
        assert sum(f"{source}: not_run" in row for row in rows) == 24
    (row,) = [row for row in rows if "DC-AE f64c128" in row and "| 8x8x128" in row]
    assert "PSNR 26.149 ± 0.010" in row and "PSNR 24.000" in row
    for remedy in ("weights fetch dc-ae-f128c512-mix-1.0`", "weights fetch inception`", "PROFILE=paper`"):
        assert remedy in page
    assert "- sd-vae-ft-ema: imagenet-256<sup>" in page
    assert not (tmp_path / "results" / "figures").exists()
    assert "Nothing to be done" in snakemake("-n", "--config", "profile=released")
    # A record that no job can make ceases to be what the profile asks for, and becomes it again.
    receipt = Receipt(path=tmp_path / "weights", sha256="1" * 64, size=0, commit=None)
    receipts = tmp_path / "cache" / "weights.json"
    receipts.parent.mkdir(exist_ok=True)
    receipts.write_text(_Receipts(receipts={"dc-ae-f64c128-in-1.0": receipt}).model_dump_json())
    assert jobs(snakemake("-n", TABLE, "--config", "profile=released")) == {"table_rfid": 1}
    receipts.unlink()
    assert "Nothing to be done" in snakemake("-n", TABLE, "--config", "profile=released")
    # What comes makes the table stale, for it says what is missing.
    fetch_everything(tmp_path)
    assert jobs(snakemake("-n", TABLE, "--config", "profile=released")) == {"table_rfid": 1}


def measured(*, profile="released", weights_source="released", autoencoder="dc-ae-f64c128-in-1.0", psnr=26.1489275):
    """A record like the authors' own measurement, made by the code at hand."""
    interval = Interval(low=psnr - 0.01, high=psnr + 0.01, method="normal")
    device = Device(kind="cpu", name="a processor", threads=1, precision="fp32")
    phase, asked = (3 if weights_source == "retrained" else None), load_profile(profile)
    (item,) = (item for item in asked.evaluation.sets if item.label == "imagenet-512")
    return Record(
        kind="reconstruction",
        profile=profile,
        protocol="reconstruction/paper-v1",
        subject=Subject(
            autoencoder=autoencoder,
            family="dc-ae",
            compression=64,
            latent_channels=128,
            weights_source=weights_source,
            phase=phase,
            parameters=676_896_140,
            weights_sha256="0" * 64,
        ),
        data=Data(name="imagenet", split="eval", resolution=512, images=50_000, sha256="0" * 64),
        metrics={"psnr": Metric(label="PSNR", value=psnr, better="higher", unit="dB", interval=interval)},
        settings={"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"},
        provenance=collect(
            code=fingerprint(MODULES["reconstruction"]),
            config={},
            recipe=reconstruction_recipe(asked, autoencoder, weights_source, phase, item),
            seed=asked.seed,
            device=device,
            clock=Stopwatch(),
        ),
    )
