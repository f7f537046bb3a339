# SPDX-License-Identifier: Apache-2.0
"""Groups of commands: loaded when called, suggestions for what was mistyped, errors as one message."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

import click

from evener.cli.exits import INTERRUPTED
from evener.errors import EvenerError


class Group(click.Group):
    """A group that says which command may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but for the message."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            _no_command(ctx, name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)


def _no_command(ctx: click.Context, name: str, names: list[str]) -> NoReturn:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(names)}"
    raise click.UsageError(f'no command "{name}", {hint}', ctx)


class Root(Group):
    """The outermost group: commands by name, each from its file; our errors become exit codes.

    table: name -> "module:attribute". A command whose module is not there is not shown.
    """

    def __init__(self, *args: Any, table: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = dict(table or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return [name for name, place in self._table.items() if find_spec(place.split(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = self._table[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an EvenerError ends as its message and exit code, Ctrl-C with 130."""
        try:
            return super().invoke(ctx)
        except EvenerError as error:
            click.echo(f"evener: {error}", err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)
