import pytest

from dcae_bench.base.errors import DataError
from dcae_bench.cli.main import main
from dcae_bench.data.external import ROOT_VARIABLE, external_datasets, find_dataset
from dcae_bench.data.photos import DATASETS
from dcae_bench.profile.profile import load_profile
from dcae_bench.profile.recipes import training_recipe

COUNTS = {
    "imagenet": {"train": 1_281_167, "eval": 50_000},
    "ffhq": {"train": 60_000, "eval": 10_000},
    "mjhq": {"eval": 30_000},
    "mapillary-vistas": {"train": 18_000, "eval": 2_000, "test": 5_000},
    "sa-1b": {"train": None},
}


def test_counts_are_the_publishers():
    assert {name: dataset.images for name, dataset in external_datasets().items()} == COUNTS
    assert not set(COUNTS) & set(DATASETS)


def test_the_profiles_folder_goes_before_the_variable(monkeypatch, tmp_path):
    imagenet = external_datasets()["imagenet"]
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert imagenet.root({}) is None
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert imagenet.root({}) == tmp_path / "imagenet"
    assert imagenet.root({"imagenet": "elsewhere"}).name == "elsewhere"


def test_a_name_is_a_known_set_or_a_folder_of_the_profile():
    assert find_dataset("ffhq", {"ffhq": "x"}) is external_datasets()["ffhq"]
    assert find_dataset("own", {"own": "x"}).images == {"train": None, "eval": None}
    with pytest.raises(DataError) as caught:
        find_dataset("imagenot", {"own": "x"})
    for name in ("'imagenot' does not exist", "photos-indoor", *COUNTS, "own"):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("known", [True, False])
def test_preparing_one_says_in_one_line_what_is_missing(name, known, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["dcae-bench", "prepare", name, "--profile", "paper", "--output", str(tmp_path)])
    if known:
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    else:
        monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    dataset = external_datasets()[name]
    counts = [f"{count:,} {split}" for split, count in COUNTS[name].items() if count]
    place = f"{tmp_path / name} is not a folder" if known else "its folder is not known"
    for part in (f"'{name}'", dataset.home, dataset.access, *counts, f"data_roots.{name}", "--root", place):
        assert part in line
    assert not list(tmp_path.iterdir())


def test_the_paper_profile_is_the_papers_recipe():
    profile = load_profile("paper")
    assert set(profile.datasets()) == set(COUNTS) - {"sa-1b"}
    assert [phase.optimizer.lr for phase in profile.training.phases.values()] == [6.4e-5, 1.6e-5, 5.4e-5]
    assert [phase.optimizer.weight_decay for phase in profile.training.phases.values()] == [0.1, 0.001, 0.01]
    assert [phase.optimizer.betas for phase in profile.training.phases.values()][2] == (0.5, 0.9)
    assert profile.training_sets("dc-ae-f32c32-mix", 2) == ("ffhq", "mapillary-vistas")
    assert training_recipe(profile, "dc-ae-f32c32-mix", 2)["datasets"] == ("ffhq", "mapillary-vistas")
    assert training_recipe(profile, "dc-ae-f32c32-mix", 3)["datasets"] == ("imagenet", "ffhq", "mapillary-vistas")
    for name in profile.autoencoders:
        if name.endswith("-in"):
            assert {profile.training_sets(name, phase) for phase in profile.phases} == {("imagenet",)}
            assert training_recipe(profile, name, 2)["plan"]["datasets"] == ["imagenet"]
            assert profile.autoencoders[name].model == profile.autoencoders[f"{name.removesuffix('in')}mix"].model


def test_the_paper_profile_has_the_papers_autoencoders():
    torch = pytest.importorskip("torch")
    from dcae_bench.models.zoo import build

    found = {}
    for name, entry in load_profile("paper").autoencoders.items():
        if name.endswith("-mix"):
            continue
        with torch.device("meta"):
            found[name] = build(entry.model).count_parameters()
    assert found == {
        "sd-vae-f32c32-in": 140_701_987,
        "dc-ae-f32c32-in": 323_356_460,
        "sd-vae-f64c128-in": 170_434_307,
        "dc-ae-f64c128-in": 676_896_140,
        "sd-vae-f128c512-in": 205_301_379,
        "dc-ae-f128c512-in": 1_120_682_252,
    }


def test_data_that_were_not_prepared_are_one_line(monkeypatch, capsys, tmp_path):
    arguments = ["--profile", "paper", "--autoencoder", "dc-ae-f32c32-in", "--weights", "w", "--data", "d"]
    monkeypatch.setattr("sys.argv", ["dcae-bench", "evaluate", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "d/imagenet/eval.json: cannot be read" in line and "dcae-bench prepare" in line
