# SPDX-License-Identifier: Apache-2.0
"""`evener diff`: what would change?"""

from __future__ import annotations

from pathlib import Path

import click

from evener.cli.common import client, config_argument, json_option, print_json, read_text


@click.command(name="diff", short_help="What would applying a configuration change?")
@config_argument
@json_option
def command(config: Path, as_json: bool) -> None:
    """Tell what applying CONFIG would change in the running daemon. Changes nothing.

    Some of it cannot change while the daemon runs: then `evener apply` would refuse all of it, which is told,
    too.

    \b
    Example: evener diff /etc/evener.toml
    """
    answer = client().diff(read_text(config), str(config))
    refused = answer.get("refused", [])
    if as_json:
        print_json({"changes": answer["changes"], "refused": refused})
        return
    click.echo("\n".join(answer["changes"]) or "nothing would change")
    for refusal in refused:
        click.echo(f"evener apply would refuse it: {refusal}")
