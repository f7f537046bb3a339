# SPDX-License-Identifier: Apache-2.0
"""From what TOML and pydantic say to what an operator can act on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from evener.config import schema, values
from evener.config.checks import Located
from evener.config.values import Finding, RefusedError, listed, nearest, show
from evener.errors import Problem

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from evener.config.lines import Path

# Keys of the design that this version does not have, with what they would configure.
_LATER: Final[dict[tuple[type[schema.Table], str], str]] = {
    (schema.PoolTable, "check"): "health checks",
}
_POSITION: Final = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)$")
_TWICE: Final = re.compile(r"Cannot (?:declare|mutate|overwrite|redefine|add)")


def of_syntax(text: str, error: ValueError | RecursionError) -> Problem:
    """The one problem of a text that is not TOML: the reader stops at the first."""
    if isinstance(error, RecursionError):
        return Problem(0, "", "lists or tables are nested too deeply", "a few levels")
    message, allowed = str(error), "TOML 1.0"
    if match := _POSITION.search(message):
        message = message[: match.start()]
        before = text if match[1] is None else ""
    else:  # not from tomllib: Python refuses to convert integers of thousands of digits
        digits = re.search(r"[0-9_]{4000,}", text)
        before = text[: digits.start()] if digits else text
        allowed = "numbers of a few digits"
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    if _TWICE.match(message):
        message = f"a key or table is given twice ({message})"
        allowed = "each key once in its table"
    return Problem(line, "", f"not TOML: {message}", allowed, column=column)


def of_schema(raw: dict[str, Any], error: ValidationError) -> list[Located]:
    """The findings of a file that does not fit the schema."""
    found: list[Located] = []
    for detail in error.errors(include_url=False):
        path = _path(raw, detail)
        found += [Located(path, finding) for finding in _findings(path, detail)]
    return found


def _path(raw: dict[str, Any], detail: ErrorDetails) -> Path:
    path: Path = detail["loc"]
    if detail["type"] == "value_error" and path[-1:] == ("[key]",):
        return path[:-1]  # the name of a table: the schema's keys never have brackets
    if len(path) == 5 and path[2] == "backends" and path[4] == "address":
        place: Any = raw
        for part in path[:4]:
            place = place[part]
        if isinstance(place, str):  # written short, there is no key "address" in the file
            return path[:4]
    return path


def _findings(path: Path, detail: ErrorDetails) -> tuple[Finding, ...]:
    kind, given = detail["type"], detail["input"]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, RefusedError):
        return cause.findings
    if kind == "extra_forbidden":
        return (_unknown(_table_at(path[:-1]), str(path[-1]), given),)
    if kind == "missing":
        return (Finding("is missing", _allowed_at(path)),)
    noun = "a list" if kind == "list_type" else "a table"
    return (Finding(f"{show(given)} is not {noun}", _allowed_at(path)),)


def _table_at(path: Path) -> type[BaseModel]:
    """The table of the schema that stands at a path of the file."""
    match path:
        case ("datapath",):
            return schema.DatapathTable
        case ("timeouts",):
            return schema.TimeoutsTable
        case ("pool", _):
            return schema.PoolTable
        case ("pool", _, "backends", _):
            return schema.BackendTable
        case ("service", _):
            return schema.ServiceTable
        case _:
            return schema.File


def _allowed_at(path: Path) -> str:
    """What a key may hold, in the words of the schema."""
    if len(path) == 2 and path[0] in {"pool", "service"}:
        return f"table [{path[0]}.NAME]"
    extra = _table_at(path[:-1]).model_fields[str(path[-1])].json_schema_extra
    return str(extra["x-allowed"]) if isinstance(extra, dict) else ""


def _unknown(table: type[BaseModel], key: str, given: object) -> Finding:
    known = list(table.model_fields)
    later = next((text for (of, name), text in _LATER.items() if (of, name) == (table, key)), None)
    if later is not None:
        return values.unavailable(f"{show(key)} ({later})", listed(known))
    hint = nearest(key, known)
    if not hint and isinstance(given, dict) and table in {schema.PoolTable, schema.ServiceTable}:
        hint = '; a name with a dot needs quotes, [pool."web.v2"]'
    return Finding(f"unknown key {show(key)}{hint}", listed(known))
