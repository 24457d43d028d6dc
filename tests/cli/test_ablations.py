"""Commands on variants of the ablations, and their table, where the user errs."""

import yaml

from dcae_bench.records.places import Places
from tests.tiny_ablations import content


def test_a_profile_without_ablations_has_no_table_of_them(refused, tmp_path):
    line = refused("table-ablation", "--profile", "released", "--output", tmp_path / "t.md")
    assert line == "profile released: has no 'ablations'; name a profile that does with --profile"
    assert not list(tmp_path.iterdir())


def test_a_misspelt_variant_is_told_the_known_ones(refused, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content()))
    words = ["train", "--profile", tmp_path / "tiny.yaml", "--autoencoder", "dc-ae-seed5", "--phase", "1"]
    line = refused(*words, "--data", tmp_path, "--output", tmp_path / "w", "--run-dir", tmp_path / "r")
    assert "dc-ae-seed5" in line and "dc-ae-seed4" in line and "dc-ae-plain-without-2-seed4" in line


def test_the_weights_before_a_skipped_phase_are_named(refused, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content()))
    words = ["train", "--profile", tmp_path / "tiny.yaml", "--autoencoder", "dc-ae-without-2-seed4", "--phase", "3"]
    line = refused(*words, "--data", tmp_path, "--output", tmp_path / "w", "--run-dir", tmp_path / "r")
    assert line == "--initial is missing: phase 3 starts from the weights of dc-ae-seed4, phase 1"


def test_records_of_variants_are_found_beside_the_profiles_own(tmp_path):
    places = Places(str(tmp_path))
    own = places.reconstruction("dc-ae@retrained", "tiny-32", 3)
    variant = places.ablations.reconstruction("dc-ae-seed4@retrained", "tiny-32", 3)
    training = places.ablations.training("dc-ae-seed4", 3, "record.json")
    for path in map(tmp_path.joinpath, (own, variant, training)):
        path.parent.mkdir(parents=True)
        path.touch()
    assert {str(path) for path in places.find_ablations()} == {own, variant, training}
    assert [str(path) for path in places.find_reconstructions()] == [own]
    assert Places.around(tmp_path / variant).own == places
