"""Precision: the types of numbers, and how exact matrix products and convolutions are on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Type of the numbers of each precision."""


@contextmanager
def pinned(tf32: bool) -> Iterator[None]:
    """Run convolutions with or without TF32, and matrix products without TF32, whatever the caller had set.

    The authors measured under PyTorch's defaults: TF32 for the convolutions of cuDNN, no TF32 for matrix products.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
