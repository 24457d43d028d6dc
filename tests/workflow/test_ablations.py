"""The table of ablations by the workflow, from photographs to its figure."""

import json

import pytest
import yaml

from tests.tiny_ablations import content
from tests.workflow.test_workflow import Checkout

TABLE = "results/table_ablation.md"


@pytest.mark.long
def test_the_table_is_made_trains_nothing_twice_and_is_stale_with_its_profile(tmp_path):
    checkout = Checkout(tmp_path)
    tiny = content({("training", "datasets"): ["photos-indoor"], ("ablations", "phases"): []})
    sides = {("ablations", "low"): 32, ("ablations", "high"): 64}
    tiny["evaluation"]["sets"] = [{"dataset": "photos-indoor", "resolution": side} for side in sides.values()]
    for (_, key), side in sides.items():
        tiny["ablations"][key] = [f"photos-indoor-{side}"]
    (tmp_path / "config" / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    planned = {"prepare": 1, "train_phase": 3, "train_variant": 15, "evaluate_reconstruction": 1, "evaluate_variant": 7}
    assert checkout.planned(TABLE) == {**planned, "table_ablation": 1}
    done = checkout.snakemake(TABLE)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / TABLE).read_text()
    assert "Holds all 16 measurements" in page and "residual autoencoding" in page
    assert (tmp_path / "results" / "figures" / "ablation.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "results" / "table_ablation.json").read_text())
    assert found["left_out"] == [] and {effect["idea"] for effect in found["effects"]} >= {
        "phase 2",
        "GAN in every phase",
    }
    assert all(len(effect["seeds"]) == 2 for effect in found["effects"])
    assert all(arm["training_seconds"] for arm in found["arms"])
    assert checkout.planned(TABLE) == {}
    checkout.edit("config/tiny.yaml", "- 4\n", "- 5\n")  # the second seed
    assert checkout.planned(TABLE) == {"train_variant": 9, "evaluate_variant": 4, "table_ablation": 1}
