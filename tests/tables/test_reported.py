import shutil
from collections import Counter

import pytest
import yaml

from dcae_bench.base.errors import ConfigError
from dcae_bench.tables.reported.reconstruction import TABLE2, load_reconstruction_file, load_reported_reconstruction

METRICS = {"rfid", "psnr", "ssim", "lpips"}


def test_eight_settings_with_both_autoencoders_and_four_metrics(reported):
    settings = Counter((row.dataset, row.resolution, row.compression, row.latent_channels) for row in reported)
    assert len(reported) == 16
    assert set(settings.values()) == {2} and len(settings) == 8
    assert Counter(row.family for row in reported) == {"sd-vae": 8, "dc-ae": 8}
    assert all(set(row.metrics) == METRICS for row in reported)


def test_confidences(reported):
    counts = Counter(value.confidence for row in reported for value in row.metrics.values())
    assert counts == {"verified": 4, "secondary": 13, "recalled_unverified": 47}


def test_the_row_that_the_authors_publish(verified_row):
    assert (verified_row.family, verified_row.resolution, verified_row.latent_shape) == ("dc-ae", 512, "8x8x128")
    assert {name: value.text for name, value in verified_row.metrics.items()} == {
        "rfid": "0.22",
        "psnr": "26.15",
        "ssim": "0.71",
        "lpips": "0.080",
    }


def test_dc_ae_is_reported_ahead_of_sd_vae_everywhere(reported):
    # Guards against transposed cells: the paper's claim holds in every one of its pairs.
    for sd_vae, dc_ae in zip(reported[::2], reported[1::2], strict=True):
        assert (sd_vae.family, dc_ae.family) == ("sd-vae", "dc-ae")
        assert (sd_vae.dataset, sd_vae.latent_shape) == (dc_ae.dataset, dc_ae.latent_shape)
        for metric, higher in (("rfid", False), ("psnr", True), ("ssim", True), ("lpips", False)):
            assert (dc_ae.metrics[metric].value > sd_vae.metrics[metric].value) == higher


def test_every_source_is_used_and_recalled_values_stand_in_brackets():
    file = load_reconstruction_file()
    values = [value for row in file.rows for value in row.metrics.values()]
    assert {source for value in values for source in value.sources} == set(file.sources)
    assert all(value.text.startswith("(") != value.trusted for value in values)


def _drop(content):
    del content["rows"][3]["resolution"]


def _misspell(content):
    content["rows"][0]["metrics"]["psnr"]["decimal"] = 2


def _unknown_source(content):
    content["rows"][0]["metrics"]["psnr"]["sources"] = ["hearsay"]


def _recalled_with_source(content):
    content["rows"][0]["metrics"]["psnr"]["confidence"] = "recalled_unverified"


def _too_precise(content):
    content["rows"][0]["metrics"]["psnr"]["value"] = 22.131


def _other_protocol(content):
    content["rows"][5]["protocol"] = "reconstruction/other-v1"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_drop, "rows.3.resolution"),
        (_misspell, "rows.0.metrics.psnr.decimal"),
        (_unknown_source, "rows.0.metrics.psnr.sources: no source is called 'hearsay'"),
        (_recalled_with_source, "rows.0.metrics.psnr"),
        (_too_precise, "rows.0.metrics.psnr: value 22.131 has more than 2 decimals"),
        (_other_protocol, "rows.5.protocol"),
    ],
)
def test_a_spoilt_file_is_named_with_its_field(tmp_path, spoil, expected):
    content = yaml.safe_load(TABLE2.read_text())
    spoil(content)
    path = tmp_path / "spoilt.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as error:
        load_reported_reconstruction(path)
    assert str(path) in str(error.value) and expected in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unspoilt_copy_loads(tmp_path, reported):
    assert load_reported_reconstruction(shutil.copy(TABLE2, tmp_path)) == reported


@pytest.mark.parametrize("content", [None, "rows: [", "- just\n- a list\n", b"\xff\xfe\x00"])
def test_what_is_not_a_table_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as error:
        load_reported_reconstruction(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
