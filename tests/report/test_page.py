"""The page: what it holds, that names stay text, and what it refuses."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.cli.main import main
from dcae_bench.measurement.record import save as save_timing
from dcae_bench.planning.report import state, tables_made
from dcae_bench.records.record import load, save
from dcae_bench.report.gallery import gallery
from dcae_bench.report.headline import claims
from dcae_bench.report.page import render, write_report
from dcae_bench.report.provenance import missing
from dcae_bench.report.records import Panels
from dcae_bench.report.sources import find_sources
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.files import write
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from dcae_bench.tables.summary import summary
from tests.report.conftest import HOSTILE, kept, noise
from tests.tables.conftest import record as make_record
from tests.tables.timings import timing

ISLANDS = ("panels", "specs")


class Reader(HTMLParser):
    """Elements, attributes and text of a page, as a browser sees them."""

    def __init__(self):
        super().__init__()
        self.elements, self.addresses, self.handlers, self.ids, self.text = {}, [], [], [], []
        self.islands, self._inside = {}, None

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.addresses += [found[name] for name in ("src", "href", "action") if found.get(name)]
        self.handlers += [name for name in found if name.startswith("on")]
        self.ids += [found["id"]] if "id" in found else []
        self._inside = found.get("id", "") if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside in ISLANDS:
            self.islands[self._inside] = self.islands.get(self._inside, "") + data


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def test_the_page_asks_for_nothing_from_elsewhere(read):
    assert {address.split(",")[0].split(";")[0] for address in read.addresses if not address.startswith("#")} <= {
        "data:",
        "data:image/webp",
        "data:image/svg+xml",
    }


def test_names_stay_text_everywhere(read):
    assert read.elements["script"] == 4 and not read.handlers
    text = "".join(read.text)
    assert "<script>alert(1)</script>" in text and "{{7*7}}" in text and "49'" not in text
    found = {name: json.loads(content) for name, content in read.islands.items()}
    assert set(found) == set(ISLANDS)
    assert any(HOSTILE in one for one in found["panels"]["texts"])


def test_every_link_inside_the_page_has_its_aim_and_ids_are_unique(read):
    assert len(set(read.ids)) == len(read.ids)
    assert {address[1:] for address in read.addresses if address.startswith("#")} <= set(read.ids)


def test_every_record_has_a_panel_with_everything_to_judge_it(read, results):
    packed = json.loads(read.islands["panels"])
    texts, panels = packed["texts"], packed["panels"]
    path = next((results / "tiny").glob("reconstruction/dc-ae*/phase3/*.json"))
    record = load(path)
    panel = next(
        one for one in panels.values() if texts[one["head"][3]].endswith(str(path.relative_to(results.parent)))
    )
    said = {texts[value] for _, facts in panel["groups"] for _, value in facts}
    made = record.provenance
    for fact in (record.protocol, record.subject.weights_sha256, record.data.sha256, made.command, record.digest):
        assert fact in said
    assert any(made.commit in one for one in said) and any(made.device.name in one for one in said)
    metric = next(one for one in panel["metrics"] if texts[one[0]] == "SSIM")
    assert "95% interval 0.6 to 0.7 (a test)" in texts[metric[3]]


def test_charts_have_a_drawing_and_a_specification(read, page):
    specs = json.loads(read.islands["specs"])
    drawn = re.findall(r'<figure class="chart" id="([\w-]+)"', page.read_text())
    assert set(drawn) == set(specs) and len(drawn) == page.read_text().count('<img src="data:image/svg+xml,')
    wanted = {"run-rec-quality-1", "run-rec-loss-1-l1-lpips", "run-rec-loss-3-l1", "run-gen-loss-vp"}
    assert wanted <= set(specs) and "h100-2026-11-27-speed-train-energy-per-image-j" in specs


@pytest.mark.long
def test_the_page_is_the_same_every_time(page, results):
    sources = find_sources(results)
    assert render(sources) == page.read_text()


def test_the_headline_shows_what_the_evidence_says(results):
    sources = find_sources(results)
    found = {claim.text.split(" ")[1]: claim for claim in claims(sources, Panels.of(sources))}
    train = found["trains"]
    assert train.reported == "17.89×"
    assert [(one.text.split(" ")[0], one.verdict) for one in train.found] == [("17.98×", "match"), ("18.63×", "better")]
    assert {one.verdict for one in found["infers"].found} == {"deviates"}
    assert found["reconstructs"].found[0].verdict == "not_run"
    assert "PSNR +2.50 (better)" in found["reconstructs"].here


def test_images_stand_at_the_same_place_and_the_budget_holds(results):
    sources = find_sources(results)
    panels = Panels.of(sources)
    shown = gallery(sources[0], panels)
    assert [(len(group.shots), len(group.shots[0].reconstructions)) for group in shown.groups] == [(2, 2)]
    assert len(shown.extremes) == 2 and [len(strip.pictures) for strip in shown.strips] == [3]
    assert shown.left_out == 0 and not shown.remarks
    none = gallery(sources[0], panels, budget=0)
    assert none.empty and none.left_out == 6 + 8 + 3


@pytest.fixture
def copied(results, tmp_path):
    """The run alone, without evidence; the records that its tables name stay where they are."""
    for path in results.glob("table_*"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


def test_images_of_a_record_that_changed_since_are_left_out(tmp_path):
    path = tmp_path / "tiny/reconstruction/dc-ae-f32c32@retrained/phase3/photos-128.json"
    record = kept(make_record(profile="tiny"), path)
    np.save(path.with_suffix(".samples.npy"), noise(1, 2, 16, 16, 3))
    write(build("tiny", {path: record}, load_reported_reconstruction(), lambda *_: ("no",)), tmp_path / "table_rfid.md")
    save(make_record(profile="tiny", psnr=9.0), path)
    sources = find_sources(tmp_path)
    shown = gallery(sources[0], Panels.of(sources))
    assert shown.empty and "has changed since the table was made" in shown.remarks[0]
    path.unlink()
    assert "no longer at their place" in gallery(sources[0], Panels.of(sources)).remarks[0]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda content: content["runs"][0]["record"]["metrics"]["psnr"].update(value=99.0), "table_rfid.json"),
        (lambda content: content.pop("runs"), "no table can be made of it"),
        (lambda content: content["runs"][0].pop("path"), "no table can be made of it"),
    ],
)
def test_a_table_whose_records_were_edited_makes_no_page(copied, edit, said):
    path = copied / "table_rfid.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=said) as error:
        write_report(copied, copied / "report.html")
    assert "make the table again" in str(error.value) and not (copied / "report.html").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"runs": 1}', b"[" * 100_000, b"\xff"])
def test_damaged_tables_are_errors_in_one_line(copied, content):
    (copied / "table_diffusion.json").write_bytes(content)
    with pytest.raises(ResultsError, match=r"table_diffusion\.json: no table can be made of it") as error:
        find_sources(copied)
    assert "\n" not in str(error.value)


def test_the_command_says_what_it_wrote_and_what_it_needs(copied, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code, capsys.readouterr()

    (copied / "table_rfid.json").unlink()  # the generation alone is quick
    code, said = run("--results", copied, "--output", copied / "x/page.html")
    assert code == 0 and "page.html: " in said.out and (copied / "x/page.html").exists()
    assert said.out.splitlines()[0] == summary(copied / "table_diffusion.json")[1]
    code, said = run("--results", copied / "nothing", "--output", copied / "page.html")
    assert code == 2 and "holds no table; make one first" in said.err and not (copied / "page.html").exists()


def test_timings_of_this_run_are_shown_when_there_are_any(copied):
    (copied / "table_rfid.json").unlink()
    plan = copied / "throughput/cpu"
    plan.mkdir(parents=True)
    (plan / "plan.json").write_text('{"sessions": {}, "timings": 2}')
    assert [source.name for source in find_sources(copied)] == ["run"]
    record = timing("dc-ae-f64c128 p1", [30.0, 31.0, 32.0, 31.0, 30.0])
    save_timing(record, plan / "one.json")
    sources = find_sources(copied)
    assert [source.name for source in sources] == ["run", "plan-cpu"]
    assert [(one.names, one.reason) for one in missing(sources[1])] == [
        (["1 of 2 timings"], "the plan was not finished; the same command continues it")
    ]


def test_the_rule_waits_for_tables_of_its_profile_alone(copied, monkeypatch):
    monkeypatch.chdir(copied)
    (copied / "results").mkdir()
    assert tables_made("tiny") == []
    before = state()
    shutil.copy("table_rfid.json", "results")
    assert tables_made("tiny") == ["results/table_rfid.json"] and tables_made("demo") == []
    assert state() != before
