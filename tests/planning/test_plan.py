"""Estimates against closed forms."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import CONFIG
from dcae_bench.cli.main import main
from dcae_bench.costs.cache import autoencoder_key
from dcae_bench.costs.passes import _Live, autoencoder_passes, comparison_pass, forward_mac
from dcae_bench.costs.step import step_cost, training_bytes
from dcae_bench.evaluation.reconstruction import reconstructor
from dcae_bench.extractors.lpips import LPIPS
from dcae_bench.models.zoo import build
from dcae_bench.planning.estimate import INCEPTION_GIB, Estimator
from dcae_bench.planning.memory import fits
from dcae_bench.planning.plan import GIB, PlanRow
from dcae_bench.planning.rates import RATES, Rates
from dcae_bench.planning.targets import EvaluationJob, needs_of
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.specs.autoencoders import CustomSpec, DiffusersSpec
from tests.planning.measured import measured


def changed(profile, **phase_1):
    training = profile.training
    phases = {**training.phases, 1: training.phases[1].model_copy(update=phase_1)}
    return profile.model_copy(update={"training": training.model_copy(update={"phases": phases})})


@pytest.mark.parametrize(
    ("name", "resolution", "gmac"),
    [
        ("dc-ae-f32c32-in", 256, 260.683 + 346.183),
        ("dc-ae-f64c128-in", 512, 1052.640 + 1398.267),
        ("dc-ae-f128c512-in", 1024, 4221.601 + 5611.359),
    ],
)
def test_forward_arithmetic_is_the_known_one(paper, name, resolution, gmac):
    """The linear attention pads a row of ones and the count follows the tensors, hence the last digits."""
    model = paper.autoencoders[name].model
    assert forward_mac(model, resolution) / 1e9 == pytest.approx(gmac, rel=1e-5)
    assert forward_mac(model, resolution) == forward_mac(model, resolution)  # the second one is cached


def test_a_full_step_costs_three_forward_passes_and_recomputation_makes_it_four(paper):
    model = paper.autoencoders["dc-ae-f32c32-in"].model
    loss = paper.training.loss.model_copy(update={"lpips": 0.0})
    cost = step_cost(model, paper.training.phases[1], loss, "bf16")
    assert cost.forward_mac == pytest.approx(forward_mac(model, 256))
    assert 1.99 < cost.backward_mac / cost.forward_mac < 2.0  # the image itself needs no gradient
    assert 0.99 < cost.recompute_mac / cost.forward_mac < 1.0  # the layers outside of blocks are kept
    assert cost.kept_inputs_bytes + cost.largest_block_bytes < 0.35 * cost.kept_bytes


def test_frozen_parts_have_no_backward_pass(paper):
    loss = paper.training.loss.model_copy(update={"lpips": 0.0})
    model = paper.autoencoders["dc-ae-f64c128-in"].model
    wide = paper.training.phases[2].model_copy(update={"trainable": ("all",)})
    full, middle = (step_cost(model, phase, loss, "bf16") for phase in (wide, paper.training.phases[2]))
    # Only the decoder's activations get a gradient.
    assert middle.backward_mac / 1e9 == pytest.approx(5593.069, rel=0.01)
    # The paper: 153.98 GB to 67.81 GB at 1024 px.
    assert middle.kept_bytes / full.kept_bytes == pytest.approx(67.81 / 153.98, abs=0.1)
    last = step_cost(model, paper.training.phases[3].model_copy(update={"gan": None}), loss, "bf16")
    assert last.backward_mac == 2 * (256 * 12 * 9) * 128**2  # gradients of the head's convolution and of its input
    assert last.recompute_mac == 0


def test_parameter_bytes_are_exact(paper):
    cost = step_cost(
        paper.autoencoders["dc-ae-f64c128-in"].model, paper.training.phases[1], paper.training.loss, paper.precision
    )
    assert (cost.parameters, cost.trained) == (676_896_140, 676_896_140)
    assert (cost.other_parameters, cost.other_trained) == (14_716_160, 0)
    fixed = 676_896_140 * (4 + 4 + 4 + 8 + 2) + 14_716_160 * 4
    memory = [training_bytes(cost, count, paper.precision, paper.training.execution) for count in (0, 1, 10)]
    assert memory[0] == fixed
    assert memory[2] == pytest.approx(fixed + 10 * (memory[1] - fixed))
    row = Estimator(paper, Rates.read()).training("dc-ae-f64c128-in", 1)
    assert row.disk_gib == 676_896_140 * 4 / GIB and row.unfinished_gib == 2 * 676_896_140 * 16 / GIB
    third = step_cost(
        paper.autoencoders["dc-ae-f64c128-in"].model, paper.training.phases[3], paper.training.loss, paper.precision
    )
    assert (third.trained, third.other_trained) == (28_172, 2_765_633)


def test_shards_of_weights_are_counted_and_the_plan_says_what_fits(paper):
    cost = step_cost(
        paper.autoencoders["dc-ae-f64c128-in"].model, paper.training.phases[1], paper.training.loss, paper.precision
    )
    gathered = 4 * (2 * cost.parameters_outside + 3 * cost.largest_block_parameters)
    copied = 2 * (cost.parameters_outside + cost.largest_block_parameters)
    fixed = training_bytes(cost, 0, paper.precision, paper.training.execution, shards=8)
    assert fixed == 676_896_140 * (4 + 4 + 4 + 8) / 8 + 14_716_160 * 4 + gathered + copied
    assert 0 < cost.parameters_outside < cost.largest_block_parameters < cost.parameters / 4
    kept = training_bytes(cost, 0, paper.precision, ExecutionSpec(), shards=8)
    assert kept - fixed == 2 * cost.parameters - copied, "the backward pass keeps every block's copies"
    plain = Estimator(paper, Rates.read()).training("dc-ae-f64c128-in", 1)
    whole = Estimator(paper.model_copy(update={"sharding": "full"}), Rates.read()).training("dc-ae-f64c128-in", 1)
    assert plain.memory_gib == plain.plain_gib == whole.plain_gib
    assert whole.memory_gib == whole.sharded_gib == plain.sharded_gib < plain.plain_gib
    alone = Estimator(paper.model_copy(update={"processes": 1}), Rates.read())
    assert alone.training("dc-ae-f64c128-in", 1).sharded_gib is None
    large = PlanRow("train", "large", 1, plain_gib=90.0, sharded_gib=41.0)
    assert fits([large, plain], Rates.read()) == (
        "1 of 2 trainings fit 80 GB (74.5 GiB) with a copy of the weights in each process; too large: large (90.0 GiB)",
        "2 of 2 trainings fit 80 GB (74.5 GiB) with 'sharding: full'; the largest: large (41.0 GiB)",
    )


@pytest.mark.long
def test_frozen_layers_and_a_late_discriminator_cost_less(demo):
    model, loss, phase = demo.autoencoders["dc-ae-f32c32"].model, demo.training.loss, demo.training.phases[3]
    late = phase.gan.model_copy(update={"start_images": phase.images // 4})
    whole, without, part, frozen = (
        step_cost(model, phase.model_copy(update=change), loss, "fp32")
        for change in ({}, {"gan": None}, {"gan": late}, {"freeze": ("decoder.project_out.norm",)})
    )
    assert part.forward_mac == pytest.approx(without.forward_mac + 0.75 * (whole.forward_mac - without.forward_mac))
    assert part.other_trained == whole.other_trained > without.other_trained
    assert frozen.trained < whole.trained


def test_hours_follow_images_and_memory_follows_the_part_of_a_batch(demo):
    images = demo.training.phases[1].images
    once = Estimator(demo, Rates.read()).training("dc-ae-f32c32", 1)
    twice = Estimator(changed(demo, images=2 * images), Rates.read()).training("dc-ae-f32c32", 1)
    halves = Estimator(changed(demo, accumulate=2), Rates.read()).training("dc-ae-f32c32", 1)
    assert twice.cpu_hours == pytest.approx(2 * once.cpu_hours)
    assert twice.memory_gib == once.memory_gib
    assert halves.cpu_hours == once.cpu_hours
    shared = Estimator(demo.model_copy(update={"processes": 2}), Rates.read()).training("dc-ae-f32c32", 1)
    assert (shared.cpu_hours, shared.memory_gib) == (once.cpu_hours, halves.memory_gib)
    cost = step_cost(
        demo.autoencoders["dc-ae-f32c32"].model, demo.training.phases[1], demo.training.loss, demo.precision
    )
    assert once.memory_gib - halves.memory_gib == pytest.approx(4 * cost.kept_bytes / GIB)
    peak, used = 0.105e12, 0.45
    assert once.cpu_hours == pytest.approx(2 * images * (cost.forward_mac + cost.backward_mac) / peak / used / 3600)


def test_a_measured_speed_goes_before_the_stated_rate(demo):
    record = measured("training", "dc-ae-f32c32", phase=1, resolution=64)
    estimator = Estimator(demo, Rates.read(), [record])
    row, images = estimator.training("dc-ae-f32c32", 1), demo.training.phases[1].images
    assert row.cpu_hours == pytest.approx(images / 20 / 3600) and row.source == "measured on a processor"
    device = record.provenance.device.model_copy(update={"processes": 4})  # four processors for each of these hours
    provenance = record.provenance.model_copy(update={"device": device})
    estimator = Estimator(demo, Rates.read(), [record.model_copy(update={"provenance": provenance})])
    assert estimator.training("dc-ae-f32c32", 1).cpu_hours == pytest.approx(4 * images / 20 / 3600)
    assert estimator.training("dc-ae-f32c32", 2).source == "stated"


def test_targets_choose_the_jobs(demo, monkeypatch):
    cost = step_cost(
        demo.autoencoders["dc-ae-f32c32"].model, demo.training.phases[1], demo.training.loss, demo.precision
    )
    monkeypatch.setattr("dcae_bench.planning.estimate.step_cost", lambda *_: cost)
    monkeypatch.setattr("dcae_bench.planning.estimate.forward_mac", lambda *_: 1.0)
    estimator = Estimator(demo, Rates.read())

    def jobs(target):
        rows = estimator.plan(target).rows
        return {rule: sum(row.jobs for row in rows if row.rule == rule) for rule in {row.rule for row in rows}}

    assert jobs("results/table_rfid.md") == {"prepare": 2, "train": 14, "evaluate": 14, "table": 1}
    assert jobs("all")["table"] == 3
    weights = "results/demo/training/dc-ae-f32c32@retrained/phase2/model.safetensors"
    assert jobs(weights) == {"prepare": 2, "train": 2}
    with pytest.raises(ConfigError, match="is nothing that a plan of profile demo counts"):
        estimator.plan("results/other.md")


@pytest.mark.long
def test_released_weights_are_fetched_and_measured_set_by_set(monkeypatch):
    monkeypatch.setattr("dcae_bench.planning.estimate.forward_mac", lambda *_: 1e9)
    estimator = Estimator(load_profile("released"), Rates.read())
    target = "results/released/check/dc-ae-f64c128-in-1.0@released/imagenet-512.json"
    data, weights, inception, evaluation = estimator.plan(target).rows
    assert (data.subject, weights.subject, inception.subject) == ("imagenet", "dc-ae-f64c128-in-1.0", "inception")
    assert weights.download_gib == 676_896_140 * 4 / GIB
    assert (evaluation.subject, evaluation.jobs) == ("dc-ae-f64c128-in-1.0 released", 1)
    monkeypatch.setattr("dcae_bench.planning.estimate.weights.is_fetched", lambda name: True)
    rows = estimator.plan("all").rows
    jobs = {rule: sum(row.jobs for row in rows if row.rule == rule) for rule in {row.rule for row in rows}}
    assert jobs == {"prepare": 4, "fetch": 12, "evaluate": 20, "table": 2}
    assert {row.download_gib for row in rows if row.rule == "fetch"} == {0, INCEPTION_GIB}
    example = r"results/released/reconstruction/dc-ae-f32c32-in-1\.0@released/imagenet-256"
    with pytest.raises(ConfigError, match=example):
        estimator.plan("results/figures/losses.png")


HUB = {"family": "diffusers", "source": "owner/vae", "class_name": "AutoencoderTiny", "config": {}}
HUB |= {"compression": 8, "latent_channels": 4}


def test_own_weights_are_measured_and_encoded_and_fetched_where_they_are_on_the_hub(demo, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("dcae_bench.planning.estimate.forward_mac", lambda *_: 1e9)
    content = yaml.safe_load((CONFIG / "demo.yaml").read_text())
    nano = demo.autoencoders["sd-vae-f32c32"].model.model_dump()
    content["autoencoders"] |= {
        "mine": {"model": nano, "weights": "own", "file": "w.safetensors", "sets": ["photos-mixed-64"]},
        "hub": {"model": HUB, "weights": "own", "sets": ["photos-mixed-64"]},
    }
    row = next(iter(content["diffusion"]["rows"].values()))
    content["diffusion"]["rows"] = {"mine": {**row, "latent": "mine@own"}, "hub": {**row, "latent": "hub@own"}}
    profile = parse_profile(content, "x")
    needs = needs_of(profile, "results/table_diffusion.md")
    assert needs.trainings == () and needs.encodings == (("mine@own", row["data"]), ("hub@own", row["data"]))
    assert len(needs.denoisers) == 2
    needs |= needs_of(profile, "all")
    (item,) = profile.sets_of("mine")
    assert needs.evaluations[-2:] == (EvaluationJob("mine", None, (item,)), EvaluationJob("hub", None, (item,)))
    estimator = Estimator(profile, Rates.read())
    assert (estimator._own_to_download(needs), estimator._weights_to_download(needs)) == (["hub"], [])
    data, fetch, evaluation = estimator.plan("results/demo/reconstruction/hub@own/photos-mixed-64.json").rows
    assert (fetch.rule, fetch.subject) == ("fetch", "hub") and fetch.download_gib == fetch.disk_gib > 0
    assert (evaluation.rule, evaluation.subject, evaluation.jobs) == ("evaluate", "hub own", 1)
    data, evaluation = estimator.plan("results/demo/reconstruction/mine@own/photos-mixed-64.json").rows
    assert (data.subject, evaluation.subject) == ("photos-mixed", "mine own") and evaluation.cpu_hours > 0
    for wrong in ("check/mine@own/photos-mixed-64", "reconstruction/mine@released/photos-mixed-64"):
        with pytest.raises(ConfigError, match="is nothing that a plan of profile demo counts"):
            needs_of(profile, f"results/demo/{wrong}.json")
    del content["training"], content["diffusion"], content["ablations"]
    content["autoencoders"] = {"mine": content["autoencoders"]["mine"]}
    with pytest.raises(ConfigError, match=r"results/demo/reconstruction/mine@own/photos-mixed-64\.json"):
        needs_of(parse_profile(content, "x"), "results/figures/losses.png")


def test_a_class_that_reads_its_weights_when_it_is_built_is_counted(monkeypatch, tmp_path):
    (tmp_path / "reads_weights.py").write_text(
        "import torch\nfrom safetensors.torch import load_file\n\n"
        "class AE(torch.nn.Module):\n"
        "    def __init__(self, file=None):\n"
        "        super().__init__()\n"
        "        self.down = torch.nn.Conv2d(3, 4, 4, 4)\n"
        "        self.up = torch.nn.ConvTranspose2d(4, 3, 4, 4)\n"
        "        if file is not None:\n"
        "            self.load_state_dict(load_file(file))\n"
        "    def encode(self, x):\n"
        "        return self.down(x)\n"
        "    def decode(self, z):\n"
        "        return self.up(z)\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = CustomSpec(family="custom", class_name="reads_weights:AE", compression=4, latent_channels=4)
    plain = autoencoder_passes(spec, 64)
    save_file(build(spec, seed=0).net.state_dict(), tmp_path / "w.safetensors")
    reading = spec.model_copy(update={"kwargs": {"file": "w.safetensors"}})
    assert autoencoder_passes(reading, 64) == plain and plain.encode.mac == 64**2 * 3 * 4
    assert autoencoder_key(spec) != [spec.model_dump(mode="json")], "an edit of the code is another key"
    nano = load_profile("demo").autoencoders["sd-vae-f32c32"].model
    assert autoencoder_key(nano) == [nano.model_dump(mode="json")]


def test_totals_add_up_and_json_says_it_is_an_estimate(monkeypatch, capsys):
    target = "results/demo/reconstruction/dc-ae-f32c32@retrained/phase3/photos-indoor-64.json"
    monkeypatch.setattr("sys.argv", ["dcae-bench", "plan", target, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"] is True and found["assumptions"] and found["downloads_not_known"] == []
    assert found["targets"] == [target]
    for name in ("jobs", "cpu_hours", "disk_gib"):
        assert found["total"][name] == pytest.approx(sum(row[name] for row in found["rows"]))
    assert found["total"]["memory_gib"] == max(row["memory_gib"] for row in found["rows"])


def test_the_page_prints_assumptions_and_every_rate_says_how(monkeypatch, capsys):
    target = "results/demo/training/dc-ae-f32c32@retrained/phase1/model.safetensors"
    monkeypatch.setattr("sys.argv", ["dcae-bench", "plan", target])
    with pytest.raises(SystemExit):
        main()
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("Estimate for profile demo", "nothing has been started", "Assumptions", "of peak (measured:"):
        assert part in printed
    assert all(rate.how for rate in Rates.read(RATES)._rates)


def test_a_broken_file_of_rates_is_named(tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text("rates: [{what: peak}]")
    with pytest.raises(ConfigError, match=r"rates\.yaml: rates\.0\.device: Field required"):
        Rates.read(path)


def test_a_split_that_a_data_set_does_not_have_is_named(demo):
    with pytest.raises(DataError, match=r"data set 'sa-1b': has no eval split .*it has train"):
        Estimator(demo, Rates.read()).preparation("sa-1b", ["eval"])
    sets = (demo.evaluation.sets[0].model_copy(update={"dataset": "sa-1b"}),)
    job = EvaluationJob("dc-ae-f32c32", 1, sets)
    with pytest.raises(DataError, match="has no eval split"):
        Estimator(demo, Rates.read()).evaluation(job)


def test_memory_of_an_evaluation_is_that_of_its_largest_step(demo):
    name, (job, side) = "dc-ae-f32c32", (EvaluationJob("dc-ae-f32c32", 1, demo.evaluation.sets), 128)
    planned = Estimator(demo, Rates.read()).evaluation(job).memory_gib * GIB
    model = build(demo.autoencoders[name].model).eval()
    images = torch.zeros(demo.evaluation.batch_size, 3, side, side, dtype=torch.uint8)
    with torch.inference_mode(), _Live(model) as live:
        reconstructor(model, None)(images, range(len(images)))
    weights = 4 * (model.count_parameters() + sum(x.numel() for x in LPIPS("alex").parameters()))
    # Beside what the model holds there are the images themselves.
    assert 0 <= live.peak - (planned - weights) <= 2 * 4 * images.numel()


def test_memory_of_large_pairs_is_that_of_their_maps():
    small, large = (comparison_pass(("alex", "vgg"), side) for side in (512, 2048))
    assert large.lpips_bytes == 16 * small.lpips_bytes
    maps = sum(width * (2048 >> level) ** 2 for level, width in enumerate((64, 128, 256, 512, 512)))
    assert 2 * maps * 4 < large.lpips_bytes < 4 * maps * 4  # both images' maps are kept, one is being made
    assert 12 < large.ssim_bytes / (3 * 2048**2 * 8) < 14  # arrays in double precision


def test_a_model_without_blocks_that_are_known_is_counted_as_a_whole(demo):
    """Its activations are all kept; that it cannot be checkpointed is for its training to say."""
    config = {f"{side}_block_out_channels": [8, 8, 8] for side in ("encoder", "decoder")}
    config |= {f"num_{side}_blocks": [1, 1, 1] for side in ("encoder", "decoder")}
    spec = DiffusersSpec(
        family="diffusers",
        source="some/where",
        class_name="AutoencoderTiny",
        config=config,
        compression=4,
        latent_channels=4,
    )
    phase = demo.training.phases[1].model_copy(update={"trainable": ("all",)})
    cost = step_cost(spec, phase, demo.training.loss.model_copy(update={"lpips": 0.0}), "fp32")
    assert cost.forward_mac == pytest.approx(forward_mac(spec, phase.resolution), rel=1e-12)
    # All but the gradient by the image, which the first convolution does not need.
    assert 1.9 * cost.forward_mac < cost.backward_mac < 2 * cost.forward_mac
    assert cost.kept_bytes == cost.kept_inputs_bytes > 0 and cost.largest_block_bytes == cost.recompute_mac == 0
