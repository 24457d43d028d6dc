"""Sizes and costs of denoisers on the paper's latent spaces at 512 px, to the last published digit."""

from functools import cache

import pytest
import torch

from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.models.cost import DenoiserCost, denoiser_cost
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import Architecture, DenoiserSpec, LatentSpace

SPACES = {
    "sd f8p2": (4, 64, 2),
    "sd f8p4": (4, 64, 4),
    "flux f8p2": (16, 64, 2),
    "ldm f16p2": (16, 32, 2),
    "ldm f32p1": (64, 16, 1),
    "dc f8p1": (2, 64, 1),
    "dc f16p1": (8, 32, 1),
    "dc f32p1": (32, 16, 1),
    "dc f64p1": (128, 8, 1),
    "dc f128p1": (512, 4, 1),
}
LISTED = ("sd f8p2", "sd f8p4", "flux f8p2", "ldm f16p2", "ldm f32p1", "dc f32p1", "dc f64p1", "dc f128p1")
PARAMETERS = {
    "uvit-s": (45165584, 44821568, 45214784, 44821568, 44821568, 44788768, 44788864, 45157888),
    "uvit-m": (131481616, 130965568, 131555392, 130965568, 130965568, 130916384, 130916480, 131469824),
    "uvit-l": (287549456, 286861376, 287647808, 286861376, 286861376, 286795808, 286795904, 287533568),
    "uvit-h": (501716752, 500942656, 501827392, 500942656, 500942656, 500868896, 500868992, 501698816),
    "uvit-2b": (1581903888, 1580527680, 1582100544, 1580527680, 1580527680, 1580396576, 1580396672, 1581871616),
    "dit-xl": (674834720, 675000704, 675000704, 675000704, 675000704, 674890048, 675222016, 676549888),
}
DIT_XL_WITH_POSITIONS = (676014368, 675295616, 676180352, 675295616, 675295616, 675184960, 675295744, 676568320)
SMALLER_DIT = {
    "dit-s": (32865056, 32883520, 32994304),
    "dit-b": (130315808, 130352704, 130574080),
    "dit-l": (457840672, 457889856, 458184960),
}
GMACS = {
    "uvit-s": ("59.2153", "12.2569", "2.9732", "0.8059"),
    "uvit-m": ("160.6477", "35.2292", "8.6908", "2.3575"),
    "uvit-l": ("337.9353", "76.4645", "19.0284", "5.1656"),
    "uvit-h": ("582.3383", "133.2062", "33.2436", "9.0235"),
    "uvit-2b": ("1743.1701", "414.8215", "104.6373", "28.4612"),
    "dit-xl": ("524.5383", "118.6356", "29.0578", "7.4066"),
}


def spec(name: str, space: str, classes: int | None = 1000) -> DenoiserSpec:
    channels, side, patch = SPACES[space]
    return denoiser_catalogue().architecture(name).on(LatentSpace(channels=channels, side=side, patch=patch), classes)


@cache
def counted(name: str, space: str) -> DenoiserCost:
    return denoiser_cost(spec(name, space))


def parameters(name: str, space: str, classes: int | None = 1000, *, trainable: bool = True) -> int:
    """As ``counted`` counts them, without the passes that take its time."""
    with torch.device("meta"):
        return build_denoiser(spec(name, space, classes)).count_parameters(trainable=trainable)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    assert tuple(parameters(name, space) for space in LISTED) == PARAMETERS[name]


def test_fixed_positions_are_parameters_that_do_not_train():
    assert tuple(parameters("dit-xl", space, trainable=False) for space in LISTED) == DIT_XL_WITH_POSITIONS


@pytest.mark.parametrize("name", SMALLER_DIT)
def test_parameters_of_smaller_dits(name):
    assert tuple(parameters(name, f) for f in ("sd f8p2", "dc f32p1", "dc f64p1")) == SMALLER_DIT[name]


def closed_form(spec: DenoiserSpec) -> int:
    """Multiply-accumulates of a pass, written down from the graph."""
    width, depth, length = spec.width, spec.depth, spec.sequence
    patches, numbers = spec.latent.tokens, spec.latent.patch_numbers
    block = 12 * width**2 * length + 2 * length**2 * width
    if spec.family == "uvit":
        edges = patches * numbers * width + length * width * numbers
        return (depth + 1) * block + depth // 2 * 2 * width**2 * length + edges
    edges = patches * numbers * width + 2 * patches * width * numbers
    return depth * (block + 6 * width**2) + edges + 2 * width**2 + 256 * width + width**2


@pytest.mark.parametrize("name", GMACS)
def test_gmacs_written_down(name):
    spaces = ("sd f8p2", "dc f32p1", "dc f64p1", "dc f128p1")
    assert tuple(f"{closed_form(spec(name, space)) / 1e9:.4f}" for space in spaces) == GMACS[name]


@pytest.mark.parametrize(
    ("name", "space", "gmacs"),
    [
        ("uvit-s", "sd f8p4", "12.2653"),
        ("uvit-h", "sd f8p4", "133.2251"),
        ("dit-xl", "sd f8p4", "118.6639"),
        ("dit-xl", "dc f8p1", "2909.02"),
        ("dit-xl", "dc f16p1", "524.51"),
    ],
)
def test_gmacs_of_further_spaces_written_down(name, space, gmacs):
    digits = len(gmacs.split(".")[1])
    assert f"{closed_form(spec(name, space)) / 1e9:.{digits}f}" == gmacs


@pytest.mark.parametrize("name", GMACS)
def test_gmacs_counted(name):
    """On one space of each size: the parts that depend on it are compared for every space with a small model below."""
    assert f"{counted(name, 'dc f64p1').gmacs:.4f}" == GMACS[name][2]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("family", ["uvit", "dit"])
def test_gmacs_counted_are_those_written_down(family, space):
    channels, side, patch = SPACES[space]
    latent = LatentSpace(channels=channels, side=side, patch=patch)
    small = Architecture(family=family, width=40, depth=2, heads=5).on(latent, 7)
    assert denoiser_cost(small).gmacs * 1e9 == pytest.approx(closed_form(small), abs=0.5)


@pytest.mark.parametrize(
    ("name", "space", "gmacs"),
    [
        ("uvit-s", "dc f32p1", "12.2674"),
        ("uvit-h", "dc f32p1", "133.2546"),
        ("uvit-h", "dc f64p1", "33.2501"),
        ("uvit-2b", "dc f32p1", "414.91"),
        ("uvit-2b", "dc f64p1", "104.6494"),
        ("dit-xl", "dc f32p1", "118.6772"),
    ],
)
def test_gmacs_as_the_authors_print_them(name, space, gmacs):
    digits = len(gmacs.split(".")[1])
    assert f"{counted(name, space).torchprofile_gmacs:.{digits}f}" == gmacs


def test_a_cost_has_the_size_too():
    found = counted("dit-xl", "dc f32p1")
    assert f"{found.gmacs:.4f}" == "118.6356"
    assert (found.parameters, found.all_parameters, found.tokens) == (674890048, 675184960, 256)


def test_tokens():
    assert [spec("uvit-s", space).latent.tokens for space in LISTED] == [1024, 256, 1024, 256, 256, 256, 64, 16]


def test_unconditional_models_have_no_labels():
    assert parameters("uvit-s", "dc f64p1") - parameters("uvit-s", "dc f64p1", None) == 1002 * 512
    assert parameters("dit-s", "dc f64p1") - parameters("dit-s", "dc f64p1", None) == 1001 * 384
