from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dcae_bench.records.provenance import Device, Provenance
from dcae_bench.records.record import Data, Interval, Metric, Record
from dcae_bench.records.subject import Subject
from dcae_bench.tables.reported.reconstruction import ReconstructionRow, load_reported_reconstruction

RecordMaker = Callable[..., Record]


def record(
    family: str = "dc-ae",
    compression: int = 32,
    latent_channels: int = 32,
    *,
    phase: int | None = 3,
    data_set: str = "photos-indoor",
    resolution: int = 128,
    images: int = 40,
    data_sha256: str = "d" * 64,
    protocol: str = "reconstruction/photos-v1",
    weights_source: str = "retrained",
    parameters: int = 2_340_000,
    autoencoder: str | None = None,
    profile: str = "demo",
    kind: str = "reconstruction",
    commit: str | None = "0123456789abcdef0123456789abcdef01234567",
    dirty: bool | None = True,
    rfd: float | None = 1.234,
    psnr: float = 21.456,
    ssim: float = 0.6543,
    lpips: float = 0.2345,
    rfid: float | None = None,
    rfd_notes: tuple[str, ...] = (),
    intervals: dict[str, tuple[float, float]] | None = None,
    settings: dict[str, str] | None = None,
) -> Record:
    metrics = {
        "psnr": Metric(label="PSNR", value=psnr, better="higher", unit="dB"),
        "ssim": Metric(label="SSIM", value=ssim, better="higher"),
        "lpips_alex_u8": Metric(label="LPIPS (AlexNet)", value=lpips, better="lower"),
    }
    if rfd is not None:
        label = "rFD (EfficientNet-Lite0)"
        metrics["rfd_efficientnet_lite0"] = Metric(label=label, value=rfd, better="lower", notes=rfd_notes)
    if rfid is not None:
        metrics["rfid_pytorch_fid"] = Metric(label="rFID", value=rfid, better="lower")
    for key, (low, high) in (intervals or {}).items():
        interval = Interval(low=low, high=high, method="a test")
        metrics[key] = metrics[key].model_copy(update={"interval": interval})
    return Record(
        kind=kind,
        profile=profile,
        protocol=protocol,
        subject=Subject(
            autoencoder=autoencoder or f"{family}-f{compression}c{latent_channels}",
            family=family,
            compression=compression,
            latent_channels=latent_channels,
            weights_source=weights_source,
            phase=phase,
            parameters=parameters,
            weights_sha256="a" * 64,
        ),
        data=Data(name=data_set, split="eval", resolution=resolution, images=images, sha256=data_sha256),
        metrics=metrics,
        settings=settings or {},
        provenance=Provenance(
            commit=commit,
            dirty=dirty,
            code_sha256="b" * 64,
            config_sha256="c" * 64,
            seed=7,
            versions={"python": "3.11.2", "torch": "2.9.0"},
            device=Device(kind="cpu", name="Testium 9000, 2 cores", threads=2, precision="fp32"),
            command="dcae-bench evaluate --name [red]demo[/red]",
            started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            finished=datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC),
            seconds=60.5,
        ),
    )


@pytest.fixture(scope="session")
def make_record() -> RecordMaker:
    """Builds a record of the demo; keyword arguments change single facts."""
    return record


@pytest.fixture(scope="session")
def make_released() -> RecordMaker:
    """Builds the record that answers the paper's DC-AE f64c128 row on ImageNet 512 to all its printed decimals."""

    def make(**changes) -> Record:
        facts = {
            "autoencoder": "dc-ae-f64c128-in-1.0",
            "phase": None,
            "data_set": "imagenet",
            "resolution": 512,
            "images": 50_000,
            "protocol": "reconstruction/paper-v1",
            "weights_source": "released",
            "parameters": 676_896_140,
            "profile": "released",
            "rfd": None,
            "rfid": 0.2167766520628902,
            "psnr": 26.1489275,
            "ssim": 0.710486114025116,
            "lpips": 0.0802311897277832,
        }
        return record("dc-ae", 64, 128, **(facts | changes))

    return make


@pytest.fixture(scope="session")
def reported() -> list[ReconstructionRow]:
    return load_reported_reconstruction()


@pytest.fixture(scope="session")
def verified_row(reported) -> ReconstructionRow:
    """DC-AE f64c128 on ImageNet 512: the row whose every value is verified."""
    return next(row for row in reported if all(value.confidence == "verified" for value in row.metrics.values()))


@pytest.fixture
def demo_records(make_record) -> dict[Path, Record]:
    """Two families, three phases, one latent shape and data set, two resolutions; DC-AE better in all but SSIM."""
    records = {}
    for resolution in (128, 256):
        for family, gain in (("sd-vae", 0.0), ("dc-ae", 1.0)):
            for phase in (1, 2, 3):
                records[Path(f"results/demo/reconstruction/{family}-{resolution}-p{phase}.json")] = make_record(
                    family,
                    phase=phase,
                    resolution=resolution,
                    parameters=3_000_000 - int(gain * 500_000),
                    rfd=9.876 - 2 * gain - 0.1 * phase,
                    psnr=20.111 + 2 * gain + 0.1 * phase,
                    ssim=0.7004 - 0.1 * gain,
                    lpips=0.3456 - 0.05 * gain,
                    rfd_notes=("40 images, fewer than the 1280 features",),
                )
    return records
