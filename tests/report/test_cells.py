"""Printed cells as HTML: our marks become elements, everything else stays text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.report.cells import prose, show
from dcae_bench.tables.markdown import MINUS, Footnotes, Grid


def cell(text, align="l"):
    table = show("t", "title", Grid(["head"], [[text]], align, Footnotes()))
    return table.rows[0].cells[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3.67 M", 3.67e6),
        ("1.2 G", 1.2e9),
        ("**254.8 ± 14.4**<sup>1</sup>", 254.8),
        ("(18.07)", 18.07),
        ("1,200", 1200),
        (f"{MINUS}2.6", -2.6),
        ("+38.3", 38.3),
        ("x 1.23 ± 0.35", 1.23),
        ("1.04e+12", 1.04e12),
        ("41 %", 41),
        ("-", None),
        ("fit", None),
        ("null<sup>3</sup>", None),
    ],
)
def test_a_number_is_sorted_by_its_plain_value(text, number):
    assert cell(text, "r").number == (None if number is None else pytest.approx(number))


def test_text_is_not_sorted_as_a_number():
    assert cell("4x4x32").number is None


def test_marks_of_footnotes_link_to_the_notes_of_their_own_table():
    notes = Footnotes()
    notes.mark(["of another table"])
    text = f"1.5{notes.mark(['a <b>'])}"
    table = show("t", "title", Grid(["head"], [[text]], "r", notes))
    assert table.notes == [(2, "a <b>")]
    assert '<sup><a class="note" role="doc-noteref" href="#t-n2">2</a></sup>' in table.rows[0].cells[0].html


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("not_run<sup>1</sup>", ["not_run"]),
        ("released: match<sup>1</sup>; retrained: not_run<sup>2</sup>", ["match", "not_run"]),
        ("rFID deviates<sup>3</sup>, PSNR within_noise<sup>4</sup>", ["deviates", "within_noise"]),
        ("+1.58 ± 1.52 **better**", []),
        ("a better-vae", []),
        ("match-vae", []),
    ],
)
def test_verdicts_stand_in_words(text, verdicts):
    html = cell(text).html
    assert [part.split('"')[0] for part in html.split('class="verdict ')[1:]] == verdicts
    assert "not_run</span>" not in html


@given(st.text(alphabet="<>/sup1,*`&\"'ab{}", max_size=40))
def test_no_text_becomes_an_element(text):
    for html in (cell(text).html, prose(text)):
        for part in html.split("<")[1:]:
            assert part.startswith(("strong>", "/strong>", "sup>", "/sup>", "a class=", "/a>", "code>", "/code>"))
