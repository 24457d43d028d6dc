"""The ablations of a profile: which trainings they are, which of them the profile does anyway, and what is refused."""

import copy

import pytest

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import sha256_json
from dcae_bench.profile.ablated import ablated, is_ordinary, of_autoencoder, trained_as, variants
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.profile.recipes import evaluation_recipe, reconstruction_recipe, trained_recipes, training_recipe
from dcae_bench.specs.variants import Variant
from tests.tiny_ablations import CONTENT, profile


def refusal(path, value) -> str:
    content = copy.deepcopy(CONTENT)
    inner = content
    for part in path[:-1]:
        inner = inner[part]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, "some.yaml")
    return str(caught.value)


def trained(loaded) -> list[tuple[str, int]]:
    spec = loaded.ablations
    return [trained_as(loaded, variant) for variant in spec.trainings(loaded.required_training)]


def test_every_training_once_and_each_after_the_one_it_starts_from():
    found = trained(profile())
    assert len(found) == len(set(found))
    one_seed = {("dc-ae", 1), ("dc-ae", 2), ("dc-ae", 3), ("dc-ae-without-2-seed3", 3)}
    one_seed |= {("dc-ae-plain-seed3", 1), ("dc-ae-plain-without-2-seed3", 3)}
    one_seed |= {("dc-ae-gan-seed3", number) for number in (1, 2, 3)}
    other = {(name.replace("seed3", "seed4"), number) for name, number in one_seed if "seed3" in name}
    assert set(found) == one_seed | other | {("dc-ae-seed4", number) for number in (1, 2, 3)}
    for name, number in found:
        before = of_autoencoder(profile(), name).before(name, number)
        assert before is None or found.index(before) < found.index((name, number))


def test_trainings_of_the_profile_are_reused_only_where_they_are_the_same():
    loaded = profile()
    assert is_ordinary(loaded, Variant(of="dc-ae", phases=(1, 2), seed=3))
    for other in ({"seed": 4}, {"shortcuts": False}, {"gan_everywhere": True}, {"phases": (1, 3)}):
        assert not is_ordinary(loaded, Variant(**{"of": "dc-ae", "phases": (1, 2), "seed": 3, **other}))
    # A shorter phase 3 leaves the phases before it in common.
    shorter = trained(profile({("ablations", "images"): {3: 4}}))
    assert ("dc-ae", 2) in shorter and ("dc-ae", 3) not in shorter and ("dc-ae-seed3", 3) in shorter
    assert ("dc-ae", 1) not in trained(profile({("ablations", "images"): {1: 4}}))


def test_a_variant_differs_from_the_profile_in_what_it_says_alone():
    loaded = profile()
    ordinary = {number: training_recipe(loaded, "dc-ae", number) for number in loaded.phases}

    def recipes(**changes):
        variant = Variant(**{"of": "dc-ae", "phases": (1, 2, 3), "seed": 3, **changes})
        view = ablated(loaded, variant)
        return {number: training_recipe(view, variant.name, number) for number in view.phases}

    assert recipes() == ordinary
    assert recipes(phases=(1, 3)) == {number: ordinary[number] for number in (1, 3)}
    assert recipes(seed=4) == {number: {**one, "seed": 4} for number, one in ordinary.items()}
    plain = {**ordinary[1]["model"], "shortcuts": False}
    assert recipes(shortcuts=False) == {number: {**one, "model": plain} for number, one in ordinary.items()}
    gan = ordinary[3]["plan"]["gan"]
    everywhere = {number: {**one, "plan": {**one["plan"], "gan": gan}} for number, one in ordinary.items()}
    assert gan is not None and recipes(gan_everywhere=True) == everywhere


def test_a_variant_is_measured_like_the_profile():
    loaded = profile()
    view = of_autoencoder(loaded, "dc-ae-seed4")
    assert view.training_seed == 4 and view.seed == 3
    assert evaluation_recipe(view) == evaluation_recipe(loaded)
    assert trained_recipes(view, "dc-ae-seed4", 2) == [
        training_recipe(view, "dc-ae-seed4", number) for number in (1, 2)
    ]
    assert view.variant_of("dc-ae-seed4", 2) == Variant(of="dc-ae", phases=(1, 2), seed=4)


def test_common_phases_keep_their_name():
    view = of_autoencoder(profile(), "dc-ae-without-2-seed3")
    assert view.phases == (1, 3) and view.before("dc-ae-without-2-seed3", 3) == ("dc-ae", 1)
    assert of_autoencoder(profile(), "dc-ae") is not None and "dc-ae" not in variants(profile())


def test_ablations_change_no_hash_of_the_profiles_own_results():
    loaded, bare = profile(), profile({("ablations",): None})
    item = bare.evaluation.sets[0]
    for number in bare.phases:
        assert training_recipe(loaded, "dc-ae", number) == training_recipe(bare, "dc-ae", number)
        one, other = (reconstruction_recipe(p, "dc-ae", "retrained", number, item) for p in (loaded, bare))
        assert sha256_json(one) == sha256_json(other)


def test_the_paper_profile_has_its_figure():
    paper = load_profile("paper")
    found = trained(paper)
    assert ("dc-ae-f32c32-mix", 3) in found and ("dc-ae-f8c4-plain-without-2-seed0", 3) in found
    assert len(found) == 6 + 9 - 3 + 3 + 6  # f8; f32 with its phases and GAN, of which 3 are its own; f64


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("ablations", "low"), ["tiny-99"], "evaluation set 'tiny-99'"),
        (("ablations", "residual"), ["dc-ea"], "ablations.residual has 'dc-ea', which is no autoencoder"),
        (("ablations", "residual"), ["sd-vae"], "has no residual autoencoding"),
        (("ablations", "gan"), ["dc-ae", "dc-ae"], "listed 2 times"),
        (("ablations", "seeds"), [], "seeds"),
        (("ablations", "plotted_phases"), [2, 3], "name phase 1 and others"),
        (("ablations", "plotted_phases"), [1, 3], "ablations.high_resolution needs a phase of another resolution"),
        (("ablations", "images"), {1: 5}, "not a multiple of batch_size 4"),
        (("ablations", "images"), {1: 0}, "images"),
        (("ablations", "autoencoders"), {"dc-ae": CONTENT["autoencoders"]["dc-ae"]}, "write it once"),
        (
            ("ablations", "autoencoders"),
            {"dc-ae-seed4": CONTENT["autoencoders"]["dc-ae"]},
            "give the autoencoder another",
        ),
        (("training",), None, "no 'training'"),
        (("training", "phases", 3, "gan"), None, "ablations.gan needs a GAN in the last phase"),
        (("training", "phases", 2, "resolution"), 16, "ablations.high_resolution needs a phase of another resolution"),
        (("ablations", "sets"), ["tiny-32"], "unknown key 'ablations.sets'"),
    ],
)
def test_refused(path, value, words):
    assert words in refusal(path, value)


def test_a_shorter_phase_has_a_shorter_warm_up():
    loaded = profile({("ablations", "images"): {1: 4}, ("training", "phases", 1, "optimizer", "warmup_images"): 2})
    view = of_autoencoder(loaded, "dc-ae-seed4")
    assert (view.phase("dc-ae-seed4", 1).images, view.phase("dc-ae-seed4", 1).optimizer.warmup_images) == (4, 1)
    assert view.phase("dc-ae-seed4", 2) == loaded.phase("dc-ae", 2)


def test_phase_3_can_be_left_out_of_the_plots():
    short = {("ablations", "plotted_phases"): [1, 2], ("ablations", "phases"): [], ("ablations", "gan"): []}
    measured = profile(short).ablations.measured(profile().required_training)
    assert {(one.shortcuts, one.phases) for one in measured} == {(True, (1,)), (True, (1, 2)), (False, (1,))}


def test_ablations_that_ask_nothing_are_refused():
    content = copy.deepcopy(CONTENT)
    content["ablations"] = {"seeds": [1], "low": ["tiny-16"]}
    with pytest.raises(ConfigError, match="name no autoencoder"):
        parse_profile(content, "some.yaml")


def test_the_discriminator_keeps_its_share_of_a_phase_of_other_images():
    content = copy.deepcopy(CONTENT)
    last = max(content["training"]["phases"])
    phase, lines = content["training"]["phases"][last], content["training"]["log_images"]
    phase["gan"]["start_images"] = phase["images"] // 2 // lines * lines
    loaded = parse_profile(content, "some.yaml")
    for variant in loaded.ablations.trainings(loaded.training):
        for number in variant.phases:
            spec = loaded.ablations.phase(loaded.training, variant, number)
            if spec.gan is not None:
                share = phase["gan"]["start_images"] / phase["images"]
                assert spec.gan.start_images % lines == 0
                assert 0 <= share * spec.images - spec.gan.start_images < lines
