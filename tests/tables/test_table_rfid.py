import json
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import dcae_bench.tables
from dcae_bench.base.errors import ResultsError
from dcae_bench.records.subject import TrainedPhase
from dcae_bench.tables.markdown import decimals, millions, number
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.files import write
from dcae_bench.tables.reconstruction.page import markdown
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.runs import Holdings

REASON = "the demo profile trains nano models; profile `paper` is needed"


def not_run(row, source):
    return (REASON,)


def section(page: str, title: str) -> str:
    """The part of the page under a heading."""
    return page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def parse(text: str) -> list[dict[str, str]]:
    """The first Markdown table of a text, as dictionaries by column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) >= 3 and len({len(row) for row in cells}) == 1
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture
def table(demo_records, reported):
    return build("demo", demo_records, reported, not_run)


@pytest.fixture
def page(table):
    return markdown(table)


def test_first_line_names_profile_commit_and_hardware(page):
    first = page.splitlines()[0]
    assert first == "Profile `demo` · commit 0123456+dirty · Testium 9000, 2 cores, 2 threads, fp32"


def test_first_line_names_every_commit(demo_records, reported, make_record):
    records = demo_records | {Path("results/x.json"): make_record(data_set="other", commit="f" * 40, dirty=False)}
    first = markdown(build("demo", records, reported, not_run)).splitlines()[0]
    assert " · commit fffffff, commit 0123456+dirty · " in first


def test_cells_are_the_records_values(table, page):
    rows = parse(section(page, "Measured"))
    assert len(rows) == len(table.runs) == 12
    for row, run in zip(rows, table.runs, strict=True):
        record = run.record
        assert row["data set"] == "photos-indoor" and row["resolution"] == str(record.data.resolution)
        assert row["autoencoder"] == record.subject.autoencoder and row["phase"] == str(record.subject.phase)
        assert row["images"] == "40" and row["params"] == millions(record.subject.parameters)
        assert row["PSNR ↑"].strip("*") == f"{record.metrics['psnr'].value:.2f}"
        assert row["LPIPS (AlexNet) ↓"].strip("*") == f"{record.metrics['lpips_alex_u8'].value:.3f}"
        assert row["rFD (EfficientNet-Lite0) ↓<sup>1</sup>"].strip("*") == (
            f"{record.metrics['rfd_efficientnet_lite0'].value:.2f}"
        )


def test_rows_of_one_setting_stand_together_sd_vae_first(page):
    rows = parse(section(page, "Measured"))
    places = [(row["resolution"], row["latent shape"], row["autoencoder"], row["phase"]) for row in rows]
    families = [("sd-vae-f32c32", "4x4x32", "128"), ("dc-ae-f32c32", "4x4x32", "128")]
    families += [("sd-vae-f32c32", "8x8x32", "256"), ("dc-ae-f32c32", "8x8x32", "256")]
    assert places == [(size, shape, name, phase) for name, shape, size in families for phase in "123"]


def test_bold_marks_the_better_at_the_final_phase_only(page):
    for row in parse(section(page, "Measured")):
        final_dc_ae = row["autoencoder"] == "dc-ae-f32c32" and row["phase"] == "3"
        final_sd_vae = row["autoencoder"] == "sd-vae-f32c32" and row["phase"] == "3"
        for column, value in row.items():
            expected = final_sd_vae if column == "SSIM ↑" else final_dc_ae and ("↑" in column or "↓" in column)
            assert value.startswith("**") == expected, (column, row)


def test_differences_are_dc_ae_minus_sd_vae(page):
    rows = parse(section(page, "Final phase: DC-AE minus SD-VAE"))
    assert [row["resolution"] for row in rows] == ["128", "256"]
    for row in rows:
        assert row["Δ PSNR ↑"] == "**+2.00**"
        assert row["Δ LPIPS (AlexNet) ↓"] == "**−0.050**"
        assert row["Δ rFD (EfficientNet-Lite0) ↓"] == "**−2.00**"
        assert row["Δ SSIM ↑"] == "−0.100"  # worse, so not bold


def test_a_tie_is_bold_on_both_sides(make_record, reported):
    records = {Path(f"results/{family}.json"): make_record(family) for family in ("sd-vae", "dc-ae")}
    rows = parse(section(markdown(build("demo", records, reported, not_run)), "Measured"))
    assert [row["PSNR ↑"] for row in rows] == ["**21.46**", "**21.46**"]


@pytest.mark.parametrize("missing", ["sd-vae", "dc-ae"])
def test_a_missing_partner_leaves_no_difference_and_no_bold(demo_records, reported, missing):
    records = {path: record for path, record in demo_records.items() if record.subject.family != missing}
    page = markdown(build("demo", records, reported, not_run))
    assert "Final phase" not in page
    assert len(parse(section(page, "Measured"))) == 6
    assert "**" not in section(page, "Measured")


def test_a_partner_without_the_final_phase_is_not_compared(demo_records, reported):
    records = {p: r for p, r in demo_records.items() if (r.subject.family, r.subject.phase) != ("sd-vae", 3)}
    assert "**" not in markdown(build("demo", records, reported, not_run))


@pytest.mark.parametrize("change", [{"images": 39}, {"data_sha256": "e" * 64}, {"protocol": "reconstruction/other-v1"}])
def test_unequal_measurements_get_a_reason_instead_of_a_difference(make_record, reported, change):
    records = {Path("results/a.json"): make_record("sd-vae"), Path("results/b.json"): make_record("dc-ae", **change)}
    page = markdown(build("demo", records, reported, not_run))
    (row,) = parse(section(page, "Final phase: DC-AE minus SD-VAE"))
    assert row["Δ PSNR ↑"] == "-" and row["autoencoders"].endswith("<sup>1</sup>")
    assert "<sup>1</sup> not compared" in page and "**" not in page


def test_a_missing_metric_is_a_dash(make_record, reported):
    records = {Path("results/a.json"): make_record("sd-vae", rfd=None), Path("results/b.json"): make_record("dc-ae")}
    rows = parse(section(markdown(build("demo", records, reported, not_run)), "Measured"))
    assert [row["rFD (EfficientNet-Lite0) ↓"] for row in rows] == ["-", "1.23"]


def test_fid_is_named_only_where_a_record_holds_it(page, make_released, reported):
    measured = section(page, "Measured") + section(page, "Final phase: DC-AE minus SD-VAE")
    assert "FID" not in measured and "rFD (EfficientNet-Lite0)" in measured
    records = {Path("results/released/x.json"): make_released()}
    (row,) = parse(section(markdown(build("released", records, reported, not_run)), "Measured"))
    assert row["rFID ↓"] == "0.217" and not any("rFD" in column for column in row)
    assert row["phase"] == "released"


def test_notes_that_differ_are_footnotes_of_cells(make_record, reported):
    notes = {"sd-vae": ("40 of 1280",), "dc-ae": ("40 of 1280", "another")}
    records = {Path(f"results/{family}.json"): make_record(family, rfd_notes=notes[family]) for family in notes}
    text = section(markdown(build("demo", records, reported, not_run)), "Measured")
    cells = [row["rFD (EfficientNet-Lite0) ↓"] for row in parse(text)]
    assert cells == ["**1.23**<sup>1</sup>", "**1.23**<sup>1,2</sup>"]
    assert text.count("40 of 1280") == 1 and "<sup>2</sup> another" in text


def test_notes_of_a_whole_column_stand_in_its_head(page):
    assert page.count("fewer than the 1280 features") == 1


def test_reported_rows_are_shown_with_brackets_and_reason(page):
    text = section(page, "Reported by the paper (Table 2)")
    rows = parse(text)
    assert len(rows) == 16
    assert {(row["released"], row["retrained"]) for row in rows} == {("-", "-")}
    assert {row["verdict"] for row in rows} == {"not_run<sup>1</sup>"}
    assert f"<sup>1</sup> {REASON}" in text
    assert (rows[0]["rFID ↓"], rows[0]["LPIPS ↓"]) == ("2.64", "(0.117)")
    values = [row[column] for row in rows for column in ("rFID ↓", "PSNR ↑", "SSIM ↑", "LPIPS ↓")]
    assert sum(value.startswith("(") for value in values) == 47
    assert "in brackets" in text


def test_a_reproduced_row_gets_its_verdict(make_released, reported):
    records = {Path("results/released/x.json"): make_released(psnr=25.0)}
    table = build("released", records, reported, not_run)
    (answer,) = answered(table)
    verdicts = {metric: judgement.verdict for metric, judgement in answer.judgements.items()}
    assert verdicts == {
        "rfid": Verdict.MATCH,
        "psnr": Verdict.DEVIATES,
        "ssim": Verdict.MATCH,
        "lpips": Verdict.MATCH,
    }
    (row,) = [
        row for row in parse(section(markdown(table), "Reported by the paper (Table 2)")) if row["released"] != "-"
    ]
    assert "PSNR 25.000" in row["released"] and "rFID 0.217" in row["released"] and row["retrained"] == "-"
    assert row["verdict"].startswith("released: rFID match") and "PSNR deviates" in row["verdict"]
    assert row["verdict"].endswith("; retrained: not_run<sup>1</sup>")


def answered(table):
    """Answers of the paper's rows that have a run."""
    return [answer for result in table.reported for answer in result.answers.values() if answer.runs]


def test_each_weights_source_answers_on_its_side(make_released, reported):
    early = make_released(weights_source="retrained", phase=2, psnr=19.0)
    retrained = make_released(weights_source="retrained", phase=3, psnr=20.0)
    records = dict(zip(map(Path, "abc"), (early, retrained, make_released()), strict=True))
    table = build("released", records, reported, not_run)
    (result,) = [result for result in table.reported if result.answers["released"].runs]
    names = {source: {run.path.name for run in answer.runs.values()} for source, answer in result.answers.items()}
    assert names == {"released": {"c"}, "retrained": {"b"}}
    verdicts = {source: answer.judgements["psnr"] for source, answer in result.answers.items()}
    assert verdicts["released"].verdict is Verdict.MATCH
    assert verdicts["retrained"].verdict is Verdict.NOT_COMPARABLE and "weights source" in verdicts["retrained"].reason
    (row,) = [
        row for row in parse(section(markdown(table), "Reported by the paper (Table 2)")) if row["released"] != "-"
    ]
    assert "PSNR 26.149" in row["released"] and "PSNR 20.000" in row["retrained"]


def test_another_profiles_records_answer_where_the_own_do_not(make_released, reported):
    other = {"profile": "paper", "weights_source": "retrained", "phase": 3, "commit": "f" * 40, "dirty": False}
    beside = {Path("p/a.json"): make_released(**other), Path("p/b.json"): make_released(profile="paper", psnr=1.0)}
    table = build("released", {Path("own.json"): make_released()}, reported, not_run, beside=beside)
    assert sorted(answer.runs["psnr"].path.name for answer in answered(table)) == ["a.json", "own.json"]
    page = markdown(table)
    assert len(parse(section(page, "Measured"))) == 1, "only the profile's own runs are its measurements"
    assert page.splitlines()[0].startswith("Profile `released` · commit 0123456+dirty · ")
    assert "retrained results of profile `paper` stand beside: commit fffffff · Testium" in page


def test_intervals_follow_their_values(make_record, reported):
    intervals = {"psnr": (21.356, 21.556), "ssim": (0.6541, 0.6545), "rfd_efficientnet_lite0": (1.0, 2.0)}
    records = {Path("a.json"): make_record(intervals=intervals)}
    page = markdown(build("demo", records, reported, not_run))
    (row,) = parse(section(page, "Measured"))
    assert row["PSNR ↑"] == "21.46 ± 0.10" and row["SSIM ↑"] == "0.654 ± 0.0002"
    assert row["rFD (EfficientNet-Lite0) ↓"] == "1.23 [1.00, 2.00]" and row["LPIPS (AlexNet) ↓"] == "0.234"
    assert "interval of confidence, [ ] are its ends: 95% by a test." in page
    assert "±" not in markdown(build("demo", {Path("a.json"): make_record()}, reported, not_run))


def test_the_twins_carry_interval_settings_and_source(make_released, reported, tmp_path):
    record = make_released(intervals={"psnr": (26.1, 26.2)}, settings={"posterior": "sample", "tf32": "on"})
    write(build("released", {Path("a.json"): record}, reported, not_run), tmp_path / "t.md")
    frame = pd.read_csv(tmp_path / "t.csv")
    for part in ("run", "reported"):
        (line,) = frame[(frame.part == part) & (frame.metric == "psnr") & frame.record.notna()].to_dict("records")
        assert (line["interval_low"], line["interval_high"], line["interval_level"]) == (26.1, 26.2, 0.95)
        assert (line["settings"], line["weights_source"]) == ("posterior=sample; tf32=on", "released")
    everything = json.loads((tmp_path / "t.json").read_text())
    assert everything["runs"][0]["record"]["settings"] == {"posterior": "sample", "tf32": "on"}
    (answers,) = [row["answers"] for row in everything["reported"] if row["answers"]["released"]["record"]]
    assert answers["released"]["settings"] == {"posterior": "sample", "tf32": "on"}
    assert answers["released"]["measured"]["psnr"]["interval"]["high"] == 26.2
    assert (answers["retrained"]["record"], answers["retrained"]["missing"]) == (None, [REASON])


def test_rows_without_reported_values_are_measured_without_a_verdict(make_record):
    rows = load_reported_reconstruction(measured={"mjhq"})
    assert [row.dataset for row in rows[16:]] == ["mjhq"] * 9 and len(load_reported_reconstruction()) == 16
    facts = {"data_set": "mjhq", "resolution": 1024, "images": 30_000, "profile": "released", "phase": None}
    facts |= {"weights_source": "released", "rfid": 0.5, "rfd": None, "protocol": "reconstruction/paper-v1"}
    records = {Path("a.json"): make_record("dc-ae", 64, 128, autoencoder="dc-ae-f64c128-mix-1.0", **facts)}
    table = build("released", records, rows, not_run)
    assert answered(table)[0].judgements["rfid"].verdict is Verdict.NOT_COMPARABLE
    text = section(markdown(table), "Reported by the paper (Table 2)")
    row = parse(text)[16 + 5 + 1]
    assert (row["data set"], row["rFID ↓"], row["LPIPS ↓"]) == ("MJHQ-30K", "-", "-")
    assert row["released"] == "rFID 0.500, PSNR 21.46, SSIM 0.654, LPIPS 0.234"
    assert row["verdict"] == "released: not_comparable<sup>7</sup>; retrained: not_run<sup>1</sup>"
    assert "<sup>7</sup> the paper has no such row" in text
    elsewhere = [one["autoencoder"] for one in parse(text)[16:21]]
    assert elsewhere[0] == "DC-AE f32c32<sup>2</sup>" and elsewhere[2] == "SD-VAE f8c4<sup>4</sup>"
    assert (
        "<sup>2</sup> authors' page on DC-AE for SANA 1.1, not the paper. Published as dc-ae-f32c32-sana-1.0." in text
    )


def test_released_weights_answer_the_rows_that_name_them(make_record):
    rows = load_reported_reconstruction(measured={"mjhq"})
    facts = {"data_set": "mjhq", "resolution": 1024, "images": 30_000, "profile": "released", "phase": None}
    facts |= {
        "weights_source": "released",
        "rfd": None,
        "protocol": "reconstruction/paper-v1",
        "parameters": 312_250_275,
    }
    names = {"dc-ae-f32c32-sana-1.0": (0.3392, 29.312), "dc-ae-f32c32-sana-1.1": (0.3139, 29.738)}
    records = {
        Path(f"{name}.json"): make_record("dc-ae", 32, 32, autoencoder=name, rfid=rfid, psnr=psnr, **facts)
        for name, (rfid, psnr) in names.items()
    }
    table = build("released", records, rows, not_run)
    found = {
        result.row.metrics["rfid"].text: {metric: one.verdict for metric, one in answer.judgements.items()}
        for result in table.reported
        if (answer := result.answers["released"]).runs
    }
    match = {"rfid": Verdict.MATCH, "psnr": Verdict.MATCH}
    unknown_count = dict.fromkeys(("rfid", "psnr", "ssim", "lpips"), Verdict.NOT_COMPARABLE)
    assert found == {"0.339": match, "0.314": match, "0.34": unknown_count}


def trained_on(record, *datasets):
    trained = (TrainedPhase(phase=3, datasets=datasets, images=1000),)
    return record.model_copy(update={"subject": record.subject.model_copy(update={"trained": trained})})


def test_a_row_is_answered_by_the_training_on_its_data_and_pairs_share_theirs(reported, make_record):
    facts = {"data_set": "imagenet", "resolution": 256, "images": 50_000, "profile": "paper"}
    records = {}
    for family in ("sd-vae", "dc-ae"):
        for name, data in (("in", ("imagenet",)), ("mix", ("ffhq", "imagenet"))):
            made = make_record(family, 32, 32, autoencoder=f"{family}-f32c32-{name}", **facts)
            records[Path(f"{family}-{name}.json")] = trained_on(made, *data)
    table = build("paper", records, reported, not_run)
    answers = [run.record.subject.autoencoder for answer in answered(table) for run in answer.runs.values()]
    assert set(answers) == {"sd-vae-f32c32-in", "dc-ae-f32c32-in"}
    pairs = {(pair.dc_ae.record.subject.autoencoder, pair.sd_vae.record.subject.autoencoder) for pair in table.pairs}
    assert pairs == {(f"dc-ae-f32c32-{name}", f"sd-vae-f32c32-{name}") for name in ("in", "mix")}


def test_each_missing_thing_is_a_note_of_its_own(reported):
    def lacking(row, source):
        return ("no data", f"no {source} weights") if source == "released" else ("not trained",)

    text = section(markdown(build("released", {}, reported, lacking)), "Reported by the paper (Table 2)")
    assert {row["verdict"] for row in parse(text)} == {
        "released: not_run<sup>1,2</sup>; retrained: not_run<sup>3</sup>"
    }
    assert text.count("<sup>2</sup> no released weights") == 1


def test_markdown_csv_and_json_agree(table, tmp_path):
    path = tmp_path / "results" / "table_rfid.md"
    write(table, path)
    assert path.read_text() == markdown(table)
    frame = pd.read_csv(path.with_suffix(".csv"))
    everything = json.loads(path.with_suffix(".json").read_text())
    assert sorted(child.name for child in path.parent.iterdir()) == [
        "table_rfid.csv",
        "table_rfid.json",
        "table_rfid.md",
    ]
    run_part, reported_part = frame[frame.part == "run"], frame[frame.part == "reported"]
    assert (len(run_part), len(reported_part)) == (12 * 4, 16 * 4 * 2)
    assert len(everything["runs"]) == 12 and len(everything["reported"]) == 16
    rows = parse(section(path.read_text(), "Measured"))
    for row, run, item in zip(rows, table.runs, everything["runs"], strict=True):
        lines = run_part[run_part.record == item["path"]].set_index("metric")
        assert item["key"] == run.record.key and len(lines) == 4
        for key, metric in run.record.metrics.items():
            assert lines.measured[key] == item["record"]["metrics"][key]["value"] == metric.value
        assert row["PSNR ↑"].strip("*") == f"{lines.measured['psnr']:.2f}"
        assert row["SSIM ↑"].startswith("**") == ("ssim" in item["best_in"])
    assert set(reported_part.verdict) == {"not_run"} and set(reported_part.reason) == {REASON}
    assert (reported_part.confidence == "recalled_unverified").sum() == 2 * 47
    assert everything["reported"][0]["answers"]["released"]["judgements"]["rfid"] == {
        "verdict": "not_run",
        "reason": REASON,
    }
    assert everything["differences"][0]["dc_ae_minus_sd_vae"]["psnr"] == pytest.approx(2.0)


def test_equal_records_give_equal_bytes_in_any_order(demo_records, reported):
    backwards = dict(reversed(demo_records.items()))
    assert markdown(build("demo", backwards, reported, not_run)) == markdown(
        build("demo", demo_records, reported, not_run)
    )


def test_records_of_another_kind_are_refused(demo_records, reported, make_record):
    records = demo_records | {Path("results/t.json"): make_record(kind="training", data_set="somewhere")}
    with pytest.raises(ResultsError, match=r"results/t\.json: is a record of training; pass records of reconstruction"):
        build("demo", records, reported, not_run)


def test_no_records_make_a_page_all_the_same(reported):
    page = markdown(build("demo", {}, reported, not_run))
    assert page.startswith("Profile `demo` · no record yet\n")
    assert "Nothing was measured yet" in page and page.count("not_run<sup>1</sup>") == 16


def test_two_records_of_one_row_are_refused(make_record, reported):
    records = {Path("results/a.json"): make_record(psnr=1.0), Path("results/b.json"): make_record(psnr=2.0)}
    with pytest.raises(ResultsError, match=r"b\.json.*a\.json"):
        build("demo", records, reported, not_run)


def test_records_of_another_profile_are_refused(make_record, reported):
    with pytest.raises(ResultsError, match="profile paper, not demo"):
        build("demo", {Path("results/a.json"): make_record(profile="paper")}, reported, not_run)


def test_one_key_with_two_labels_is_refused(table, make_record):
    metric = make_record().metrics["psnr"].model_copy(update={"label": "PSNR (Y)"})
    run = table.runs[-1]
    odd = run.record.model_copy(update={"metrics": run.record.metrics | {"psnr": metric}})
    with pytest.raises(ResultsError, match=r"PSNR \(Y\)"):
        markdown(replace(table, runs=(*table.runs[:-1], replace(run, record=odd))))


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("psnr", [0.01], 2),
        ("lpips_vgg", [9.0], 3),
        ("rfd_x", [150.0, 240.0], 1),
        ("rfd_x", [0.5], 3),
        ("rfd_x", [0.0], 2),
        ("kid_x", [0.00123], 5),
        ("kid_x", [1e-12], 7),
    ],
)
def test_decimals(key, values, expected):
    assert decimals(key, values) == expected


def test_numbers():
    assert [number(None, 2), number(-1.5, 1), number(-1.5, 1, signed=True)] == ["-", "-1.5", "−1.5"]
    assert [millions(n) for n in (676_896_140, 83_653_863, 2_340_000)] == ["677 M", "83.7 M", "2.34 M"]


def test_tables_need_no_torch():
    packages = pkgutil.walk_packages(dcae_bench.tables.__path__, "dcae_bench.tables.")
    modules = [package.name for package in packages]
    assert len(modules) > 30
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_rows_that_started_from_weights_are_marked_and_never_compared_with_others(demo_records, reported):
    """A DC-AE that starts from released weights has no fair pair in an SD-VAE that starts from random ones."""
    path = next(path for path in demo_records if "dc-ae-256-p3" in path.name)
    start = TrainedPhase(phase=1, datasets=("x",), images=8, initial="dc-ae-f32c32-in-1.0", frozen=("encoder.*",))
    for other in [path, *(path for path in demo_records if "sd-vae-256-p3" in path.name)]:
        trained = (start,) if other == path else (TrainedPhase(phase=1, datasets=("x",), images=8),)
        subject = demo_records[other].subject.model_copy(update={"trained": trained})
        demo_records[other] = demo_records[other].model_copy(update={"subject": subject})
    table = build("demo", demo_records, reported, not_run)
    page = markdown(table)
    assert "phase 1 started from dc-ae-f32c32-in-1.0" in page and "phase 1 froze encoder.*" in page
    (pair,) = [pair for pair in table.pairs if pair.dc_ae.path == path]
    assert "differ in their way of training" in pair.obstacle and pair.difference("psnr") is None


def test_figures_show_the_last_phase_as_the_profile_asks_for_it(make_record, reported):
    half, tiled = {"precision": "fp16"}, {"tiles": "64 px"}
    records = {
        Path("phase1.json"): make_record(phase=1),
        Path("phase3.json"): make_record(),
        Path("half.json"): make_record(settings=half),
        Path("tiled.json"): make_record(settings=tiled),
        Path("other.json"): make_record(psnr=40.0),
        Path("theirs.json"): make_record("sd-vae", settings=half),
    }
    holdings = Holdings(doubts={Path("other.json"): ("its seed is 1, the profile's 2",)})
    table = build("demo", records, reported, not_run, holdings=holdings)
    assert {run.path.name for run in table.final_runs} == {"phase3.json", "theirs.json"}
