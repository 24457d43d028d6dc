"""Sizes and costs of the catalogue against the published numbers, to the last digit."""

from functools import cache

import pytest

from dcae_bench.base.errors import DataError
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.models.cost import AutoencoderCost, autoencoder_cost

RESOLUTIONS = (256, 512, 1024)


@cache
def counted(name: str) -> AutoencoderCost:
    return autoencoder_cost(catalogue().architectures[name], RESOLUTIONS)


def gmacs(name: str) -> list[str]:
    passes = counted(name).passes
    return [f"{passes[side].encode_gmacs:.3f} / {passes[side].decode_gmacs:.3f}" for side in RESOLUTIONS]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("dc-ae-f32c32", ["260.683 / 346.183", "1042.730 / 1384.734", "4170.921 / 5538.935"]),
        ("dc-ae-f64c128", ["263.158 / 349.565", "1052.640 / 1398.267", "4210.559 / 5593.069"]),
        ("dc-ae-f128c512", ["263.847 / 350.707", "1055.398 / 1402.837", "4221.601 / 5611.359"]),
        ("dc-ae-f32c32-sana", ["161.862 / 261.519", "647.450 / 1046.076", "2589.799 / 4184.306"]),
    ],
)
def test_dc_ae_costs(name, wanted):
    assert gmacs(name) == wanted


@pytest.mark.parametrize(
    ("name", "side", "encode", "decode"),
    [
        ("sd-vae-f8c4", 256, "136.36", "311.09"),
        ("sd-vae-f8c4", 512, "558.33", "1257.26"),
        ("ldm-f16c16", 512, "278.15", "507.52"),
        ("ldm-f32c64", 512, "272.78", "505.51"),
    ],
)
def test_sd_vae_costs(name, side, encode, decode):
    once = counted(name).passes[side]
    assert (f"{once.encode_gmacs:.2f}", f"{once.decode_gmacs:.2f}") == (encode, decode)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dc-ae-f32c32", 323_356_460),
        ("dc-ae-f64c128", 676_896_140),
        ("dc-ae-f128c512", 1_120_682_252),
        ("dc-ae-f32c32-sana", 312_250_275),
        ("sd-vae-f8c4", 83_653_863),
        ("ldm-f16c16", 69_610_963),
        ("ldm-f32c64", 103_880_131),
        ("asymmetric-vae-f8c4", 406_130_151),  # four bytes each are the 1.62 GB of the released file
        # Flux, from the f8 network: 24 more channels of mean and variance, 12 more of latent, no 1x1 layers.
        ("flux-vae-f8c16", 83_653_863 + 24 * (9 * 512 + 1) + 12 * 9 * 512 - 72 - 20),
    ],
)
def test_parameters(name, parameters):
    assert counted(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("sd-vae-f32c32", "140.70"),
        ("sd-vae-f64c128", "170.43"),
        ("sd-vae-f128c512", "205.30"),
        ("sd-vae-f32c32-wide", "365.59"),
        ("sd-vae-f64c128-wide", "1043.06"),
        ("sd-vae-f128c512-wide", "1518.57"),
    ],
)
def test_parameters_of_the_papers_baselines_in_both_readings(name, millions):
    assert f"{counted(name).parameters / 1e6:.2f}" == millions


def test_latent_shapes():
    for name in ("dc-ae-f32c32", "dc-ae-f32c32-sana"):
        assert [counted(name).passes[side].latent for side in RESOLUTIONS] == [(32, n, n) for n in (8, 16, 32)]
    assert [counted("dc-ae-f64c128").passes[side].latent for side in RESOLUTIONS] == [(128, n, n) for n in (4, 8, 16)]
    assert [counted("dc-ae-f128c512").passes[side].latent for side in RESOLUTIONS] == [(512, n, n) for n in (2, 4, 8)]


def test_folding_the_latent_costs_nothing():
    base = counted("sd-vae-f8c4")
    for name, latent in [("sd-vae-f8c4-to-f32c64", (64, 16, 16)), ("sd-vae-f8c4-to-f64c256", (256, 8, 8))]:
        assert counted(name).parameters == base.parameters
        assert counted(name).passes[512].latent == latent
        assert gmacs(name) == gmacs("sd-vae-f8c4")


def test_a_resolution_that_does_not_fit():
    with pytest.raises(DataError, match="multiples of 32"):
        autoencoder_cost(catalogue().architectures["dc-ae-f32c32"], [100])
