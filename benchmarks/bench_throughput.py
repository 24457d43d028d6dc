"""Throughput of denoisers and autoencoders at their real size, timed in alternating blocks (docs/measuring.md).

On a CPU, UViT-S on SD-VAE f8 latents with patch size 2 is compared with UViT-S on DC-AE latents, in two minutes. With
``-m long``, a repetition and DC-AE f32c32 on small images run too. On a GPU, the paper's matrix runs under both
protocols; ``-k`` selects a part of it ("uvit-h and train and tuned", "phase2"). The benchmark's own times are of single
iterations. extra_info holds the blocks' medians with intervals, the speed-up with its interval, and the ratio of
multiply-accumulates.
"""

import os

import pytest
import torch

from dcae_bench.measurement.record import load, speed_up
from dcae_bench.measurement.session import Session, measure
from dcae_bench.measurement.workloads.by_name import build_workload
from dcae_bench.measurement.workloads.cases import (
    AUTOENCODER_WORK,
    BASELINE,
    DENOISERS,
    LATENTS,
    Case,
    Latent,
    usual_resolution,
)
from dcae_bench.measurement.workloads.job import Job
from dcae_bench.measurement.workloads.paper_phases import paper_architectures
from dcae_bench.measurement.workloads.recipes import RECIPES

CUDA = torch.cuda.is_available()
if CUDA:
    OTHERS = [latent.slug for latent in LATENTS if latent != BASELINE]
    MATRIX = [
        (p, d, other, w)
        for p in ("paper", "tuned")
        for d in DENOISERS
        for other in OTHERS
        for w in ("train", "forward")
    ]
    AUTOENCODERS = [(p, a, w) for p in ("paper", "tuned") for a in paper_architectures() for w in AUTOENCODER_WORK]
else:
    MATRIX = [("cpu", "uvit-s", "dc-ae-f64c128-p1", "forward"), ("cpu", "uvit-s", "dc-ae-f64c128-p1", "train")]
    AUTOENCODERS = [("cpu", "dc-ae-f32c32", w) for w in AUTOENCODER_WORK]
ONLY_ASKED_FOR = () if CUDA else pytest.mark.long
SMALL = 64
"""Side of an autoencoder's images on a CPU, in pixels."""


@pytest.mark.benchmark(group="throughput")
@pytest.mark.parametrize(("protocol", "denoiser", "latent", "work"), MATRIX, ids=["-".join(one) for one in MATRIX])
def test_throughput(benchmark, tmp_path, protocol, denoiser, latent, work):
    recipe = RECIPES[protocol]
    cases = tuple(
        Case(denoiser=denoiser, latent=one, resolution=512, work=work) for one in (BASELINE, Latent.parse(latent))
    )
    torch.set_num_threads(os.cpu_count() or 1)  # the other benchmarks' one thread would take twice as long
    if not CUDA:  # half as many blocks as for the table, whose measurements are restarted
        recipe = recipe.model_copy(update={"plan": recipe.plan.model_copy(update={"blocks": 6})})
    slow, fast = (load(path) for path in measure(Session(cases, recipe, tmp_path), print))
    info = benchmark.extra_info
    for name, record in (("slow", slow), ("fast", fast)):
        info[name] = {
            "latent_space": record.model.latent_space,
            "batch": record.batch,
            "gmacs": record.model.gmacs,
            "status": record.status,
            "derived": record.derived and record.derived.model_dump(mode="json"),
        }
    ratio = speed_up(fast, slow)
    info["speed_up"] = ratio and ratio.model_dump()
    info["mac_ratio"] = slow.model.gmacs / fast.model.gmacs
    if ratio is None:
        pytest.skip(f"{slow.status}, {fast.status}: {slow.reason or fast.reason}")
    device = torch.device("cuda" if CUDA else "cpu")
    ready = build_workload(Job(cases[1], recipe, fast.batch, device, mode=fast.mode, check=False))

    def iteration():
        ready.call()
        if CUDA:
            torch.cuda.synchronize()

    benchmark.pedantic(iteration, rounds=3, warmup_rounds=1)
    assert ratio.low > 1


@pytest.mark.benchmark(group="throughput of autoencoders")
@pytest.mark.parametrize(
    ("protocol", "autoencoder", "work"),
    [pytest.param(*one, id="-".join(one), marks=ONLY_ASKED_FOR) for one in AUTOENCODERS],
)
def test_autoencoder(benchmark, tmp_path, protocol, autoencoder, work):
    """The encoder, the decoder and a step of each training phase, each timed alone."""
    side = usual_resolution(work) if CUDA else SMALL
    case = Case(denoiser=None, latent=Latent(autoencoder=autoencoder, patch=1), resolution=side, work=work)
    torch.set_num_threads(os.cpu_count() or 1)
    record = load(measure(Session((case,), RECIPES[protocol], tmp_path), print)[0])
    benchmark.extra_info |= {
        "resolution": side,
        "batch": record.batch,
        "gmacs": record.model.gmacs,
        "settings": record.settings,
        "derived": record.derived and record.derived.model_dump(mode="json"),
    }
    if record.derived is None:
        pytest.skip(f"{record.status}: {record.reason}")
    device = torch.device("cuda" if CUDA else "cpu")
    checkpointing = record.settings.get("checkpointing") == "full"
    ready = build_workload(
        Job(case, RECIPES[protocol], record.batch, device, checkpointing, mode=record.mode, check=False)
    )

    def iteration():
        ready.call()
        if CUDA:
            torch.cuda.synchronize()

    benchmark.pedantic(iteration, rounds=3, warmup_rounds=1)
    assert record.derived.images_per_s.low > 0


@pytest.mark.parametrize("protocol", [pytest.param("paper" if CUDA else "cpu", marks=ONLY_ASKED_FOR)])
def test_two_runs_repeat_each_other(benchmark, tmp_path, protocol):
    """The intervals of two successive measurements of one workload overlap."""
    torch.set_num_threads(os.cpu_count() or 1)
    case = Case(denoiser="uvit-s", latent=Latent.parse("dc-ae-f64c128-p1"), resolution=512, work="forward")
    runs = [Session((case,), RECIPES[protocol], tmp_path, restart) for restart in (1, 2)]
    found = [load(measure(run, print)[0]).derived.images_per_s for run in runs]
    benchmark.extra_info["images_per_s"] = [one.model_dump() for one in found]
    benchmark.pedantic(lambda: None, rounds=1)
    first, second = found
    assert first.low <= second.high and second.low <= first.high
