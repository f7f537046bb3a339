# SPDX-License-Identifier: Apache-2.0
"""`evener check`: is a configuration right?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evener.cli.common import config_argument, json_option, plural, print_json
from evener.errors import ConfigError


@click.command(name="check", short_help="Is a configuration right?")
@config_argument
@json_option
@click.pass_context
def command(ctx: click.Context, config: Path, as_json: bool) -> None:
    """Read a configuration and tell everything that is wrong with it.

    Needs neither root nor the daemon. Exits with 3 if something is wrong; with --json the problems
    are on standard output.

    \b
    Example: evener check /etc/evener.toml
    """
    from evener.config import load

    try:
        read = load(config)
    except ConfigError as error:
        if not as_json:
            raise
        problems = [asdict(problem) for problem in error.problems]
        print_json({"ok": False, "source": error.source, "problems": problems})
        ctx.exit(error.exit_code)
    backends = sum(len(pool.backends) for pool in read.pools)
    if as_json:
        counts = {"services": len(read.services), "pools": len(read.pools), "backends": backends}
        print_json({"ok": True, "source": str(config), **counts, "problems": []})
        return
    told = (
        plural(len(read.services), "service"),
        plural(len(read.pools), "pool"),
        plural(backends, "backend"),
    )
    where = ", ".join(read.datapath.interfaces) or "no interface"
    click.echo(f"{config}: right: {', '.join(told)}; driver {read.datapath.driver} on {where}")
