"""Speeds and ablations of arXiv v1 (Tables 3, 4 and 5, Figure 3), transcribed here a second time."""

import re

from dcae_bench.tables.reported.ablation import load_reported_ablations
from dcae_bench.tables.reported.throughput import load_throughput

FIELDS = ("train_images_per_s", "forward_images_per_s", "forward_latency_ms", "memory_gb")
SPEEDS = """
uvit-s        512   flux-vae-f8c16 p2   352    2984   3.8   13.8
uvit-s        512   sd-vae-f8c4 p2      352    2991   3.8   13.8
uvit-s        512   ldm-f16c16 p2       1550   12881  1.3   4.0
uvit-s        512   ldm-f32c64 p1       1551   12883  1.3   4.0
uvit-s        512   dc-ae-f32c32 p1     1553   12850  1.3   4.0
uvit-s        512   dc-ae-f64c128 p1    6295   53774  0.7   1.5
dit-xl        512   sd-vae-f8c4 p2      54     424    31.7  56.2
dit-xl        512   dc-ae-f32c32 p1     241    2016   7.8   20.9
uvit-h        512   sd-vae-f8c4 p2      55     351    30.3  54.1
uvit-h        512   dc-ae-f32c32 p1     247    1622   8.2   18.6
uvit-h        512   dc-ae-f64c128 p1    984    6706   3.5   10.6
dit-s         1024  sd-vae-f8c4 p2      84     833    14.1  41.2
dit-s         1024  sd-vae-f8c4 p4      470    5566   2.5   10.7
dit-s         1024  dc-ae-f32c32 p1     475    5575   2.5   10.7
dit-s         1024  dc-ae-f64c128 p1    2085   25259  1.0   3.1
dit-s         2048  sd-vae-f8c4 p4      84     810    14.3  41.4
dit-s         2048  dc-ae-f64c128 p1    459    5435   2.6   11.0
pixart-alpha  512   sd-vae-f8c4 p2      43     312    37.1  60.45
pixart-alpha  512   dc-ae-f32c32 p1     173    1251   10.4  23.77
"""
"""Model, resolution, latent space, training and forward images/s, latency (ms) and memory (GB).

Rows with a dagger repeat the speeds of those without.
"""


def test_every_speed_of_v1_is_there_and_no_other_claims_to_be():
    expected = {}
    for line in SPEEDS.strip().splitlines():
        model, resolution, space, *values = re.split(r"\s{2,}", line)
        expected[model, int(resolution), space] = dict(zip(FIELDS, map(float, values), strict=True))
    found = {}
    for row in load_throughput().rows:
        printed = {name: getattr(row, name) for name in type(row).model_fields}
        of_v1 = {name: speed.value for name, speed in printed.items() if getattr(speed, "version", None) == "v1"}
        if of_v1:
            found[row.model, row.resolution, row.latent_space] = of_v1
            assert all(printed[name].confidence == "verified" for name in of_v1)
    assert found == expected and len(found) == 19


def test_v1_marks_the_ratios_of_its_best_row():
    reported = load_throughput()
    slow, fast = (reported.find("uvit-h", space) for space in ("sd-vae-f8c4 p2", "dc-ae-f64c128 p1"))
    ratios = [getattr(fast, name).value / getattr(slow, name).value for name in FIELDS[:2]]
    assert [f"{ratio:.1f}" for ratio in ratios] == ["17.9", "19.1"]


def test_no_latency_is_converted_from_another_version():
    printed = [row.latency_ms for row in load_throughput().rows if row.latency_ms]
    assert {latency.value: latency.confidence for latency in printed} == dict.fromkeys(
        (914, 104, 7686, 1958), "secondary"
    )
    passes = [row.forward_latency_ms for row in load_throughput().rows if row.forward_latency_ms]
    assert {latency.confidence for latency in passes} == {"verified"}


ABLATIONS = {  # rFID at f8, f32 and f64
    ("residual", "without", 256): (0.90, 2.04, 28.3),
    ("residual", "with", 256): (0.51, 0.49, 0.50),
    ("high_resolution", "without", 1024): (0.19, 0.24, 7.40),
    ("high_resolution", "with", 1024): (0.18, 0.17, 0.20),
}


def test_every_value_of_v1s_ablation_plots_is_there():
    found = {}
    for row in load_reported_ablations():
        value = row.metrics["rfid"]
        if value.version == "v1":
            found.setdefault((row.study, row.arm, row.resolution), {})[row.compression] = value.value
    assert found == {key: dict(zip((8, 32, 64), values, strict=True)) for key, values in ABLATIONS.items()}
