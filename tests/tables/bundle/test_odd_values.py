"""Values that fit the types and that nothing measures: the examination says something or nothing, and never breaks."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dcae_bench.base.errors import UserError
from dcae_bench.records.digest import digest_of
from dcae_bench.tables.bundle.accept import examine
from tests.tables.bundle.test_bundle import record_file, seal_again

ODD = (0, -1, 1e308, 5e-324, 2**62, "", "2026-01-01T00:00:00", None, [], {})


def leaves(content: Any, keys: tuple = ()) -> Iterator[tuple]:
    """Where the values of a JSON document stand."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*keys, key)
        yield from leaves(value, (*keys, key))


def put(content: Any, keys: tuple, value: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


def damage(folder: Path, path: Path, seed: int) -> None:
    """Put an odd value somewhere into a record or a table, and make every hash right again."""
    choose = random.Random(seed)
    content = json.loads(path.read_text())
    put(content, choose.choice(list(leaves(content))), choose.choice(ODD))
    if "digest" in content:
        content["digest"] = digest_of(content)
    for run in content.get("runs", ()) if isinstance(content.get("runs"), list) else ():
        if isinstance(run, dict) and isinstance(run.get("record"), dict):
            run["record"]["digest"] = digest_of(run["record"])
    path.write_text(json.dumps(content))
    seal_again(folder)


@pytest.mark.long
@pytest.mark.parametrize("name", ["timings", "tables", "table"])
def test_no_value_breaks_the_examination(honest, tmp_path, name):
    for seed in range(40):
        folder = shutil.copytree(honest["tables" if name == "table" else name], tmp_path / str(seed))
        damage(folder, folder / "table_rfid.json" if name == "table" else record_file(folder), seed)
        with suppress(UserError):
            examine(folder)
        shutil.rmtree(folder)


def test_a_table_that_holds_a_number_for_a_record_is_told(honest, tmp_path):
    folder = shutil.copytree(honest["tables"], tmp_path / "bundle")
    content = json.loads((folder / "table_rfid.json").read_text())
    content["runs"][0]["record"] = -1
    (folder / "table_rfid.json").write_text(json.dumps(content))
    seal_again(folder)
    assert any("table_rfid.json: is not the JSON of a table" in str(problem) for problem in examine(folder).refused)
