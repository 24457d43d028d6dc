"""A table is made of records that are what their profile asks for now, and says what it lacks and leaves out."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import sha256_json
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.cli.main import main
from dcae_bench.data.photos import load_manifest
from dcae_bench.metrics.intervals import mean_interval
from dcae_bench.planning import meaning
from dcae_bench.planning.meaning import (
    MODULES,
    Meaning,
    Meanings,
    expected_generations,
    expected_reconstructions,
    name_of,
)
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.profile.recipes import denoiser_recipe, generation_recipe, reconstruction_recipe, training_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.places import Places
from dcae_bench.records.record import Interval, Metric, Record, load, save
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.subjects.own import own_files_sha256
from dcae_bench.tables.gather import gather
from dcae_bench.tables.rebuild import check_tables
from dcae_bench.weights import released as store

NAME, PHASE = "dc-ae-f32c32", 3


def changed(profile: Profile, **fields) -> Profile:
    """The profile with some fields replaced; nested ones by names joined with double underscores."""
    content = profile.model_dump()
    for path, value in fields.items():
        inner = content
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        for part in parents:
            inner = inner[part]
        inner[last] = value
    return Profile.model_validate(content)


@pytest.fixture(scope="module")
def demo():
    return load_profile("demo")


def stated(record: Record, recipe: object, seed: int, **provenance) -> Record:
    facts = {"recipe_sha256": sha256_json(recipe), "code_sha256": fingerprint(MODULES[record.kind]), "seed": seed}
    made = record.provenance.model_copy(update={**facts, **provenance})
    return record.model_copy(update={"provenance": made})


@pytest.fixture
def results(tmp_path, demo, make_record):
    """Results of one autoencoder of the demo: its three trainings and its reconstructions after phase 3."""
    places = Places(str(tmp_path / "results" / "demo"))
    for phase in demo.phases:
        record = make_record(phase=phase, kind="training")
        sets = sha256_json([load_manifest(name).sha256 for name in demo.training_sets("dc-ae-f32c32", phase)])
        data = record.data.model_copy(update={"sha256": sets})
        record = stated(record.model_copy(update={"data": data}), training_recipe(demo, NAME, phase), demo.seed)
        save(record, Path(places.training(NAME, phase, "record.json")))
    for item in demo.evaluation.sets:
        write_reconstruction(places, demo, item, make_record)
    return places


def write_reconstruction(places, demo, item, make_record, **changes):
    values = {"psnr": np.linspace(18, 24, 40), "ssim": np.linspace(0.5, 0.7, 40)}
    values["lpips_alex_u8"] = np.linspace(0.2, 0.4, 40)
    facts = {"data_set": item.dataset, "resolution": item.resolution, "phase": PHASE}
    record = make_record(**facts, data_sha256=load_manifest(item.dataset).sha256)
    metrics = dict(record.metrics)
    for name, column in values.items():
        found = mean_interval(column)
        interval = Interval(low=found.low, high=found.high, method=found.method)
        metrics[name] = metrics[name].model_copy(update={"value": float(np.mean(column)), "interval": interval})
    recipe = reconstruction_recipe(demo, NAME, "retrained", PHASE, item)
    record = stated(record.model_copy(update={"metrics": metrics, **changes}), recipe, demo.seed)
    path = Path(places.reconstruction(f"{NAME}@retrained", item.label, PHASE))
    save(record, path)
    pq.write_table(pa.table({"index": np.arange(40), **values}), str(path).replace(".json", ".images.parquet"))
    return path


def read(profile, places, others=False, beside=()):
    return gather(
        profile,
        Path(places.data),
        records=places.find_reconstructions(),
        beside=beside,
        kinds=("reconstruction",),
        expected=expected_reconstructions(profile),
        others=others,
    )


def reasons(found) -> set[str]:
    return {reason for given in found.holdings.left_out.values() for reason in given}


def test_records_that_the_profile_means_are_held(demo, results):
    found = read(demo, results)
    assert len(found.records) == len(demo.evaluation.sets) and not found.holdings.left_out
    assert not found.holdings.unchecked and not found.holdings.doubts
    assert {name_of(record) for record in found.records.values()} <= set(found.holdings.expected)
    assert len(found.holdings.expected) == len(set(found.holdings.expected)) == 56


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 8}, "its seed is {seed}, the profile's 8"),
        ({"training__phases__3__optimizer__lr": 1e-6}, "the profile asks for other settings now than when it was made"),
        ({"training__phases__1__optimizer__lr": 1e-6}, "phase 1 of dc-ae-f32c32: the profile asks for other settings"),
        ({"evaluation__batch_size": 3}, "the profile asks for other settings now than when it was made"),
        ({"evaluation__protocol": "reconstruction/paper-v1", "evaluation__crops_per_photo": 1}, "its protocol is"),
        ({"precision": "bf16"}, "the profile asks for other settings now than when it was made"),
    ],
)
def test_records_of_another_configuration_are_named_and_left_out(demo, results, change, reason):
    profile = changed(demo, **change)
    found = read(profile, results)
    assert not found.records and len(found.holdings.left_out) == len(demo.evaluation.sets)
    assert any(given.startswith(reason.format(seed=demo.seed)) for given in reasons(found)), reasons(found)
    assert all("is left out" in line and "--other-configurations" in line for line in found.complaints())
    shown = read(profile, results, others=True)
    assert len(shown.records) == len(demo.evaluation.sets) and set(shown.holdings.doubts) == set(shown.records)


def test_a_phase_that_was_not_trained_this_way_leaves_the_earlier_ones_alone(demo, results, make_record):
    profile = changed(demo, training__phases__3__optimizer__lr=1e-6)
    record = load(Path(results.training(NAME, 2, "record.json")))
    assert Meaning(profile, Path(results.data)).differences(record) == ()


@pytest.mark.parametrize("kind", ["reconstruction", "training"])
def test_other_code_is_another_configuration(demo, results, monkeypatch, kind):
    true = meaning.fingerprint
    monkeypatch.setattr(meaning, "fingerprint", lambda name: "0" * 64 if name == MODULES[kind] else true(name))
    found = read(demo, results)
    assert not found.records and any(f"the code that makes a record of {kind} is another" in r for r in reasons(found))


def test_other_images_are_another_configuration(demo, results, monkeypatch):
    other = load_manifest(demo.evaluation.sets[0].dataset).model_copy(update={"name": "other"})
    monkeypatch.setattr(meaning, "load_manifest", lambda name: other)
    found = read(demo, results)
    assert not found.records and any(r.startswith("its images are not those of") for r in reasons(found))


def test_weights_that_another_training_left_are_another_configuration(demo, results):
    path = Path(results.training(NAME, PHASE, "record.json"))
    record = load(path)
    subject = record.subject.model_copy(update={"weights_sha256": "0" * 64})
    save(record.model_copy(update={"subject": subject}), path)
    assert reasons(read(demo, results)) == {"phase 3 of dc-ae-f32c32: its weights are not those that the training left"}


def test_prepared_images_of_files_are_compared_where_they_are(tmp_path, make_record):
    profile = load_profile("released")
    item = next(item for item in profile.evaluation.sets if item.dataset == "imagenet")
    record = make_record(
        data_set="imagenet", resolution=item.resolution, protocol="reconstruction/paper-v1", phase=None
    )
    recipe = reconstruction_recipe(profile, "dc-ae-f32c32", "retrained", None, item)
    record = stated(record, recipe, profile.seed)
    assert Meaning(profile, tmp_path).differences(record) == (), "not prepared here, so not compared"
    index = tmp_path / "imagenet" / "eval.json"
    index.parent.mkdir()
    for hashed, wanted in (("d" * 64, ()), ("e" * 64, ("its images are not those of imagenet now",))):
        index.write_text(json.dumps({"tree_sha256": hashed}))
        assert Meaning(profile, tmp_path).differences(record) == wanted


@pytest.fixture
def released(tmp_path, monkeypatch, make_record):
    """A record of released weights that were fetched, and what the profile ``released`` says of it with such files."""
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    profile, name = load_profile("released"), "dc-ae-f32c32-in-1.0"
    item = next(item for item in profile.evaluation.sets if item.dataset == "imagenet")
    facts = {"data_set": "imagenet", "resolution": item.resolution, "phase": None, "weights_source": "released"}
    record = make_record(**facts, autoencoder=name, protocol="reconstruction/paper-v1")
    record = stated(record, reconstruction_recipe(profile, name, "released", None, item), profile.seed)

    def of(content: bytes, commit: str | None = None) -> Record:
        about = {"weights_sha256": hashlib.sha256(content).hexdigest(), "weights_commit": commit}
        return record.model_copy(update={"subject": record.subject.model_copy(update=about)})

    def fetched(content: bytes) -> None:
        (tmp_path / content.decode()).write_bytes(content)
        store.fetch(name, path=tmp_path / content.decode())

    def catalogued(**fields) -> None:
        preset = catalogue().autoencoders[name]
        weights = preset.weights.model_copy(update=fields)
        monkeypatch.setitem(catalogue().autoencoders, name, preset.model_copy(update={"weights": weights}))

    def differences(record: Record) -> tuple[str, ...]:
        return Meaning(profile, tmp_path / "data").differences(record)

    return SimpleNamespace(of=of, fetched=fetched, catalogued=catalogued, differences=differences)


def test_released_weights_are_those_that_are_fetched_now(released):
    assert released.differences(released.of(b"old")) == (), "nothing was fetched here, so nothing is compared"
    released.fetched(b"old")
    assert released.differences(released.of(b"old")) == ()
    released.fetched(b"new")
    (reason,) = released.differences(released.of(b"old"))
    old, new = (hashlib.sha256(name).hexdigest()[:12] for name in (b"old", b"new"))
    assert reason == f"its weights of dc-ae-f32c32-in-1.0 are {old}, those that were fetched are {new}"


def test_another_revision_or_hash_in_the_catalogue_is_another_configuration(released):
    """Also where nothing is fetched, so that results from elsewhere fill no cell."""
    released.catalogued(revision="b" * 40)
    assert released.differences(released.of(b"old", "b" * 40)) == ()
    (reason,) = released.differences(released.of(b"old", "a" * 40))
    assert f"are of revision {'a' * 40}, the catalogue's of {'b' * 40}" in reason
    released.catalogued(sha256=hashlib.sha256(b"old").hexdigest())
    assert released.differences(released.of(b"old", "a" * 40)) == (), "the same file in two revisions"
    (reason,) = released.differences(released.of(b"new", "b" * 40))
    assert "those in the catalogue are" in reason


def test_the_commit_of_fetched_weights_is_known_by_their_hash(released, tmp_path):
    """A receipt of an earlier revision is not that of the catalogue's."""
    name, sha256 = "dc-ae-f32c32-in-1.0", hashlib.sha256(b"old").hexdigest()
    receipt = store.Receipt(path=tmp_path / "old", sha256=sha256, size=3, commit="a" * 40)
    store.receipts_path().parent.mkdir(parents=True)
    store.receipts_path().write_text(json.dumps({"receipts": {name: receipt.model_dump(mode="json")}}))
    assert store.commit_of(name, sha256) == "a" * 40 and store.commit_of(name, "0" * 64) is None
    released.catalogued(revision="a" * 40)
    assert released.differences(released.of(b"old")) == ()
    released.catalogued(revision="b" * 40)
    (reason,) = released.differences(released.of(b"old"))
    assert f"are of revision {'a' * 40}, the catalogue's of {'b' * 40}" in reason


def test_edited_files_of_an_own_autoencoder_are_another_configuration(demo, tmp_path, make_record):
    file = tmp_path / "mine.safetensors"
    entry = {"model": demo.autoencoders[NAME].model.model_dump(mode="json"), "weights": "own", "file": str(file)}
    profile = changed(demo, autoencoders={**demo.model_dump()["autoencoders"], "mine": entry})
    item = demo.evaluation.sets[0]
    facts = {"data_set": item.dataset, "resolution": item.resolution, "phase": None, "weights_source": "own"}
    record = make_record(**facts, autoencoder="mine", data_sha256=load_manifest(item.dataset).sha256)
    record = stated(record, reconstruction_recipe(profile, "mine", "own", None, item), profile.seed)
    file.write_bytes(b"first")
    files = {"files_sha256": own_files_sha256("mine", profile.autoencoders["mine"])}
    files["weights_sha256"] = hashlib.sha256(b"first").hexdigest()
    record = record.model_copy(update={"subject": record.subject.model_copy(update=files)})
    assert Meaning(profile, tmp_path).differences(record) == ()
    file.write_bytes(b"other")
    (reason,) = Meaning(profile, tmp_path).differences(record)
    assert reason == "the files of mine are others now than when it was measured"
    # Samples are described when they are evaluated, which may be after the files were edited.
    files["files_sha256"] = own_files_sha256("mine", profile.autoencoders["mine"])
    later = record.model_copy(update={"subject": record.subject.model_copy(update=files)})
    assert Meaning(profile, tmp_path).differences(later) == (reason,)
    file.unlink()
    assert Meaning(profile, tmp_path).differences(record) == (), "not here, so not compared"


def test_records_from_before_recipes_stand_beside_and_nowhere_else(demo, results, make_record, tmp_path):
    old = tmp_path / "old.json"
    save(make_record(data_set="ffhq"), old)
    own = gather(demo, tmp_path, records=[old], beside=[], kinds=("reconstruction",), expected=(), others=False)
    assert not own.records and "was not checked" in own.holdings.left_out[old][0]
    beside = read(demo, results, beside=[old])
    assert set(beside.beside) == {old} and "was not checked" in beside.holdings.doubts[old][0]


def test_the_standing_of_records_changes_with_them_and_with_what_is_said_of_them(demo, results, monkeypatch):
    """Tables show records that no job makes; their rules rerun when such a record is another, or stands otherwise."""
    path = str(results.find_reconstructions()[0])

    def standing(profile=demo) -> str:
        return Meanings(Meaning(profile, Path(results.data))).standing([path])

    first = standing()
    assert standing() == first and standing(changed(demo, seed=8)) != first
    true = meaning.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(meaning, "fingerprint", lambda name: true(name) + "edited")
        assert standing() != first
    content = Path(path).read_text()
    forge(Path(path), with_psnr(21.1))
    assert standing() != first
    Path(path).write_text("{")
    assert standing() != first
    Path(path).write_text(content)
    assert standing() == first


def test_records_beside_get_the_same_checks(demo, results, make_record, tmp_path):
    """Against their own profile: another seed is left out, a profile that is not known is marked."""
    profile = load_profile("paper")
    others = [path for path in results.find_reconstructions()]
    found = gather(profile, tmp_path, records=[], beside=others, kinds=("reconstruction",), expected=(), others=False)
    assert set(found.beside) == set(others) and not found.holdings.doubts
    made = load(others[0])
    save(made.model_copy(update={"provenance": made.provenance.model_copy(update={"seed": 99})}), others[0])
    save(load(others[1]).model_copy(update={"profile": "mine"}), others[1])
    found = gather(profile, tmp_path, records=[], beside=others, kinds=("reconstruction",), expected=(), others=False)
    assert set(found.holdings.left_out) == {others[0]} and others[0] not in found.beside
    assert "profile mine is not in config/" in found.holdings.doubts[others[1]][0]


def forge(path, change):
    """Edit a record and give it the digest of its new content, as somebody would who wants another number."""
    save(change(load(path)), path)


def with_psnr(value, low=None, high=None):
    def change(record):
        metric = record.metrics["psnr"]
        ends = {"low": metric.interval.low if low is None else low}
        ends["high"] = metric.interval.high if high is None else high
        interval = metric.interval.model_copy(update=ends)
        psnr = metric.model_copy(update={"value": value, "interval": interval})
        return record.model_copy(update={"metrics": {**record.metrics, "psnr": psnr}})

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_psnr(99.9), "lies outside its own interval"),
        (with_psnr(99.9, high=100.0), "its psnr 99.9 is not the mean of its images, 21"),
        (with_psnr(21.0, low=20.9, high=21.1), "the interval of its psnr does not follow from its images"),
        (lambda r: r.model_copy(update={"data": r.data.model_copy(update={"images": 39})}), "it tells of 39 images"),
        (
            lambda r: r.model_copy(update={"metrics": {k: v for k, v in r.metrics.items() if k != "ssim"}}),
            "it holds no ssim",
        ),
        (lambda r: r.model_copy(update={"metrics": {}}), "it holds no metrics"),
        (lambda r: r.model_copy(update={"kind": "latents"}), "is a record of latents; pass records of reconstruction"),
    ],
)
def test_forged_records_are_refused(demo, results, change, words):
    path = results.find_reconstructions()[0]
    forge(path, change)
    with pytest.raises(ResultsError, match=words) as caught:
        read(demo, results)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    # Beside, one record of another profile must not cost the whole table.
    found = gather(demo, path, records=[], beside=[path], kinds=("reconstruction",), expected=(), others=True)
    assert not found.beside and words in found.holdings.damaged[path]
    assert [line for line in found.complaints() if f"{path} is left out: " in line and words in line]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[]", None])
def test_one_damaged_record_beside_costs_no_table(results, content, monkeypatch, capsys, tmp_path):
    records = results.find_reconstructions()
    beside = tmp_path / "beside" / "reconstruction" / "x@released" / "bad<b>.json"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(content) if content is not None else beside.mkdir()
    command = ["table", "--output", tmp_path / "t.md", "--beside", tmp_path / "beside", *records]
    assert run(monkeypatch, *command) == 0
    page, told = (tmp_path / "t.md").read_text(), capsys.readouterr().err
    assert f"{beside} is left out: " in told and "bad&lt;b>.json`: " in page
    assert f"Holds {len(records)} of the " in page
    assert json.loads((tmp_path / "t.json").read_text())["damaged"][0]["path"] == str(beside)
    assert not list(check_tables(tmp_path))


def test_values_of_images_that_cannot_be_read_are_one_line(demo, results):
    path = str(results.find_reconstructions()[0]).replace(".json", ".images.parquet")
    Path(path).write_bytes(b"PAR1 and no more")
    with pytest.raises(ResultsError, match=r"images\.parquet: cannot be read") as caught:
        read(demo, results)
    assert "\n" not in str(caught.value)


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_page_says_what_it_expected_and_what_it_has(results, monkeypatch, capsys, tmp_path):
    records = results.find_reconstructions()
    assert run(monkeypatch, "table", "--output", tmp_path / "t.md", *records) == 0
    page = (tmp_path / "t.md").read_text()
    assert f"Holds {len(records)} of the 56 measurements that the profile asks for. Missing: " in page
    assert "sd-vae-f32c32@retrained after phase 1 on " in page and "Left out" not in page
    forge(records[0], lambda r: r.model_copy(update={"provenance": r.provenance.model_copy(update={"seed": 99})}))
    assert run(monkeypatch, "table", "--output", tmp_path / "t.md", *records) == 0
    page, told = (tmp_path / "t.md").read_text(), capsys.readouterr().err
    assert f"Holds {len(records) - 1} of the 56" in page and f"- `{records[0]}`: its seed is 99" in page
    assert f"{records[0]} is left out: its seed is 99" in told
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["left_out"][0]["path"] == str(records[0]) and len(content["expected"]) == 56
    assert len(content["absent"]) == 56 - len(records) + 1 and len(content["runs"]) == len(records) - 1


def test_the_option_shows_other_configurations_marked_and_judges_nothing_by_them(results, monkeypatch, tmp_path):
    records = results.find_reconstructions()
    forge(records[0], lambda r: r.model_copy(update={"provenance": r.provenance.model_copy(update={"seed": 99})}))
    assert run(monkeypatch, "table", "--other-configurations", "--output", tmp_path / "t.md", *records) == 0
    page = (tmp_path / "t.md").read_text()
    assert "of another configuration: its seed is 99" in page and "Left out" not in page
    assert f"Holds {len(records) - 1} of the 56" in page


def test_samples_and_trainings_of_denoisers_are_checked_too(demo, tmp_path, make_record):
    (row, *_) = demo.diffusion.rows
    resolved = demo.row(row)
    hashes = [load_manifest(name).sha256 for name in resolved.data.datasets]
    data_sha256 = hashes[0] if len(hashes) == 1 else sha256_json(hashes)
    denoiser = DenoiserSubject(
        **{"row": row, "name": "uvit-nano", "family": "uvit", "process": "vp", "patch": 1, "tokens": 64},
        **{"classes": None, "parameters": 5, "gmacs": 1.0, "weights_sha256": "e" * 64},
    )
    places = Places(str(tmp_path / "demo"))
    base = make_record(kind="generation", protocol="generation/photos-v1", data_sha256=data_sha256)
    gfd = {"gfd": Metric(label="gFD", value=3.0)}
    base = base.model_copy(update={"data": base.data.model_copy(update={"images": demo.diffusion.samples})})
    sampled = base.model_copy(update={"denoiser": denoiser, "settings": {"guidance": "1"}, "metrics": gfd})
    trained = sampled.model_copy(update={"kind": "diffusion_training"})
    save(
        stated(sampled, generation_recipe(demo, row, 1.0), demo.seed),
        Path(places.generation(row, "1")),
    )
    save(stated(trained, denoiser_recipe(demo, row), demo.seed), Path(places.denoiser(row, "record.json")))

    def left_out(profile):
        found = gather(
            profile,
            tmp_path,
            records=places.find_generations(),
            beside=[],
            kinds=("generation", "diffusion_training"),
            expected=expected_generations(profile),
            others=False,
        )
        return {path.parent.parent.name for path in found.holdings.left_out}

    assert left_out(demo) == set()
    assert left_out(changed(demo, diffusion__sample_batch=1)) == {"generation"}
    assert left_out(changed(demo, diffusion__samples=7)) == {"generation"}
    training = resolved.spec.training
    for change in ({f"diffusion__trainings__{training}__optimizer__lr": 1e-7}, {"seed": 99}):
        assert left_out(changed(demo, **change)) == {"generation", "diffusion"}
    assert left_out(changed(demo, training__phases__2__optimizer__lr=1e-7)) == {"generation", "diffusion"}
