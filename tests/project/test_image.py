"""The Dockerfile: what can be checked without building it (`python -m tests.image` builds it)."""

import re
import subprocess

import pytest

from dcae_bench.base.files import REPOSITORY
from tests.project.test_setup import read_pins

DOCKERFILE = re.sub(r"^#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
STEPS = [tuple(line.split(None, 1)) for line in DOCKERFILE.splitlines() if line.strip()]
COMMANDS = [rest for step, rest in STEPS if step == "RUN"]


def test_the_image_has_two_stages_and_its_user_is_not_root():
    assert [rest for step, rest in STEPS if step == "FROM"] == ["${BASE} AS build", "${BASE}"]
    users = [(number, rest) for number, (step, rest) in enumerate(STEPS) if step == "USER"]
    assert users == [(len(STEPS) - 3, "dcae")], "nothing after it may run as root"


def test_what_is_copied_is_there():
    copied = [rest.split()[:-1] for step, rest in STEPS if step == "COPY" and not rest.startswith("--from")]
    assert copied[-1] == ["."]
    assert all((REPOSITORY / name).exists() for names in copied for name in names)
    pinned = {path.name for path in REPOSITORY.glob("requirements*.txt")} - {"requirements-docs.txt"}  # no site in it
    assert {name for names in copied for name in names} >= pinned


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_of_the_shell(command):
    assert subprocess.run(["sh", "-n"], input=command, text=True, capture_output=True).stderr == ""
    installs = re.search(r"pip (install|download)", command)
    assert not installs or "--no-deps" in command, "only pinned packages"
    assert not installs or "--require-hashes" in command or "--offline" in command


def test_the_plugin_that_pods_install_is_the_pinned_one(tmp_path):
    (command,) = [command for command in COMMANDS if "plugin.txt" in command]
    (tmp_path / "requirements-cluster.txt").write_bytes((REPOSITORY / "requirements-cluster.txt").read_bytes())
    subprocess.run(["sh", "-c", command.partition("&&")[0]], cwd=tmp_path, check=True)
    ((requirement, hashes),) = read_pins(str(tmp_path / "plugin.txt"))
    assert requirement.name == "snakemake-storage-plugin-fs" and hashes
    assert str(requirement) in [str(pin) for pin, _ in read_pins("requirements-cluster.txt")]


def test_the_image_holds_what_git_holds():
    """Otherwise the image's checkout would differ from its commit, and its records would say so."""

    def patterns(name: str) -> set[str]:
        lines = (REPOSITORY / name).read_text().splitlines()
        return {line.strip("/").removeprefix("**/") for line in lines if line and not line.startswith("#")}

    assert patterns(".dockerignore") == patterns(".gitignore")
