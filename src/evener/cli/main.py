# SPDX-License-Identifier: Apache-2.0
"""The `evener` command itself: which commands there are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from evener import __version__
from evener.cli import exits
from evener.cli.groups import Root

# One line for each command, in the order of the help text.
COMMANDS: Final = {
    "demo": "evener.cli.demo:command",
    "lab": "evener.cli.lab:command",
    "dpdk": "evener.cli.dpdk:command",
    "run": "evener.cli.run:command",
    "check": "evener.cli.check:command",
    "diff": "evener.cli.diff:command",
    "apply": "evener.cli.apply:command",
    "show": "evener.cli.show:command",
    "explain": "evener.cli.explain:command",
    "trace": "evener.cli.trace:command",
    "replay": "evener.cli.replay:command",
    "bench": "evener.cli.bench:command",
}


@click.group(
    cls=Root,
    table=COMMANDS,
    epilog=f"\b\nExit codes:\n{exits.table()}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="evener", message="%(prog)s %(version)s")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="EVENER_SOCKET",
    help="The daemon's control socket. Default: that of this network namespace.",
)
@click.pass_context
def cli(ctx: click.Context, socket: Path | None) -> None:
    """A layer-4 load balancer for Linux.

    `evener COMMAND --help` explains a command and ends with an example.
    """
    ctx.obj = socket


def main() -> None:
    """The entry point of the installed command."""
    cli(prog_name="evener")
