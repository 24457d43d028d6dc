"""Variants are trained by the same command, share their first phases, and say what they are."""

import sys
from pathlib import Path

import pytest

from dcae_bench.cli.main import main
from dcae_bench.planning.meaning import Meaning
from dcae_bench.records.places import Places
from dcae_bench.records.record import load
from dcae_bench.specs.variants import Variant
from dcae_bench.weights.trained import read_statement
from tests.tiny_ablations import content, profile


@pytest.fixture
def train(tmp_path, write_packs, monkeypatch):
    """Trains a phase by the command line, at the place where the workflow trains it."""
    file, data = write_packs(tmp_path, content())
    places = Places(str(tmp_path / "results"))

    def run(name: str, phase: int, before: str | None = None, *, at: Places | None = None) -> Path:
        output = (at or places).weights(name, phase)
        words = ["train", "--profile", str(file), "--autoencoder", name, "--phase", str(phase), "--data", str(data)]
        words += ["--run-dir", str(tmp_path / "run"), "--output", output, *(["--initial", before] if before else [])]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, ended.value.code
        return Path(output)

    run.places, run.data = places, data
    return run


def test_a_variant_goes_on_from_the_training_that_it_has_in_common(train, capsys):
    first = train("dc-ae", 1)
    last = train("dc-ae-without-2-seed3", 3, str(first), at=train.places.ablations)
    record = load(last.with_name("record.json"))
    assert record.subject.variant == Variant(of="dc-ae", phases=(1, 3), seed=3)
    assert record.subject.phase == 3 and record.provenance.seed == 3
    before = load(first.with_name("record.json")).subject.trained
    assert [one.phase for one in record.subject.trained] == [1, 3] and record.subject.trained[:1] == before
    assert all(one.images == profile().training.phases[one.phase].images for one in record.subject.trained)
    statement = read_statement(last)
    assert (statement.name, statement.phase) == ("dc-ae-without-2-seed3", 3)
    meaning = Meaning(profile(), train.data)
    assert meaning.differences(record, last.with_name("record.json")) == ()
    shorter = Meaning(profile({("ablations", "images"): {3: 4}}), train.data)
    assert shorter.differences(record) != ()
    without = Meaning(profile({("ablations",): None}), train.data)
    assert "ablations" in without.differences(record)[0]
    # The weights of one variant are not taken for another's.
    capsys.readouterr()
    with pytest.raises(AssertionError):
        train("dc-ae-seed4", 2, str(first), at=train.places.ablations)
    assert "not of dc-ae-seed4" in capsys.readouterr().err


def test_another_seed_gives_other_weights_and_a_record_that_says_so(train):
    one, other = train("dc-ae", 1), train("dc-ae-seed4", 1, at=train.places.ablations)
    records = [load(path.with_name("record.json")) for path in (one, other)]
    assert records[0].subject.weights_sha256 != records[1].subject.weights_sha256
    assert [made.provenance.seed for made in records] == [3, 4]
    assert records[0].subject.variant is None and "variant" not in one.with_name("record.json").read_text()
    assert Meaning(profile(), train.data).differences(records[1]) == ()


def test_a_phase_in_common_is_trained_under_its_own_name(train, capsys):
    with pytest.raises(AssertionError):
        train("dc-ae-without-2-seed3", 1)
    assert "has this phase in common with dc-ae; train that" in capsys.readouterr().err


def test_a_gan_takes_part_in_every_phase_of_its_variant(train):
    record = load(train("dc-ae-gan-seed4", 1, at=train.places.ablations).with_name("record.json"))
    assert "gan" in record.metrics and record.subject.variant.gan_everywhere
