# SPDX-License-Identifier: Apache-2.0
"""`evener run`: become the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from evener.cli.common import config_argument


@click.command(name="run", short_help="The daemon, in the foreground.")
@config_argument
def command(config: Path) -> None:
    """Run the daemon, in the foreground, in the current network namespace.

    There is one daemon for each network namespace. It attaches to the interfaces that CONFIG names
    and to no other. Ctrl-C or SIGTERM ends it.

    \b
    Example: evener run /etc/evener.toml
    """
    # The daemon takes this process's place, so that signals and the exit code are its own.
    os.execv(sys.executable, [sys.executable, "-m", "evener.daemon", str(config)])
