from collections import Counter

import pytest
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.yaml_files import read_shipped
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.specs.denoisers import LatentSpace
from dcae_bench.tables.reported.generation import TABLE1, TABLE3, GenerationFile, load_reported_generation


@pytest.fixture(scope="module")
def rows():
    return load_reported_generation()


def cell(rows, label, space, metric, table="Table 3"):
    (row,) = [row for row in rows if (row.table, row.label, row.latent_space) == (table, label, space)]
    return [value.text for value in row.metrics[metric]]


def test_rows_and_confidences(rows):
    assert Counter(row.table for row in rows) == {"Table 3": 25, "Table 1": 4}
    assert sum(not row.metrics for row in rows) == 9
    confidences = Counter(value.confidence for row in rows for _, value in row.values())
    assert confidences == {"verified": 36, "secondary": 7}


def test_cells_with_the_authors_own_spread(rows):
    assert cell(rows, "UViT-H", "DC-AE f64p1", "gfid") == ["13.96", "13.754", "13.912"]
    assert cell(rows, "USiT-2B", "DC-AE f32p1", "gfid_cfg") == ["1.72", "1.721", "1.734"]
    assert cell(rows, "DiT-XL, batch 1024", "DC-AE f32p1", "gfid_cfg") == ["2.41"]
    assert cell(rows, "UViT-S", "not stated f8p8", "gfid", "Table 1") == ["125.08"]


def test_guidance_helps_and_longer_training_too(rows):
    # Guards against transposed cells.
    for row in rows:
        if len(row.metrics) == 2:
            assert row.metrics["gfid_cfg"][0].value < row.metrics["gfid"][0].value
    for size in ("UViT-H", "UViT-2B"):
        for metric in ("gfid", "gfid_cfg"):
            short, long = (cell(rows, f"{size}{more}", "DC-AE f64p1", metric) for more in ("", ", 2M steps"))
            assert float(long[0]) < float(short[0])


def test_table_1_is_of_64_tokens(rows):
    assert {row.tokens for row in rows if row.table == "Table 1"} == {64}


def closed_form(size, latent):
    """Trainable parameters of a denoiser with 1000 classes, added up by hand."""
    width, depth, q = size.width, size.depth, latent.patch_numbers
    if size.family == "uvit":
        blocks = (depth + 1) * (12 * width**2 + 10 * width) + depth // 2 * (2 * width**2 + width)
        embeddings = q * width + width + 1001 * width + (latent.tokens + 2) * width
        return embeddings + blocks + 2 * width + width * q + q
    blocks = depth * (18 * width**2 + 15 * width) + 2 * width**2 + 2 * width
    return blocks + 2 * q * (width + 1) + 256 * width + width + width**2 + width + 1001 * width + q * width + width


def test_parameters_are_those_of_the_architectures(rows):
    known = [row for row in rows if row.autoencoder is not None]
    assert len(known) == 26
    for row in known:
        autoencoder = catalogue().spec(row.autoencoder)
        assert autoencoder.compression == row.compression
        latent = LatentSpace.of(autoencoder, row.resolution, row.patch)
        assert closed_form(denoiser_catalogue().architecture(row.denoiser), latent) == row.parameters


@pytest.mark.parametrize("path", [TABLE3, TABLE1])
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
