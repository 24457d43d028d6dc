"""Workloads compute what they say, and every faster way is held against plain PyTorch before it is timed."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcae_bench.base.errors import MeasurementError
from dcae_bench.execution.blocks import checkpoint_blocks
from dcae_bench.measurement.workloads import agreement, denoiser_step, training_step
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.denoiser_step import DenoiserStep
from dcae_bench.measurement.workloads.denoisers import forward_inputs, random_denoiser, train_inputs
from dcae_bench.measurement.workloads.job import BUFFERS, Job
from dcae_bench.measurement.workloads.recipes import CPU, PAPER, RECIPES, TUNED
from dcae_bench.models.zoo import build, build_denoiser
from tests.measurement import tiny

DEVICE = torch.device("cpu")
BF16 = CPU.model_copy(update={"inference_precision": "bf16 autocast", "train_precision": "bf16 autocast"})


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    tiny.use(monkeypatch)


def job(work="train", recipe=CPU, batch=2, **more) -> Job:
    keywords = {key: more.pop(key) for key in ("denoiser", "latent", "side") if key in more}
    return Job(tiny.case(work, **keywords), recipe, batch, DEVICE, **more)


@pytest.mark.parametrize("denoiser", ["tiny-uvit", "tiny-dit"])
def test_training_step_trains_and_checkpointing_changes_nothing(denoiser):
    one = job(denoiser=denoiser)
    inputs = train_inputs(one)
    losses = {}
    for checkpointing in (False, True):
        model = random_denoiser(one.case, DEVICE, 0)
        if checkpointing:
            checkpoint_blocks(model)
        before = {name: p.clone() for name, p in model.named_parameters()}
        step = DenoiserStep(model, one)
        losses[checkpointing] = [float(step.step(*inputs[0])) for _ in range(8)]
        changed = [name for name, p in model.named_parameters() if p.requires_grad and not p.equal(before[name])]
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        assert changed == trained and all(p.grad is None for p in model.parameters())
    assert losses[True] == losses[False]
    assert losses[True][-1] < losses[True][0]


def test_inputs_differ_from_each_other_and_are_of_real_scale():
    inputs = train_inputs(job(batch=64))
    assert len(inputs) == BUFFERS
    for x, t, noise, y in inputs:
        assert x.shape == (64, 128, 2, 2) and abs(float(x.std()) - 1) < 0.02 and abs(float(noise.std()) - 1) < 0.02
        assert int(t.min()) >= 1 and int(t.max()) <= 1000 and int(y.max()) < 1000
    assert not inputs[0][0].equal(inputs[1][0])


def test_inputs_follow_from_the_seed_alone():
    torch.manual_seed(1)
    first = train_inputs(job())
    torch.manual_seed(2)
    again = train_inputs(job())
    assert all(a.equal(b) for one, other in zip(first, again, strict=True) for a, b in zip(one, other, strict=True))


def test_no_prediction_is_zero():
    # DiT begins as zero for every input: nothing could be told from comparing it.
    one = job("forward", denoiser="tiny-dit")
    x, t, y = forward_inputs(one)[0]
    assert float(random_denoiser(one.case, DEVICE, 0)(x, t, y).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("work", ["forward", "sample"])
def test_half_precision_is_compared_with_fp32_first(work, monkeypatch):
    ready = build_workload(job(work, BF16))
    assert 0 < ready.agreement.error < ready.agreement.limit == agreement.LIMITS["bf16"]
    assert "beside eager fp32" in ready.agreement.what
    monkeypatch.setitem(agreement.LIMITS, "bf16", 1e-6)
    with pytest.raises(MeasurementError, match="do not use this mode"):
        build_workload(job(work, BF16))


def test_plain_fp32_has_nothing_to_agree_with():
    assert build_workload(job("forward")).agreement is None and build_workload(job("train")).agreement is None


def test_the_plain_network_of_the_check_is_the_one_that_is_timed(monkeypatch):
    built = []
    monkeypatch.setattr(
        denoiser_step, "random_denoiser", lambda *what: built.append(random_denoiser(*what)) or built[-1]
    )
    monkeypatch.setattr(training_step, "compile_blocks", lambda model: None)
    ready = build_workload(job(mode="compile"))
    assert len(built) == 1 and ready.agreement.error == 0 and ready.agree_again().error == 0
    assert not any("forward" in vars(block) for block in built[0].transformer_blocks()), "the checkpoints are gone"
    assert ready.settings["built_on"] == "cpu"


class _OnProcessor(TorchDispatchMode):
    """Collects the sizes of what is allocated on the processor."""

    def __init__(self):
        super().__init__()
        self.numbers = [0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.numbers += [one.numel() for one in tree_leaves(made) if getattr(one, "device", DEVICE) == DEVICE]
        return made


@pytest.mark.parametrize("denoiser", ["tiny-uvit", "tiny-dit"])
def test_networks_are_built_on_their_device(denoiser):
    """The meta device stands for a GPU: of the weights nothing touches the processor's memory."""
    spec = tiny.case(denoiser=denoiser).spec
    with _OnProcessor() as seen:
        model = build_denoiser(spec, seed=0, device=torch.device("meta"))
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert max(seen.numbers) < max(p.numel() for p in model.parameters()) / 4
    autoencoder = build(tiny.AUTOENCODER, seed=0, device=torch.device("meta"))
    assert {tensor.device.type for tensor in autoencoder.state_dict().values()} == {"meta"}


def test_naming_the_processor_changes_no_weight_and_no_other_random_number():
    spec = tiny.case().spec
    torch.manual_seed(5)
    wanted, after = build_denoiser(spec, seed=3).state_dict(), torch.rand(3)
    torch.manual_seed(5)
    found = build_denoiser(spec, seed=3, device=DEVICE).state_dict()
    assert all(tensor.equal(wanted[name]) for name, tensor in found.items()) and torch.rand(3).equal(after)


@pytest.mark.parametrize("wrong", [lambda block: block, lambda block: lambda x: 10 * x.flip(0)])
def test_training_that_is_not_the_same_is_found(wrong, monkeypatch):
    def compile_wrongly(model):
        for block in model.transformer_blocks():
            block.mlp.forward = wrong(block.mlp.forward)

    monkeypatch.setattr(training_step, "compile_blocks", compile_wrongly)
    if wrong(len) is len:
        assert build_workload(job(mode="compile")).agreement.error == 0
    else:
        with pytest.raises(MeasurementError, match="losses of 3 steps"):
            build_workload(job(mode="compile"))


def test_sampling_gives_one_latent_an_image_and_says_how():
    ready = build_workload(job("sample"))
    assert ready.call().shape == (2, 128, 2, 2)
    assert ready.settings["nfe"] == "30" and ready.settings["guidance"] == "doubled batch"


def test_tensorrt_does_not_train():
    with pytest.raises(MeasurementError, match="cannot train"):
        build_workload(job(mode="trt"))


REWRITTEN = CPU.model_copy(
    update={
        "rewritten": True,
        "train_precision": "bf16 autocast",
        "inference_precision": "bf16",
        "autoencoder_precision": "bf16",
        "phase_precision": "bf16 autocast",
    }
)


@pytest.mark.parametrize(
    ("work", "denoiser"),
    [
        *((work, denoiser) for work in ("train", "forward", "sample") for denoiser in ("tiny-uvit", "tiny-dit")),
        *((work, None) for work in ("encode", "decode", "phase1")),
    ],
)
def test_rewritten_networks_are_compared_with_plain_ones_and_the_record_says_so(work, denoiser, monkeypatch):
    searched = []
    if denoiser is not None:
        one = job(work, REWRITTEN, denoiser=denoiser)
    else:
        tiny.use_autoencoder(monkeypatch)
        one = Job(tiny.autoencoder_case(work), REWRITTEN, 2, DEVICE)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    ready = build_workload(one)
    assert ready.agreement.error < ready.agreement.limit and ready.settings["rewritten"] == "true"
    assert ready.agreement.error > 0 or work == "phase1"  # a phase has another choice of convolutions alone
    convolution = torch.nn.Conv2d.forward
    monkeypatch.setattr(
        torch.nn.Conv2d,
        "forward",
        lambda self, x: searched.append(torch.backends.cudnn.benchmark) or convolution(self, x),
    )
    ready.call()
    assert searched and all(searched) and not torch.backends.cudnn.benchmark
    assert ready.agree_again().error < ready.agreement.limit


def test_plain_networks_are_not_rewritten(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    ready = build_workload(job("forward"))
    assert "rewritten" not in ready.settings


def test_only_the_tuned_protocol_rewrites():
    assert [name for name, recipe in RECIPES.items() if recipe.rewritten] == ["tuned"]
    assert not Job(tiny.case("forward"), TUNED, 1, DEVICE, mode="trt").rewritten
    step = Job(tiny.case("train"), TUNED, 1, DEVICE, mode="compile")
    assert step.stream is torch.bfloat16
    # Without autocast the weights are bf16, and the tokens with them.
    assert Job(tiny.case("forward"), TUNED, 1, DEVICE, mode="compile").stream is None
    assert Job(tiny.case("train"), PAPER, 1, DEVICE).stream is None
