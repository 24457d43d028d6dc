from collections import Counter

import pytest
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.profile.profile import load_profile
from dcae_bench.specs.denoisers import LatentSpace
from dcae_bench.tables.absence import GenerationAbsence
from dcae_bench.tables.reported.generation import (
    TABLE1,
    TABLE3,
    TABLE4,
    TABLE5,
    GenerationFile,
    load_reported_generation,
)


@pytest.fixture(scope="module")
def rows():
    return load_reported_generation()


def cell(rows, label, space, metric, table="Table 3"):
    (row,) = [row for row in rows if (row.table, row.label, row.latent_space) == (table, label, space)]
    return [value.text for value in row.metrics[metric]]


def test_rows_and_confidences(rows):
    assert Counter(row.table for row in rows) == {"Table 3": 25, "Table 1": 7, "Table 4": 10, "Table 5": 2}
    assert sum(not row.metrics for row in rows) == 5
    values = [value for row in rows for _, value in row.values()]
    assert {value.confidence for value in values} == {"verified"}
    assert sum(value.version == "v1" for value in values) == 26 + 14 + 14 + 4


V1 = {  # FID without and with guidance, as v1 prints them, by table, label, latent space and data set
    ("Table 1", "DiT-XL", "SD-VAE f8p4", "imagenet"): (37.42, 15.61),
    ("Table 1", "DiT-XL", "SD-VAE f16p2", "imagenet"): (36.22, 15.17),
    ("Table 1", "DiT-XL", "SD-VAE f32p1", "imagenet"): (32.98, 12.95),
    ("Table 1", "UViT-S", "SD-VAE f8p8", "imagenet"): (125.08, 95.93),
    ("Table 1", "UViT-S", "SD-VAE f16p4", "imagenet"): (115.32, 88.06),
    ("Table 1", "UViT-S", "SD-VAE f32p2", "imagenet"): (107.33, 76.57),
    ("Table 1", "UViT-S", "DC-AE f64p1", "imagenet"): (67.30, 35.96),
    ("Table 3", "UViT-S", "Flux-VAE f8p2", "imagenet"): (106.07, 84.73),
    ("Table 3", "UViT-S", "SD-VAE f8p2", "imagenet"): (51.96, 24.57),
    ("Table 3", "UViT-S", "SD-VAE f16p2", "imagenet"): (76.86, 44.22),
    ("Table 3", "UViT-S", "SD-VAE f32p1", "imagenet"): (70.23, 38.63),
    ("Table 3", "UViT-S", "DC-AE f32p1", "imagenet"): (46.12, 18.08),
    ("Table 3", "UViT-S", "DC-AE f64p1", "imagenet"): (67.30, 35.96),
    ("Table 3", "UViT-S, 2M steps", "DC-AE f64p1", "imagenet"): (61.84, 30.63),
    ("Table 3", "DiT-XL", "SD-VAE f8p2", "imagenet"): (12.03, 3.04),
    ("Table 3", "DiT-XL", "DC-AE f32p1", "imagenet"): (9.56, 2.84),
    ("Table 3", "UViT-H", "SD-VAE f8p2", "imagenet"): (11.04, 3.55),
    ("Table 3", "UViT-H", "DC-AE f32p1", "imagenet"): (9.83, 2.53),
    ("Table 3", "UViT-H", "DC-AE f64p1", "imagenet"): (13.96, 3.01),
    ("Table 3", "UViT-H, 2M steps", "DC-AE f64p1", "imagenet"): (12.26, 2.66),
    ("Table 4", "DiT-S", "SD-VAE f8p2", "ffhq"): (16.98, None),
    ("Table 4", "DiT-S", "SD-VAE f8p4", "ffhq"): (23.81, None),
    ("Table 4", "DiT-S", "DC-AE f32p1", "ffhq"): (13.65, None),
    ("Table 4", "DiT-S", "DC-AE f64p1", "ffhq"): (26.88, None),
    ("Table 4", "DiT-S", "SD-VAE f8p2", "mjhq"): (48.05, 38.19),
    ("Table 4", "DiT-S", "SD-VAE f8p4", "mjhq"): (60.94, 51.29),
    ("Table 4", "DiT-S", "DC-AE f32p1", "mjhq"): (34.35, 27.20),
    ("Table 4", "DiT-S", "DC-AE f64p1", "mjhq"): (61.30, 53.38),
    ("Table 4", "DiT-S", "SD-VAE f8p4", "mapillary-vistas"): (69.50, None),
    ("Table 4", "DiT-S", "DC-AE f64p1", "mapillary-vistas"): (59.55, None),
    ("Table 5", "PixArt-alpha", "SD-VAE f8p2", "mjhq"): (None, 6.3),
    ("Table 5", "PixArt-alpha", "DC-AE f32p1", "mjhq"): (None, 6.1),
}


def test_every_value_of_v1_is_there_and_no_other_claims_to_be(rows):
    found = {}
    for row in rows:
        printed = {
            metric: next((value.value for value in values if value.version), None)
            for metric, values in row.metrics.items()
        }
        if any(value is not None for value in printed.values()):
            key = (row.table, row.label, row.latent_space, row.dataset)
            found[key] = (printed.get("gfid"), printed.get("gfid_cfg"))
            assert "DC-AE" in row.latent or row.table == "Table 5" or row.autoencoder in SD_VAES[row.compression]
    assert found == V1
    clip = {row.latent: row.metrics["clip_score"][0].value for row in rows if "clip_score" in row.metrics}
    assert clip == {"SD-VAE": 26.36, "DC-AE": 26.41}


SD_VAES = {8: ("sd-vae-ft-ema", "flux-vae"), 16: ("ldm-kl-f16",), 32: ("ldm-kl-f32",)}


def test_a_row_that_nothing_can_run_says_why(rows):
    pixart = [row for row in rows if row.denoiser == "pixart-alpha"]
    profile = load_profile("paper")
    assert len(pixart) == 2
    for row in pixart:
        for source in ("released", "retrained"):
            assert GenerationAbsence(profile, {}).reasons(row, source) == (row.not_run,)


def test_cells_with_the_authors_own_spread(rows):
    assert cell(rows, "UViT-H", "DC-AE f64p1", "gfid") == ["13.96", "13.754", "13.912"]
    assert cell(rows, "USiT-2B", "DC-AE f32p1", "gfid_cfg") == ["1.72", "1.721", "1.734"]
    assert cell(rows, "DiT-XL, batch 1024", "DC-AE f32p1", "gfid_cfg") == ["2.41"]
    assert cell(rows, "UViT-S", "SD-VAE f8p8", "gfid", "Table 1") == ["125.08"]


def test_guidance_helps_and_longer_training_too(rows):
    # Guards against transposed cells.
    for row in rows:
        if {"gfid", "gfid_cfg"} <= row.metrics.keys():
            assert row.metrics["gfid_cfg"][0].value < row.metrics["gfid"][0].value
    for size in ("UViT-H", "UViT-2B"):
        for metric in ("gfid", "gfid_cfg"):
            short, long = (cell(rows, f"{size}{more}", "DC-AE f64p1", metric) for more in ("", ", 2M steps"))
            assert float(long[0]) < float(short[0])


def test_table_1_is_of_equal_tokens(rows):
    assert {(row.label, row.tokens) for row in rows if row.table == "Table 1"} == {("UViT-S", 64), ("DiT-XL", 256)}


def closed_form(size, latent, classes=1000):
    """Trainable parameters of a denoiser, added up by hand; an unconditional DiT (classes None) has no label."""
    labels = 0 if classes is None else classes + 1
    width, depth, q = size.width, size.depth, latent.patch_numbers
    if size.family == "uvit":
        blocks = (depth + 1) * (12 * width**2 + 10 * width) + depth // 2 * (2 * width**2 + width)
        embeddings = q * width + width + labels * width + (latent.tokens + 2) * width
        return embeddings + blocks + 2 * width + width * q + q
    blocks = depth * (18 * width**2 + 15 * width) + 2 * width**2 + 2 * width
    return blocks + 2 * q * (width + 1) + 256 * width + width + width**2 + width + labels * width + q * width + width


def test_parameters_are_those_of_the_architectures(rows):
    known = [row for row in rows if row.autoencoder is not None]
    assert len(known) == 42
    classes = {"imagenet": 1000, "mjhq": 10}
    for row in known:
        autoencoder = catalogue().spec(row.autoencoder)
        assert autoencoder.compression == row.compression
        latent = LatentSpace.of(autoencoder, row.resolution, row.patch)
        assert closed_form(denoiser_catalogue().architecture(row.denoiser), latent, classes.get(row.dataset)) == (
            row.parameters
        )


@pytest.mark.parametrize("path", [TABLE3, TABLE1, TABLE4, TABLE5])
def test_every_source_is_used(path):
    file = read_shipped(path, GenerationFile)
    used = {source for row in file.rows for _, value in row.values() for source in value.sources}
    assert used == set(file.sources)


def _unknown_source(content):
    content["rows"][1]["metrics"]["gfid"][0]["sources"] = ["hearsay"]


def _empty_cell(content):
    content["rows"][1]["metrics"]["gfid"] = []


def _half_tokens(content):
    content["rows"][1]["patch"] = 3


def _reported_without_value(content):
    content["rows"][1]["metrics"] = {}


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_unknown_source, "rows.1.metrics.gfid.0.sources: no source is called 'hearsay'"),
        (_empty_cell, "rows.1: a metric has no value"),
        (_half_tokens, "rows.1: resolution 512 is not a multiple of f32p3"),
        (_reported_without_value, "rows.1.metrics: has 0 values"),
    ],
)
def test_a_spoilt_file_is_named_with_its_field(tmp_path, spoil, expected):
    content = yaml.safe_load(TABLE3.read_text())
    spoil(content)
    path = tmp_path / "spoilt.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as error:
        load_reported_generation(path)
    assert str(path) in str(error.value) and expected in str(error.value) and "\n" not in str(error.value)
