import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import CONFIG, sha256_json
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.profile.recipes import evaluation_recipe, training_recipe

DEMO = yaml.safe_load((CONFIG / "demo.yaml").read_text())
del DEMO["ablations"]  # they need the parts that tests here remove; test_ablations.py tests them


DEMO_EVALUATION = "fccb3b8c9351310612db7c8caba970f0622588e4363889137386ca47d7bd1f66"
DEMO_TRAINING = "bacf2e6c91ac9171eeae241f4aa6a166a1de8b0d967cabad9a56673f3594255c"


def changed(*path, value):
    """The demo profile with one value replaced (or, at a new key, added)."""
    content = copy.deepcopy(DEMO)
    inner = content
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return content


def without(*path):
    content = changed(*path, value=None)
    inner = content
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return content


def refusal(content) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, "some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ") and "\n" not in message
    return message


def mappings(content, path=()):
    """Paths of every mapping whose keys the schema fixes."""
    if isinstance(content, dict):
        named = {("autoencoders",), ("training", "phases")}
        named |= {("diffusion", part) for part in ("denoisers", "data", "trainings", "rows")}
        if path not in named and path[-1:] != ("lr",):
            yield path
        for key, value in content.items():
            yield from mappings(value, (*path, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from mappings(value, (*path, number))


def test_every_committed_profile_loads():
    names = [path.stem for path in CONFIG.glob("*.yaml")]
    assert "demo" in names
    for name in names:
        profile = load_profile(name)
        assert profile == load_profile(CONFIG / f"{name}.yaml")
        assert profile.name == name
    assert load_profile("demo").phases == (1, 2, 3)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"profile 'dmeo': .*known profiles: .*demo"):
        load_profile("dmeo")


def test_a_path_is_read_as_a_path(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(changed("name", value="own")))
    assert load_profile(str(path)).name == "own"
    with pytest.raises(ConfigError, match=r"missing\.yaml cannot be read"):
        load_profile(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml cannot be read"):
        load_profile(tmp_path / "folder.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\n---\nb: 2\n", "not valid YAML .*single document"),
        (b"a: [1\n", "not valid YAML"),
        (b"a: b: c\n", "not valid YAML"),
        (b"a: \xff\xfe\n", "not valid YAML"),
        (b"a: !!python/object:os.system {}\n", "not valid YAML"),
        (b"seed: 2020-13-45\n", "not valid YAML"),
        (b"- name: demo\n", "is list, not a mapping"),
        (b"demo\n", "is str, not a mapping"),
        (b"", "is NoneType, not a mapping"),
        (b"1: 2\n", "unknown key|missing|string"),
    ],
)
def test_files_that_hold_no_profile_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_profile(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "field", "suggestion"),
    [
        (changed("pack_short_sid", value=256), "pack_short_sid", "pack_short_side"),
        (changed("training", "checkpoint_image", value=1), "training.checkpoint_image", "checkpoint_images"),
        (changed("training", "phases", 1, "batchsize", value=8), "training.phases.1.batchsize", "batch_size"),
        (changed("training", "phases", 3, "gan", "adaptiv", value=True), "training.phases.3.gan.adaptiv", "adaptive"),
        (
            changed("autoencoders", "dc-ae-f32c32", "model", "encoder", "widht", value=[16]),
            "autoencoders.dc-ae-f32c32.model.encoder.widht",
            "widths",
        ),
        (changed("autoencoders", "sd-vae-f32c32", "model", "norm_group", value=8), "norm_group", "norm_groups"),
    ],
)
def test_a_misspelt_key_suggests_the_right_one(content, field, suggestion):
    message = refusal(content)
    assert field in message and f"did you mean '{suggestion}'?" in message


@given(
    path=st.sampled_from(sorted(mappings(DEMO), key=repr)),
    key=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20).map(lambda text: f"zz_{text}"),
    value=st.none()
    | st.integers()
    | st.text()
    | st.lists(st.text(), max_size=3)
    | st.dictionaries(st.text(), st.text()),
)
def test_any_unknown_key_anywhere_is_refused_by_name(path, key, value):
    message = refusal(changed(*path, key, value=value))
    assert key in message and "unknown key" in message


@pytest.mark.parametrize("path", [path for path in sorted(mappings(DEMO), key=repr) if path])
def test_a_required_part_must_not_become_something_else(path):
    assert ".".join(map(str, path)) in refusal(changed(*path, value="nonsense"))


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (changed("seed", value=1.5), ["'seed' is 1.5"]),
        (changed("seed", value=-1), ["'seed' is -1", "greater than or equal to 0"]),
        (changed("precision", value="fp8"), ["'precision' is 'fp8'", "'bf16'"]),
        (changed("threads", value="many"), ["'threads' is 'many'"]),
        (changed("name", value="My Profile"), ["'name' is 'My Profile'"]),
        (changed("training", "loss", "l1", value=float("inf")), ["training.loss.l1", "finite"]),
        (changed("training", "phases", 1, "optimizer", "lr", value=float("nan")), ["training.phases.1.optimizer.lr"]),
        (changed("training", "phases", 1, "optimizer", "lr", value=0), ["training.phases.1.optimizer.lr"]),
        (changed("training", "phases", 1, "optimizer", "betas", value=[0.9, 1.0]), ["optimizer.betas", "less than 1"]),
        (changed("training", "phases", 1, "trainable", value=[]), ["training.phases.1.trainable"]),
        (changed("training", "phases", 1, "trainable", value=["encoder"]), ["trainable.0", "'encoder_head'"]),
        (changed("training", "phases", 1, "images", value=8001), ["8001 is not a multiple of batch_size 8"]),
        (changed("training", "checkpoint_images", value=100), ["checkpoint_images 100", "log_images 160"]),
        (changed("training", "log_images", value=100), ["100"]),
        (changed("training", "ema", "decay", value=1.0), ["training.ema.decay", "less than 1"]),
        (changed("training", "datasets", value=[]), ["training.datasets"]),
        (changed("autoencoders", "dc-ae-f32c32", "model", "family", value="vq"), ["dc-ae-f32c32", "'dc-ae', 'sd-vae'"]),
        (changed("autoencoders", value={}), ["autoencoders"]),
        (changed("evaluation", "protocol", value="v2"), ["evaluation.protocol", "reconstruction/photos-v1"]),
        (without("seed"), ["key 'seed' is missing"]),
        (without("training", "phases", 2, "optimizer", "lr"), ["key 'training.phases.2.optimizer.lr' is missing"]),
    ],
)
def test_wrong_values_are_refused_with_field_value_and_reason(content, fragments):
    message = refusal(content)
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("phases", [[2], [1, 3], [2, 3], []])
def test_phases_start_at_1_without_gaps(phases):
    kept = {number: DEMO["training"]["phases"][number] for number in phases}
    assert "they must be 1, 1-2 or 1-3" in refusal(changed("training", "phases", value=kept))


def test_fewer_phases_are_fine_and_a_fourth_is_not():
    phases = DEMO["training"]["phases"]
    assert sorted(parse_profile(changed("training", "phases", value={1: phases[1]}), "x").training.phases) == [1]
    assert "key 'training.phases.4' is 4: Input should be 1, 2 or 3" in refusal(
        changed("training", "phases", value={**phases, 4: phases[1]})
    )


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("training", "phases", 2, "resolution"), "phase 2"),
        (("evaluation", "sets", 1, "resolution"), "evaluation set photos-indoor-96"),
    ],
)
def test_a_resolution_must_be_a_multiple_of_every_f(path, where):
    message = refusal(changed(*path, value=96))
    assert f"resolution 96 of {where} is not a multiple of 64, the f of sd-vae-f64c128" in message


def test_all_problems_are_counted_and_one_is_shown():
    content = changed("sede", value=1)
    content["thread"] = 2
    assert "(and 1 more)" in refusal(content)


def test_an_autoencoder_may_have_its_own_learning_rate():
    profile = parse_profile(changed("autoencoders", "sd-vae-f32c32", "lr", value={2: 0.125}), "x")
    assert profile.phase("sd-vae-f32c32", 2).optimizer.lr == 0.125
    untouched = [("sd-vae-f32c32", 1), ("dc-ae-f32c32", 2)]
    for name, number in untouched:
        own = profile.autoencoders[name].lr.get(number)
        assert profile.phase(name, number).optimizer.lr == (own or profile.training.phases[number].optimizer.lr)
    shared = profile.training.phases[2]
    same = profile.phase("sd-vae-f32c32", 2)
    assert same.model_copy(update={"optimizer": shared.optimizer}) == shared


def test_a_recipe_holds_what_shapes_the_weights_and_nothing_else():
    base = training_recipe(parse_profile(DEMO, "x"), "dc-ae-f32c32", 1)

    def recipe(*path, value):
        return training_recipe(parse_profile(changed(*path, value=value), "x"), "dc-ae-f32c32", 1)

    shaping = [
        ("seed", 1),
        ("threads", 2),
        ("precision", "bf16"),
        ("pack_short_side", 128),
        ("training", "loss", "lpips", 0.5),
        ("training", "ema", "decay", 0.5),
        ("training", "phases", 1, "optimizer", "lr", 0.5),
        ("training", "phases", 1, "batch_size", 4),
        ("training", "datasets", ["photos-indoor"]),
        ("autoencoders", "dc-ae-f32c32", "lr", {1: 0.5}),
        ("autoencoders", "dc-ae-f32c32", "model", "shortcuts", False),
    ]
    for *path, value in shaping:
        assert recipe(*path, value=value) != base, path
    not_shaping = [
        ("description", "other"),
        ("training", "phases", 2, "optimizer", "lr", 0.5),
        ("autoencoders", "sd-vae-f32c32", "lr", {1: 0.5}),
        ("evaluation", "crops_per_photo", 2),
        ("paper_rows_not_run", "other"),
    ]
    for *path, value in not_shaping:
        assert recipe(*path, value=value) == base, path


def test_datasets_are_listed_once_in_order():
    assert parse_profile(DEMO, "x").datasets() == ("photos-indoor", "photos-mixed")


def test_a_repeated_key_is_refused_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text((CONFIG / "demo.yaml").read_text().replace("seed: 0\n", "seed: 0\nthreads: 1\n"))
    with pytest.raises(ConfigError, match="key 'threads' is repeated") as caught:
        load_profile(path)
    assert "twice.yaml" in str(caught.value) and "line" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("training", "phases", 1, "resolution"), 16, "below 32, which LPIPS needs"),
        (("training", "phases", 3, "gan", "discriminator", "layers"), 5, "below 96, which its discriminator needs"),
        (("evaluation", "sets", 0, "resolution"), 16, "greater than or equal to 32"),
        (("precision",), "fp16", "cannot train the GAN of phase 3; use 'bf16' or 'fp32'"),
        (("training", "phases", 1, "optimizer", "warmup_start"), 1.1, "less than or equal to 1"),
        (("training", "phases", 3, "gan", "optimizer", "decay_head_norm"), True, "is for the autoencoder's optimizer"),
        (("diffusion", "trainings", "uvit", "optimizer", "decay_head_norm"), True, "is for the phases of an autoencod"),
    ],
)
def test_what_a_phase_cannot_run_is_refused(where, value, reason):
    assert reason in refusal(changed(*where, value=value))


RELEASED = yaml.safe_load((CONFIG / "released.yaml").read_text())


def released(*path, value):
    """The released profile with one value replaced or added."""
    content = copy.deepcopy(RELEASED)
    inner = content
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return content


CLASS = {"family": "custom", "class_name": "a:B", "compression": 8, "latent_channels": 4}


def own(**fields):
    """The demo with an autoencoder of the user's beside its own."""
    return changed("autoencoders", "mine", value={"model": {"preset": "dc-ae-f32c32"}, "weights": "own", **fields})


def test_own_weights_are_a_files_or_the_models_and_leave_other_recipes_as_they_are():
    demo = load_profile("demo")
    profile = parse_profile(own(file="~/w.pt", sets=["photos-mixed-64"]), "x")
    assert profile.with_weights("own") == ("mine",) and profile.with_weights("retrained") == demo.with_weights(
        "retrained"
    )
    assert profile.with_weights("retrained", "own") == tuple(profile.autoencoders)
    assert [item.label for item in profile.sets_of("mine")] == ["photos-mixed-64"]
    assert evaluation_recipe(profile) == evaluation_recipe(demo)
    assert training_recipe(profile, "dc-ae-f32c32", 3) == training_recipe(demo, "dc-ae-f32c32", 3)
    folded = {"family": "space-to-channel", "base": CLASS, "factor": 2}
    hub = {**CLASS, "family": "diffusers", "source": "owner/name", "class_name": "AutoencoderKL"}
    for model in (CLASS, folded, hub):
        assert parse_profile(own(model=model), "x").autoencoders["mine"].file is None


def test_a_profile_of_own_weights_alone_trains_nothing():
    content = without("training")
    content.pop("diffusion")
    content["autoencoders"] = {"mine": {"model": CLASS, "weights": "own"}}
    profile = parse_profile(content, "x")
    assert profile.phases == () and profile.with_weights("own") == ("mine",)
    content["autoencoders"]["mine"].pop("weights")
    assert "'weights: own' for yours" in refusal(content)


def test_latents_of_own_weights_are_of_the_profiles_model():
    content = own(model=CLASS)
    row = next(iter(content["diffusion"]["rows"].values()))
    row["latent"] = "mine@own"
    profile = parse_profile(content, "x")
    assert profile.latent_autoencoder("mine@own").class_name == "a:B"
    for latent, words in (
        ("dc-ae-f32c32@own", "latent 'dc-ae-f32c32@own': with 'weights: own' the profile has mine"),
        ("mine@retrained", "latent 'mine@retrained': the profile retrains sd-vae-f32c32, "),
        ("mine@released", "latent 'mine@released': the catalogue (dcae-bench zoo) has no such released weights"),
        ("mine@mine", "pattern"),
    ):
        row["latent"] = latent
        assert words in refusal(content)
    with pytest.raises(ConfigError, match="autoencoder@retrained, autoencoder@released or autoencoder@own"):
        profile.latent_autoencoder("mine")


def test_a_profile_may_evaluate_released_weights_alone():
    profile = load_profile("released")
    assert profile.training is None and profile.phases == () and profile.all_training_sets() == ()
    assert profile.with_weights("retrained") == () and profile.with_weights("released") == tuple(profile.autoencoders)
    assert [item.label for item in profile.sets_of("dc-ae-f128c512-in-1.0")] == ["imagenet-512"]
    assert profile.datasets() == ("imagenet", "ffhq", "mjhq", "mapillary-vistas")
    with pytest.raises(ConfigError, match="profile released: trains nothing"):
        profile.phase("sd-vae-ft-ema", 1)


def test_released_and_retrained_autoencoders_may_share_a_profile():
    entry = {"model": {"preset": "sd-vae-ft-ema"}, "weights": "released", "sets": ["photos-mixed-64"]}
    profile = parse_profile(changed("autoencoders", "sd-vae-ft-ema", value=entry), "x")
    assert profile.with_weights("released") == ("sd-vae-ft-ema",) and len(profile.with_weights("retrained")) == 6
    assert [item.label for item in profile.sets_of("sd-vae-ft-ema")] == ["photos-mixed-64"]
    assert len(profile.sets_of("dc-ae-f32c32")) == 4


def test_every_row_of_the_paper_has_its_released_autoencoder():
    from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction

    profile = load_profile("released")
    for row in load_reported_reconstruction(measured={"mjhq"}):
        answers = [
            name
            for name, entry in profile.autoencoders.items()
            for item in profile.sets_of(name)
            if (entry.model.family, entry.model.compression, entry.model.latent_channels, item.dataset, item.resolution)
            == (row.family, row.compression, row.latent_channels, row.dataset, row.resolution)
        ]
        kind = "in" if row.dataset == "imagenet" else "mix"
        if row.in_paper and row.family == "dc-ae":
            assert row.released == f"dc-ae-f{row.compression}c{row.latent_channels}-{kind}-1.0" and len(answers) == 1
        assert row.released in answers if row.weights_source == "released" else not answers


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            released("autoencoders", "mine", value={"model": {"preset": "sd-vae-ft-ema"}}),
            "autoencoder mine is retrained, but the profile has no 'training'",
        ),
        (
            released("autoencoders", "mine", value={"model": {"preset": "sd-vae-ft-ema"}, "weights": "released"}),
            "autoencoder mine has 'weights: released', but the catalogue",
        ),
        (
            released("autoencoders", "sd-vae-ft-ema", "model", value={"preset": "ldm-kl-f16"}),
            "autoencoder sd-vae-ft-ema has 'weights: released', but the catalogue",
        ),
        (
            released(
                "autoencoders",
                "sd-vae-f32c32-retrained",
                value={"model": {"preset": "sd-vae-f32c32-retrained"}, "weights": "released"},
            ),
            "has no released weights of this name",
        ),
        (
            released("autoencoders", "sd-vae-ft-ema", "sets", value=["photos-64"]),
            "sets of sd-vae-ft-ema has 'photos-64'",
        ),
        (released("autoencoders", "sd-vae-ft-ema", "lr", value={1: 0.1}), "'lr' has no effect"),
        (changed("autoencoders", "dc-ae-f32c32", "sets", value=["photos-mixed-64"]), "'sets' is for released weights"),
        (own(), "key 'autoencoders.mine' weights are 'own', and a dc-ae model brings none; name them with 'file'"),
        (own(file="w.pt", lr={1: 0.1}), "weights are 'own', so 'lr' has no effect"),
        (own(file="w.pt", weights="retrained"), "'file' w.pt is for weights 'own'; these are 'retrained'"),
        (own(file="w.pt", weights="released"), "'file' w.pt is for weights 'own'; these are 'released'"),
        (own(file="w.pt", sets=["photos-8"]), "sets of mine has 'photos-8'"),
        (own(model={**CLASS, "compression": 128}), "resolution 64 of evaluation set photos-indoor-64 is not"),
        (released("evaluation", "crops_per_photo", value=6), "'reconstruction/paper-v1' has 1, the centre crop"),
        (
            released("evaluation", "sets", 1, "resolution", value=256),
            "evaluation set imagenet-256 is listed 2 times; list it once",
        ),
        (without("training"), "autoencoder sd-vae-f32c32 is retrained"),
    ],
)
def test_weights_without_an_origin_and_settings_without_effect_are_refused(content, words):
    line = refusal(content)
    assert words in line and "'Profile'" not in line


def test_a_resolution_must_fit_only_the_sets_of_an_autoencoder():
    sets = [*RELEASED["evaluation"]["sets"], {"dataset": "ffhq", "resolution": 320}]
    profile = parse_profile(released("evaluation", "sets", value=sets), "x")
    assert "ffhq-320" not in [item.label for item in profile.sets_of("dc-ae-f128c512-mix-1.0")]
    content = released("evaluation", "sets", value=sets)
    content["autoencoders"]["dc-ae-f128c512-mix-1.0"]["sets"] = ["ffhq-320"]
    assert "resolution 320 of evaluation set ffhq-320 is not a multiple of 128" in refusal(content)


def test_an_evaluation_recipe_holds_what_shapes_a_number_and_no_more():
    base = parse_profile(RELEASED, "x")

    def recipe(*path, value):
        return evaluation_recipe(parse_profile(released(*path, value=value), "x"))

    for path, value in [
        (("evaluation", "posterior"), "mean"),
        (("evaluation", "tf32"), False),
        (("evaluation", "extractors"), ["dinov2"]),
        (("evaluation", "bootstrap"), 10),
        (("evaluation", "sets", 0, "upscale"), False),
        (("threads",), 2),
    ]:
        assert recipe(*path, value=value) != evaluation_recipe(base), path
    for path, value in [
        (("evaluation", "workers"), 2),
        (("evaluation", "posterior"), "sample"),  # the protocol's own
        (("evaluation", "tf32"), True),
        (("evaluation", "crops_per_photo"), 1),
        (("beside",), None),
    ]:
        assert recipe(*path, value=value) == evaluation_recipe(base), path


def test_settings_are_the_protocols_unless_the_profile_says_otherwise():
    usual = parse_profile(RELEASED, "x").evaluation.settings
    assert usual == {"posterior": "sample", "tf32": "on", "extractor_precision": "fp32"}
    assert parse_profile(released("evaluation", "tf32", value=False), "x").evaluation.settings == usual | {
        "tf32": "off"
    }
    assert parse_profile(DEMO, "x").evaluation.settings == {"posterior": "mean"}


def test_the_demos_recipes_stay_as_they_are():
    """A changed hash makes every result that people have stale: change these on purpose only."""
    demo = load_profile("demo")
    assert sha256_json(evaluation_recipe(demo)) == DEMO_EVALUATION
    assert sha256_json(training_recipe(demo, "dc-ae-f32c32", 3)) == DEMO_TRAINING


@pytest.mark.parametrize("name", ["reference", "throughput", "figures", "logs"])
def test_a_name_whose_folder_holds_something_else_is_refused(name):
    assert f"results/{name} holds other things" in refusal(changed("name", value=name))


def test_values_that_only_a_late_job_would_refuse():
    line = refusal(changed("evaluation", "extractors", value=["dinov3"]))
    assert "extractor 'dinov3' does not exist; choose from efficientnet-lite0, " in line
    assert "one resample has no spread" in refusal(changed("evaluation", "bootstrap", value=1))
