"""The files about the project itself: they parse, and they agree with the code and with each other."""

import ast
import re
import tomllib

import pytest
import yaml

from dcae_bench.base.files import PACKAGE, REPOSITORY
from tests.project.test_readme import PAGES

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
MAKEFILE = (REPOSITORY / "Makefile").read_text()
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text()
RELIABILITY = (REPOSITORY / "docs" / "reliability.md").read_text()
COMMENTED = ("environment.*", "config/*.yaml", "baselines/**/*.yaml", "workflow/rules/*.smk", "dcae_bench/data/*.yaml")
TEXTS = sorted([*PAGES, *(path for pattern in COMMENTED for path in REPOSITORY.glob(pattern))])
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PATH = re.compile(r"`(?:dcae_bench/)?((?:[a-z0-9_]+/)+(?:[a-z0-9_]+\.py)?)(?:: ([\w.]+))?`")


def load(path: str):
    return yaml.safe_load((REPOSITORY / path).read_text())


def recipe(target: str) -> list[str]:
    """Commands of a target of the Makefile, as they are typed in the activated environment."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1].splitlines()
    return [line.strip().removeprefix("@$(ACTIVATED) ") for line in lines]


def symbols(path: str) -> set[str]:
    """Names that a module of the package defines, members of classes as ``Class.name``."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found.update(f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(f"{prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse((PACKAGE / path).read_text()).body, "")
    return found


def test_hooks_of_pre_commit_are_the_commands_of_make_lint():
    (repo,) = load(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"  # the pinned tools, not versions of pre-commit's own
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repo["hooks"])
    assert [hook["entry"] for hook in repo["hooks"]] == recipe("lint")


def test_ci_runs_the_script_on_every_python_of_the_makefile():
    workflow = load(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    versions = re.search(r"^PYTHON_VERSIONS := (.+)$", MAKEFILE, re.MULTILINE)[1].split()
    assert sorted(job["strategy"]["matrix"]["python"]) == sorted(versions)
    (step,) = [step for step in job["steps"] if "run" in step]
    assert step == {"run": ".ci/run", "env": {"PYTHON": "python${{ matrix.python }}"}}
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_for_issues_are_whole(form):
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= content.keys()
    names = [field["id"] for field in content["body"]]
    assert len(names) == len(set(names)) and names
    for field in content["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


def test_citation_is_of_this_version_and_names_the_paper():
    citation = load("CITATION.cff")
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PYPROJECT["project"]["version"]
    assert citation["license"] == PYPROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert paper["url"].endswith("/2410.10733") and len(paper["authors"]) == 9


def test_changelog_begins_with_what_is_not_released():
    headings = re.findall(r"^## (.+)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"


def test_architecture_names_every_room_on_its_floor():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one.get("containers") == ["dcae_bench"]]
    floors = {
        room.strip(): number
        for number, layer in enumerate(reversed(contract["layers"]), 1)
        for room in re.split("[|:]", layer)
    }
    rows = re.findall(r"^\| (\d+) \| `(\w+)/` \| .+ \|$", ARCHITECTURE, re.MULTILINE)
    assert {room: int(number) for number, room in rows} == floors
    assert floors.keys() == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_paths_and_symbols_of_the_architecture_exist():
    found = PATH.findall(ARCHITECTURE) + PATH.findall(RELIABILITY)
    assert len(found) > 60
    for path, symbol in found:
        inside = (PACKAGE / path).exists()
        assert inside or (REPOSITORY / path).exists(), path
        if symbol:
            assert symbol in symbols(path), f"{path}: {symbol}"


@pytest.mark.parametrize("file", TEXTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_files_and_modules_that_a_text_names_exist(file):
    text = file.read_text()
    for path in re.findall(r"\b((?:dcae_bench|tests|benchmarks|config|baselines|workflow)/[\w/.-]*\w\.\w+)", text):
        assert "NAME" in path or (REPOSITORY / path).exists(), path
    for module, names in (
        re.findall(r"^from (dcae_bench[\w.]*) import (.+)$", text, re.MULTILINE) if file in PAGES else ()
    ):
        defined = symbols(f"{module.removeprefix('dcae_bench.').replace('.', '/')}.py")
        assert set(names.split(", ")) <= defined, f"{module}: {names}"
