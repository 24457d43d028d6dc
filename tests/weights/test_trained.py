"""What trained weights say of themselves, read from the header of the file alone."""

import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from dcae_bench.base.errors import WeightsError
from dcae_bench.weights.trained import METADATA, TrainedWeights, read_statement

STATEMENT = TrainedWeights(kind="denoiser", name="uvit", latents_sha256="a" * 64, scaling_factor=0.3, shift=-0.1)
CONTENT = save({"a": torch.ones(3)}, {METADATA: STATEMENT.model_dump_json(), "format": "pt"})


def test_the_statement_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert read_statement(path) == STATEMENT
    path.write_bytes(CONTENT[:-12])
    assert read_statement(path) == STATEMENT, "the reader of the tensors refuses the rest"


def wrap(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


headers = st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | headers.map(wrap))
def test_other_files_say_nothing(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert read_statement(tmp_path / "file") is None


def test_what_cannot_be_read_says_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    (tmp_path / "deep").write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000)
    for name in ("pipe", "huge", "deep", "none", "."):
        assert read_statement(tmp_path / name) is None


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "encoder", "name": "x"}', "no JSON"])
def test_a_damaged_statement_is_refused(tmp_path, text):
    (tmp_path / "file").write_bytes(save({"a": torch.ones(3)}, {METADATA: text}))
    with pytest.raises(WeightsError, match="file: says nothing clear of its training"):
        read_statement(tmp_path / "file")
