"""Whose results a folder holds."""

import json
from pathlib import Path

import pytest
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import CONFIG
from dcae_bench.planning.owner import note_owner, require_own_folder
from dcae_bench.profile.profile import load_profile

DEMO = (CONFIG / "demo.yaml").read_text()


@pytest.fixture(autouse=True)
def work_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(path: str, **changes: object) -> str:
    content = {**yaml.safe_load(DEMO), "name": "mine", **changes}
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(yaml.safe_dump(content))
    return path


def use(source: str) -> None:
    profile = load_profile(source)
    require_own_folder(source, profile)
    note_owner(source, profile)


def owner() -> str:
    return json.loads(Path("results/mine/profile.json").read_text())["source"]


def test_another_profile_of_the_same_name_is_refused_and_changes_nothing():
    use(written("a.yaml"))
    with pytest.raises(ConfigError, match=r"b\.yaml: its name 'mine' is that of .*a\.yaml, whose results results/mine"):
        use(written("b.yaml", seed=99))
    assert owner() == "a.yaml"
    use(written("b.yaml", seed=99, name="other"))


def test_the_owner_may_change_its_content():
    use(written("a.yaml"))
    use(written("a.yaml", seed=99))
    assert owner() == "a.yaml"


def test_a_copy_that_says_the_same_may_continue():
    use(written("a.yaml"))
    use(written("b.yaml"))


@pytest.mark.parametrize("left", ["gone", "renamed", "damaged"])
def test_a_profile_takes_over_from_one_that_no_longer_has_the_name(left):
    use(written("a.yaml"))
    if left == "renamed":
        written("a.yaml", name="other")
    elif left == "damaged":
        Path("a.yaml").write_text("[")
    else:
        Path("a.yaml").unlink()
    use(written("b.yaml", seed=99))
    assert owner() == "b.yaml"


def test_a_folder_without_a_note_belongs_to_the_profile_that_ships():
    with pytest.raises(ConfigError, match=r"its name 'demo' is that of .*config/demo\.yaml"):
        use(written("a.yaml", name="demo", seed=99))
    use("demo")


@pytest.mark.parametrize("note", ["", "[" * 100_000, "3", "{}", "\udcff"])
def test_a_damaged_note_is_written_anew(note):
    Path("results/mine").mkdir(parents=True)
    Path("results/mine/profile.json").write_bytes(note.encode(errors="surrogateescape"))
    use(written("a.yaml"))
    assert owner() == "a.yaml"


def test_a_checkout_can_move(tmp_path, monkeypatch):
    use(written("a.yaml"))
    (tmp_path / "new").mkdir()
    for name in ("a.yaml", "results"):
        Path(name).rename(tmp_path / "new" / name)
    monkeypatch.chdir(tmp_path / "new")
    use(written("a.yaml", seed=99))
    with pytest.raises(ConfigError, match="its name 'mine'"):
        use(written("b.yaml"))
