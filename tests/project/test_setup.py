"""The files that describe the environment agree with each other and with what is installed."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PINNED_FILES = ["requirements.txt", "requirements-build.txt", "requirements-cluster.txt", "requirements-docs.txt"]
FILE_OF_EXTRA = {
    "dev": "requirements.txt",
    "slurm": "requirements-cluster.txt",
    "kubernetes": "requirements-cluster.txt",
    "docs": "requirements-docs.txt",
}


def read_pins(name: str) -> list[tuple[Requirement, int]]:
    """The requirements of a pinned file, each with its number of hashes."""
    text = re.sub(r"#.*", "", (ROOT / name).read_text()).replace("\\\n", " ")
    pins = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = re.split(r"\s+--hash=", line)
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value.strip()) for value in hashes), line
        pins.append((Requirement(requirement), len(hashes)))
    return pins


def pinned_versions(name: str) -> dict[str, list[Version]]:
    """Canonical package name to the versions that a pinned file holds for the platforms and Pythons."""
    versions = {}
    for requirement, _ in read_pins(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{name}: {requirement} is not pinned"
        versions.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    return versions


def dependencies_by_file() -> list[tuple[str, Requirement]]:
    """What pyproject.toml asks for, each with the file that pins it: to run, to develop, to build, and for clusters."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [("requirements.txt", line) for line in pyproject["project"]["dependencies"]]
    lines += [("requirements.txt", line) for line in pyproject["build-system"]["requires"]]
    extras = pyproject["project"]["optional-dependencies"]
    lines += [(FILE_OF_EXTRA.get(name, "requirements.txt"), line) for name, extra in extras.items() for line in extra]
    return [(name, Requirement(line)) for name, line in lines]


def direct_dependencies() -> list[Requirement]:
    """What pyproject.toml asks for: to run, to develop and to build."""
    return [requirement for name, requirement in dependencies_by_file() if name == "requirements.txt"]


def makefile_versions() -> list[str]:
    """The Python versions that the Makefile accepts."""
    return re.search(r"^PYTHON_VERSIONS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()


def conda_packages() -> dict[str, SpecifierSet]:
    """Name to version range of what environment.yml takes from conda."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert all(isinstance(item, str) for item in dependencies), "pinned packages belong into requirements.txt"
    return {name: SpecifierSet(rest) for name, _, rest in (item.partition(" ") for item in dependencies)}


def tracked_files() -> list[Path]:
    """The files of the repository; before the first commit or without git, all that .gitignore would let in."""
    for options in (["--cached"], ["--others", "--exclude-standard"]):
        listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True)
        if listed.returncode == 0 and listed.stdout:
            return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    ignored = {"__pycache__", "results", "build", "dist"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(part in ignored or part.endswith(".egg-info") for part in path.relative_to(ROOT).parts)
        and (not path.relative_to(ROOT).parts[0].startswith(".") or path.parent.name == ".ci")
    ]


def make(*arguments: str) -> subprocess.CompletedProcess:
    """Run make as a user would: what a surrounding make has set does not reach it."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PROFILE", "PYTHON", "SNAKEMAKE_FLAGS", "PYTEST_FLAGS")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize(("name", "requirement"), dependencies_by_file(), ids=str)
def test_direct_dependency_is_pinned_within_its_range(name, requirement):
    versions = pinned_versions(name).get(canonicalize_name(requirement.name))
    assert versions, "not pinned; run `make requirements`"
    assert all(requirement.specifier.contains(version) for version in versions), "run `make requirements`"


@pytest.mark.parametrize("name", ["requirements-cluster.txt", "requirements-docs.txt"])
def test_what_is_installed_on_top_changes_no_other_package(name):
    """`make cluster` and `make docs` install on top of `make setup`."""
    base, added = pinned_versions("requirements.txt"), pinned_versions(name)
    assert all(base[name] == versions for name, versions in added.items() if name in base), "run `make requirements`"


@pytest.mark.parametrize("name", PINNED_FILES)
def test_every_pin_is_exact_and_hashed(name):
    assert pinned_versions(name)
    assert not [str(requirement) for requirement, hashes in read_pins(name) if not hashes]


@pytest.mark.parametrize("name", PINNED_FILES)
def test_pinned_files_leave_the_choice_of_an_index_to_the_user(name):
    options = re.findall(r"--(?!hash=)[a-z][a-z-]*", (ROOT / name).read_text())
    assert not options


def test_one_pin_applies_to_each_python():
    for python in makefile_versions():
        environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        names = [
            canonicalize_name(requirement.name)
            for requirement, _ in read_pins("requirements.txt")
            if requirement.marker is None or requirement.marker.evaluate(environment)
        ]
        assert len(names) == len(set(names))


def test_scipy_stays_where_clean_fid_works():
    assert all(version < Version("1.18") for version in pinned_versions("requirements.txt")["scipy"])


def test_tools_of_the_installation_are_uv_and_the_pinned_setuptools():
    tools = pinned_versions("requirements-build.txt")
    assert set(tools) == {"setuptools", "uv"}
    assert tools["setuptools"] == pinned_versions("requirements.txt")["setuptools"]


def test_packages_with_embedded_photographs_are_pinned_to_the_version_of_the_manifest():
    pinned = pinned_versions("requirements.txt")
    direct = {canonicalize_name(requirement.name): requirement.specifier for requirement in direct_dependencies()}
    manifest = yaml.safe_load((ROOT / "dcae_bench" / "data" / "photos.yaml").read_text())
    exact = 0
    for dataset in manifest.values():
        for package, facts in dataset["packages"].items():
            name = canonicalize_name(package)
            assert name in direct, f"{package} is not a direct dependency"
            if facts["version"] is not None:
                exact += 1
                assert pinned[name] == [Version(facts["version"])]
                assert direct[name] == SpecifierSet(f"=={facts['version']}")
    assert exact


def test_python_range_is_the_same_everywhere():
    pyproject = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    conda = conda_packages()["python"]
    accepted = set(makefile_versions())
    assert accepted == {f"3.{minor}" for minor in range(8, 30) if conda.contains(f"3.{minor}")}
    assert all(pyproject.contains(version) for version in accepted)
    oldest = min(accepted, key=Version)
    assert not pyproject.contains(f"3.{Version(oldest).minor - 1}")
    assert f"--python-version {oldest} " in (ROOT / "Makefile").read_text()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in accepted


def test_conda_takes_everything_else_from_the_pinned_files():
    assert set(conda_packages()) == {"python", "pip", "make", "git"}
    # Snakemake runs the script only if its name is that of the environment's file with this ending.
    script = (ROOT / "environment.post-deploy.sh").read_text()
    commands = [line for line in script.splitlines() if re.match(r"python -m (uv )?pip install", line)]
    assert [re.search(r"-r (\S+)|--editable (\.)", line)[0] for line in commands] == [
        "-r requirements-build.txt",
        "-r requirements.txt",
        "--editable .",
    ]
    assert all("--no-deps" in line for line in commands)
    assert all("--require-hashes" in line for line in commands[:2])
    assert "sh environment.post-deploy.sh" in (ROOT / "Makefile").read_text()


def test_installed_packages_are_the_pinned_ones():
    different = {}
    for requirement, _ in read_pins("requirements.txt") + read_pins("requirements-build.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                installed = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                installed = "nothing"
            if not requirement.specifier.contains(installed if installed != "nothing" else "0", prereleases=True):
                different[str(requirement)] = installed
    assert not different, f"pinned but installed otherwise (run `make setup`): {different}"


def test_no_second_lock_file():
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "conda-lock.yml", "pixi.lock"}
    assert not locks & {path.name for path in tracked_files()}


def test_no_machine_and_no_package_index_is_named():
    named = re.compile(
        r"pypi\.(org|python)|pythonhosted\.|anaconda\.(org|com)|download\.pytorch\."
        r"|(?<![\w.~/-])/(home|Users|root|work|opt|mnt|srv)/\w|\b[A-Z]:\\\w"
    )
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if named.search(line)]
    assert not found


def test_make_alone_lists_every_command():
    shown = make().stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    for target in set(phony) - {"help", "FORCE"}:
        assert re.search(rf"^  make {target}\b", shown, re.MULTILINE), target
    assert "make results/table_rfid.md" in shown


def test_make_ends_with_the_numbers_of_a_table():
    assert "dcae-bench show 'results/table_rfid.json'" in make("-n", "results/table_rfid.md").stdout
    assert "dcae-bench show" not in make("-n", "results/table_rfid.md", "SNAKEMAKE_FLAGS=-n").stdout


def test_make_hands_every_result_over_to_snakemake():
    # README.md may exist already: whether something is up to date is not for make to say.
    for target in ("results/table_rfid.md", "results/figures/losses.png", "results/README.md"):
        assert f"snakemake --cores all {target}" in make("-n", target).stdout


def test_make_passes_profile_and_flags_on():
    shown = make("-n", "results/table_rfid.md", "PROFILE=paper", "SNAKEMAKE_FLAGS=--dry-run").stdout
    assert "snakemake --cores all results/table_rfid.md --dry-run --config profile='paper'" in shown
