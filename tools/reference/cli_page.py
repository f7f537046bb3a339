# SPDX-License-Identifier: Apache-2.0
"""cli.md: every command with the help that it prints."""

from __future__ import annotations

from collections.abc import Iterator

import click

from evener.cli.main import cli
from reference import text

WIDTH = 100
INTRODUCTION = """
`evener COMMAND --help` prints what is here. Readers take `--json`; its fields are in [Fields](fields.md). How commands
end is in [Exit codes](exit-codes.md).
"""


def write() -> str:
    """The page."""
    parts = [INTRODUCTION]
    found = list(commands())
    rows = [
        [f"[`{path}`](#{text.anchor(path)})", command.get_short_help_str(limit=WIDTH)]
        for path, command in found
    ]
    parts.append(text.table(["command", ""], rows))
    for path, command in found:
        parts += [f"## {path}", text.block(_help(path, command))]
    return text.page("Commands", *parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """(`evener show flows`, its command), each group before its members, in the order of the help."""
    yield from _walk("evener", cli)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _walk(f"{path} {name}", child)


def _help(path: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH,
        **cli.context_settings,
    )  # fmt: skip
    return command.get_help(context)
