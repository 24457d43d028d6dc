"""The throughput table on records of known rates."""

import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import ConfigError, ResultsError
from dcae_bench.base.files import write_text
from dcae_bench.measurement.record import save
from dcae_bench.measurement.workloads.recipes import RECIPES
from dcae_bench.tables.reported.throughput import THROUGHPUT, load_throughput
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.throughput.build import build, find_records
from dcae_bench.tables.throughput.figure import draw, throughput_figure
from dcae_bench.tables.throughput.files import write
from dcae_bench.tables.throughput.judge import judge_ratio
from dcae_bench.tables.throughput.page import ALL_OF_OTHER_CODE, markdown
from tests.tables.timings import HOT, timing

F64 = "dc-ae-f64c128 p1"


def noisy(rate: float) -> list[float]:
    return [rate * (1 + 0.002 * (number % 3 - 1)) for number in range(10)]


def pair(factor: float, spread: bool = False, **more):
    """f8p2 at one iteration per second, f64p1 ``factor`` times as fast, timed in turn."""
    rates = [factor * (1.3 if spread and number % 2 else 1.0) for number in range(10)] if spread else noisy(factor)
    return [timing(rates=[1.0] * 10, **more), timing(F64, rates, **more)]


def row(table, latent=F64):
    return next(one for one in table.rows if one.record.model.latent_space == latent)


@pytest.mark.parametrize(
    ("factor", "spread", "verdict"),
    [
        (17.9, False, Verdict.MATCH),
        (25.0, False, Verdict.BETTER),
        (9.0, False, Verdict.DEVIATES),
        (16.0, True, Verdict.WITHIN_NOISE),
    ],
)
def test_ratios_are_judged(factor, spread, verdict):
    found = row(build(pair(factor, spread)))
    assert found.judgement.verdict == verdict, found.judgement.reason
    assert found.reported_speed_up == pytest.approx(984 / 55)
    assert found.mac_ratio == pytest.approx(582.3 / 33.24)


def test_absolute_numbers_are_never_judged():
    slow, fast = pair(17.9)
    ten_times = [record.model_copy(update={"images_per_iteration": 80}) for record in (slow, fast)]
    assert row(build(ten_times)).judgement.verdict == Verdict.MATCH
    assert row(build([slow, fast]), "sd-vae-f8c4 p2").judgement.verdict == Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (pair(17.9)[1:], "no measurement on sd-vae-f8c4 p2"),
        ([timing(), timing(F64, status="oom")], "oom: CUDA out of memory"),
        (pair(17.9, gpu=None), "the paper measured on a GPU"),
        (pair(17.9, model="uvit-m"), "prints no such pair"),
        ([timing(work="forward"), timing(F64)], "no measurement on"),
    ],
)
def test_what_cannot_be_judged_says_why(records, reason):
    judgement = row(build(records)).judgement
    assert judgement.verdict == Verdict.NOT_COMPARABLE and reason in judgement.reason


@given(st.floats(0.5, 200), st.floats(1.01, 3))
def test_a_larger_ratio_never_gets_a_worse_verdict(ratio, growth):
    order = [Verdict.DEVIATES, Verdict.WITHIN_NOISE, Verdict.MATCH, Verdict.BETTER]
    paper = load_throughput()
    reported = paper.find("uvit-h", F64), paper.find("uvit-h", "sd-vae-f8c4 p2")
    slow, fast = timing(), timing(F64)

    def rank(value: float) -> float:
        estimate = fast.derived.images_per_s.model_copy(
            update={"value": value, "low": 0.99 * value, "high": 1.01 * value}
        )
        place = order.index(judge_ratio(fast, slow, estimate, *reported).verdict)
        return place if place in (0, 3) else 1.5  # noise lies on both sides of a match

    assert rank(ratio) <= rank(ratio * growth)


def test_degraded_rows_are_left_out_unless_asked_for():
    records = [timing(), timing(F64, gate=HOT)]
    table = build(records)
    assert [one.record.model.latent_space for one in table.rows] == ["sd-vae-f8c4 p2"]
    assert "thermal slowdown in 40 %" in markdown(table).split("## Left out")[1]
    assert len(build(records, degraded=True).rows) == 2
    # A degraded baseline is out of sight, but its ratio is still told where asked.
    assert row(build(records, degraded=True)).speed_up.value == pytest.approx(1)


def test_restarts_are_merged_and_other_code_is_not_mixed_in():
    restarts = [timing(rates=[rate] * 10, run=str(rate), minutes=number) for number, rate in enumerate((1.0, 1.2))]
    old = timing(rates=[9.0] * 10, run="old", code="d" * 64, minutes=-60)
    table = build([*restarts, old])
    assert len(table.rows) == 1
    assert table.rows[0].record.derived.images_per_s.value == pytest.approx(8 * 1.1)


def test_rows_of_other_code_are_marked_on_the_page_and_in_its_twins(tmp_path):
    records = [*pair(17.9), timing(work="forward", code="b" * 64)]
    mark = "measured by other code than that of today: commit"
    assert mark not in markdown(build(records)) and ALL_OF_OTHER_CODE not in markdown(build(records))
    write(build(records, code="a" * 64), tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert text.count(mark) == 1 and ALL_OF_OTHER_CODE not in text
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["code_sha256"] == "a" * 64
    assert {one["work"]: one["of_other_code"] for one in content["rows"]} == {"train": False, "forward": True}
    cells = pd.read_csv(tmp_path / "table.csv")
    assert dict(zip(cells["work"], cells["of_other_code"], strict=True)) == {"train": False, "forward": True}
    # Evidence is all of older code: the page says so once, above its rows.
    evidence = markdown(build(records, code="c" * 64))
    assert mark not in evidence and evidence.count(ALL_OF_OTHER_CODE) == 1


def test_a_speed_up_over_other_code_is_not_judged():
    slow, fast = pair(17.9)[0], timing(F64, noisy(17.9), code="b" * 64)
    found = row(build([slow, fast], code="b" * 64))
    assert found.judgement.verdict == Verdict.NOT_COMPARABLE
    assert found.judgement.reason == "the measurement on sd-vae-f8c4 p2 is of other code"


def test_the_two_conventions_of_inference_stand_apart():
    records = pair(19.1, work="forward")
    found = row(build(records))
    assert found.sampled_per_s == pytest.approx(found.record.derived.images_per_s.value / 60)
    assert found.reported_value.value == 111.77
    assert found.judgement.verdict in (Verdict.MATCH, Verdict.WITHIN_NOISE)
    page = markdown(build(records))
    assert "forward / (2 x 30 NFE)" in page


def test_a_phase_of_an_autoencoder_says_what_trains_and_is_not_judged():
    record = timing(work="phase2")
    model = record.model.model_copy(
        update={"name": "dc-ae-f32c32", "latent_space": None, "tokens": None, "resolution": 1024}
    )
    settings = {
        "plan": "profile paper",
        "trains": "encoder_head, decoder_input",
        "trained_parameters": "590880",
        "loss": "1 L1 + 0.1 LPIPS (vgg)",
        "batch": "named by the user",
    }
    table = build([record.model_copy(update={"model": model, "settings": settings})])
    assert "no speed of an autoencoder" in table.rows[0].judgement.reason
    page = markdown(table)
    cells = [cell.strip() for cell in next(line for line in page.splitlines() if "| phase2" in line).split("|")]
    assert cells[1:3] == ["dc-ae-f32c32 1024 px", "-"] and cells[3].startswith("phase2<sup>") and cells[4] == "-"
    assert "trains encoder_head, decoder_input (0.59 M parameters) for 1 L1 + 0.1 LPIPS (vgg)" in page


def test_page_prints_null_energy_with_its_reason_and_never_zero():
    page = markdown(build(pair(17.9, energy_j=None)))
    assert "null<sup>" in page and "no energy: no counter" in page
    with_energy = markdown(build(pair(17.9)))
    assert "null<sup>" not in with_energy and "1.333 [" in with_energy  # 800 images for 600 J


def paper_cells(table, latent=F64):
    lines = markdown(table).split("## In the paper's columns")[1].splitlines()
    (line,) = [line for line in lines if line.startswith("|") and latent in line]
    return [re.sub(r"<sup>.*?</sup>", "", cell).strip() for cell in line.split("|")[4:-1]]


def test_page_has_the_paper_s_columns_each_beside_ours():
    """Speed of the protocol's batches, latency of batch 2 and memory of batch 256."""
    named = {"settings": {"batch": "named by the user"}}
    latency = [one.model_copy(update={**named, "batch": 2}) for one in pair(50.0, work="forward")]
    memory = [one.model_copy(update={**named, "batch": 256}) for one in pair(3.0)]
    records = [*pair(17.9), *pair(19.1, work="forward"), *latency, *memory]
    assert paper_cells(build(records)) == ["984", "143.2", "6706", "152.8", "3.5", "20.00", "10.6", "54.1"]
    assert paper_cells(build(pair(17.9))) == ["984", "143.2", "6706", "-", "3.5", "-", "10.6", "-"]


def test_a_model_that_the_paper_does_not_time_has_empty_columns():
    assert paper_cells(build(pair(17.9, model="uvit-m"))) == ["-", "143.2", *["-"] * 6]


def test_reported_values_are_of_their_resolution():
    reported = load_throughput()
    assert reported.find("dit-s", F64, 1024).train_images_per_s.value == 2085
    assert reported.find("dit-s", F64, 2048).train_images_per_s.value == 459
    assert reported.find("dit-s", F64) is None


def test_the_two_conventions_of_the_reported_values_agree():
    """One forward pass over 2 NFE is full sampling, as far as the printed digits tell."""
    rows = [row for row in load_throughput().rows if row.forward_images_per_s and row.nfe]
    assert len(rows) == 17
    for row in rows:
        follows = row.forward_images_per_s.value / (2 * row.nfe)
        assert row.sample_images_per_s.value == pytest.approx(follows, abs=0.005), row


def shared(records, share, blocks=10, **settings):
    """The records with a part of the authors' batches, and with fewer blocks."""
    said = {"batch": f"1/{share} of the authors' map", "optimizer": "AdamW", **settings}
    found = []
    for record in records:
        (restart,) = record.restarts
        series = restart.series.model_copy(update={"blocks": restart.series.blocks[:blocks]})
        update = {"share": share, "settings": said, "batch": 256 // share}
        found.append(record.model_copy(update={**update, "restarts": (restart.model_copy(update={"series": series}),)}))
    return found


def note_of(page, cell_of):
    """Texts of the notes at the batch of the first row that holds ``cell_of``."""
    line = next(line for line in page.splitlines() if line.startswith("|") and cell_of in line)
    numbers = re.search(r"<sup>([\d,]+)</sup>", line.split("|")[7])[1].split(",")
    return [re.search(rf"^<sup>{number}</sup> (.*)  $", page, re.M)[1] for number in numbers]


def test_page_states_what_its_rows_did_and_not_what_the_protocol_would_have_done():
    """Parts of the authors' batches and fewer iterations, as on a borrowed GPU, and an older row without a share."""
    quarter = shared(pair(17.9), 4, blocks=6)
    page = markdown(build([*quarter, *pair(19.1, work="forward")]))
    assert note_of(page, "| train") == [
        "batch: 1/4 of the authors' map; 20 warm-up and 60 timed iterations in 6 blocks, one process"
    ]
    assert note_of(page, "| forward") == [
        "batch: the authors' map; 20 warm-up and 100 timed iterations in 10 blocks, one process"
    ]
    assert "- train as recorded: optimizer: AdamW.\n" in page and "forward as recorded" not in page
    out_of_memory = markdown(build([timing(status="oom")]))
    assert note_of(out_of_memory, "| train") == ["batch: the authors' map; nothing was timed"]


def test_each_share_of_a_batch_is_a_row_of_its_own_with_its_own_baseline():
    table = build([*shared(pair(17.9), 4), *shared(pair(15.0), 16), *pair(19.1)])
    found = {one.record.share: one.speed_up and round(one.speed_up.value, 1) for one in table.rows if one.speed_up}
    assert len(table.rows) == 6 and found == {4: 17.9, 16: 15.0, None: 19.1}
    alone = build([pair(17.9)[0], *shared(pair(17.9)[1:], 4)])
    assert row(alone).speed_up is None, "a part of the batch has no baseline among whole batches"


def test_the_twins_hold_share_and_iterations(tmp_path):
    write(build(shared(pair(17.9), 4, blocks=6)), tmp_path / "table.md")
    for one in json.loads((tmp_path / "table.json").read_text())["rows"]:
        assert (one["share"], one["batch"], one["blocks"]) == (4, 64, "6")
        assert (one["warm_up_iterations"], one["timed_iterations"]) == ("20", "60")


def test_the_papers_columns_take_the_largest_part_of_the_batch():
    cells = paper_cells(build([*shared(pair(15.0), 16), *shared(pair(17.9), 4)]))
    assert cells[1] == f"{17.9 * 8:.1f}"


def test_text_of_a_protocol_counts_no_batches_and_no_iterations():
    for recipe in RECIPES.values():
        assert not re.search(r"batch|iteration", recipe.what), recipe.what


def test_files_agree_with_each_other_and_repeat(tmp_path):
    table = build(pair(17.9))
    write(table, tmp_path / "a" / "table.md")
    write(table, tmp_path / "b" / "table.md")
    for suffix in ("md", "csv", "json"):
        assert (tmp_path / "a" / f"table.{suffix}").read_bytes() == (tmp_path / "b" / f"table.{suffix}").read_bytes()
    rows = json.loads((tmp_path / "a" / "table.json").read_text())["rows"]
    frame = pd.read_csv(tmp_path / "a" / "table.csv")
    assert list(frame["images_per_s"]) == pytest.approx([one["images_per_s"] for one in rows])
    assert rows[1]["verdict"] == "match" and rows[0]["speed_up"] is None


@pytest.mark.parametrize(("slow", "fast"), [(HOT, None), (None, HOT)])
def test_a_degraded_side_makes_no_verdict_and_is_told(slow, fast):
    gates = {"slow": {"gate": slow} if slow else {}, "fast": {"gate": fast} if fast else {}}
    records = [timing(rates=[1.0] * 10, **gates["slow"]), timing(F64, noisy(17.9), **gates["fast"])]
    table = build(records, degraded=True)
    assert row(table).judgement.verdict == Verdict.NOT_COMPARABLE
    assert "thermal slowdown in 40 %" in row(table).judgement.reason
    if slow:
        first = markdown(build(records)).split("## In the paper")[0]
        (line,) = [line for line in first.splitlines() if line.startswith("|") and F64 in line]
        assert re.search(r"17\.9\S* \[[^]]+\]<sup>\d+</sup>", line), line


@pytest.mark.parametrize("records", [pair(17.9), pair(17.9, energy_j=None), [timing(gate=HOT)]])
def test_figure_is_drawn_of_whatever_there_is(records, tmp_path):
    throughput_figure(build(records), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "figure.svg").read_bytes()


@pytest.mark.parametrize("fast", [17.9, 1790.0])
def test_what_is_written_behind_a_bar_fits_into_its_panel(fast):
    rates = [fast * (1 + 0.002 * (turn % 3)) for turn in range(10)]
    figure = draw(build([timing(rates=[1.0] * 10), timing(F64, rates)]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        edge = axes.get_window_extent().x1
        assert not [text.get_text() for text in axes.texts if text.get_window_extent().x1 > edge]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_figure_shows_ours_beside_the_reported_values_with_units():
    records = [*pair(17.9), *pair(19.1, work="forward")]
    tuned = [record.model_copy(update={"protocol": "throughput/tuned-v1"}) for record in pair(18.6)]
    figure = draw(build([*records, *tuned]))
    train, forward = figure.axes[:3], figure.axes[3:]
    assert [axes.get_xlabel() for axes in train] == [
        *("images/s, log scale", "joule per image, log scale", "speed-up over sd-vae-f8c4 p2")
    ]
    assert train[0].get_title(loc="left") == "UViT-H, 512 px, training"
    assert forward[0].get_title(loc="left") == "UViT-H, 512 px, one forward pass"
    assert texts(train[0]) == ["55", "984", "8.00", "8.00", "143", "149"]
    assert texts(forward[0])[:2] == ["351", "6,706"], "full sampling x 2 NFE: the convention of the row"
    assert texts(train[2])[2] == "17.89" and re.fullmatch(r"17\.9\d \[17\.\d+, 1[78]\.\d+\]", texts(train[2])[0])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["reported by the paper", "ours, protocol paper", "ours, protocol tuned"]
    assert "NVIDIA H100 80GB HBM3, 700 W" in figure.get_supxlabel()


def test_figure_keeps_another_batch_apart_and_beside_no_reported_value():
    """A latency at batch 2 stands in a line of its own; the paper's images/s are of other batches."""
    named = {"settings": {"batch": "named by the user"}, "batch": 2}
    latency = [record.model_copy(update=named) for record in pair(17.9, work="forward")]
    figure = draw(build([*pair(17.9, work="forward"), *latency]))
    titles = [axes.get_title(loc="left") for axes in figure.axes[::3]]
    assert titles == ["UViT-H, 512 px, one forward pass", "UViT-H, 512 px, one forward pass, batch 2"]
    assert "351" in texts(figure.axes[0]) and "351" not in texts(figure.axes[3])
    assert "19.11" not in texts(figure.axes[5])


def test_figure_marks_a_degraded_value_and_leaves_out_what_ran_out_of_memory():
    figure = draw(build([timing(), timing(F64, gate=HOT), timing(work="forward", status="oom")], degraded=True))
    assert "8.00, degraded" in texts(figure.axes[0]) and len(figure.axes) == 3


def test_records_are_found_among_other_files(tmp_path):
    save(timing(), tmp_path / "deep" / "one.json")
    (tmp_path / "plan.json").write_text('{"plan": "x"}')
    (tmp_path / "one.nvml.json").write_text("{}")
    assert len(find_records([tmp_path])) == 1
    with pytest.raises(ResultsError, match="no records"):
        find_records([tmp_path / "deep" / "none"] if (tmp_path / "none").mkdir() else [tmp_path / "none"])


def test_a_timing_says_what_it_is_within_the_first_400_bytes(tmp_path):
    """As docs/bundle.md promises to those who write timings by hand."""
    save(timing(), tmp_path / "one.json")
    text = (tmp_path / "one.json").read_text()
    (tmp_path / "late.json").write_text(" " * 300 + text)
    (tmp_path / "too_late.json").write_text(" " * 400 + text)
    assert len(find_records([tmp_path])) == 2


def test_reported_values_are_checked(tmp_path):
    reported = load_throughput()
    uvit_2b = reported.find("uvit-2b", F64)
    # The authors' one-forward value in the later convention: 2733 / (2 x 30).
    assert uvit_2b.sample_images_per_s.value == pytest.approx(2733 / 60, abs=0.01)
    assert uvit_2b.sample_images_per_s.confidence == "derived" and uvit_2b.train_images_per_s.confidence == "verified"
    text = THROUGHPUT.read_text()
    for wrong in (text.replace("nfe: 250", "nfe: 0"), text.replace("source: authors-table", "source: nobody")):
        write_text(tmp_path / "wrong.yaml", wrong)
        load_throughput.cache_clear()
        with pytest.raises(ConfigError, match=r"wrong\.yaml"):
            load_throughput(tmp_path / "wrong.yaml")
