"""What the README and the other pages promise exists: commands, links, images."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PATTERNS = ("*.md", "docs/*.md", "config/*.md", "examples/*.md", "results/README.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
SET_UP = ["make results/table_rfid.md", "make test"]
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
