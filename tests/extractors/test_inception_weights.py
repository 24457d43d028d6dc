import pytest
import torch
from cleanfid.inception_pytorch import FID_WEIGHTS_URL
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from typer.testing import CliRunner

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import app
from dcae_bench.extractors import inception_weights as module
from dcae_bench.extractors.inception_weights import fetch_inception, inception_weights, load_inception_state


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A small file that has the hash it should have."""
    path = tmp_path / "given.pth"
    torch.save({"fc.bias": torch.arange(3.0)}, path)
    monkeypatch.setattr(module, "SHA256_PREFIX", sha256_file(path)[:8])
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_address_and_names_are_the_publishers():
    assert FID_WEIGHTS_URL == module.URL
    assert URL_INCEPTION_V3.rsplit("/", 1)[1] == module.OTHER_FILE
    assert module.FILE.removesuffix(".pth").rsplit("-", 1)[1] == module.SHA256_PREFIX


def test_nothing_there_is_one_line_that_says_what_to_put_where(empty_cache, monkeypatch):
    with pytest.raises(WeightsError) as caught:
        inception_weights()
    message = str(caught.value)
    assert "weights fetch inception" in message and "\n" not in message
    assert str(empty_cache / module.FILE) in message and module.URL in message and "$DCAE_BENCH_INCEPTION" in message
    monkeypatch.setenv(module.VARIABLE, "/nowhere.pth")
    with pytest.raises(WeightsError, match=r"^\$DCAE_BENCH_INCEPTION=/nowhere.pth: .* not there"):
        inception_weights()


def test_path_then_variable_then_cache(empty_cache, official, tmp_path, monkeypatch):
    fetched = fetch_inception(official)
    assert fetched == empty_cache / module.FILE == inception_weights()
    named = tmp_path / "named.pth"
    named.write_bytes(official.read_bytes())
    monkeypatch.setenv(module.VARIABLE, str(named))
    assert inception_weights() == named
    assert inception_weights(official) == official


def test_torch_fidelitys_name_will_do(empty_cache, official):
    empty_cache.mkdir(parents=True)
    (empty_cache / module.OTHER_FILE).write_bytes(official.read_bytes())
    assert inception_weights() == empty_cache / module.OTHER_FILE


def test_another_file_is_refused_unless_asked_for(empty_cache, inception_file):
    for use in (inception_weights, load_inception_state, fetch_inception):
        with pytest.raises(WeightsError, match=r"expected 6726825d…"):
            use(inception_file)
    assert not empty_cache.exists()
    state = load_inception_state(inception_file, any_hash=True)
    assert not state.official and state.sha256 == sha256_file(inception_file)


def test_the_official_file_says_so(official):
    state = load_inception_state(official)
    assert state.official and torch.equal(state.tensors["fc.bias"], torch.arange(3.0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, content: path.write_bytes(content[: len(content) // 2]), "is not a file of tensors"),
        (lambda path, content: path.write_bytes(b""), "is not a file of tensors"),
        (lambda path, content: path.write_bytes(b"<html>not found</html>"), "is not a file of tensors"),
        (lambda path, content: torch.save([torch.zeros(1)], path), "something else than named tensors"),
        (lambda path, content: path.unlink(), "not there"),
    ],
    ids=["half", "empty", "page", "list", "missing"],
)
def test_damaged_files_are_one_line(tmp_path, official, damage, message):
    path = tmp_path / "damaged.pth"
    path.write_bytes(official.read_bytes())
    damage(path, official.read_bytes())
    with pytest.raises(WeightsError, match=message) as caught:
        load_inception_state(path, any_hash=True)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_command(empty_cache, official):
    assert "inception" in run("list").output
    fetched = run("fetch", "inception", "--path", official)
    assert fetched.exit_code == 0 and sha256_file(official) in fetched.output
    assert str(empty_cache)[:16] in run("list").output
    for arguments in (["verify"], ["verify", "inception"]):
        assert sha256_file(official) in run(*arguments).output
    (empty_cache / module.FILE).write_bytes(b"changed")
    assert isinstance(run("verify").exception, WeightsError)
    assert "without revisions" in str(run("fetch", "inception", "--revision", "main").exception)


def test_fetching_again_needs_no_network(empty_cache, official, monkeypatch):
    fetch_inception(official)
    monkeypatch.setattr(module, "URL", "https://127.0.0.1:1/none")
    assert run("fetch", "inception").exit_code == 0
    (empty_cache / module.FILE).unlink()
    failed = run("fetch", "inception")
    assert isinstance(failed.exception, WeightsError) and "--path" in str(failed.exception)
