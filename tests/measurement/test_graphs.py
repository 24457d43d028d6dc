"""What a CUDA graph reads lives as long as its call, and a graph that begins to compute garbage makes no number."""

import gc
import weakref

import pytest
import torch

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement import session as sessions
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.record import load
from dcae_bench.measurement.session import Session, measure
from dcae_bench.measurement.workloads import autoencoding, inference, training_step
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.recipes import CPU
from tests.measurement import graphs, tiny

DEVICE = torch.device("cpu")
GRAPH = "compile+cudagraph"
DENOISERS = [("train", "tiny-uvit"), ("train", "tiny-dit"), ("forward", "tiny-uvit"), ("forward", "tiny-dit")]
AUTOENCODERS = ["encode", "decode", "phase1", "phase2", "phase3"]
CASES = [*DENOISERS, *((work, None) for work in AUTOENCODERS)]
STEPS = [case for case in CASES if case[0].startswith("phase")]
BRIEF = [case for case in CASES if case not in STEPS]
QUICK = TimingSchedule(blocks=3, block_s=0.001, warm_up_iterations=4, warm_up_s=0, window=2, warm_up_limit_s=0.2)


class SmallMatmul(sessions.Matmul):
    def __init__(self, dtype, device):
        super().__init__(dtype, device, size=64)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Tiny networks whose blocks are left as they are: a compiler takes longer than these tests may."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other are most of the time of tiny operations
    for module in (autoencoding, inference, training_step):
        monkeypatch.setattr(module, "compile_blocks", lambda model: None)
    monkeypatch.setattr(sessions, "Matmul", SmallMatmul)
    monkeypatch.setenv("DCAE_BENCH_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def made(monkeypatch) -> list[graphs.StandInGraph]:
    return graphs.use(monkeypatch)


def job(monkeypatch, work: str, denoiser: str | None, **more) -> Job:
    if denoiser is None:
        tiny.use_autoencoder(monkeypatch)
        case = tiny.autoencoder_case(work)
    else:
        tiny.use(monkeypatch)
        case = tiny.case(work, denoiser=denoiser)
    return Job(case, more.pop("recipe", CPU), 2, DEVICE, mode=more.pop("mode", GRAPH), **more)


@pytest.mark.parametrize(("work", "denoiser"), CASES)
def test_what_a_graph_reads_lives_as_long_as_its_call(work, denoiser, monkeypatch, made):
    call = build_workload(job(monkeypatch, work, denoiser, check=False)).call
    gc.collect()
    first = call().clone()
    assert first.isfinite().all() and not first.equal(call())
    (graph,) = made
    assert graph.replays == 2
    del call
    gc.collect()
    assert all(reference.expired() for reference in graph.outer.values()), "the next network gets this memory"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        graph.replay()


@pytest.mark.parametrize("work", ["sample", "sample_decode"])
def test_what_sampling_reads_lives_as_long_as_its_call(work, monkeypatch):
    built = []

    def remembering(make):
        def build(*args, **keywords):
            model = make(*args, **keywords)
            built.append(weakref.ref(model))
            return model

        return build

    tiny.use(monkeypatch)
    case = tiny.case(work)
    # The decoder of real size would take most of the test's time.
    monkeypatch.setattr(inference, "build", lambda spec, seed, device: _Decoder())
    for name in ("random_denoiser", "build"):
        monkeypatch.setattr(inference, name, remembering(getattr(inference, name)))
    call = build_workload(Job(case, CPU, 2, DEVICE, mode="compile")).call
    gc.collect()
    assert len(built) == (2 if work == "sample_decode" else 1)
    assert all(reference() is not None for reference in built) and call().shape[0] == 2
    del call
    gc.collect()
    assert all(reference() is None for reference in built)


class _Decoder(torch.nn.Module):
    def decode(self, z):
        return z[:, :3]


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize(("work", "denoiser"), BRIEF + [pytest.param(*one, marks=pytest.mark.long) for one in STEPS])
def test_a_sound_graph_agrees_before_the_timing_and_after_it(work, denoiser, rewritten, monkeypatch, made):
    ready = build_workload(job(monkeypatch, work, denoiser, recipe=CPU.model_copy(update={"rewritten": rewritten})))
    for _ in range(7):
        ready.call()
    again = ready.agree_again()
    assert ready.agreement.error < 1e-5 and again.error < 1e-5 and again.what.endswith("after the timing")
    assert made[0].replays > 7


@pytest.mark.parametrize(
    ("work", "denoiser", "fault"),
    [
        *((*case, fault) for case in (DENOISERS[0], DENOISERS[2]) for fault in ("garbage", "nan", "nothing")),
        ("decode", None, "garbage"),
        ("phase3", None, "garbage"),
    ],
)
def test_a_graph_that_begins_to_fail_is_found_after_the_timing(work, denoiser, fault, monkeypatch, made):
    ready = build_workload(job(monkeypatch, work, denoiser))
    (graph,) = made
    graph.fault, graph.sound = fault, graph.replays + 2
    for _ in range(4):
        ready.call()
    with pytest.raises(MeasurementError, match=r"after the timing: error \S+ is above 0.001; do not use this mode"):
        ready.agree_again()


@pytest.mark.parametrize("mode", ["compile", "eager"])
def test_weights_that_became_garbage_are_found_in_every_fast_mode(mode, monkeypatch):
    """Not where plain eager PyTorch itself is timed: there is nothing to compare it with."""
    ready = build_workload(job(monkeypatch, "forward", "tiny-uvit", mode=mode))
    model = next(one for one in gc.get_objects() if isinstance(one, torch.nn.Module) and hasattr(one, "pos_embed"))
    with torch.no_grad():
        model.pos_embed.fill_(100)
    if mode == "eager":
        assert ready.agree_again() is None
    else:
        with pytest.raises(MeasurementError, match="after the timing"):
            ready.agree_again()


@pytest.mark.parametrize("work", ["train", "forward"])
def test_a_session_records_the_second_error_or_nothing(work, tmp_path, monkeypatch, made):
    tiny.use(monkeypatch)
    recipe = CPU.model_copy(update={"schedule": QUICK, "mode": GRAPH})
    session = Session((tiny.case(work, "sd-vae-f8c4-p2"), tiny.case(work)), recipe, tmp_path, batch=2)
    for path in measure(session):
        agreement = load(path).agreement
        assert 0 <= agreement.error_after < 1e-5 < agreement.limit and "after" not in agreement.what
        path.unlink()
    monkeypatch.setattr(graphs.StandInGraph, "sound", 10)
    with pytest.raises(MeasurementError, match=r"sd-vae-f8c4-p2.*after the timing"):
        measure(session)
    assert not list(tmp_path.glob("*.json"))
