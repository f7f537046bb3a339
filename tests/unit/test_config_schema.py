# SPDX-License-Identifier: Apache-2.0
"""The configuration's published schema."""

import json
from typing import Any

from evener import config
from evener.config.schema import File


def test_every_key_is_described_with_its_default() -> None:
    schema = config.json_schema()
    json.dumps(schema)
    tables: list[dict[str, Any]] = [schema, *schema["$defs"].values()]
    tables += [form for table in tables for form in table.get("anyOf", [])]
    keys = [
        (name, key, name in table.get("required", []))
        for table in tables
        for name, key in table.get("properties", {}).items()
    ]
    assert len(keys) == 21
    for name, key, required in keys:
        assert key["x-allowed"], name
        if "$ref" not in key:
            said = "Must be given" if required or name in ("interfaces", "eal") else "Default: "
            assert said in key["description"], name


def test_no_null_and_no_unknown_keys_in_the_schema() -> None:
    text = json.dumps(config.json_schema())
    assert "null" not in text
    assert text.count('"additionalProperties": false') == len(config.json_schema()["$defs"]) + 3
    assert File.model_config.get("strict") is True
