"""Pixel values: conversion between 8 bits and the interval [-1, 1] that networks take."""

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Round images in [-1, 1] to uint8 as the authors do before every metric: floor(clamp(255 (x+1)/2 + 0.5))."""
    return (255 * ((x.float() + 1) / 2) + 0.5).clamp(0, 255).floor().to(torch.uint8)


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
