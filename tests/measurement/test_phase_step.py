"""Steps of the training phases as work: the paper's settings, what is counted, and the check of faster ways."""

import pytest
import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement import session as sessions
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.record import load
from dcae_bench.measurement.session import Session, measure
from dcae_bench.measurement.workloads import training_step
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.cases import Case, Latent, usual_resolution
from dcae_bench.measurement.workloads.costs import timed_model
from dcae_bench.measurement.workloads.job import BUFFERS, Job
from dcae_bench.measurement.workloads.paper_phases import PHASE_WORK
from dcae_bench.measurement.workloads.phase_step import PhaseStep, phase_inputs
from dcae_bench.measurement.workloads.recipes import CPU, PAPER, TUNED
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from tests.measurement import tiny

DEVICE = torch.device("cpu")
VGG16_GMACS_AT_224 = 15.35
"""Of its convolutions, as published."""


@pytest.fixture(autouse=True)
def tiny_autoencoder(monkeypatch, tmp_path):
    tiny.use_autoencoder(monkeypatch)
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))


def job(work="phase1", recipe=CPU, side=32, **more) -> Job:
    return Job(tiny.autoencoder_case(work, side), recipe, 2, DEVICE, **more)


def test_settings_are_those_of_the_paper_profile():
    profile = load_profile("paper")
    for work, number in PHASE_WORK.items():
        phase, case = profile.training.phases[number], tiny.autoencoder_case(work, 256)
        assert usual_resolution(work) == phase.resolution
        for recipe in (PAPER, TUNED):
            batch, source = recipe.first_batch(case)
            assert batch * phase.accumulate * profile.processes == phase.batch_size and "profile paper" in source
            assert recipe.precision(case) == f"{profile.precision} autocast"
        assert CPU.first_batch(case)[0] == 1 and CPU.precision(case) == "fp32"


@pytest.mark.parametrize(("work", "trained"), [("phase2", 590_880), ("phase3", 28_172)])
def test_trained_parameters_are_the_known_ones(work, trained, monkeypatch):
    monkeypatch.undo()  # DC-AE f32c32 at its real size, without the numbers in it
    case = Case(denoiser=None, latent=Latent.parse("dc-ae-f32c32-p1"), resolution=64, work=work)
    with torch.device("meta"):
        model = build(case.autoencoder)
    settings = PhaseStep(model, Job(case, CPU, 1, torch.device("meta"))).settings
    assert settings["trained_parameters"] == str(trained)
    assert settings["loss"] == "1 L1 + 0.1 LPIPS (vgg)" + (" + 0.05 hinge GAN" if work == "phase3" else "")


def test_images_are_of_the_data_range_and_rotate():
    inputs = phase_inputs(job())
    assert len(inputs) == BUFFERS and not inputs[0][0].equal(inputs[1][0])
    for (images,) in inputs:
        assert images.shape == (2, 3, 32, 32) and -1 <= float(images.min()) < -0.9 < 0.9 < float(images.max()) <= 1


def test_operations_are_three_passes_of_what_trains_and_of_lpips():
    model, full = timed_model(tiny.autoencoder_case("phase1", 64))
    encode, decode = (timed_model(tiny.autoencoder_case(work, 64))[1] for work in ("encode", "decode"))
    assert 2e9 * model.gmacs == pytest.approx(encode + decode)
    # LPIPS: the reconstruction, the image, and the gradient of the one.
    lpips = 3 * 2e9 * VGG16_GMACS_AT_224 * (64 / 224) ** 2
    assert full == pytest.approx(3 * (encode + decode) + lpips, rel=0.02)
    # Phase 2's gradient goes through the whole decoder, phase 3's ends at its last layer.
    assert timed_model(tiny.autoencoder_case("phase2", 64))[1] < full


@pytest.mark.parametrize(("work", "wrong"), [("phase1", True), ("phase3", True), ("phase3", False)])
def test_training_that_is_not_the_same_is_found(work, wrong, monkeypatch):
    def compile_wrongly(model):
        if wrong:
            model.decoder.forward = lambda z, decode=model.decoder.forward: 0.5 * decode(z)

    monkeypatch.setattr(training_step, "compile_blocks", compile_wrongly)
    if wrong:
        with pytest.raises(MeasurementError, match=f"{work}: losses of 3 steps"):
            build_workload(job(work, mode="compile"))
    else:
        assert build_workload(job(work, mode="compile")).agreement.error < 1e-5


def test_what_cannot_be_trained_says_why():
    with pytest.raises(MeasurementError, match="--resolution 16 is below 32, which LPIPS needs"):
        build_workload(job(side=16))
    with pytest.raises(MeasurementError, match="multiple of 4"):
        build_workload(job(side=34))
    with pytest.raises(MeasurementError, match="cannot train"):
        build_workload(job(mode="trt"))
    with pytest.raises(MeasurementError, match="denoisers"):
        build_workload(job("encode", mode="trt"))


@pytest.mark.parametrize("work", ["encode", "decode"])
def test_half_precision_of_an_autoencoder_is_compared_with_fp32_first(work):
    half = CPU.model_copy(update={"autoencoder_precision": "bf16"})
    ready = build_workload(job(work, half))
    assert 0 < ready.agreement.error < ready.agreement.limit
    assert ready.call().shape == ((2, 8, 8, 8) if work == "encode" else (2, 3, 32, 32))


def test_a_phase_is_recorded(tmp_path, monkeypatch):
    class SmallMatmul(sessions.Matmul):
        def __init__(self, dtype, device):
            super().__init__(dtype, device, size=64)

    monkeypatch.setattr(sessions, "Matmul", SmallMatmul)
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))
    quick = TimingSchedule(blocks=3, block_s=0.005, warm_up_iterations=4, warm_up_s=0, window=2, warm_up_limit_s=0.2)
    recipe = CPU.model_copy(update={"schedule": quick})
    (path,) = measure(Session((tiny.autoencoder_case("phase3"),), recipe, tmp_path, batch=2))
    record = load(path)
    assert path.name == "cpu-v1.tiny-dc-ae.32px.phase3.b2.r1.json"
    assert record.status == "measured" and record.derived.mfu > 0 and record.model.latent_space is None
    assert record.settings["batch"] == "named by the user" and record.settings["plan"] == "profile paper"
