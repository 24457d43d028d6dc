"""What the README and the other pages promise exists: commands, links, images, and the numbers of the evidence."""

import json
import re
import runpy
from pathlib import Path
from urllib.parse import unquote

import pytest

from dcae_bench.tables.reported.throughput import load_throughput
from dcae_bench.tables.throughput.table import BASELINE

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PATTERNS = ("*.md", "docs/*.md", "config/*.md", "examples/*.md", "results/README.md", "results/reference/*/README.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
SET_UP = ["make results/table_rfid.md", "make test"]
H100 = ROOT / "results" / "reference" / "h100-2026-11-27"
SECOND = ROOT / "results" / "reference" / "h100-2026-11-27-second"
DEMO = ROOT / "results" / "reference" / "demo"
DEMO_METRICS = {"psnr": 2, "ssim": 3, "lpips_alex_u8": 3, "rfd_efficientnet_lite0": 0}
"""Metrics of the README's table of the demo, with their decimals."""
WORKS = {"train": "training", "forward": "forward pass"}
FENCE = re.compile(r"^(```+)[ ]*(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)


def shell_blocks(text: str) -> list[list[str]]:
    """The commands of each fenced shell block, without prompts, comments and continuation lines."""
    blocks = []
    for _, language, body in FENCE.findall(text):
        if language in ("sh", "bash", "shell", "console"):
            lines = re.sub(r"\\\n\s*", "", body).splitlines()
            commands = [re.sub(r"\s+#.*", "", line.removeprefix("$ ")).strip() for line in lines]
            blocks.append([command for command in commands if command and not command.startswith("#")])
    return blocks


def links(text: str) -> list[str]:
    """Targets of the links and images of a page, code left out."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)", text)
    reference = re.findall(r"^\[[^\]]+\]:\s*<?([^\s>]+)", text, re.MULTILINE)
    html = re.findall(r"<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)=[\"']([^\"']+)", text)
    return inline + reference + html


def anchors(text: str) -> set[str]:
    """What GitHub names the headings of a page in links."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_set_up_is_the_two_commands_that_ci_runs():
    """The first shell block of the README, but for getting the repository."""
    first = next(iter(shell_blocks(README.read_text())), [])
    assert [command for command in first if not command.startswith(("git clone", "cd "))] == SET_UP
    ci = (ROOT / ".ci" / "run").read_text()
    assert [command for command in re.findall(r"^step (.+)$", ci, re.MULTILINE) if command in SET_UP] == SET_UP


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_commands_of_a_page_exist(page):
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    for command in [command for block in shell_blocks(page.read_text()) for command in block]:
        if re.match(r"make\b", command):
            targets = [word for word in command.split()[1:] if "=" not in word and not word.startswith("-")]
            assert all(target in phony or target.startswith("results/") for target in targets), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_of_a_page_lead_somewhere(page):
    for link in links(page.read_text()):
        if re.match(r"[a-z][a-z0-9+.-]*:|#|//", link):
            continue
        target = (page.parent / unquote(link.partition("#")[0])).resolve()
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), f"{link} does not exist"
        parts = target.relative_to(ROOT).parts
        generated = parts[:1] == ("results",) and len(parts) > 1 and parts[1] not in ("reference", "README.md")
        assert not generated, f"{link} is generated: a fresh clone has it only after a run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_one(page):
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        if anchor and not re.match(r"[a-z][a-z0-9+.-]*:", link):
            target = (page.parent / unquote(path)) if path else page
            assert anchor in anchors(target.read_text()), link


def test_links_are_found_in_all_their_forms():
    page = '[a](one.md "title") ![b](<two.png>) [c][c] <img alt="x" src="four.png"> `[no](code.md)`\n'
    page += "\n[c]: three.md#part\n"
    page += "```sh\n$ make test  # takes minutes\n# comment\nmake \\\n  lint\n[no](fence.md)\n```\n"
    assert links(page) == ["one.md", "two.png", "three.md#part", "four.png"]
    assert shell_blocks(page) == [["make test", "make lint", "[no](fence.md)"]]


def between(text: str, name: str) -> str:
    """What a page holds between the markers ``<!-- name -->`` and ``<!-- end of name -->``."""
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0]


def speed(value: float) -> str:
    return f"{value:,.{0 if value >= 200 else 1}f}"


def headline() -> list[str]:
    """Rows of the README's first table, from the JSON of the evidence's table and the reported values."""
    sources, spaces = {"throughput/paper-v1": H100, "throughput/tuned-v2": SECOND}, (BASELINE, "dc-ae-f64c128 p1")
    rows = {
        (row["work"], row["latent_space"], row["protocol"]): row
        for protocol, folder in sources.items()
        for row in json.loads((folder / "table_throughput.json").read_text())["rows"]
        if row["protocol"] == protocol
    }
    lines = []
    for work, said in WORKS.items():
        # The paper's images/s of one forward pass: those of full sampling x 2 NFE.
        reported = [load_throughput().find("uvit-h", space) for space in spaces]
        passes = [2 * one.nfe if work == "forward" else 1 for one in reported]
        theirs = [one.images_per_s(work).value * count for one, count in zip(reported, passes, strict=True)]
        pairs = [[rows[work, space, protocol] for space in spaces] for protocol in sources]
        ratios = [
            f"**{row['speed_up']:.2f}x** [{row['speed_up_low']:.2f}, {row['speed_up_high']:.2f}]" for _, row in pairs
        ]
        cells = {
            "speed-up": [f"**{pairs[0][1]['reported_speed_up']:.1f}x**", *ratios],
            "images/s": [
                f"{theirs[0]:,.0f} → {theirs[1]:,.0f}",
                *(" → ".join(speed(row["images_per_s"]) for row in pair) for pair in pairs),
            ],
            "joule per image": [
                "-",
                *(" → ".join(f"{row['energy_per_image_j']:.3g}" for row in pair) for pair in pairs),
            ],
            "MFU": ["-", *(" → ".join(f"{100 * row['mfu']:.0f} %" for row in pair) for pair in pairs)],
        }
        lines += [f"| {said}: {name} | {' | '.join(values)} |" for name, values in cells.items()]
    return lines


def test_headline_of_the_readme_is_the_evidence():
    found = between(README.read_text(), "headline")
    assert [line for line in found.splitlines() if line.startswith("| ")][1:] == headline()
    # The sentences repeat numbers of the table, and no others.
    sentences = " ".join(line for line in found.splitlines() if not line.startswith("|"))
    numbers = re.findall(r"\d+\.\d+(?=x)", sentences)
    assert numbers and all(number in "\n".join(headline()) for number in numbers)


def test_sentences_below_the_headline_are_the_evidence():
    """A match in training and less in a forward pass; the parts of the batches."""
    rows = json.loads((H100 / "table_throughput.json").read_text())["rows"]
    verdicts = {(row["protocol"], row["work"]): row["verdict"] for row in rows if row["speed_up"]}
    assert verdicts["throughput/paper-v1", "train"] == "match"
    assert {verdict for (_, work), verdict in verdicts.items() if work == "forward"} == {"deviates"}
    page = (H100 / "table_throughput.md").read_text()
    for part in ("1/4 of ", "1/16 of ", ""):  # training under `paper`, under `tuned`, and the forward passes
        assert f"</sup> batch: {part}the authors' map; " in page
    assert {row["restarts"] for row in rows} == {1}
    page = (SECOND / "table_throughput.md").read_text()
    for part in ("1/16 of ", "1/4 of "):  # training and the forward passes under the second `tuned`
        assert f"</sup> batch: {part}the authors' map; " in page


@pytest.mark.parametrize("page", [ROOT / "docs" / "performance.md", H100 / "README.md"], ids=["docs", "evidence"])
def test_timings_of_autoencoders_on_a_page_are_the_evidence(page):
    content = json.loads((H100 / "autoencoders.json").read_text())
    table = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["table"](content)
    assert between(page.read_text(), "autoencoders on an H100") == table


def test_readme_opens_with_the_headline_and_then_the_demo():
    text = README.read_text()
    places = [text.index(part) for part in ("<!-- headline -->", "```sh", "<!-- demo table -->")]
    assert places == sorted(places) and text[: places[0]].count("\n\n") <= 2, "title, one paragraph, the headline"


def demo_rows() -> list[str]:
    """Rows of the README's table of the demo: SD-VAE / DC-AE / control after their last phase, the better in bold."""
    runs = json.loads((DEMO / "table_rfid.json").read_text())["runs"]
    last: dict[tuple, dict[str, dict]] = {}
    for run in runs:  # later phases follow earlier ones
        subject, data = run["record"]["subject"], run["record"]["data"]
        key = (data["name"], data["resolution"], subject["compression"], run["latent_shape"])
        last.setdefault(key, {})[subject["family"]] = run["record"]["metrics"]
    lines = []
    for (name, side, _, shape), families in last.items():
        cells = []
        for key, places in DEMO_METRICS.items():
            values = {family: metrics[key]["value"] for family, metrics in families.items()}
            better = max if families["dc-ae"][key]["better"] == "higher" else min
            best = better(("sd-vae", "dc-ae"), key=values.__getitem__)
            texts = [f"{values[family]:.{places}f}" for family in ("sd-vae", "dc-ae", "pca") if family in values]
            cells.append(" / ".join(f"**{text}**" if i == (best == "dc-ae") else text for i, text in enumerate(texts)))
        lines.append(f"| {name} | {side} | {shape} | {' | '.join(cells)} |")
    return lines


def test_the_demo_s_table_of_the_readme_is_the_evidence():
    found = between(README.read_text(), "demo table")
    assert [line for line in found.splitlines() if line.startswith("| ")][1:] == demo_rows()


def test_the_effects_that_the_page_of_ablations_quotes_are_the_evidence():
    page = (ROOT / "docs" / "ablations.md").read_text()
    said = page.partition("<!-- demo ablations -->")[2].partition("<!-- end of demo ablations -->")[0]
    table = (DEMO / "table_ablation.md").read_text()
    quoted = re.findall(r"[+−][\d.]+ ± [\d.]+\d", said)
    assert len(quoted) >= 8 and not [effect for effect in quoted if effect not in table]
