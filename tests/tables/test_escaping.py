"""Names from records stand in pages as text, never as HTML, as links or as new rows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.tables.markdown import Footnotes, bullets, grid, harmless
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.page import markdown

HOSTILE = "<script>alert(1)</script>|x\n| y | [z](javascript:a) <img src=x onerror=y>"


def test_a_record_s_names_are_harmless_in_the_page(demo_records, reported):
    records = dict(demo_records)
    path, record = next(iter(records.items()))
    records[Path(path)] = record.model_copy(
        update={
            "subject": record.subject.model_copy(update={"autoencoder": HOSTILE}),
            "protocol": HOSTILE,
            "metrics": {
                key: metric.model_copy(update={"notes": (HOSTILE, *metric.notes)})
                for key, metric in record.metrics.items()
            },
        }
    )
    before = markdown(build("demo", demo_records, reported, lambda *_: ("no",)))
    page = markdown(build("demo", records, reported, lambda *_: ("no",)))
    assert "<script" not in page and "<img" not in page and "](javascript" not in page and "&lt;script>" in page
    rows = [sum(line.startswith("|") for line in text.splitlines()) for text in (before, page)]
    assert rows[0] == rows[1] or rows[1] == rows[0] - 1  # the pair of the renamed autoencoder may be gone


@pytest.mark.parametrize("breaking", ["\n", "\r", "\u2028", "\x0b", "\x85"])
def test_a_cell_a_note_and_a_bullet_are_one_line(breaking):
    name = f"a{breaking}b"
    notes = Footnotes()
    notes.mark([name])
    assert grid(["x"], [[name]], "l").count("\n") == 3
    assert len(notes.text().splitlines()) == 1 and bullets([name]) == "- a b\n"


@given(st.text(alphabet="<>/sup1,[]()a\\", max_size=30))
def test_nothing_but_a_mark_of_a_footnote_begins_with_an_angle_bracket(text):
    page = harmless(text + Footnotes().mark(["a"]))
    left = page.replace("</sup>", "")
    for part in left.split("<")[1:]:
        assert part.startswith("sup>")
    assert "](" not in page
