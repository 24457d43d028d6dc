import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier, local
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from dcae_bench.base.errors import ConfigError, DataError, ResultsError
from dcae_bench.base.files import sha256_file
from dcae_bench.cli.main import main
from dcae_bench.data.external import image_folder
from dcae_bench.data.labelled import open_labelled
from dcae_bench.data.latents import (
    LABELS,
    LATENTS,
    MANIFEST,
    Latents,
    read_latent_manifest,
    require_latents_of_row,
    write_latent_manifest,
)
from dcae_bench.data.pixels import normalise
from dcae_bench.data.prepare import prepare_files
from dcae_bench.generation import encode
from dcae_bench.generation.encode import Encoding, encode_dataset
from dcae_bench.models.checkpoints import load_weights, save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import load_profile
from dcae_bench.profile.recipes import latents_recipe
from dcae_bench.running.processes import Worker
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion as tiny
from tests import tiny_released
from tests.data.containers import contents, write_parquet, write_zip
from tests.data.image_files import write_images

LATENT = "sd-vae@retrained"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, data, weights):
    output = tmp_path_factory.mktemp("cache") / "two"
    encode_dataset(tiny.profile(), LATENT, "two", data=data, output=output, weights=weights)
    return output


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def timeless(folder: Path) -> dict[str, object]:
    """The content of a cache but for the seconds that it took."""
    manifest = json.loads((folder / MANIFEST).read_text())
    assert 0 < manifest["seconds"] < 600
    return {**content(folder), MANIFEST: {**manifest, "seconds": 0, "content_sha256": None}}


def model_of(weights: Path):
    model = build(tiny.profile().autoencoders["sd-vae"].model)
    load_weights(model, weights)
    return model.eval()


def test_the_cache_holds_what_the_model_encodes_and_says_so(cache, data, weights):
    latents, crops = Latents(cache), open_labelled(tiny.profile(), tiny.profile().diffusion.data["two"], data)
    manifest = latents.manifest
    assert len(latents) == len(crops) == 14 and manifest.shape == (3, 4, 4)
    assert latents.labels.tolist() == [0] * 8 + [1] * 6 and manifest.classes == 2
    with torch.inference_mode():
        wanted = model_of(weights).encode(normalise(torch.stack([crops[index] for index in range(14)]))).numpy()
    raw = np.load(cache / LATENTS)
    np.testing.assert_allclose(raw, wanted, rtol=1e-4, atol=1e-5)
    assert manifest.scaling == "measured" and manifest.posterior == "mean"
    found = latents.read(range(14))
    assert np.sqrt(np.mean(found.astype(np.float64) ** 2)) == pytest.approx(1, rel=1e-6)
    assert manifest.statistics.mean == pytest.approx(raw.mean(dtype=np.float64), rel=1e-9)
    np.testing.assert_allclose(manifest.statistics.channel_std, raw.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    order = [9, 0, 13, 0]
    assert np.array_equal(latents.read(order), found[order])
    assert sorted(content(cache)) == ["labels.npy", "latents.npy", "manifest.json"]


def test_half_precision_and_mirrored_images(tmp_path, data, weights):
    manifest = encode_dataset(tiny.profile(), LATENT, "plain", data=data, output=tmp_path, weights=weights)
    crops = open_labelled(tiny.profile(), tiny.profile().diffusion.data["plain"], data)
    latents, raw = Latents(tmp_path), np.load(tmp_path / LATENTS)
    assert raw.dtype == np.float16 and len(raw) == 2 * len(crops) == 6 and manifest.flips
    assert latents.labels.tolist() == [-1] * 6 and manifest.classes is None
    with torch.inference_mode():
        mirrored = model_of(weights).encode(normalise(torch.stack([crops[index].flip(-1) for index in range(3)])))
    np.testing.assert_allclose(raw[3:], mirrored.numpy(), rtol=2e-3, atol=1e-3)


def test_an_interrupted_pass_goes_on_where_it_was(tmp_path, data, weights, cache, monkeypatch):
    class Stopped(Exception):
        pass

    encoded = []
    whole = Encoding._encode

    def counted(self, batch, images, crops):
        if len(encoded) in stops:
            stops.clear()
            raise Stopped
        encoded.append(batch.start)
        return whole(self, batch, images, crops)

    monkeypatch.setattr(Encoding, "_encode", counted)
    for stop in (0, 2, 4):
        stops = {stop}
        with pytest.raises(Stopped):
            encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
        assert not (tmp_path / MANIFEST).exists()
    stops = set()
    # Killed once more, after the array is in its place and before the manifest is.
    with monkeypatch.context() as patch:
        patch.setattr(encode, "write_latent_manifest", lambda manifest, folder: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
    encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
    assert encoded == [0, 3, 6, 9, 12], "no batch was encoded twice"
    assert timeless(tmp_path) == timeless(cache)
    monkeypatch.setattr(Encoding, "run", lambda self: pytest.fail("encoded again"))
    encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)


def test_the_seconds_of_interrupted_passes_are_added_up(tmp_path, data, weights, monkeypatch):
    class Stopped(Exception):
        pass

    whole, slept = Encoding._encode, []

    def slow(self, batch, images, crops):
        if not slept:
            slept.append(time.sleep(1.5))
            return whole(self, batch, images, crops)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Encoding, "_encode", slow)
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
    started = time.monotonic()
    manifest = encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
    assert manifest.seconds > 1.5 and manifest.seconds < time.monotonic() - started + 30
    assert sorted(content(tmp_path)) == ["labels.npy", "latents.npy", "manifest.json"]


def test_commands_at_once_take_turns(tmp_path, data, weights, cache):
    def run(_):
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
    assert timeless(tmp_path) == timeless(cache)


def test_two_processes_write_the_same_cache(tmp_path, data, weights, cache, monkeypatch):
    barrier, current, encoded = Barrier(2, timeout=60), local(), {0: [], 1: []}

    class Together(Worker):
        def wait(self):
            barrier.wait()

    whole = Encoding._encode

    def counted(self, batch, images, crops):
        encoded[self.process.rank].append(batch.start)
        return whole(self, batch, images, crops)

    def one(rank):
        current.process = Together(rank, 2)
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)

    monkeypatch.setattr(Encoding, "_encode", counted)
    monkeypatch.setattr(encode, "join_processes", lambda: nullcontext(current.process))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert encoded == {0: [0, 6, 12], 1: [3, 9]}
    assert timeless(tmp_path) == timeless(cache)


def test_another_autoencoders_latents_are_refused_with_both_hashes(tmp_path, data, weights, cache):
    other = tiny.write_weights(tmp_path / "other.safetensors", seed=2)
    before = content(cache)
    with pytest.raises(DataError) as caught:
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=cache, weights=other)
    assert all(sha256_file(path) in str(caught.value) for path in (weights, other))
    with pytest.raises(DataError, match="holds latents of recipe"):
        encode_dataset(tiny.profile({("seed",): 4}), LATENT, "two", data=data, output=cache, weights=weights)
    assert content(cache) == before


def test_latents_that_are_not_finite_are_refused_on_both_sides(tmp_path, data, weights, cache):
    state = model_of(weights).state_dict()
    state["encoder.conv_out.weight" if "encoder.conv_out.weight" in state else next(iter(state))].mul_(1e30)
    save_weights(state, tmp_path / "large.safetensors", trained=TrainedWeights(kind="autoencoder", name="sd-vae"))
    with pytest.raises(DataError, match=r"dark-0#0: its latent is not finite in float16.*; take other weights, or"):
        encode_dataset(
            tiny.profile(), LATENT, "plain", data=data, output=tmp_path / "a", weights=tmp_path / "large.safetensors"
        )
    (tmp_path / "b").mkdir()
    for name, raw in content(cache).items():
        (tmp_path / "b" / name).write_bytes(raw)
    broken = np.load(tmp_path / "b" / LATENTS, mmap_mode="r+")
    broken[7, 1, 2, 3] = np.nan
    broken.flush()
    manifest = read_latent_manifest(tmp_path / "b")
    sealed = manifest.model_copy(update={"sha256": sha256_file(tmp_path / "b" / LATENTS)})
    write_latent_manifest(sealed, tmp_path / "b")
    latents = Latents(tmp_path / "b")
    latents.read([6, 8])
    with pytest.raises(DataError, match="latent 7 is not finite; delete"):
        latents.read([8, 7])


@pytest.mark.parametrize("name", [LATENTS, LABELS])
def test_files_that_are_not_the_manifests_are_refused(tmp_path, data, weights, cache, name):
    """Zeros in place of latents, and shuffled labels, have the right shape and finite values."""
    for file, raw in content(cache).items():
        (tmp_path / file).write_bytes(raw)
    array = np.load(tmp_path / name)
    np.save(tmp_path / name, np.zeros_like(array) if name == LATENTS else array[::-1])
    wrong = rf"{name}: sha256 is [0-9a-f]{{64}}, its manifest says [0-9a-f]{{64}}; delete .* and encode again"
    with pytest.raises(DataError, match=wrong):
        Latents(tmp_path)
    with pytest.raises(DataError, match=wrong):  # nor does encoding take it for finished
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)


def test_an_edited_manifest_is_refused(tmp_path, cache):
    for file, raw in content(cache).items():
        (tmp_path / file).write_bytes(raw)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert Latents(tmp_path).manifest == read_latent_manifest(cache), "its layout does not matter"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"scaling_factor": 2 * manifest["scaling_factor"]}))
    with pytest.raises(DataError, match=r"manifest\.json: .* \(it changed after it was written\); delete"):
        Latents(tmp_path)
    del manifest["content_sha256"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: .* \(it has no content_sha256"):
        Latents(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path, data, weights, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ResultsError, match=r"latents\.npy: cannot be written \(No space left on device\); free some"):
        encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)


def test_a_cache_that_is_missing_or_damaged_is_refused(tmp_path, cache):
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read .*encode the data first"):
        Latents(tmp_path)
    for name, raw in content(cache).items():
        (tmp_path / name).write_bytes(raw[:-4] if name == LATENTS else raw)
    with pytest.raises(DataError, match=r"latents\.npy: is damaged .*delete"):
        Latents(tmp_path)
    np.save(tmp_path / LATENTS, np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(DataError, match="its manifest says"):
        Latents(tmp_path)


def test_the_command_names_what_is_wrong(tmp_path, data, capsys, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.content()))
    for latent, images, wanted in (
        ("sd-vae", "two", "write it as autoencoder@retrained"),
        ("dc-ae@retrained", "two", "the profile retrains sd-vae"),
        (LATENT, "three", "--images three: profile tiny has plain, two"),
        (LATENT, "two", "--weights is missing"),
    ):
        options = ["--latent", latent, "--images", images, "--data", str(data), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["dcae-bench", "encode", "--profile", str(tmp_path / "tiny.yaml"), *options])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2 and wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        (("rows", "uvit", "latent"), "dc-ae@retrained", "the profile retrains sd-vae"),
        (("rows", "uvit", "latent"), "nothing@released", "no such released weights"),
        (("rows", "uvit", "denoiser"), "uvit-nan", "did you mean"),
        (("rows", "uvit", "patch"), 3, "cannot be cut in patches of 3"),
        (("rows", "uvit", "images"), 26, "not a multiple of log_images 4"),
        (("rows", "usit", "guidance"), [{"s": 1.5}], "the model is unconditional"),
        (("data", "two", "classes"), 2, "'classes' is for labels 'folder'"),
        (("data", "plain", "labels"), "folder", "need 'classes'"),
        (("trainings", "uvit", "sampler"), {"name": "ddpm"}, "is for process 'learned-range'"),
        (("trainings", "uvit", "label_dropout"), 0, "row uvit has guidance s = 1.5, but with label_dropout 0"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(path, value, wanted):
    with pytest.raises(ConfigError, match=wanted):
        tiny.profile({("diffusion", *path): value})


NOISY = """
import torch, torch.nn.functional as F
from torch import nn

class AE(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.noise, self.scale = noise, nn.Parameter(torch.ones(1))

    def encode(self, x):
        z = self.scale * F.avg_pool2d(x, 4)
        return z + self.noise * torch.randn_like(z)

    def decode(self, z):
        return F.interpolate(z, scale_factor=4)
"""


def test_what_the_trial_of_an_own_class_told_stands_in_the_manifest(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("noisy_class.py").write_text(NOISY)
    manifests = {}
    for noise in (0.0, 0.1):
        model = {"family": "custom", "class_name": "noisy_class:AE", "compression": 4, "latent_channels": 3}
        changes = {("autoencoders", "mine"): {"model": {**model, "kwargs": {"noise": noise}}, "weights": "own"}}
        changes |= {("diffusion", "rows"): {"uvit": {**tiny.ROW, "latent": "mine@own"}}}
        folder = tmp_path / f"latents-{noise}"
        encode_dataset(tiny.profile(changes), "mine@own", "two", data=data, output=folder)
        manifests[noise] = json.loads((folder / MANIFEST).read_text())
    (note,) = manifests[0.1]["notes"]
    assert note.startswith("encode draws noise: two passes over one batch differ by")
    assert "notes" not in manifests[0.0], "manifests without notes stay what they were"
    assert read_latent_manifest(tmp_path / "latents-0.1").notes == (note,)


def test_a_declared_shift_may_be_left_out_as_the_authors_do(tmp_path, data, monkeypatch):
    """Flux-VAE declares one, and the commands of DC-AE's authors multiply by the factor alone."""
    tiny_released.install(monkeypatch)
    tiny_released.fetch_all(tmp_path / "weights")
    latent, name = f"{tiny_released.AUTOENCODER}@released", ("diffusion", "data", "two")
    row = {**tiny.ROW, "latent": latent}

    def encode(shift):
        profile = tiny.profile({("diffusion", "rows"): {"uvit": row}, (*name, "shift"): shift})
        folder = tmp_path / f"shift-{shift}"
        manifest = encode_dataset(profile, latent, "two", data=data, output=folder)
        require_latents_of_row(manifest, profile, profile.trained_row("uvit"), folder)
        return profile, manifest, Latents(folder).read(range(14)), np.load(folder / LATENTS)

    usual, with_shift, shifted, raw = encode(True)
    authors, without, scaled, same = encode(False)
    assert (with_shift.shift, without.shift) == (0.25, 0) and with_shift.scaling_factor == without.scaling_factor == 0.7
    assert np.array_equal(raw, same), "the cache holds latents as the autoencoder gives them"
    np.testing.assert_allclose(scaled, raw * 0.7, rtol=1e-6)
    np.testing.assert_allclose(shifted, (raw - 0.25) * 0.7, rtol=1e-5, atol=1e-6)
    assert latents_recipe(usual, latent, "two") != latents_recipe(authors, latent, "two")
    assert "shift" not in latents_recipe(usual, latent, "two")["data"], "hashes from before the field stay valid"
    with pytest.raises(DataError, match=r"its shift is 0\.25, row uvit needs 0\.0"):
        require_latents_of_row(with_shift, authors, authors.trained_row("uvit"), tmp_path)
    paper = latents_recipe(load_profile("paper"), "flux-vae@released", "imagenet-512")["scaling"]
    assert (paper["factor"], paper["shift"]) == (0.3611, 0)


def test_noise_of_a_draw_lies_where_the_images_are(tmp_path):
    """On a device that is not the processor's; of PyTorch's only "meta" is everywhere."""
    found = []

    class Posterior:
        has_posterior = True

        def draw(self, x, noise):
            found.extend([x.device.type, noise(torch.Size((3, 4, 4))).device.type])
            return torch.zeros(len(x), 3, 4, 4)

    encoding = Encoding(
        profile=tiny.profile(),
        spec=tiny.profile().diffusion.data["two"],
        crops=None,
        model=Posterior(),
        subject=SimpleNamespace(weights_source="released", weights_sha256="0" * 64),
        device=torch.device("meta"),
        process=Worker(),
        output=tmp_path,
        recipe_sha256="0" * 64,
    )
    encoding._encode(range(2), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), None)
    assert found == ["meta", "meta"]


def test_latents_do_not_depend_on_the_callers_tf32(tmp_path, data, weights, monkeypatch):
    whole, found = Encoding._encode, set()

    def seen(self, *arguments):
        found.add((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return whole(self, *arguments)

    monkeypatch.setattr(Encoding, "_encode", seen)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    encode_dataset(tiny.profile(), LATENT, "two", data=data, output=tmp_path, weights=weights)
    assert found == {(False, False)} and torch.backends.cudnn.allow_tf32


CLASSES = [
    ("cat", "cat/2.png"),
    ("cat", "cat/9/1.png"),
    ("dog", "dog/1.png"),
    ("emu", "emu/0.png"),
    ("emu", "emu/3.png"),
]


@pytest.mark.parametrize("kind", ["folder", "zip", "Parquet"])
def test_class_folders_of_ones_own_and_containers_are_encoded_with_their_classes(tmp_path, weights, monkeypatch, kind):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    names, files = ["cat", "dog", "emu"], contents([path for _, path in CLASSES])
    root = tmp_path / "animals"
    if kind == "folder":
        write_images(root, list(files))
    elif kind == "zip":
        write_zip(root / "x.zip", {f"animals/{path}": files[path] for path in reversed(files)})
    else:
        rows = [(f"{number}.png", files[path], names.index(label)) for number, (label, path) in enumerate(CLASSES)]
        write_parquet(root / "x.parquet", rows, classes=names)
    spec = {"datasets": ["animals"], "resolution": 16, "labels": "folder", "classes": 3}
    profile = tiny.profile({("diffusion", "data", "mine"): spec, ("data_roots",): {"animals": str(root)}})
    prepare_files(image_folder("animals"), "train", root, tmp_path / "data" / "animals")
    options = {"data": tmp_path / "data", "output": tmp_path / "latents", "weights": weights}
    manifest = encode_dataset(profile, LATENT, "mine", **options)
    assert np.load(tmp_path / "latents" / LABELS).tolist() == [0, 0, 1, 2, 2] and manifest.classes == 3
    wrong = tiny.profile({("diffusion", "data", "mine"): {**spec, "classes": 4}})
    with pytest.raises(DataError, match=r"has 3 classes \((cat, dog, emu|0, 1, 2)\), the profile says 4; correct"):
        open_labelled(wrong, wrong.diffusion.data["mine"], tmp_path / "data")


def test_an_image_without_a_class_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "x.parquet", [("1.png", png := contents(["1.png"])["1.png"], 0), ("2.png", png, -1)])
    prepare_files(image_folder("mine"), "train", tmp_path / "x.parquet", tmp_path / "data" / "mine")
    spec = {"datasets": ["mine"], "resolution": 16, "labels": "folder", "classes": 1}
    profile = tiny.profile({("diffusion", "data", "mine"): spec})
    with pytest.raises(DataError, match=r"1 of 2 images have no class, the first of them .*x\.parquet: 2\.png; lay"):
        open_labelled(profile, profile.diffusion.data["mine"], tmp_path / "data")
