# SPDX-License-Identifier: Apache-2.0
"""From TOML text to the model: the only place that knows the file format.

    load(path) -> Config            loads(text, source="<text>") -> Config
    json_schema() -> dict           what the file may hold, for editors and the reference

Both readers raise ConfigError with every problem of the file at once, and nothing else.
"""

from evener.config.load import load, loads
from evener.config.schema import json_schema

__all__ = ["json_schema", "load", "loads"]
