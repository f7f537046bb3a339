# SPDX-License-Identifier: Apache-2.0
"""`evener apply`: change the running daemon."""

from __future__ import annotations

from pathlib import Path

import click

from evener.cli.common import client, config_argument, json_option, plural, print_json, read_text


@click.command(name="apply", short_help="Put a configuration in force.")
@config_argument
@json_option
def command(config: Path, as_json: bool) -> None:
    """Put CONFIG in force in the running daemon: whole, or not at all.

    Flows stay where they are, except those of backends and services that are no longer there.

    \b
    Example: evener apply /etc/evener.toml
    """
    answer = client().apply(read_text(config), str(config))
    changes = answer["changes"]
    if as_json:
        print_json({"generation": answer["generation"], "changes": changes})
        return
    told = plural(len(changes), "change") if changes else "no change"
    click.echo("\n".join([*changes, f"generation {answer['generation']} is in force: {told}"]))
