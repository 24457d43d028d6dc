"""The table of ablations: arms over seeds, effects between them, verdicts by intervals, files and figure."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dcae_bench.base.errors import ResultsError
from dcae_bench.records.record import Metric, load, save
from dcae_bench.specs.variants import Variant
from dcae_bench.tables.ablation.build import build
from dcae_bench.tables.ablation.figure import ablation_figure
from dcae_bench.tables.ablation.files import write
from dcae_bench.tables.ablation.judge import judge_effect, over_seeds
from dcae_bench.tables.ablation.page import markdown
from dcae_bench.tables.rebuild import check_tables
from dcae_bench.tables.reported.ablation import load_reported_ablations
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.runs import Holdings

SEEDS = (7, 8, 9)
GAIN = {7: 1.0, 8: 1.2, 9: 1.1}
WOBBLE = {7: 0.3, 8: -0.2, 9: -0.1}


def not_run(row, source):
    return ("too small a machine",)


@pytest.fixture
def make(make_record, tmp_path):
    """Writes the record of one variant, or of its training, and reads it again: (path, record)."""

    def build_one(kind="reconstruction", *, seed=7, shortcuts=True, gan=False, phases=(1, 3), psnr=20.0, **changes):
        record = make_record("dc-ae", kind=kind, phase=phases[-1], psnr=psnr, **({"resolution": 64} | changes))
        variant = Variant(of="dc-ae-f32c32", shortcuts=shortcuts, gan_everywhere=gan, phases=phases, seed=seed)
        weights = f"{abs(hash((shortcuts, gan, phases, seed))):064x}"[-64:]
        update = {"variant": variant, "autoencoder": variant.name, "weights_sha256": weights}
        record = record.model_copy(update={"subject": record.subject.model_copy(update=update)})
        if kind == "training":
            images = record.data.model_copy(update={"images": 100 * phases[-1]})
            with_gan = {"gan": Metric(label="GAN", value=0.5)} if gan or phases[-1] == 3 else {}
            clock = record.provenance.model_copy(update={"seconds": 10.0 * phases[-1] * (2 if gan else 1)})
            found = {**record.metrics, **with_gan}
            record = record.model_copy(update={"data": images, "metrics": found, "provenance": clock})
        where = f"{record.data.name}-{record.data.resolution}"
        path = tmp_path / kind / f"{variant.name}-{phases[-1]}-{where}-{record.profile}.json"
        save(record, path)
        return path, load(path)

    return build_one


@pytest.fixture
def records(make):
    """With and without shortcuts, three seeds: PSNR rises by about 1.1 dB; with and without phase 2: nothing."""
    found = []
    for seed in SEEDS:
        found.append(make(seed=seed, psnr=20.0 + 0.5 * seed))
        found.append(make(seed=seed, shortcuts=False, psnr=20.0 + 0.5 * seed - GAIN[seed]))
        found.append(make(seed=seed, phases=(1, 2, 3), psnr=20.0 + 0.5 * seed + WOBBLE[seed]))
        for phases in ((1,), (1, 2), (1, 3), (1, 2, 3)):
            found.append(make("training", seed=seed, phases=phases))
        for phases in ((1,), (1, 3)):
            found.append(make("training", seed=seed, shortcuts=False, phases=phases))
    return dict(found)


def effect_of(table, idea):
    (found,) = [effect for effect in table.effects if effect.idea == idea]
    return found


def test_an_effect_is_the_paired_difference_over_seeds(records):
    table = build("demo", records, [], not_run)
    residual = effect_of(table, "residual")
    gains = [GAIN[seed] for seed in SEEDS]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(gains), scale=stats.sem(gains))
    found = residual.difference("psnr")
    assert found.mean == pytest.approx(np.mean(gains)) and found.count == 3
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert residual.verdict("psnr") == "better" and residual.seeds == SEEDS
    # The arms alone spread by a dB: only the pairs show the effect.
    assert residual.with_it.mean("psnr").interval.half_width > found.mean
    assert effect_of(table, "phase 2").verdict("psnr") == "not there"


@pytest.mark.parametrize(
    ("values", "better", "verdict"),
    [
        ([1.0, 1.1, 1.2], "higher", "better"),
        ([1.0, 1.1, 1.2], "lower", "worse"),
        ([-1.0, -1.1, -1.2], "lower", "better"),
        ([1.0, -1.1, 0.2], "higher", "not there"),
        ([0.0, 0.0, 0.0], "higher", "not there"),
        ([5.0], "higher", "not judged"),
        ([1.0, 1.1], "neither", None),
    ],
)
def test_verdicts_follow_from_the_interval(values, better, verdict):
    assert judge_effect(over_seeds(values), better) == verdict


def test_costs_are_of_all_phases(records, make):
    for phases in ((1,), (1, 2), (1, 2, 3)):
        for seed in SEEDS:
            records |= dict([make("training", seed=seed, gan=True, phases=phases)])
    records |= dict(make(seed=seed, gan=True, phases=(1, 2, 3)) for seed in SEEDS)
    table = build("demo", records, [], not_run)
    gan = effect_of(table, "gan")
    assert gan.with_it.seconds.mean == 120 and gan.without.seconds.mean == 60 and gan.cost.mean == 2
    assert gan.with_it.first.gan_phases == (1, 2, 3) and gan.without.first.gan_phases == (3,)
    assert gan.with_it.first.images == 600
    page = markdown(table)
    assert "x 2.00" in page and "phase 1+2+3" in page


def test_the_cost_is_not_known_without_every_training(records):
    some = {path: record for path, record in records.items() if record.subject.phase != 1}
    table = build("demo", some, [], not_run)
    assert all(arm.seconds is None for arm in table.arms) and effect_of(table, "residual").cost is None


def test_ordinary_records_are_arms_too(make_record, make):
    first = Path("ordinary.json")
    table = build("demo", {first: make_record(phase=2, resolution=64), **dict([make(phases=(1,))])}, [], not_run)
    assert [run.variant.phases for run in table.runs] == [(1,), (1, 2)]
    assert effect_of(table, "phase 2").seeds == (7,) and effect_of(table, "phase 2").verdict("psnr") == "not judged"


def test_arms_of_other_images_are_not_compared(make, make_record):
    records = dict([make(data_sha256="e" * 64), make(shortcuts=False)])
    effect = effect_of(build("demo", records, [], not_run), "residual")
    assert effect.difference("psnr") is None and "differ in their images" in effect.obstacle
    assert "differ in their images" in markdown(build("demo", records, [], not_run))


def test_doubted_records_stand_apart(records):
    doubted = next(path for path, record in records.items() if record.kind == "reconstruction")
    holdings = Holdings(doubts={doubted: ("its seed is 1, the profile's 2",)})
    table = build("demo", records, [], not_run, holdings=holdings)
    assert all(doubted not in [run.path for run in arm.runs] for e in table.effects for arm in (e.with_it, e.without))
    assert "of another configuration: its seed is 1" in markdown(table)


def test_second_records_and_foreign_ones_are_refused(records, make):
    path, record = next(iter(records.items()))
    with pytest.raises(ResultsError, match="second record"):
        build("demo", {**records, path.with_name("again.json"): record}, [], not_run)
    with pytest.raises(ResultsError, match="pass its folder with --beside"):
        build("paper", records, [], not_run)


def test_a_finished_paper_run_answers_the_plots_without_a_verdict(make):
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "protocol": "reconstruction/paper-v1"}
    records = dict(make(seed=seed, rfid=0.5 + 0.01 * seed, profile="paper", **facts) for seed in SEEDS)
    table = build("demo", {}, load_reported_ablations(), not_run, beside=records)
    results = {(one.row.study, one.row.arm, one.row.compression): one.answers["retrained"] for one in table.reported}
    answer = results["residual", "with", 32]
    assert answer.measured["rfid"].value == pytest.approx(0.58)
    assert answer.judgements["rfid"].verdict == Verdict.NOT_COMPARABLE
    assert results["residual", "without", 32].judgements["rfid"].verdict == Verdict.NOT_RUN
    page = markdown(table)
    assert "results of profile `paper` stand beside" in page and "rFID 0.580" in page
    assert {run.path for run in table.beside_runs} == {*records}


def test_a_baseline_answers_no_plot(make_record):
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "protocol": "reconstruction/paper-v1"}
    found = {Path("r.json"): make_record("sd-vae", phase=3, profile="paper", rfid=0.7, **facts)}
    table = build("demo", {}, load_reported_ablations(), not_run, beside=found)
    assert all(one.answers["retrained"].missing for one in table.reported) and table.beside_runs == []


def test_reported_values_are_the_plots():
    rows = load_reported_ablations()
    printed = {(row.study, row.arm, row.compression): row.metrics["rfid"].text for row in rows}
    assert printed["residual", "without", 64] == "28.3" and printed["residual", "with", 64] == "0.50"
    assert printed["high_resolution", "without", 64] == "7.40" and printed["high_resolution", "with", 8] == "0.18"
    assert len(rows) == 15


def test_files_hold_what_the_page_says_and_are_made_again_to_the_byte(records, tmp_path):
    holdings = Holdings(
        expected=("dc-ae-f32c32-plain-without-2-seed7@retrained after phase 3 on photos-indoor-64", "x")
    )
    table = build("demo", records, load_reported_ablations(), not_run, holdings=holdings)
    made = tmp_path / "evidence"
    write(table, made / "table_ablation.md")
    page = (made / "table_ablation.md").read_text()
    assert "Holds 1 of the 2" in page and "**better**" in page and "not there" in page and "2.04 → 0.49" in page
    lines = list(csv.DictReader((made / "table_ablation.csv").open()))
    effect = next(
        line
        for line in lines
        if (line["part"], line["idea"], line["metric"]) == ("effect", "residual autoencoding", "psnr")
    )
    assert float(effect["value"]) == pytest.approx(1.1) and effect["verdict"] == "better"
    content = json.loads((made / "table_ablation.json").read_text())
    assert len(content["runs"]) == 9 and len(content["trainings"]) == 18 and content["absent"] == ["x"]
    assert list(check_tables(made)) == []
    content["trainings"][0]["record"]["provenance"]["seconds"] = 1.0
    (made / "table_ablation.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    assert any("digest" in problem or "edited" in problem for problem in check_tables(made))


def test_the_plots_are_of_the_phases_that_most_autoencoders_have(make):
    records = [make(phases=phases) for phases in ((1,), (1, 2), (1, 3), (1, 2, 3))]
    table = build("demo", dict(records), [], not_run)
    plotted = {effect.with_it.first.variant.phases for effect in table.effects if table.is_plotted(effect)}
    assert plotted == {(1, 2, 3)}


def test_the_figure_is_drawn_with_and_without_measurements(records, tmp_path):
    for name, found in (("full", records), ("empty", {})):
        table = build("demo", found, load_reported_ablations(), not_run)
        ablation_figure(table, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
