# SPDX-License-Identifier: Apache-2.0
"""`evener run`: become the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from evener.cli.common import config_argument
from evener.errors import MachineError


@click.command(name="run", short_help="The daemon, in the foreground.")
@config_argument
@click.option(
    "--keep", is_flag=True,
    help="Leave the datapath in force at the end: packets go on, and the next daemon takes over.",
)  # fmt: skip
def command(config: Path, keep: bool) -> None:
    """Run the daemon, in the foreground, in the current network namespace.

    There is one daemon for each network namespace. It attaches to the interfaces that CONFIG names
    and to no other. SIGHUP reads CONFIG again. Ctrl-C or SIGTERM ends it, and its connections with it;
    not with --keep, which is for restarts and upgrades.

    \b
    Example: evener run --keep /etc/evener.toml
    """
    # The daemon takes this process's place, so that signals and the exit code are its own.
    words = [sys.executable, "-m", "evener.daemon", *(["--keep"] if keep else []), str(config)]
    try:
        os.execv(sys.executable, words)
    except OSError as error:
        raise MachineError(
            f"the daemon cannot be started: {error.strerror}",
            sys.executable,
            "is this installation of Python whole?",
        ) from error
