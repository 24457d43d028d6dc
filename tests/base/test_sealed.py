"""Sealed files: what changed after writing is refused."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcae_bench.base.sealed import read_sealed, write_sealed
from dcae_bench.base.typed import Strict


class Content(Strict):
    name: str
    numbers: tuple[float, ...]
    more: dict[str, int | None] | None = None


contents = st.builds(
    Content,
    name=st.text(),
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)).map(tuple),
    more=st.dictionaries(st.text(), st.none() | st.integers(-(2**60), 2**60), max_size=3),
)
examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples
@given(value=contents)
def test_what_was_written_is_read(tmp_path, value):
    write_sealed(tmp_path / "file.json", value)
    assert read_sealed(tmp_path / "file.json", Content) == value


@examples
@given(value=contents, data=st.data())
def test_an_edit_is_refused(tmp_path, value, data):
    path = tmp_path / "file.json"
    write_sealed(path, value)
    other = data.draw(contents.filter(lambda other: other.model_dump() != value.model_dump()))
    path.write_text(json.dumps(json.loads(path.read_text()) | other.model_dump(mode="json")))
    with pytest.raises(ValueError, match="it changed after it was written"):
        read_sealed(path, Content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "x", "numbers": []}', "it has no content_sha256, as an older version wrote it"),
        ('{"name": "x", "numbers": [], "content_sha256": 3}', "it changed"),
        ('{"name": "x"}', "Field required"),
        ("[]", "no JSON object"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "too deeply nested"),
        ('{"name": "x", "numbers": [NaN]}', "finite number"),
    ],
)
def test_other_content_is_refused(tmp_path, text, reason):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_sealed(tmp_path / "file.json", Content)
    (tmp_path / "file.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="codec"):
        read_sealed(tmp_path / "file.json", Content)
