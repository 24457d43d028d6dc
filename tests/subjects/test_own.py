"""What own autoencoders of a profile bring, what of it is here, and what is said of the rest."""

import sys

import pytest

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.planning.availability import missing_evaluations, missing_rows
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.subjects.own import fetch_own, latent_weights, needs_fetch, own_files, own_weights
from dcae_bench.tables.absence import ReconstructionAbsence
from dcae_bench.tables.reported.reconstruction import load_reported_reconstruction
from dcae_bench.weights.user_class import source_modules
from tests import tiny_diffusion as tiny

CLASS = {"family": "custom", "class_name": "thumb:Thumbnail", "compression": 4, "latent_channels": 3}
HUB = {"family": "diffusers", "source": "owner/vae", "class_name": "AutoencoderKL"}
HUB |= {"compression": 8, "latent_channels": 4, "subfolder": "vae"}
COMMIT = "c" * 40


def entry(model, **fields):
    return AutoencoderEntry(model=model, weights="own", **fields)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and an empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "thumb", raising=False)
    return folder


def cached(tmp_path, *names):
    """Files of owner/vae in the hub's cache."""
    repository = tmp_path / "hub" / "models--owner--vae"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    paths = [repository / "snapshots" / COMMIT / "vae" / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tuple(paths)


def test_a_weights_file_is_all_that_a_known_family_brings(here):
    mine = entry({"preset": "dc-ae-f32c32"}, file="weights/model.pt")
    assert own_files("mine", mine).present == ()
    assert own_files("mine", mine).missing == (
        "weights of mine are not at weights/model.pt: put the file there, or correct autoencoders.mine.file",
    )
    (here / "weights").mkdir()
    (here / "weights" / "model.pt").touch()
    assert [str(path) for path in own_files("mine", mine).present] == ["weights/model.pt"]
    assert str(own_weights(mine)) == "weights/model.pt"


def test_a_folder_of_weights_counts_with_its_config(here):
    mine = entry({"preset": "dc-ae-f32c32"}, file="folder")
    (here / "folder").mkdir()
    (reason,) = own_files("mine", mine).missing
    assert "folder, the folder of mine's weights, holds no diffusion_pytorch_model.safetensors or" in reason
    for name in ("model.safetensors", "config.json"):
        (here / "folder" / name).touch()
    assert [path.name for path in own_files("mine", mine).present] == ["model.safetensors", "config.json"]


def test_a_class_counts_with_its_module_which_is_not_run(here):
    thumb = entry(CLASS)
    (reason,) = own_files("thumb", thumb).missing
    assert reason == (
        "class of thumb, thumb:Thumbnail: cannot be imported (No module named 'thumb'); run where thumb is importable, "
        "or with its folder in PYTHONPATH"
    )
    (here / "thumb.py").write_text("raise SystemExit")
    assert own_files("thumb", thumb).present == (here / "thumb.py",) and own_weights(thumb) is None
    folded = entry({"family": "space-to-channel", "base": CLASS, "factor": 2}, file="w.safetensors")
    assert own_files("folded", folded).present == (here / "thumb.py",) and len(own_files("folded", folded).missing) == 1


def test_where_modules_of_classes_lie(here):
    (here / "package").mkdir()
    (here / "package" / "model.py").touch()
    assert source_modules("package.model:AE") == {"package.model": here / "package" / "model.py"}  # no __init__.py
    assert source_modules("sys:AE") == {}
    (here / "moving_package").mkdir()
    (here / "elsewhere").mkdir()
    (here / "moving_package" / "__init__.py").write_text(f"__path__.append({str(here / 'elsewhere')!r})")
    (here / "elsewhere" / "model.py").touch()
    assert source_modules("moving_package.model:AE")["moving_package.model"] == here / "elsewhere" / "model.py"
    (here / "failing_package").mkdir()
    (here / "failing_package" / "__init__.py").write_text("import no_such_thing")
    assert source_modules("failing_package.model:AE") == {}
    with pytest.raises(ConfigError, match=r"No module named 'package\.other'"):
        source_modules("package.other:AE")
    assert str(here) not in sys.path


def test_a_class_counts_with_all_modules_of_the_user_that_it_reaches(here):
    (here / "thumb.py").write_text(
        "raise SystemExit  # none of these modules is run\n"
        "import json, numpy as np, torch.nn, sys\n"
        "import missing_module\n"
        "from dcae_bench.base.errors import ConfigError\n"
        "from parts.layers import Down\n"
        "def build():\n"
        "    import late\n"
    )
    files = {
        "late.py": "import importlib\nhelper = importlib.import_module('named')\n",
        "named.py": (
            "import thumb\nfrom importlib import import_module as load, import_module\n"
            "import_module(name='by_keyword')\n__import__('by_name')\nimport_module('.computed' + str(1))\n"
        ),
        "by_keyword.py": "",
        "by_name.py": "",
        "parts/__init__.py": "from . import config\n",
        "parts/config.py": "this is no Python (\n",
        "parts/layers.py": (
            "from .deep.blocks import Block\nfrom ..beyond import nothing\n"
            "import importlib\nimportlib.import_module('.relative', __package__)\n"
            "importlib.import_module('.anchored', package='parts.deep')\n"
            "importlib.import_module('...beyond', 'parts')\n"
        ),
        "parts/relative.py": "",
        "parts/deep/anchored.py": "",
        "parts/deep/blocks.py": "from .. import other\n",
        "parts/other.py": "",
        "parts/not_imported.py": "",
    }
    for name, content in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)
    found = own_files("thumb", entry(CLASS)).present
    assert [str(path.relative_to(here)) for path in found] == [
        "thumb.py",
        "by_keyword.py",
        "by_name.py",
        "late.py",
        "named.py",
        "parts/__init__.py",
        "parts/config.py",
        "parts/deep/anchored.py",
        "parts/deep/blocks.py",
        "parts/layers.py",
        "parts/other.py",
        "parts/relative.py",
    ]


def test_a_local_source_counts_with_weights_and_config(here):
    spec = {**HUB, "source": "checkpoints/vae"}
    mine = entry(spec)
    (reason,) = own_files("mine", mine).missing
    assert "checkpoints/vae, the source of mine, is neither a folder here nor in the hub's cache" in reason
    (here / "checkpoints" / "vae" / "vae").mkdir(parents=True)
    assert len(own_files("mine", mine).missing) == 2 and not needs_fetch("mine", mine)
    for name in ("config.json", "diffusion_pytorch_model.bin"):
        (here / "checkpoints" / "vae" / "vae" / name).touch()
    assert [path.name for path in own_files("mine", mine).present] == ["config.json", "diffusion_pytorch_model.bin"]
    other = entry(spec, file="mine.pt")
    assert [path.name for path in own_files("mine", other).present] == ["config.json"]
    stated = entry({**spec, "source": "gone", "config": {}}, file="checkpoints/vae/vae")
    assert len(own_files("mine", stated).present) == 2 and own_files("mine", stated).missing == ()


def test_a_source_on_the_hub_counts_where_it_was_fetched(here, tmp_path):
    mine = entry(HUB)
    profile = tiny.profile({("autoencoders", "mine"): {"model": HUB, "weights": "own"}})
    (reason,) = own_files("mine", mine).missing
    assert reason.startswith("owner/vae, the source of mine,") and "weights fetch mine --profile PROFILE`" in reason
    assert needs_fetch("mine", mine)
    with pytest.raises(WeightsError, match=r"owner/vae/vae/config\.json: not in the hub cache"):
        fetch_own(profile, "mine")
    with pytest.raises(ConfigError, match="sd-vae: is no own autoencoder of profile tiny; it has mine"):
        fetch_own(profile, "sd-vae")
    files = cached(tmp_path, "config.json", "diffusion_pytorch_model.bin")
    assert own_files("mine", mine).present == files and not needs_fetch("mine", mine)


def test_the_command_fetches_what_a_profile_names(here, monkeypatch, capsys):
    import yaml

    from dcae_bench.cli.main import main

    (here / "tiny.yaml").write_text(
        yaml.safe_dump(tiny.content({("autoencoders", "mine"): {"model": CLASS, "weights": "own"}}))
    )

    def fetch(*more):
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "weights", "fetch", "mine", *more, "--profile", "tiny.yaml"])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    code, line = fetch()
    assert code == 2 and "thumb:Thumbnail: cannot be imported" in line
    (here / "thumb.py").write_text("x = 1\n")
    code, line = fetch()
    assert not code and "thumb.py (6 bytes)" in line.replace("\n", "")
    code, line = fetch("--revision", "main")
    assert code == 2 and "leave --revision and --path out" in line


def test_what_is_missing_is_told_by_measurement_and_by_row(here):
    profile = tiny.profile(
        {
            ("autoencoders", "thumb"): {"model": CLASS, "weights": "own"},
            ("diffusion", "rows", "uvit", "latent"): "thumb@own",
        }
    )
    found = missing_evaluations(profile, here / "data")
    assert set(found) == {("thumb", "bright-32")} and set(missing_rows(profile, here / "data")) == {"uvit"}
    assert missing_rows(profile, here / "data")["uvit"] == found["thumb", "bright-32"]
    assert "thumb:Thumbnail" in found["thumb", "bright-32"][0]
    (here / "thumb.py").touch()
    assert missing_evaluations(profile, here / "data") == missing_rows(profile, here / "data") == {}


def test_own_weights_answer_no_row_of_the_paper_so_what_they_lack_stands_apart():
    rows = load_reported_reconstruction()
    row = next(row for row in rows if row.family == "dc-ae")
    sets = {("evaluation", "sets"): [{"dataset": row.dataset, "resolution": row.resolution}]}
    mine = {"model": {"preset": f"dc-ae-f{row.compression}c{row.latent_channels}"}, "weights": "own", "file": "x"}
    profile = tiny.profile({**sets, ("autoencoders", "mine"): mine})
    lacking = {("mine", f"{row.dataset}-{row.resolution}"): ("no file",)}
    assert ReconstructionAbsence(profile, lacking).beyond_paper(rows) == lacking
    assert ReconstructionAbsence(profile, lacking).reasons(row, "retrained") == ("too large",)


def test_weights_behind_latents_are_found_unless_training_makes_them(here):
    profile = tiny.profile({("autoencoders", "thumb"): {"model": CLASS, "weights": "own"}})
    from dcae_bench.profile.diffusion import LatentSource

    assert latent_weights(profile, LatentSource("thumb", "own"), "--weights") is None
    with pytest.raises(ConfigError, match=r"--weights is missing: name the weights of sd-vae@retrained"):
        latent_weights(profile, LatentSource("sd-vae", "retrained"), "--weights")
