import io

import pytest
from rich.console import Console

from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.show import render


def shown(record, width=110) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(record))
    return console.export_text()


def test_every_fact_of_the_record_is_shown(make_record):
    notes = ("40 images, fewer than the 1280 features",)
    record = make_record(rfd_notes=notes, intervals={"psnr": (21.25, 21.75)}, settings={"posterior": "mean"})
    text = " ".join(shown(record, width=200).split())
    for fact in (
        "dc-ae-f32c32",
        "4x4x32 at 128 px",
        "retrained, after phase 3",
        "2,340,000",
        "photos-indoor, eval split",
        "reconstruction/photos-v1",
        "40 images, fewer than the 1280 features",
        "rFD (EfficientNet-Lite0)",
        "higher is better",
        "21.456",
        "95% interval 21.25 to 21.75 (a test)",
        "posterior mean",
        "dB",
        "Testium 9000, 2 cores, 2 threads, fp32",
        "0123456789abcdef0123456789abcdef01234567 + uncommitted changes",
        "2026-01-02 03:04:05 UTC",
        "60.5 s",
        "torch 2.9.0",
        record.key,
        "a" * 64,
        "b" * 64,
        "c" * 64,
        "d" * 64,
    ):
        assert fact in text, fact


def test_the_denoiser_of_samples_is_shown_with_the_source_of_its_weights(make_record):
    facts = {"row": "h", "name": "uvit-h", "family": "uvit", "process": "vp", "patch": 1, "tokens": 64, "classes": 1000}
    facts |= {"parameters": 7, "gmacs": 1.0, "weights_sha256": "e" * 64}
    record = make_record(kind="generation")
    released = DenoiserSubject(**facts, weights_source="released", released="some-uvit")
    for denoiser, weights in ((DenoiserSubject(**facts), "retrained"), (released, "released as some-uvit")):
        text = " ".join(shown(record.model_copy(update={"denoiser": denoiser}), width=200).split())
        assert f"denoiser uvit-h (vp), row h, 64 tokens its weights {weights} its sha256 {'e' * 64}" in text


def test_what_was_not_checked_is_marked(make_record):
    record = make_record()
    assert shown(record, width=200).count("none (not checked: the record is from before") == 2
    made = record.provenance.model_copy(update={"recipe_sha256": "8" * 64})
    text = shown(record.model_copy(update={"provenance": made, "digest": "7" * 64}), width=200)
    assert "not checked" not in text and "8" * 64 in text and "7" * 64 in text


def test_brackets_are_shown_and_not_taken_for_markup(make_record):
    assert "--name [red]demo[/red]" in shown(make_record())


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"commit": None, "dirty": None}, "none (outside a git checkout)"),
        ({"dirty": False}, ", clean"),
        ({"phase": None, "weights_source": "released"}, "released"),
    ],
)
def test_what_is_absent_is_said(make_record, facts, expected):
    assert expected in shown(make_record(**facts))


def test_a_narrow_terminal_loses_nothing_of_the_hashes(make_record):
    assert "a" * 64 in "".join(shown(make_record(), width=60).split())
