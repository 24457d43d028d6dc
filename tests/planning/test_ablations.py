"""Jobs and plans of the ablations."""

import pytest

from dcae_bench.base.errors import ConfigError
from dcae_bench.planning.ablations import AblationJobs
from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.meaning import expected_ablations
from dcae_bench.planning.rates import Rates
from dcae_bench.planning.targets import all_targets, needs_of
from dcae_bench.records.places import Places
from tests.tiny_ablations import profile

TABLE = "results/table_ablation.md"


def jobs(**missing) -> AblationJobs:
    return AblationJobs(profile(), Places.of("tiny"), missing)


def test_variants_lie_apart_from_the_profiles_own_results():
    found = jobs()
    assert found.of("dc-ae").root == "results/tiny" and found.of("dc-ae-seed4").root == "results/tiny/ablations"
    assert found.weights_before("dc-ae-without-2-seed3", 3) == [Places.of("tiny").weights("dc-ae", 1)]
    assert found.weights_before("dc-ae-seed4", 1) == []
    assert found.weights_before("dc-ae-seed4", 3) == [found.places.weights("dc-ae-seed4", 2)]
    own = [path for path in found.records if "/ablations/" not in path]
    assert own == [
        Places.of("tiny").reconstruction("dc-ae@retrained", label, phase)
        for phase in (3, 1, 2)
        for label in ("tiny-32", "tiny-64")
    ]
    assert set(found.variant_records) == {p for p in (*found.records, *found.training_records) if "/ablations/" in p}


def test_places_around_a_variant_are_its_own():
    places = Places.of("tiny").ablations
    assert places.own == Places.of("tiny") and places.ablations == places and Places.of("tiny").own == places.own


def test_a_set_that_is_missing_here_is_left_out():
    found = AblationJobs(profile(), Places.of("tiny"), {"tiny-64": ("no data",)})
    assert found.labels == ["tiny-32"] and not any("tiny-64" in path for path in found.records)


def test_every_record_of_the_table_is_expected():
    names = expected_ablations(profile())
    assert len(names) == len(set(names)) == len(jobs().records)
    assert "dc-ae-plain-without-2-seed4@retrained after phase 3 on tiny-32" in names


def test_a_plan_counts_every_job_once():
    needs = needs_of(profile(), TABLE)
    assert needs.trainings == tuple(jobs().trained) and len(needs.evaluations) == 12
    assert TABLE in all_targets(profile())
    one = needs_of(profile(), jobs().places.reconstruction("dc-ae-without-2-seed3@retrained", "tiny-32", 3))
    assert one.trainings == (("dc-ae", 1), ("dc-ae-without-2-seed3", 3)) and len(one.evaluations) == 1
    with pytest.raises(ConfigError):
        needs_of(profile({("ablations",): None}), TABLE)


def test_a_gan_in_every_phase_costs_more():
    estimator = Estimator(profile(), Rates.read())
    gan, usual = estimator.training("dc-ae-gan-seed4", 1), estimator.training("dc-ae-seed4", 1)
    assert gan.cpu_hours > usual.cpu_hours
    assert estimator.training("dc-ae-gan-seed4", 3).cpu_hours == estimator.training("dc-ae", 3).cpu_hours
