import json

import pytest

from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.images import count_files
from dcae_bench.planning.jobs import _Jobs
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import Needs
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


def test_a_preparation_reads_the_images_that_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subset = load_profile("paper").model_copy(update={"partial": ("imagenet",)})
    jobs = _Jobs(Estimator(subset, Rates.read()), Needs())
    monkeypatch.setattr(jobs.estimator, "splits_to_read", lambda _needs: {"imagenet": ["eval"]})
    (whole,) = jobs._preparations()
    path = tmp_path / "results" / "paper" / "data" / "imagenet" / "eval.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"count": 500}))
    (part,) = jobs._preparations()
    assert whole.read_gib > 0 and part.read_gib == pytest.approx(whole.read_gib / 100)
