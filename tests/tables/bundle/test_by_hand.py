"""A bundle that another lab writes by docs/bundle.md, without this code."""

import hashlib
import json
import zipfile
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from dcae_bench.base.files import REPOSITORY
from dcae_bench.tables.bundle.accept import Reason, examine
from dcae_bench.tables.bundle.manifest import Manifest
from dcae_bench.tables.bundle.opened import opened

DEVICE = {"kind": "cuda", "name": "Accelerator of another lab", "threads": 8, "precision": "fp32", "processes": 1}
VERSIONS = {"our-framework": "4.2"}
RECORD = {
    "version": 1,
    "kind": "reconstruction",
    "profile": "theirs",
    "protocol": "reconstruction/paper-v1",
    "subject": {
        "autoencoder": "their-f32c32",
        "family": "custom",
        "compression": 32,
        "latent_channels": 32,
        "weights_source": "own",
        "parameters": 1_000_000,
        "weights_sha256": "1" * 64,
    },
    "data": {"name": "imagenet", "split": "eval", "resolution": 256, "images": 50_000, "sha256": "2" * 64},
    "metrics": {"psnr": {"label": "PSNR", "value": 24.5, "better": "higher", "unit": "dB"}},
    "settings": {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"},
    "provenance": {
        "commit": "3" * 40,
        "dirty": False,
        "code_sha256": "4" * 64,
        "config_sha256": "5" * 64,
        "seed": 0,
        "versions": VERSIONS,
        "device": DEVICE,
        "command": "./measure",
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T01:00:00Z",
        "seconds": 3600.0,
    },
}


def schema(name: str) -> dict:
    return json.loads((REPOSITORY / f"workflow/schemas/{name}.schema.json").read_text())


def by_hand(path: Path, record: dict) -> dict:
    """Write the zip, and return its list."""
    text = json.dumps(record, indent=4)
    listed = {
        "format": "dcae-bench/bundle-v1",
        "records": {"records/ours.json": hashlib.sha256(text.encode()).hexdigest()},
        "makers": [{"device": DEVICE, "versions": VERSIONS}],
    }
    files = {"records/ours.json": text, "bundle.json": json.dumps(listed)}
    sums = "".join(f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n" for name, content in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (*files.items(), ("SHA256SUMS", sums)):
            archive.writestr(name, content)
    return listed


def test_a_bundle_written_by_hand_fits_the_schemas_and_is_accepted(tmp_path):
    listed = by_hand(tmp_path / "theirs.zip", RECORD)
    jsonschema.validate(listed, schema("bundle"))
    jsonschema.validate(RECORD, schema("record"))
    with opened(tmp_path / "theirs.zip") as folder:
        found = examine(folder)
    assert found.refused == () == found.told and list(found.records) == ["records/ours.json"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "reconstruction/theirs"}, Reason.PROTOCOL),
        ({"provenance": RECORD["provenance"] | {"commit": "main"}}, Reason.CODE),
        ({"provenance": RECORD["provenance"] | {"recipe_sha256": "6" * 64}}, Reason.NUMBER),
        ({"digest": "7" * 64}, Reason.NUMBER),
        ({"metrics": {}}, Reason.NUMBER),
        ({"notes": "a key that no schema knows"}, Reason.NUMBER),
    ],
)
def test_one_with_a_mistake_is_refused(tmp_path, change, reason):
    by_hand(tmp_path / "theirs.zip", RECORD | change)
    with opened(tmp_path / "theirs.zip") as folder:
        assert reason in {problem.reason for problem in examine(folder).refused}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "dcae-bench/bundle-v2"},
        {"records": {}},
        {"records": {"../x.json": "1" * 64}},
        {"records": {"records/../../x.json": "1" * 64}},
        {"records": {"records/a/../../../x.json": "1" * 64}},
        {"records": {"records//x.json": "1" * 64}},
        {"records": {"records/x.json": "no hash"}},
        {"tables": ["table_mine"]},
        {"makers": []},
        {"more": 1},
    ],
)
def test_the_schema_refuses_other_lists(tmp_path, change):
    listed = by_hand(tmp_path / "theirs.zip", RECORD)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(listed | change, schema("bundle"))
    with pytest.raises(ValidationError):
        Manifest.model_validate(listed | change)
