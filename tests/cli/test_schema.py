"""The committed schemas are the typed classes' own."""

import jsonschema
import pytest
import yaml

from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.schema import Kind, schema_text


@pytest.mark.parametrize("kind", list(Kind))
def test_committed_schema_is_current(kind):
    committed = (REPOSITORY / "workflow" / "schemas" / f"{kind}.schema.json").read_text()
    assert committed == schema_text(kind), f"run: dcae-bench schema {kind} > workflow/schemas/{kind}.schema.json"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles_satisfy_the_schema_and_misspelt_keys_do_not(path):
    import json

    schema = json.loads(schema_text(Kind.PROFILE))
    # JSON knows only string keys; YAML's phase numbers become strings on the way.
    content = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    jsonschema.validate(content, schema)
    content["evaluation"]["batchsize"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
