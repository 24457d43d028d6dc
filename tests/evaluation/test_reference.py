"""What the cache of reference features and an unfinished pass depend on."""

import pytest

from dcae_bench.base.files import PACKAGE
from dcae_bench.evaluation.reconstruction_run import Evaluation
from dcae_bench.evaluation.reference import MEASURING
from dcae_bench.extractors import by_name
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.fingerprint import Sources
from dcae_bench.running.processes import Worker
from dcae_bench.subjects.autoencoders import open_autoencoder
from dcae_bench.subjects.choose import choose_autoencoder


@pytest.mark.parametrize(
    "module",
    [
        "evaluation.reference",
        "evaluation.features",
        "evaluation.suite",
        "evaluation.reconstruction",
        "running.precision",
        "data.read_ahead",
        "data.pixels",
        "extractors.inception",
        "extractors.efficientnet",
    ],
)
def test_features_of_originals_belong_to_the_code_that_computes_them(module):
    assert f"dcae_bench.{module}" in Sources(PACKAGE).watched([*MEASURING, by_name.__name__])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"threads": 2}, {"precision": "bf16"}, {"pack_short_side": 32}])
def test_a_pass_of_other_conditions_is_not_gone_on_with(changes, tiny, crops):
    profile = load_profile(tiny.folder / "tiny.yaml")
    chosen = choose_autoencoder(profile, "sd-vae-f2c4", tiny.folder / "model.safetensors")
    model, subject = open_autoencoder(chosen)
    device = next(model.parameters()).device
    first, other = (
        Evaluation(found, model, subject, device, Worker()) for found in (profile, profile.model_copy(update=changes))
    )
    assert first._recipe(crops) != other._recipe(crops)
    assert first._recipe(crops) == Evaluation(profile, model, subject, device, Worker())._recipe(crops)
