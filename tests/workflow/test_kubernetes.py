"""The workflow through Snakemake's plugin for Kubernetes, with a stand-in for the API."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from tests import tiny_diffusion
from tests.stand_in_kubernetes import StandIn
from tests.workflow.test_killed import content
from tests.workflow.test_workflow import Checkout

PROFILE = REPOSITORY / "profiles" / "kubernetes" / "config.yaml"
STORAGE = "snakemake-storage-plugin-fs"
VOLUME = "/dcae-bench"
DATA = ("photos-indoor", "photos-mixed")
TABLE = "results/table_rfid.md"
PLACE = Path("results", "tiny")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_kubernetes") is None, reason="needs `make cluster`"
    ),
]


def wheel_of(name: str, folder: Path) -> None:
    """Write a wheel of an installed package, as the image holds one for its pods."""
    found = importlib.metadata.distribution(name)
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{found.version}-py3-none-any.whl", "w") as wheel:
        for file in found.files or ():
            if "__pycache__" not in file.parts and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(str(file.locate()), str(file))


def profile() -> str:
    """A tiny autoencoder on packs that are there already, and no denoiser."""
    changes = {("training", "datasets"): list(DATA), ("evaluation", "sets", 0, "dataset"): DATA[0]}
    return yaml.safe_dump({key: part for key, part in tiny_diffusion.content(changes).items() if key != "diffusion"})


def checkout(folder: Path) -> Checkout:
    """A checkout whose only missing results are those of the tiny profile."""
    folder.mkdir()
    made = Checkout(folder)
    (folder / "config" / "tiny.yaml").write_text(profile())
    tiny_diffusion.write_data(folder / PLACE / "data", DATA)
    return made


def environment(root: Path) -> dict[str, str]:
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(root), "PATH": paths, "OMP_NUM_THREADS": "1"}


def results(folder: Path) -> dict[str, object]:
    """The table's numbers and the results behind them; the page itself names a commit, which only a checkout has."""
    found = [path for name in ("training", "reconstruction") for path in (folder / PLACE / name).rglob("*")]
    paths = [path.relative_to(folder) for path in sorted(found) if path.is_file()]
    read = content(folder, [*paths, Path(TABLE).with_suffix(".csv")])
    # Outside a checkout the table names records by absolute paths.
    table = read[str(Path(TABLE).with_suffix(".csv"))].replace(f"/{PLACE}".encode(), str(PLACE).encode())
    return {**read, str(Path(TABLE).with_suffix(".csv")): table}


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the rules, one after another."""
    monkeypatch.chdir(folder)
    training, measured = PLACE / "training/sd-vae@retrained/phase1", PLACE / "reconstruction/sd-vae@retrained/phase1"
    weights, of = f"{training}/model.safetensors", ["--profile", "config/tiny.yaml", "--data", f"{PLACE}/data"]
    phase = [*of, "--autoencoder", "sd-vae", "--phase", "1"]
    for command in (
        ["train", *phase, "--run-dir", f"{PLACE}/runs/one", "--output", weights],
        ["evaluate", *phase, "--weights", weights, "--output", str(measured)],
        ["table", *of, "--output", TABLE, f"{measured}/{DATA[0]}-32.json"],
    ):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0


@pytest.mark.skipif(shutil.which("rsync") is None, reason="the plugin for storage needs rsync")
def test_jobs_of_kubernetes_give_the_results_of_a_local_run(tmp_path, monkeypatch):
    shared = checkout(tmp_path / "shared")
    run_here(checkout(tmp_path / "local").root, monkeypatch)
    profile = tmp_path / "profile" / "config.yaml"
    profile.parent.mkdir()
    profile.write_text(PROFILE.read_text().replace(VOLUME, str(shared.root)))
    wheel_of(STORAGE, tmp_path / "wheels")
    image = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    with StandIn(tmp_path / "pods", environment(shared.root) | image) as api:

        def snakemake(*options: str) -> str:
            often = ("--latency-wait", "5", "--seconds-between-status-checks", "1")
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "snakemake", "--workflow-profile", profile.parent, *often, *options),
                    *("--config", "profile=tiny", "--", TABLE),
                ],
                cwd=shared.root,
                env=environment(shared.root) | {"KUBECONFIG": str(api.configuration())},
                capture_output=True,
                text=True,
                timeout=300,
            )
            said = "\n".join([done.stdout, done.stderr, *(pod.log for pod in api.pods.values())])
            assert done.returncode == 0, said
            return said

        assert "storage" not in snakemake("--dry-run", "--quiet", "host") and not api.pods
        said = snakemake()
        assert len(api.pods) == 2, said  # the training and the evaluation; pages are made by Snakemake itself
        assert not api.secrets
        for pod in api.pods.values():
            asked = pod.container["resources"]
            assert pod.container["image"] == "dcae-bench:0.1.0"
            assert asked["requests"] == asked["limits"] | {"cpu": asked["requests"]["cpu"]}
            assert asked["limits"]["memory"].startswith("61")  # the plan's 6 GiB, and a tiny network
    assert results(shared.root) == results(tmp_path / "local")
