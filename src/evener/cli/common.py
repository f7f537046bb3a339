# SPDX-License-Identifier: Apache-2.0
"""What several commands have in common: the daemon to ask, files to read, JSON to print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evener.errors import ConfigError, Problem
from evener.lab.device import DEFAULT, DEVICES

if TYPE_CHECKING:
    from evener.api.client import Client

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
config_argument = click.argument("config", type=click.Path(path_type=Path))
device_option = click.option(
    "--device",
    type=click.Choice([*DEVICES]),
    default=DEFAULT.name,
    show_default=True,
    help="What DPDK opens, with the driver dpdk.",
)


def client() -> Client:
    """The daemon that the command line means."""
    from evener.api.client import Client

    return Client(click.get_current_context().find_root().obj)


def read_text(path: Path) -> str:
    """A configuration's text, to be judged by the daemon; ConfigError if it cannot be read."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        allowed = "a file that this user may read"
        problem = Problem(0, "", f"cannot be read: {error.strerror}", allowed)
    except UnicodeDecodeError:
        problem = Problem(0, "", "not text", "UTF-8")
    raise ConfigError([problem], str(path))


def print_json(value: dict[str, Any]) -> None:
    """A JSON object for people and programs: indented, with the version of its format."""
    click.echo(json.dumps({"version": 1, **value}, indent=2))


def plural(number: int, noun: str) -> str:
    """1 change, 2 changes."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
