# SPDX-License-Identifier: Apache-2.0
"""Every command, option, key, reason, exit code and route is in docs/reference."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest

from evener import config
from evener._generated.reasons import SENTENCES, Reason
from evener.cli.exits import EXIT_CODES
from evener.cli.main import cli
from evener.errors import by_exit_code
from tests.support.pages import ROOT

FOLDER = ROOT / "docs/reference"


def page(name: str) -> str:
    return (FOLDER / name).read_text()


def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(f"{path} {name}", child)


COMMANDS = list(walk("evener", cli))


def test_pages_are_current() -> None:
    tool = [sys.executable, str(ROOT / "tools/gen_docs.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_commands(path: str, command: click.Command) -> None:
    assert command.help, "a command explains itself"
    section = page("cli.md").partition(f"\n## {path}\n")[2].partition("\n## ")[0]
    assert f"Usage: {path}" in section
    for option in (o for o in command.params if isinstance(o, click.Option)):
        assert option.help, f"{option.opts} explains itself"
        assert option.opts[-1] in section


def keys(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> Iterator[str]:
    """The path of every key of the schema that has no keys of its own."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for choice in node.get("anyOf", []):
        yield from keys(schema, choice, path)
    for child in node.get("patternProperties", {}).values():
        yield from keys(schema, child, f"{path}.NAME")
    for name, child in node.get("properties", {}).items():
        yield from keys(schema, child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield path
        yield from keys(schema, node["items"], f"{path}[]")
    elif "properties" not in node and "patternProperties" not in node and "anyOf" not in node:
        yield path


def test_keys() -> None:
    schema = config.json_schema()
    found = {key.removesuffix("[]") for key in keys(schema, schema)}
    assert "pool.NAME.backends[].weight" in found
    assert [key for key in sorted(found) if f"### `{key}`" not in page("config.md")] == []


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_reasons(reason: Reason) -> None:
    sentence = SENTENCES[reason]
    assert f"| `{reason.name}` | {sentence[0].upper()}{sentence[1:]} |" in page("reasons.md")


def test_exit_codes() -> None:
    codes = {code for code, _ in EXIT_CODES}
    assert by_exit_code().keys() <= codes
    assert [code for code in codes if f"\n| {code} |" not in page("exit-codes.md")] == []


def test_index() -> None:
    index = page("README.md")
    assert [p.name for p in FOLDER.glob("*.md") if f"({p.name})" not in index + "(README.md)"] == []
