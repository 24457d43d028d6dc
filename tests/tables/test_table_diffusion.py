import csv
import json
from pathlib import Path

import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.records.record import Interval, Metric
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.generation.build import build
from dcae_bench.tables.generation.files import write
from dcae_bench.tables.generation.judge import RECORD_KEY
from dcae_bench.tables.generation.page import markdown
from dcae_bench.tables.reported.generation import load_reported_generation
from dcae_bench.tables.reported.verdict import Verdict

PAPER = "generation/paper-v1"
IMAGES = 512_000_000
SAMPLER = {"sampler": "dpm-solver", "nfe": "30", "seed_policy": "paper_8gpu", "reference_images": "1281167"}


def not_run(row, source):
    return (f"too small a machine for {source} weights",)


@pytest.fixture(scope="module")
def rows():
    return load_reported_generation()


@pytest.fixture
def make_generation(make_record):
    """Builds a generation record, by default of the paper's UViT-H on DC-AE f64p1 without guidance."""

    def make(gfid=13.754, guidance=1.0, *, images=50_000, denoiser=None, settings=None, half=None, **changes):
        facts = {"kind": "generation", "protocol": PAPER, "data_set": "imagenet", "resolution": 512, "phase": None}
        facts |= {"weights_source": "released", "autoencoder": "dc-ae-f64c128-in-1.0", "images": images}
        record = make_record("dc-ae", 64, 128, **(facts | changes))
        about = {"row": "h-f64", "name": "uvit-h", "family": "uvit", "process": "vp", "patch": 1, "tokens": 64}
        about |= {"classes": 1000, "parameters": 500_868_992, "gmacs": 33.2436, "weights_sha256": "e" * 64}
        interval = None if half is None else Interval(low=gfid - half, high=gfid + half, method="a test")
        metric = Metric(label="gFID (pytorch-fid)", value=gfid, better="lower", interval=interval, notes=("few",))
        return record.model_copy(
            update={
                "denoiser": DenoiserSubject(**(about | (denoiser or {}))),
                "data": record.data.model_copy(update={"split": "train"}),
                "settings": {**SAMPLER, "guidance": f"{guidance:g}", **(settings or {})},
                "metrics": {"inception_score": Metric(label="IS", value=80.0, better="higher"), RECORD_KEY: metric},
            }
        )

    return make


@pytest.fixture
def make_training(make_generation):
    """Builds the record of the training behind a generation record."""

    def make(images=IMAGES, **changes):
        record = make_generation(**changes)
        metrics = {"loss": Metric(label="loss", value=0.51234), "training_flops": Metric(label="F", value=1.02e20)}
        data = record.data.model_copy(update={"images": images})
        return record.model_copy(update={"kind": "diffusion_training", "metrics": metrics, "data": data})

    return make


def table_of(rows, *records, profile="demo", **options):
    return build(
        profile, {Path(f"results/{n}.json"): record for n, record in enumerate(records)}, rows, not_run, **options
    )


def judgement(table, metric="gfid", label="UViT-H", space="DC-AE f64p1", source="retrained"):
    (result,) = [
        r for r in table.reported if (r.row.table, r.row.label, r.row.latent_space) == ("Table 3", label, space)
    ]
    return result.answers[source].judgements[metric]


@pytest.mark.parametrize(
    ("gfid", "half", "verdict"),
    [
        (13.96, None, Verdict.MATCH),
        (13.7542, None, Verdict.MATCH),
        (13.85, None, Verdict.WITHIN_NOISE),
        (14.18, None, Verdict.WITHIN_NOISE),
        (14.30, None, Verdict.DEVIATES),
        (14.30, 0.4, Verdict.WITHIN_NOISE),
        (13.40, None, Verdict.BETTER),
    ],
)
def test_verdicts_against_the_nearest_of_the_authors_values(rows, make_generation, make_training, gfid, half, verdict):
    found = judgement(table_of(rows, make_generation(gfid, half=half), make_training()))
    assert found.verdict == verdict
    assert "reported" in found.reason


def test_guided_samples_answer_the_guided_cell_only(rows, make_generation, make_training):
    table = table_of(rows, make_generation(2.97, 1.5), make_training())
    assert judgement(table, "gfid_cfg").verdict == Verdict.WITHIN_NOISE
    assert judgement(table).reason == "no samples with guidance 1"
    other = table_of(rows, make_generation(2.97, 1.4), make_training())
    assert judgement(other, "gfid_cfg").reason == "guidance scale differs: 1.5 reported, 1.4 measured"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": 5_000}, "number of samples differs: 50,000 reported, 5,000 measured"),
        ({"settings": {"nfe": "20"}}, "NFE differs: 30 reported, 20 measured"),
        ({"settings": {"sampler": "ddpm"}}, "sampler differs"),
        ({"settings": {"reference_images": "10000"}}, "number of reference images differs"),
        ({"protocol": "generation/photos-v1"}, "protocol differs"),
        ({"weights_source": "retrained"}, "weights source of the autoencoder differs"),
        ({"denoiser": {"parameters": 7}}, "parameters differs: 500,868,992 reported, 7 measured"),
    ],
)
def test_unequal_measurements_are_not_compared(rows, make_generation, make_training, changes, reason):
    found = judgement(table_of(rows, make_generation(**changes), make_training()))
    assert found.verdict == Verdict.NOT_COMPARABLE and found.reason.startswith(reason)


def test_length_of_training_chooses_the_row(rows, make_generation, make_training):
    long = table_of(rows, make_generation(12.3), make_training(4 * IMAGES))
    assert judgement(long, label="UViT-H, 2M steps").verdict == Verdict.WITHIN_NOISE
    assert judgement(long).verdict == Verdict.NOT_RUN
    short = table_of(rows, make_generation(12.3), make_training(IMAGES // 2))
    assert judgement(short).reason == "images seen in training differ: 512,000,000 reported, 256,000,000 measured"


def test_a_row_without_a_reported_value_says_so(rows, make_generation, make_training):
    flux = {"autoencoder": "flux-vae"}
    denoiser = {"patch": 2}
    table = table_of(rows, make_generation(denoiser=denoiser, **flux), make_training(denoiser=denoiser, **flux))
    found = judgement(table, label="UViT-H", space="Flux-VAE f8p2")
    assert found.verdict == Verdict.NOT_COMPARABLE and found.reason == "no source tells the paper's gFID of this row"


def test_rows_not_run_have_their_reason(rows):
    table = table_of(rows, not_measured={"h-f64": ("ImageNet is not here",)})
    assert {j.verdict for r in table.reported for a in r.answers.values() for j in a.judgements.values()} == {
        Verdict.NOT_RUN
    }
    page = markdown(table)
    assert "too small a machine" in page and "- h-f64<sup>1</sup>" in page and "ImageNet is not here" in page
    assert page.startswith("Profile `demo` · no record yet\n")


def test_page_of_a_run(rows, make_generation, make_training):
    records = (make_generation(2.97, 1.5, half=0.05), make_training(), make_generation(13.8))
    page = markdown(
        table_of(rows, *records, not_measured={"h-f64": ("not shown: it was run",), "other": ("lacks data",)})
    )
    lines = [line for line in page.splitlines() if "dc-ae-f64c128-in-1.0 p1" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    facts = ["imagenet", "512", "uvit-h (h-f64)", "retrained", "dc-ae-f64c128-in-1.0 p1", "64", "501 M", "33.24"]
    trained = ["512,000,000", "1.02e+20", "0.5123"]
    assert cells[0] == [*facts, *trained, "1", "50,000", "13.80", "80.00"]
    assert cells[1] == [*facts, *trained, "1.5", "50,000", "2.97 ± 0.05", "80.00"]
    assert "gFID (pytorch-fid) ↓<sup>1</sup>" in page and "IS ↑" in page
    assert "not shown" not in page and "lacks data" in page
    assert "13.96 / 13.754 / 13.912" in page
    assert "commit 0123456+dirty" in page.splitlines()[0]
    assert "sampler dpm-solver, nfe 30, seed_policy paper_8gpu" in page


RELEASED = {"weights_source": "released", "released": "dc-ae-f64c128-in-1.0-uvit-h-in-512px", "row": "r"}


def test_released_weights_answer_the_row_that_they_were_published_for(rows, make_generation):
    long = {**RELEASED, "released": f"{RELEASED['released']}-train2000k"}
    table = table_of(
        rows, make_generation(13.8, denoiser=RELEASED), make_generation(12.3, denoiser={**long, "row": "l"})
    )
    assert judgement(table, source="released").verdict == Verdict.WITHIN_NOISE
    assert judgement(table, source="released", label="UViT-H, 2M steps").verdict == Verdict.WITHIN_NOISE
    assert judgement(table).reason == "too small a machine for retrained weights"
    unknown = {**RELEASED, "released": None, "row": "u"}
    other = table_of(rows, make_generation(13.8, denoiser=unknown))
    assert judgement(other, source="released").verdict == judgement(other).verdict == Verdict.NOT_RUN
    page = markdown(table)
    assert "no record tells how long they were trained" in page and "The loss is each process's own" not in page
    (line,) = [line for line in page.splitlines() if "| UViT-H, 2M steps" in line]
    assert "gFID 12.300" in line and "released: gFID within_noise" in line and "retrained: not_run" in line


def test_released_and_retrained_denoisers_stand_side_by_side(rows, make_generation, make_training):
    """The profile's own before another's, which is named."""
    retrained = make_generation(14.3, profile="paper"), make_training(profile="paper")
    others = {Path(f"results/paper/{number}.json"): record for number, record in enumerate(retrained)}
    released = make_generation(13.7542, denoiser=RELEASED)
    table = table_of(
        rows,
        released,
        beside={**others, Path("results/paper/r.json"): make_generation(20.0, profile="paper", denoiser=RELEASED)},
    )
    assert judgement(table, source="released").verdict == Verdict.MATCH
    assert judgement(table).verdict == Verdict.DEVIATES
    assert set(table.beside) == {"paper"} and len(table.runs) == 1
    page = markdown(table)
    (line,) = [line for line in page.splitlines() if "13.96 / 13.754 / 13.912" in line]
    assert "gFID 13.754" in line and "gFID 14.300" in line
    assert "retrained results of profile `paper` stand beside" in page


def test_wrong_records_are_refused(rows, make_generation):
    with pytest.raises(ResultsError, match="is a second record of the row of"):
        table_of(rows, make_generation(), make_generation(14.0))
    with pytest.raises(ResultsError, match="is of profile demo, not paper; pass its folder with --beside"):
        table_of(rows, make_generation(), profile="paper")


def test_twins(rows, make_generation, make_training, tmp_path):
    table = table_of(rows, make_generation(13.8, half=0.3), make_training())
    write(table, tmp_path / "table.md")
    lines = list(csv.DictReader((tmp_path / "table.csv").open()))
    (own,) = [line for line in lines if line["part"] == "run" and line["metric"] == RECORD_KEY]
    assert (own["measured"], own["guidance"], own["training_images"]) == ("13.8", "1.0", str(IMAGES))
    assert float(own["interval_low"]) == pytest.approx(13.5)
    reported = [line for line in lines if line["part"] == "reported"]
    spread = [line["reported"] for line in reported if line["row"] == "UViT-H" and line["metric"] == "gfid"]
    assert {"13.96", "13.754", "13.912"} <= set(spread)
    whole = json.loads((tmp_path / "table.json").read_text())
    assert whole["runs"][0]["training"]["kind"] == "diffusion_training" and len(whole["reported"]) == len(rows)
    assert {tuple(row["answers"]) for row in whole["reported"]} == {("released", "retrained")}
    assert (tmp_path / "table.md").read_text() == markdown(
        table_of(rows, make_generation(13.8, half=0.3), make_training())
    )


@pytest.mark.parametrize(("precision", "recall", "told"), [(0.02, 0.0, True), (0.4, 0.01, False), (None, None, False)])
def test_samples_that_are_nothing_like_the_images_are_called_so(rows, make_generation, precision, recall, told):
    record = make_generation()
    values = {"precision_x": precision, "recall_x": recall}
    more = {key: Metric(label=key, value=value) for key, value in values.items() if value is not None}
    page = markdown(table_of(rows, record.model_copy(update={"metrics": {**record.metrics, **more}})))
    assert ("What the samples are: no images" in page) == told
    assert ("(precision at most 0.020 and recall at most 0.000 in every row)" in page) == told
