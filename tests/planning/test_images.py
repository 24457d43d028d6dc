import json

from dcae_bench.planning.images import count_files
from dcae_bench.profile.profile import load_profile


def test_a_subset_and_ones_own_images_are_counted_once_they_are_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paper = load_profile("paper")
    subset = paper.model_copy(update={"partial": ("imagenet",), "data_roots": {"mine": "photos.zip"}})
    assert count_files(paper, "imagenet", "eval") == count_files(subset, "imagenet", "eval") == 50_000
    assert count_files(subset, "mine", "train") == 0
    for dataset, split, count in (("imagenet", "eval", 7), ("mine", "train", 5)):
        path = tmp_path / "results" / "paper" / "data" / dataset / f"{split}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"count": count}))
    assert count_files(paper, "imagenet", "eval") == 50_000
    assert count_files(subset, "imagenet", "eval") == 7 and count_files(subset, "mine", "train") == 5
