import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from dcae_bench.base.errors import ResultsError
from dcae_bench.records.record import Interval, Metric
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.figures import denoisers as denoiser_figures
from dcae_bench.tables.figures.denoisers import MARKERS, guidance_figure, loss_figure, samples_figure


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures: list[Figure] = []

    def save(figure, path):
        figure.savefig(path, format="png", dpi=40)
        figures.append(figure)

    monkeypatch.setattr(denoiser_figures, "save_figure", save)
    return figures


@pytest.fixture
def make(make_record):
    def of(family="dc-ae", compression=32, *, guidance=1.0, value=5.0, process="vp", kind="generation"):
        record = make_record(family, compression, 32, kind=kind)
        facts = {"name": "uvit-nano", "family": "uvit", "patch": 1, "tokens": 16, "classes": 2, "parameters": 7}
        facts |= {"row": f"{family}-{compression}", "process": process, "gmacs": 0.1, "weights_sha256": "e" * 64}
        interval = Interval(low=value - 1, high=value + 1, method="a test")
        metric = Metric(label="gFD (EfficientNet-Lite0)", value=value, better="lower", interval=interval)
        found = {"gfd_efficientnet_lite0": metric, "flops_per_image": Metric(label="F", value=1e9)}
        settings = {"guidance": f"{guidance:g}"}
        return record.model_copy(update={"denoiser": DenoiserSubject(**facts), "metrics": found, "settings": settings})

    return of


def test_samples_grid_has_sd_vae_first_and_equal_columns(drawn, make, tmp_path):
    items = []
    for family, shade in (("dc-ae", 200), ("sd-vae", 10)):
        file = tmp_path / f"{family}.npy"
        np.save(file, np.full((6, 8, 8, 3), shade, np.uint8))
        items.append((make(family), file))
    samples_figure(items, tmp_path / "grid.png", count=4)
    (figure,) = drawn
    shades = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shades == [10] * 4 + [200] * 4
    captions = [text.get_text() for text in figure.texts[1:]]
    assert captions[0].startswith("sd-vae-f32c32 p1\nsd-vae-32\ns = 1, gFD 5")


def test_loss_is_drawn_over_flops(drawn, make, tmp_path):
    logs = {}
    for family, process in (("dc-ae", "vp"), ("sd-vae", "vp"), ("dc-ae", "flow")):
        log = tmp_path / f"{family}-{process}.jsonl"
        log.write_text("".join(json.dumps({"images": n, "loss": 1 / n}) + "\n" for n in (1, 2, 4)))
        logs[log] = make(family, process=process, kind="diffusion_training")
    loss_figure(logs, tmp_path / "loss.png")
    flow, vp = drawn[0].axes
    assert (len(flow.lines), len(vp.lines)) == (1, 2)
    drawn[0].draw_without_rendering()
    for axes in (flow, vp):
        assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0, "curves run through the legend"
    assert list(vp.lines[0].get_xdata()) == [1e9, 2e9, 4e9] and list(vp.lines[0].get_ydata()) == [1, 0.5, 0.25]


@pytest.mark.parametrize("figure", ["loss", "guidance"])
def test_rows_of_one_latent_space_are_told_apart(figure, drawn, make, tmp_path):
    """As a shorter and a longer training are: by a marker, which the legend shows too."""
    records = [make(family, ratio) for family in ("sd-vae", "dc-ae") for ratio in (32, 64)]
    longer = [
        record.model_copy(
            update={"denoiser": record.denoiser.model_copy(update={"row": f"{record.denoiser.row}-long"})}
        )
        for record in records
    ]
    if figure == "guidance":
        guidance_figure([*records, *longer], tmp_path / "guidance.png")
    else:
        logs = {tmp_path / f"{number}.jsonl": record for number, record in enumerate([*records, *longer])}
        for log in logs:
            log.write_text(json.dumps({"images": 1, "loss": 1.0}) + "\n")
        loss_figure(logs, tmp_path / "loss.png")
    (axes,) = drawn[0].axes
    looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines]
    assert len(looks) == len({str(look) for look in looks}) == 8
    assert all(line.get_marker() in MARKERS for line in axes.get_legend().get_lines())


def test_numbers_of_a_narrow_axis_do_not_run_into_each_other(drawn, make, tmp_path):
    logs = {}
    for process in ("vp", "flow", "learned-range"):
        log = tmp_path / f"{process}.jsonl"
        log.write_text("".join(json.dumps({"images": n, "loss": 1 / n}) + "\n" for n in (5, 20, 30)))
        logs[log] = make(process=process, kind="diffusion_training")
    loss_figure(logs, tmp_path / "loss.png")
    (figure,) = drawn
    boxes = [
        label.get_window_extent()
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_xticklabels(minor=True))
        if label.get_text() and axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1]
    ]
    assert len(boxes) >= 3
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_guidance_marks_the_best_scale(drawn, make, tmp_path):
    records = [make(guidance=s, value=v) for s, v in ((2.0, 4.0), (1.0, 9.0), (1.5, 3.0))]
    guidance_figure([*records, make("sd-vae", guidance=1.0)], tmp_path / "guidance.png")
    (axes,) = drawn[0].axes
    line = next(line for line in axes.lines if line.get_label().startswith("dc-ae"))
    assert list(line.get_xdata()) == [1.0, 1.5, 2.0] and list(line.get_ydata()) == [9, 3, 4]
    assert "s = 1.5" in [text.get_text() for text in axes.texts]


def test_nothing_to_draw_is_one_line(make, make_record, tmp_path):
    for draw, nothing in ((samples_figure, []), (loss_figure, {}), (guidance_figure, [])):
        with pytest.raises(ResultsError, match="no "):
            draw(nothing, tmp_path / "x.png")
    with pytest.raises(ResultsError, match=r"absent.npy: cannot be read"):
        samples_figure([(make(), tmp_path / "absent.npy")], tmp_path / "x.png")
    with pytest.raises(ResultsError, match="names no denoiser"):
        guidance_figure([make_record()], tmp_path / "x.png")
