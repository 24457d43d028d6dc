import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.digest import digest_of
from dcae_bench.records.provenance import Device, Provenance
from dcae_bench.records.record import Data, Interval, Metric, Record, load, save
from dcae_bench.records.subject import Subject


def record() -> Record:
    return Record(
        kind="reconstruction",
        profile="demo",
        protocol="reconstruction/photos-v1",
        subject=Subject(
            autoencoder="dc-ae-f32c32",
            family="dc-ae",
            compression=32,
            latent_channels=32,
            weights_source="retrained",
            phase=3,
            parameters=1234,
            weights_sha256="a" * 64,
        ),
        data=Data(name="photos-indoor", split="eval", resolution=64, images=12, sha256="b" * 64),
        metrics={
            "psnr": Metric(label="PSNR", value=21.5, better="higher", unit="dB"),
            "rfd": Metric(
                label="rFD (EfficientNet-Lite0)", value=1 / 3, notes=("few images",), weights_sha256="c" * 64
            ),
        },
        provenance=Provenance(
            commit="d" * 40,
            dirty=True,
            code_sha256="e" * 64,
            config_sha256="f" * 64,
            seed=0,
            versions={"torch": "2.9"},
            device=Device(kind="cpu", name="Fréchet CPU", threads=1, precision="fp32"),
            command="dcae-bench evaluate",
            started=datetime(2026, 1, 1, tzinfo=UTC),
            finished=datetime(2026, 1, 2, tzinfo=UTC),
            seconds=1.25,
        ),
    )


def with_(path: str, value) -> Record:
    """The record with one value replaced, checked again."""
    content = record().model_dump()
    *parents, last = path.split(".")
    inner = content
    for part in parents:
        inner = inner[part]
    assert inner[last] != value
    inner[last] = value
    return Record.model_validate(content)


def paths(content: dict, path: tuple = ()):
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict) and key not in ("metrics", "versions"):
            yield from paths(value, (*path, key))


def test_round_trip(tmp_path):
    save(record(), tmp_path / "r.json")
    assert load(tmp_path / "r.json").model_copy(update={"digest": None}) == record()
    assert load(tmp_path / "r.json").key == record().key


def test_a_record_without_intervals_and_settings_loads(tmp_path):
    """Those of earlier versions have neither."""
    content = json.loads(record().model_dump_json())
    del content["settings"], content["digest"], content["provenance"]["recipe_sha256"]
    for metric in content["metrics"].values():
        del metric["interval"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert load(tmp_path / "old.json") == record()


def test_the_committed_records_load():
    committed = json.loads((REPOSITORY / "results" / "reference" / "demo" / "table_rfid.json").read_text())
    assert len(committed["runs"]) == 56
    for run in committed["runs"]:
        found = Record.model_validate_json(json.dumps(run["record"]))
        assert found.key == run["key"]
        for metric in found.metrics.values():
            assert metric.interval.low <= metric.value <= metric.interval.high


def test_the_committed_records_of_denoisers_load_as_trained_here():
    committed = json.loads((REPOSITORY / "results" / "reference" / "demo" / "table_diffusion.json").read_text())
    for run in committed["runs"]:
        for found in (Record.model_validate_json(json.dumps(run[kind])) for kind in ("record", "training")):
            assert (found.denoiser.weights_source, found.denoiser.released) == ("retrained", None)
        assert Record.model_validate_json(json.dumps(run["record"])).key == run["key"]


def test_an_interval_runs_from_low_to_high():
    assert Interval(low=-1.0, high=2.0, method="normal").half_width == 1.5
    with pytest.raises(ValidationError, match=r"low 2\.0 is above its high 1\.0"):
        Interval(low=2.0, high=1.0, method="normal")


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_to_the_last_digit(value):
    metric = Metric(label="x", value=value)
    assert Metric.model_validate_json(metric.model_dump_json()) == metric


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_makes_no_record(value):
    with pytest.raises(ValidationError, match="finite"):
        Metric(label="PSNR", value=value)


OPTIONAL = {
    *{("version",), ("subject", "phase"), ("denoiser",), ("settings",), ("path",), ("digest",)},
    *{("provenance", "device", "processes"), ("provenance", "recipe_sha256")},
}
REQUIRED = [path for path in paths(record().model_dump()) if path not in OPTIONAL]


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_field_is_refused(path, tmp_path):
    content = json.loads(record().model_dump_json())
    inner = content
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    refused(content, tmp_path)


@pytest.mark.parametrize(
    "where", [(), ("subject",), ("data",), ("metrics", "psnr"), ("provenance",), ("provenance", "device")]
)
def test_an_extra_field_is_refused(where, tmp_path):
    content = json.loads(record().model_dump_json())
    inner = content
    for part in where:
        inner = inner[part]
    inner["extra"] = 1
    refused(content, tmp_path)


def refused(content, folder):
    (folder / "r.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"r\.json: is not a record of DC-AE Bench") as caught:
        load(folder / "r.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_files_that_hold_no_record_are_refused(text, tmp_path):
    (tmp_path / "r.json").write_bytes(text)
    with pytest.raises(ResultsError, match=r"r\.json: is not a record"):
        load(tmp_path / "r.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"r\.json: cannot be read"):
        load(tmp_path / "r.json")


def test_another_version_is_refused(tmp_path):
    refused({**json.loads(record().model_dump_json()), "version": 2}, tmp_path)


KEYED = [
    ("protocol", "reconstruction/photos-v2"),
    ("subject.weights_sha256", "0" * 64),
    ("data.sha256", "0" * 64),
    ("data.resolution", 128),
    ("provenance.config_sha256", "0" * 64),
    ("provenance.code_sha256", "0" * 64),
]


def test_key_changes_with_each_of_its_parts():
    keys = [record().key, *(with_(path, value).key for path, value in KEYED)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provenance.started", datetime(2027, 1, 1, tzinfo=UTC)),
        ("provenance.finished", datetime(2027, 1, 1, tzinfo=UTC)),
        ("provenance.seconds", 9.0),
        ("provenance.command", "other"),
        ("provenance.commit", None),
        ("metrics.psnr.value", 1.0),
    ],
)
def test_key_does_not_change_with_times_or_results(path, value):
    assert with_(path, value).key == record().key


def test_records_are_immutable():
    with pytest.raises(ValidationError):
        record().profile = "other"


def stated() -> Record:
    """The record as commands write it now, with the hash of its profile's recipe."""
    made = record().provenance.model_copy(update={"recipe_sha256": "9" * 64})
    return record().model_copy(update={"provenance": made})


def test_a_saved_record_carries_a_digest_of_itself(tmp_path):
    save(stated(), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["digest"] == digest_of(content) == load(tmp_path / "r.json").digest
    save(load(tmp_path / "r.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r.json").read_bytes()


@pytest.mark.parametrize("where", [("metrics", "psnr", "value"), ("provenance", "seed"), ("data", "images")])
def test_an_edited_record_is_refused(where, tmp_path):
    path = tmp_path / "r.json"
    save(stated(), path)
    content = json.loads(path.read_text())
    inner = content
    for part in where[:-1]:
        inner = inner[part]
    inner[where[-1]] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"r\.json: its digest is not that of its content.*restore the file"):
        load(path)


def test_a_record_whose_digest_was_removed_is_refused(tmp_path):
    save(stated(), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for nothing in ({}, {"digest": None}):
        (tmp_path / "r.json").write_text(json.dumps({k: v for k, v in content.items() if k != "digest"} | nothing))
        with pytest.raises(ResultsError, match=r"r\.json: its digest is missing"):
            load(tmp_path / "r.json")


def test_layout_of_the_file_does_not_matter(tmp_path):
    save(stated(), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(dict(reversed(content.items()))))
    assert load(tmp_path / "r.json").key == record().key


def test_a_record_without_metrics_is_refused(tmp_path):
    save(record().model_copy(update={"metrics": {}}), tmp_path / "r.json")
    with pytest.raises(ResultsError, match=r"r\.json: it holds no metrics"):
        load(tmp_path / "r.json")


def test_a_value_outside_its_own_interval_is_refused(tmp_path):
    interval = Interval(low=11.25, high=13.36, method="normal")
    metric = Metric(label="PSNR", value=99.9, interval=interval)
    save(record().model_copy(update={"metrics": {"psnr": metric}}), tmp_path / "r.json")
    with pytest.raises(ResultsError, match=r"r\.json: its psnr 99\.9 lies outside its own interval \[11\.25, 13\.36\]"):
        load(tmp_path / "r.json")
    for end in (11.25, 13.36, 13.36 * (1 + 1e-12)):
        assert metric.model_copy(update={"value": end}).in_interval
