"""The page: everything of the sources in one file of HTML, with its scripts and styles inside."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import write_text
from dcae_bench.report import cells, charts
from dcae_bench.report.gallery import Gallery, gallery
from dcae_bench.report.headline import claims
from dcae_bench.report.provenance import listed, missing, ran
from dcae_bench.report.records import Panel, Panels
from dcae_bench.report.sections import Section, sections
from dcae_bench.report.sources import Source, find_sources
from dcae_bench.tables.reported.verdict import Verdict

LARGEST = 4_950_000
"""Bytes that images may fill a page up to, so that it can be sent by mail."""
SAFE = " ()*+,-./:;=?@_~!$"
"""Characters that stand as they are in the address of a drawing."""
MARGIN = 20_000
"""Bytes for the headings around images."""


def write_report(results: Path, output: Path) -> int:
    """Write the report of a folder of results, atomically, and return its size in bytes.

    Raises :class:`ResultsError` without a table, for damaged records, and when the file cannot be written.
    """
    page = render(find_sources(results))
    write_text(output, page)
    return len(page.encode())


def render(sources: Sequence[Source]) -> str:
    """The page of some sources as HTML."""
    panels = Panels.of(sources)
    parts = sections(sources, panels)
    own = [source for source in sources if not source.committed]

    def page(galleries: Sequence[tuple[Source, Gallery]]) -> str:
        return _page(sources, panels, parts, galleries)

    # Images take what everything else leaves of the page's size.
    left = LARGEST - MARGIN - len(page([]).encode())
    return page([(source, gallery(source, panels, max(left, 0))) for source in own])


def _page(
    sources: Sequence[Source],
    panels: Panels,
    parts: Sequence[Section],
    galleries: Sequence[tuple[Source, Gallery]],
) -> str:
    blocks = [block for section in parts for block in section.blocks]
    return environment().get_template("report.html.j2").render(
        subtitle=_subtitle(sources),
        claims=claims(sources, panels),
        verdicts=list(Verdict),
        sections=parts,
        galleries=galleries,
        ran=cells.show("ran", "What ran where", ran(sources, panels)),
        missing=[(source, found) for source in sources if (found := missing(source))],
        records=_listed(panels),
        panels=packed(panels.panels),
        charts={chart.name: chart.spec for block in blocks for chart in block.charts},
    )  # fmt: skip


def _subtitle(sources: Sequence[Source]) -> str:
    own = [source for source in sources if not source.committed]
    tables = [table for source in own for table in (source.reconstruction, source.generation, source.ablation) if table]
    lines = list(dict.fromkeys(table.first_line for table in tables))
    return "; ".join(lines) or "; ".join(source.title for source in sources)


def _listed(panels: Panels) -> cells.ShownTable:
    return cells.show("records", "Every record", listed(panels.panels), [[panel.id] for panel in panels.panels])


def packed(panels: Iterable[Panel]) -> dict[str, Any]:
    """The panels with each text once: records share most of theirs. A panel names texts by their index."""
    texts: dict[str, int] = {}

    def index(text: str) -> int:
        return texts.setdefault(text, len(texts))

    packed = {
        panel.id: {
            "head": [index(text) for text in (panel.title, panel.kind, panel.source, panel.path)],
            "metrics": [[index(text) for text in metric] for metric in panel.metrics],
            "groups": [
                [index(name), [[index(fact), index(value)] for fact, value in facts]] for name, facts in panel.groups
            ],
        }
        for panel in panels
    }
    return {"texts": list(texts), "panels": packed}


@cache
def environment() -> Environment:
    """The templates of pages; everything that they show is escaped."""
    made = Environment(
        loader=PackageLoader("dcae_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"prose": cells.prose, "chip": cells.chip, "data_uri": _data_uri}
    made.globals |= {"VERDICTS": cells.VERDICTS, "asset": _asset}
    return made


def _asset(name: str) -> Markup:
    """Text of a style or script that stands in the page as it is; nothing in it can end its element."""
    if name == "vega.js":
        text = charts.script()
    elif name == "datatables.css":
        text = _datatables("dt_bundle.css")
    elif name == "datatables.js":
        text = _datatables_script()
    else:
        text = (files("dcae_bench.report") / "templates" / name).read_text(encoding="utf-8")
    return Markup(text.replace("</script", "<\\/script").replace("</style", "<\\/style").replace("<!--", "<\\!--"))


def _datatables_script() -> str:
    """DataTables as an expression: the module's text in a function that returns what the module exports by default.

    A page cannot import from a module that stands in the page itself.
    """
    text = _datatables("dt_bundle.js")
    exports = re.search(r"export\s*\{[^}]*?([\w$]+) as default[^}]*\};?", text)
    if exports is None:
        raise ResultsError("the package itables ships no DataTables that can be used; run `make setup`")
    return f"(() => {{ {text[: exports.start()]}\n return {exports[1]}; {text[exports.end() :]}\n }})()"


@cache
def _datatables(name: str) -> str:
    """A file of DataTables as the package itables ships it. The package itself is not imported."""
    found = find_spec("itables")
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise ResultsError("the package itables is not installed; run `make setup`")
    return (Path(folders[0]) / "html" / name).read_text(encoding="utf-8")


def _data_uri(svg: str) -> str:
    """An address that holds a drawing; its text grows less than by base64."""
    return f"data:image/svg+xml,{quote(svg, safe=SAFE)}"
