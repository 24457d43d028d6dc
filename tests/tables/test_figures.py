import json

import numpy as np
import pytest
from PIL import Image

from dcae_bench.base.errors import ResultsError
from dcae_bench.records.record import save
from dcae_bench.tables.figures import reconstructions
from dcae_bench.tables.figures.losses import LossCurve, log_curve, loss_curves_figure
from dcae_bench.tables.figures.reconstructions import (
    ShownSamples,
    load_samples,
    reconstructions_figure,
    samples_path,
)
from dcae_bench.tables.figures.style import COLOURS

# Colours that no text, frame or background of the figure has.
ORIGINAL, SD_VAE, DC_AE = (200, 30, 160), (40, 180, 60), (90, 90, 220)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - colour).max(axis=-1) <= 2).sum())


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@pytest.fixture
def make_samples(make_record):
    def make(family="dc-ae", *, resolution=64, images=2, original=ORIGINAL, **facts) -> ShownSamples:
        content = np.empty((images, 2, resolution, resolution, 3), np.uint8)
        content[:, 0] = original
        content[:, 1] = SD_VAE if family == "sd-vae" else DC_AE
        return ShownSamples(make_record(family, resolution=resolution, **facts), content)

    return make


def test_reconstructions_stand_in_equal_cells(make_samples, tmp_path):
    path = tmp_path / "figures" / "reconstructions.png"
    reconstructions_figure([make_samples("dc-ae"), make_samples("sd-vae")], path)
    image = pixels(path)
    assert image.shape[1] == 1500
    cells = [count(image, colour) for colour in (ORIGINAL, SD_VAE, DC_AE)]
    # One row of three cells, a third of the width each less the margins.
    assert min(cells) > 0.9 * max(cells) and max(cells) > 400**2
    middles = [
        np.flatnonzero((np.abs(image.astype(int) - c).max(-1) <= 2).any(0)).mean() for c in (ORIGINAL, SD_VAE, DC_AE)
    ]
    assert middles == sorted(middles)
    assert sorted(path.parent.iterdir()) == [path, path.with_suffix(".svg")]


@pytest.mark.parametrize("name", [r"a$\frac{$b", "$x_{$", "a$b", "$$", "<b>", "a\nb"])
def test_names_are_no_formulas(make_samples, tmp_path, name):
    samples = make_samples(autoencoder=name, profile="p$_{$")
    reconstructions_figure([samples], tmp_path / "figure.png")
    assert pixels(tmp_path / "figure.png").shape[1] == 1500


def test_rows_grow_with_images_data_sets_and_resolutions(make_samples, tmp_path):
    path = tmp_path / "a.png"
    heights = []
    items = [make_samples()]
    reconstructions_figure(items, path)
    heights.append(pixels(path).shape[0])
    items.append(make_samples(resolution=128))
    reconstructions_figure(items, path)
    heights.append(pixels(path).shape[0])
    items.append(make_samples(data_set="photos-mixed"))
    reconstructions_figure(items, path)
    heights.append(pixels(path).shape[0])
    reconstructions_figure(items, path, images_per_row_group=2)
    heights.append(pixels(path).shape[0])
    row = heights[1] - heights[0]
    assert row > 600  # two columns share 1500 px
    assert heights[2] - heights[1] == pytest.approx(row, abs=2)
    assert heights[3] - heights[2] == pytest.approx(3 * row, abs=2)


def test_a_missing_autoencoder_leaves_its_cell_empty(make_samples, tmp_path):
    path = tmp_path / "a.png"
    items = [make_samples("sd-vae"), make_samples("dc-ae"), make_samples("dc-ae", data_set="photos-mixed")]
    reconstructions_figure(items, path)
    image = pixels(path)
    assert count(image, DC_AE) > 1.8 * count(image, SD_VAE) > 0


def test_titles_of_many_autoencoders_do_not_run_into_each_other(make_samples, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(reconstructions, "save_figure", lambda figure, path: shown.append(figure))
    items = [make_samples(family, compression=f) for family in ("sd-vae", "dc-ae", "pca") for f in (32, 64, 128)]
    reconstructions_figure(items, tmp_path / "a.png")
    shown[0].draw_without_rendering()
    places = [text.get_window_extent() for text in shown[0].texts if text.get_weight() == "bold"]
    assert len(places) == 10
    assert not any(one.overlaps(other) for number, one in enumerate(places) for other in places[:number])


def test_equal_input_gives_equal_bytes(make_samples, tmp_path):
    for name in ("a.png", "b.png"):
        reconstructions_figure([make_samples()], tmp_path / name)
    for end in (".png", ".svg"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()


def test_different_originals_are_refused(make_samples, tmp_path):
    items = [make_samples("sd-vae"), make_samples("dc-ae", original=(1, 2, 3))]
    with pytest.raises(ResultsError, match="different originals"):
        reconstructions_figure(items, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_two_phases_of_one_autoencoder_are_refused(make_samples, tmp_path):
    with pytest.raises(ResultsError, match="one phase"):
        reconstructions_figure([make_samples(phase=1), make_samples(phase=3)], tmp_path / "a.png")


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="no sample images"):
        reconstructions_figure([], tmp_path / "a.png")


def test_samples_are_read_from_beside_the_record(make_samples, tmp_path):
    samples, path = make_samples(), tmp_path / "photos-v1.2-64.json"
    save(samples.record, path)
    assert samples_path(path).name == "photos-v1.2-64.samples.npy"
    with pytest.raises(ResultsError, match=r"samples\.npy: cannot be read"):
        load_samples(path)
    np.save(samples_path(path), samples.images)
    found = load_samples(path)
    assert found.record.key == samples.record.key and np.array_equal(found.images, samples.images)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((0, 2, 8, 8, 3), np.uint8)],
)
def test_other_arrays_are_refused(make_record, tmp_path, images):
    save(make_record(), tmp_path / "a.json")
    np.save(tmp_path / "a.samples.npy", images)
    with pytest.raises(ResultsError, match=r"not uint8 \(k, 2, height, width, 3\)"):
        load_samples(tmp_path / "a.json")


def test_a_file_that_is_no_array_is_refused(make_record, tmp_path):
    save(make_record(), tmp_path / "a.json")
    (tmp_path / "a.samples.npy").write_bytes(b"not an array")
    with pytest.raises(ResultsError, match="is not a NumPy array"):
        load_samples(tmp_path / "a.json")


@pytest.fixture
def make_log(make_record, tmp_path):
    def make(family="dc-ae", compression=32, phase=1, *, text=None, value=0.4) -> LossCurve:
        path = tmp_path / f"{family}-{compression}-{phase}.jsonl"
        steps = [{"images": 8 * s, "lr": 1e-3, "loss": 1.0, "l1": value / 4, "lpips": value} for s in range(1, 41)]
        path.write_text(text if text is not None else "".join(json.dumps(step) + "\n" for step in steps))
        return LossCurve(make_record(family, compression, phase=phase).subject, path)

    return make


def test_loss_curves_draw_each_family_in_its_colour(make_log, tmp_path):
    path = tmp_path / "figures" / "loss.png"
    loss_curves_figure([make_log("dc-ae"), make_log("sd-vae", value=0.5), make_log("sd-vae", 64, 2)], path)
    image = pixels(path)
    assert image.shape == (525, 1500, 3)
    thirds = np.array_split(image[:450], 3, axis=1)  # without the legend
    drawn = [{family: count(third, rgb(colour)) > 100 for family, colour in COLOURS.items()} for third in thirds]
    assert drawn[0] == {"sd-vae": True, "dc-ae": True}
    assert drawn[1] == {"sd-vae": True, "dc-ae": False}
    assert drawn[2] == {"sd-vae": False, "dc-ae": False}


def test_loss_curves_without_logs_are_drawn_as_not_run(tmp_path):
    loss_curves_figure([], tmp_path / "loss.png")
    image = pixels(tmp_path / "loss.png")
    assert image.shape == (525, 1500, 3) and image.min() < 100


def curve(make_log, text):
    return log_curve(make_log(text=text).path, ("l1", "lpips"))


def line(step, loss):
    return json.dumps({"images": 10 * step, "l1": loss, "lpips": 1.0}) + "\n"


def test_the_curve_is_l1_plus_lpips_over_images(make_log):
    found = curve(make_log, line(2, 0.25) + line(1, 0.5) + json.dumps({"event": "resumed"}) + "\n")
    assert found.to_dict() == {10: 1.5, 20: 1.25}


def test_a_repeated_step_counts_once_and_half_a_last_line_not_at_all(make_log):
    found = curve(make_log, line(1, 0.5) + line(2, 9.0) + line(2, 0.25) + '{"ima')
    assert found.to_dict() == {10: 1.5, 20: 1.25}


def test_smoothing_is_a_centred_mean(make_log):
    losses = [float(step % 3) for step in range(1, 61)]  # 60 steps: a window of 3 takes the period out
    found = curve(make_log, "".join(line(step, loss) for step, loss in enumerate(losses, start=1)))
    assert np.allclose(found.to_numpy()[1:-1], 2.0)
    assert list(found.index) == [10 * step for step in range(1, 61)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "holds no line"), ('{"images": 1}\n', "holds no line"), ('broken\n{"images": 1}\n', "line 1 is not JSON")],
)
def test_a_log_without_losses_is_refused(make_log, text, reason):
    with pytest.raises(ResultsError, match=reason):
        curve(make_log, text)


def test_a_missing_log_is_refused(make_log, tmp_path):
    log = make_log()
    log.path.unlink()
    with pytest.raises(ResultsError, match="cannot be read"):
        loss_curves_figure([log], tmp_path / "loss.png")
