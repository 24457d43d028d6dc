"""The leaderboard: what stands together, what stands apart, and that strangers' names stay text."""

import json
import re
import shutil

import pytest

from dcae_bench.base.errors import CheckError
from dcae_bench.cli.main import main
from dcae_bench.measurement import evidence
from dcae_bench.report.leaderboard import read_bundles, render, write_leaderboard
from tests.report.conftest import bundled, on
from tests.report.test_page import Reader


@pytest.fixture(scope="module")
def page(bundles) -> str:
    return render(*read_bundles(bundles))


def tables(page: str) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of each table, as text."""
    found = []
    for title, body in re.findall(r"<h4>(.*?)</h4>.*?<tbody>(.*?)</tbody>", page, flags=re.DOTALL):
        rows = re.findall(r"<tr.*?>(.*?)</tr>", body, flags=re.DOTALL)
        cells = [re.findall(r"<td.*?>(.*?)</td>", row, flags=re.DOTALL) for row in rows]
        found.append((title, [[re.sub(r"<.*?>", "", cell).strip() for cell in row] for row in cells]))
    return found


def test_results_of_several_labs_stand_together_where_they_are_comparable(page):
    shown = tables(page)
    same = next(rows for title, rows in shown if title.endswith("on CPU: Same 1"))
    assert [(row[0], row[3]) for row in same] == [("sd-vae-f32c32", "b1"), ("dc-ae-f32c32", "b1"), ("theirs", "b2")]
    assert same[0][4:7] == ["3.5", "-", "25.5"], "rFID and rFD are columns of their own"
    other = next(rows for title, rows in shown if title.endswith("on CPU: Other 2"))
    assert [row[0] for row in other] == ["dc-ae-f32c32"]


def test_only_timings_of_a_good_state_stand_there(page):
    (title, rows), *more = [one for one in tables(page) if one[0].startswith("throughput/")]
    assert "forward at 512 px" in title and "H100" in title and "1/4 of the batch" in title and not more
    assert {row[1] for row in rows} == {"sd-vae-f8c4 p2", "dc-ae-f32c32 p1"}, "the state of f64c128 was degraded"
    assert all(row[5] == "b4" for row in rows)


def test_names_of_strangers_stay_short_text(page):
    reader = Reader()
    reader.feed(page)
    assert reader.elements["script"] == 3 and "img" not in reader.elements and not reader.handlers
    text = "".join(reader.text)
    assert "<script>alert(1)</script>" in text and "{{7*7}}" in text and "49'" not in text
    assert max(map(len, json.loads(reader.islands["panels"])["texts"])) <= 1000
    assert not re.search(r"<strong>|<sup>", page.partition("<main>")[2].partition("</main>")[0])
    assert {address.split(",")[0] for address in reader.addresses if not address.startswith("#")} == {"data:"}
    assert len(set(reader.ids)) == len(reader.ids)


def test_refused_bundles_are_named_with_the_reason_and_nothing_of_them_is_shown(bundles, tmp_path, monkeypatch, capsys):
    bad = shutil.copytree(bundles[0], tmp_path / "bad")
    path = next((bad / "records").rglob("*.json"))
    path.write_text(path.read_text().replace('"value": 0.6543', '"value": 0.7777'))
    (bad / evidence.SUMS).unlink()
    evidence.seal(bad)
    arguments = ["leaderboard", str(bad), str(bundles[1]), str(bundles[1]), "--output", str(tmp_path / "site")]
    monkeypatch.setattr("sys.argv", ["dcae-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert not ended.value.code and "bad is left out: changed file: records/" in said and "1 of 2 bundles" in said
    page = (tmp_path / "site/index.html").read_text()
    assert "changed number: records/" in page and "0.7777" not in page and page.count('id="b1"') == 1
    with pytest.raises(CheckError, match="none of 1 bundles is accepted"):
        write_leaderboard([bad], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_numbers_that_fit_the_types_and_make_no_sense_end_no_page(tmp_path):
    odd = on("Odd", psnr=1e308)
    odd = odd.model_copy(update={"subject": odd.subject.model_copy(update={"compression": 0})})
    entries, refused = read_bundles([bundled(tmp_path / "odd.zip", odd, on("Odd"))])
    assert not refused
    page = render(entries, refused)
    shown = next(rows for title, rows in tables(page) if title.endswith("on CPU: Odd"))
    file = next(name for name, one in entries[0].records.items() if one.subject.compression == 0)
    assert len(shown) == 1 and f"b1: {file}: no row can be made of it (" in page
