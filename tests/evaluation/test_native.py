"""Whole images of several sizes in one evaluation (protocol native-v1)."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from dcae_bench.base.errors import ConfigError
from dcae_bench.data.external import image_folder
from dcae_bench.data.native import native_crop
from dcae_bench.data.pixels import normalise, to_uint8
from dcae_bench.data.prepare import prepare_files
from dcae_bench.metrics.image import psnr
from dcae_bench.models.checkpoints import load_weights
from dcae_bench.models.zoo import build as build_model
from dcae_bench.planning.meaning import Meaning
from dcae_bench.profile.profile import load_profile, parse_profile
from dcae_bench.records.record import load
from dcae_bench.tables.per_image import check_per_image
from dcae_bench.tables.reconstruction.build import build
from dcae_bench.tables.reconstruction.page import markdown
from tests.fixtures.commands import run_command

SIZES = [(70, 41), (33, 90), (66, 45), (120, 160), (64, 40)]
LABEL = "mine-64"


@pytest.fixture
def native(tiny):
    """The tiny profile with whole images of five sizes; returns a function that changes its evaluation."""
    folder = tiny.folder / "images"
    folder.mkdir()
    for number, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    prepare_files(image_folder("mine"), "eval", folder, tiny.folder / "data" / "mine")

    def change(**evaluation):
        content = yaml.safe_load((tiny.folder / "tiny.yaml").read_text())
        content["evaluation"] |= {
            "protocol": "reconstruction/native-v1",
            "sets": [{"dataset": "mine", "resolution": 64}],
            "crops_per_photo": 1,
            "multiple": 8,
            "bootstrap": 0,
        } | evaluation
        (tiny.folder / "tiny.yaml").write_text(yaml.safe_dump(content))
        return content

    change()
    return change


@pytest.fixture
def evaluate(tiny, native, monkeypatch, capsys):
    def run(name, *options, ends=0):
        capsys.readouterr()
        code = run_command(monkeypatch, "evaluate", *tiny.options, "--output", tiny.folder / name, *options)
        assert code == ends, capsys.readouterr().err
        return capsys.readouterr().err if ends else load(tiny.folder / name / f"{LABEL}.json")

    return run


def test_images_of_several_sizes_are_measured_as_each_alone(tiny, evaluate):
    record = evaluate("out")
    assert record.protocol == "reconstruction/native-v1" and record.subject.gmacs is None
    assert record.settings["sizes"] == "3: 64x40 to 64x80" and "multiples of 8 px" in record.settings["crop"]
    model = build_model(load_profile(tiny.folder / "tiny.yaml").autoencoders["sd-vae-f2c4"].model)
    load_weights(model.eval(), tiny.folder / "model.safetensors")
    values = pq.read_table(tiny.folder / "out" / f"{LABEL}.images.parquet").to_pydict()
    assert (values["height"], values["width"]) == ([40, 40, 40, 80, 88], [64, 64, 64, 64, 32])
    for key, found, height, width in zip(*(values[name] for name in ("key", "psnr", "height", "width")), strict=True):
        pixels = native_crop(np.asarray(Image.open(tiny.folder / "images" / key)), 64, 8)
        assert pixels.shape[:2] == (height, width)
        real = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            fake = to_uint8(model(normalise(real)))
        assert psnr(real, fake).item() == pytest.approx(found, abs=1e-3)
    assert np.load(tiny.folder / "out" / f"{LABEL}.samples.npy").shape == (3, 2, 40, 64, 3)
    assert np.load(tiny.folder / "out" / f"{LABEL}.gallery.npz")["images"].shape[1:] in {(2, 80, 64, 3), (2, 88, 64, 3)}
    path = tiny.folder / "out" / f"{LABEL}.json"
    assert check_per_image(path, record)
    assert Meaning(load_profile(tiny.folder / "tiny.yaml"), tiny.folder / "data").differences(record) == ()
    page = markdown(build("tiny", {path: record}, [], lambda row, source: ("none",)))
    assert "whole images, shorter side at most 64 px" in page and "any x4" in page


@pytest.mark.long
def test_batches_threads_and_tiles_go_with_sizes(tiny, native, evaluate):
    alone = evaluate("out")
    native(batch_size=1, workers=2)
    again = evaluate("again")
    for key, metric in alone.metrics.items():
        assert again.metrics[key].value == pytest.approx(metric.value, rel=1e-5), key
    tiled = evaluate("tiled", "--tile-size", 32, "--precision", "bf16")
    assert tiled.tiling.images == 4 and tiled.settings["precision"] == "bf16"


def test_what_does_not_go_with_whole_images_is_refused(tiny, native, evaluate):
    content = native()
    for change, says in (
        ({"crops_per_photo": 2}, "crops_per_photo is 2; 'reconstruction/native-v1' has 1, the whole image"),
        ({"sets": [{"dataset": "mine", "resolution": 64, "upscale": True}]}, "enlarges no image; remove it"),
        ({"extractors": ["vgg16"]}, "extractor vgg16 resizes no image"),
        ({"multiple": 7}, "resolution 7 of evaluation set mine-64 is not a multiple of 2, the f of sd-vae-f2c4"),
        ({"protocol": "reconstruction/photos-v1"}, "multiple 8 is for 'reconstruction/native-v1'"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse_profile({**content, "evaluation": content["evaluation"] | change}, "x.yaml")
    assert "--path fast: cannot be taken: whole images have several sizes" in evaluate("x", "--path", "fast", ends=2)
    native(multiple=64)
    assert "of which 64x0 remain as multiples of 64 px" in evaluate("x", ends=2)
