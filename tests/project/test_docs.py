"""The pages of ``docs/`` as a site: what ``make docs`` builds, and how each page begins."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
OPENED = [page for pattern in ("docs/*.md", "config/*.md", "examples/*.md") for page in sorted(ROOT.glob(pattern))]


def pages_of(nav: list | str) -> list[str]:
    """The pages of a navigation, from top to bottom."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in nav for part in entry.values() for page in pages_of(part)]


class References(HTMLParser):
    """What a page of the site refers to, and the places in it that others may refer to."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a":
            self.links += [values["href"]] if values.get("href") else []
        elif tag in ("img", "script", "link") and values.get("rel") != "canonical":
            self.loaded += [values[key] for key in ("src", "href") if values.get(key)]


@pytest.mark.parametrize("page", OPENED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_begins_with_what_its_reader_can_do(page):
    _, first, *_ = page.read_text().split("\n\n")
    assert re.match(r"After this page you (can|know) ", first) and first.count(". ") <= 1, first


def test_every_page_of_docs_is_in_the_navigation():
    there = {page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md")}
    assert there <= set(pages_of(SITE["nav"]))
    readme = (ROOT / "README.md").read_text()
    assert not [page for page in there if f"]({page})" not in readme], "the README links each page"


@pytest.mark.long
def test_the_site_builds_strictly_and_each_link_leads_somewhere(tmp_path):
    zensical = shutil.which("zensical", path=str(Path(sys.executable).parent))
    if not zensical:
        pytest.skip("zensical is not installed; `make docs` installs it")
    source, site = tmp_path / "build" / "docs" / "source", tmp_path / "build" / "docs" / "site"
    subprocess.run([sys.executable, ROOT / "docs" / "stage.py", source], check=True)
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "dcae_bench").symlink_to(ROOT / "dcae_bench")
    built = subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    output = built.stdout + built.stderr
    assert built.returncode == 0 and "No issues found" in output and "arning" not in output, output[-3000:]

    pages = {page: References(page) for page in site.rglob("*.html")}
    for name in pages_of(SITE["nav"]):
        path = Path(re.sub(r"README\.md$", "index.html", name)).with_suffix(".html")
        assert site / path in pages, f"{name} is in no page of the site"
    broken = []
    for page, found in pages.items():
        if page.name == "404.html":  # its links begin at the server's root
            continue
        assert not [url for url in found.loaded if re.match(r"(https?:)?//", url)], f"{page} loads from another server"
        for link in found.links + found.loaded:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:|//", path):
                continue
            target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken[:40])
    api = (site / "api" / "metrics.html").read_text()
    assert "frechet" in api and "Raises" in api


def test_staging_refuses_a_folder_of_somebody_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    refused = subprocess.run([sys.executable, ROOT / "docs" / "stage.py", tmp_path], capture_output=True, text=True)
    assert refused.returncode != 0 and refused.stderr.count("\n") == 1 and (tmp_path / "mine.txt").exists()


def test_staging_again_leaves_nothing_of_the_last_time(tmp_path):
    stage = runpy.run_path(str(ROOT / "docs" / "stage.py"))["stage"]
    stage(tmp_path / "source")
    (tmp_path / "source" / "docs" / "gone.md").write_text("# Gone")
    (tmp_path / "source" / "README.md").unlink()  # as if the last call had been interrupted
    stage(tmp_path / "source")
    assert not (tmp_path / "source" / "docs" / "gone.md").exists()
    assert (tmp_path / "source" / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
