"""What `make docs` builds the site from: the pages of this repository, what they link to, and a page for each room.

    python docs/stage.py build/docs/source

Files keep their paths, so that a link leads to the same place here, on a git host, and on the site.
"""

import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "config/*.md", "examples/*.md", "results/README.md", "results/reference/*/*.md")
ROOMS = (
    "base", "specs", "catalogue", "records", "profile", "weights", "data", "metrics", "extractors", "models",
    "diffusion", "execution", "subjects", "evaluation", "generation", "training", "measurement", "tables",
)  # fmt: skip
"""The rooms that a program of somebody else has a use for, from the ground floor up."""


def linked(page: Path) -> list[Path]:
    """The files of this repository that a page links to, code left out."""
    text = re.sub(r"^(```+).*?^\1|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(\s*<?([^)\s>#]+)|<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)=\"([^\"#]+)", text)
    paths = [page.parent / unquote(target or other) for target, other in targets if ":" not in target + other]
    return [path.resolve() for path in paths if path.is_file()]


def page_of_room(room: str) -> str:
    """A page in the notation of mkdocstrings: the room's docstring, then its modules."""
    return (
        f"# dcae_bench.{room}\n\n"
        f"After this page you can call what is in `dcae_bench.{room}`: you know shapes, units and errors.\n\n"
        f"::: dcae_bench.{room}\n    options:\n      show_root_toc_entry: false\n      show_submodules: true\n"
    )


def stage(target: Path) -> None:
    """Fill a folder.

    Raises:
        FileExistsError: if the folder holds anything that no earlier call put there.

    """
    stamp = target / ".staged"
    if target.exists() and any(target.iterdir()) and not stamp.exists():
        raise FileExistsError(f"{target} is not a folder that this program filled; name another one")
    target.mkdir(parents=True, exist_ok=True)
    stamp.touch()  # first, and kept, so that an interrupted call does not stand in the way of the next one
    for path in list(target.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path != stamp:
            path.unlink()
    pages = sorted(path for pattern in PAGES for path in ROOT.glob(pattern))
    for path in dict.fromkeys([*pages, *(file for page in pages for file in linked(page))]):
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (target / "api").mkdir()
    for room in ROOMS:
        (target / "api" / f"{room}.md").write_text(page_of_room(room))


if __name__ == "__main__":
    try:
        stage(Path(sys.argv[1]))
    except (FileExistsError, IndexError) as error:
        sys.exit(f"error: {error}" if isinstance(error, FileExistsError) else __doc__)
