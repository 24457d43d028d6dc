"""The example of examples/README.md runs as it stands there."""

import re
import shlex
import shutil
import sys

import pytest
import torch

from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from dcae_bench.records.places import Places
from dcae_bench.records.record import load

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the example with fewer crops, as the current folder."""
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    profile = (tmp_path / "haar.yaml").read_text()
    (tmp_path / "haar.yaml").write_text(profile.replace("crops_per_photo: 6", "crops_per_photo: 1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("haar", None)


def test_the_commands_of_the_page_measure_the_example(folder, monkeypatch, capsys):
    (block,) = re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    commands = block.splitlines()
    assert [command.split()[1] for command in commands] == ["prepare", "evaluate"]
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err
    (path,) = Places.of("haar").find_reconstructions()
    record = load(path)
    assert (record.subject.compression, record.subject.latent_channels) == (8, 12)
    assert (record.data.name, record.data.resolution, record.data.images) == ("photos-indoor", 64, 9)
    assert record.metrics["psnr"].value > 20


@pytest.mark.parametrize("levels", [1, 3])
def test_what_the_latent_holds_comes_back(folder, monkeypatch, levels):
    monkeypatch.syspath_prepend(folder)
    from haar import Haar

    haar = Haar(levels)
    z = torch.randn(2, 12, 4, 6, generator=torch.Generator().manual_seed(0))
    x = haar.decode(z)
    assert x.shape == (2, 3, 4 * 2**levels, 6 * 2**levels)
    torch.testing.assert_close(haar.encode(x), z)
