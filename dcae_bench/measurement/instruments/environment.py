"""The environment of a timing: machine, software versions and torch's settings."""

import importlib.metadata
import os
import platform

from pydantic import Field

from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments.nvml import Identity
from dcae_bench.records.provenance import processor_name

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)
"""Environment variables that change timings."""


class Environment(Strict):
    """Machine, software versions and settings of a timing."""

    processor: str
    cpus: int = Field(description="processors that the process may run on")
    memory_gib: float
    system: str
    python: str
    torch: str
    cuda: str | None = Field(description="version of CUDA that torch was built with")
    cudnn: str | None
    triton: str | None
    tensorrt: str | None
    threads: int
    switches: dict[str, str] = Field(description="torch's settings that change timings and numbers")
    variables: dict[str, str] = Field(description="those of the recorded environment variables that are set")
    gpu: Identity | None = None


def read_environment(gpu: Identity | None = None) -> Environment:
    """Read the environment of this process. ``gpu`` is the identity that NVML gives."""
    import torch

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return Environment(
        processor=processor_name(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(),
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=None if cudnn is None else str(cudnn),
        triton=_version("triton"),
        tensorrt=_version("tensorrt"),
        threads=torch.get_num_threads(),
        switches=switches(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        gpu=gpu,
    )


def switches() -> dict[str, str]:
    """Torch's settings that change timings and numbers."""
    import torch

    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    found = {
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": cuda.matmul.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda.matmul.allow_fp16_reduced_precision_reduction": cuda.matmul.allow_fp16_reduced_precision_reduction,
        "cuda.matmul.allow_bf16_reduced_precision_reduction": cuda.matmul.allow_bf16_reduced_precision_reduction,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "sdpa.flash": cuda.flash_sdp_enabled(),
        "sdpa.memory_efficient": cuda.mem_efficient_sdp_enabled(),
        "sdpa.cudnn": cuda.cudnn_sdp_enabled(),
        "sdpa.math": cuda.math_sdp_enabled(),
    }
    return {name: str(value).lower() for name, value in found.items()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
