# SPDX-License-Identifier: Apache-2.0
"""`evener lab`: the demo's topology to play with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evener.cli.common import device_option, json_option, print_json
from evener.cli.groups import Group
from evener.model import Driver

if TYPE_CHECKING:
    from evener.lab.topology import Lab

SWITCH = "sw"

_name = click.option("--name", default="lab", show_default=True, help="Which lab.")


@click.group(name="lab", cls=Group, short_help="The demo's network, to play with.")
def command() -> None:
    """An Ethernet segment of network namespaces: clients, backends, and the balancer lb.

    Everything lives in namespaces named evener-NAME-HOST; nothing else of this machine is touched.
    """


@command.command(short_help="Build a lab and start the daemon in it.")
@_name
@click.option(
    "--driver", type=click.Choice([driver.value for driver in Driver if driver is not Driver.SIM]),
    help="What handles the packets. Default: that of --config, else xdp.",
)  # fmt: skip
@device_option
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path),
    help="The daemon's configuration. Default: one service, 10.0.0.10:8080, on all backends.",
)  # fmt: skip
@click.option("--clients", default=1, show_default=True, help="How many clients: h1, ...")
@click.option("--backends", default=2, show_default=True, help="How many backends: h2, h3, ...")
def up(
    name: str, driver: str | None, device: str, config: Path | None, clients: int, backends: int
) -> None:
    """Build a lab and start the daemon in it, in the background.

    \b
    Example: evener lab up --name big --clients 2 --backends 8
    """
    from evener.lab import play
    from evener.lab.device import DEVICES

    wanted = Driver(driver) if driver else None
    lab, file = play.up(name, wanted, config, clients, backends, DEVICES[device])
    _hosts(lab)
    click.echo(f"\nThe daemon runs on lb with {file}. Next:")
    for line in _next(lab):
        click.echo(f"  {line}")


def _next(lab: Lab) -> list[str]:
    """What to try, a command in a line, each with what it is."""
    option = "" if lab.name == "lab" else f" --name {lab.name}"
    hints = [(f"exec{option} {host.name} -- nc -lk 8080", "a server") for host in lab.backends[:2]]
    hints += [
        (f"exec{option} h1 -- nc 10.0.0.10 8080", "a client, in another terminal"),
        (f"exec{option} lb -- evener trace", "what becomes of each packet"),
        (f"exec{option} lb -- evener show flows", "who talks to whom"),
        (f"exec{option} {SWITCH} -- tcpdump -ni br0", "all that passes on the segment"),
        (f"down{option}", "the end"),
    ]
    width = max(len(words) for words, _ in hints)
    return [f"evener lab {words:{width}}   {what}" for words, what in hints]


# What follows HOST belongs to the command, dashes or not.
@command.command(
    name="exec",
    short_help="Run a command on a host of a lab.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@_name
@click.argument("host")
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, host: str, cmd: tuple[str, ...]) -> None:
    """Run CMD on a host: h1, h2, ..., lb, or sw, where the bridge br0 is.

    Only the network is another one. The command takes this one's place, so input, terminal and exit
    code are its own. It is ended when the lab is taken down.

    \b
    Example: evener lab exec h2 -- nc -l 8080
    """
    from evener.errors import EvenerError
    from evener.lab import namespaces, topology

    words = cmd[1:] if cmd[0] == "--" else cmd
    if not words:
        raise click.UsageError("what is to be run? evener lab exec HOST -- CMD")
    lab = topology.get(name)
    if lab.ready and host != SWITCH:
        lab.host(host)  # says which there are
    namespaces.enter(f"evener-{name}-{host}")
    # `evener` itself is found inside, also from a virtual environment that is not active.
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    os.environ["PATH"] = path
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise EvenerError(f"cannot run '{words[0]}': {error.strerror}", host) from error


@command.command(name="list", short_help="The labs of this machine.")
@json_option
def list_labs(as_json: bool) -> None:
    """Show the labs of this machine, and remains of any that were not taken down.

    \b
    Example: evener lab list --json
    """
    from evener.lab import topology

    labs = topology.list_labs()
    if as_json:
        print_json({"rows": [_lab_to_json(lab) for lab in labs]})
    elif not labs:
        click.echo("there is no lab; evener lab up makes one")
    for lab in [] if as_json else labs:
        click.echo(f"lab {lab.name}" + ("" if lab.ready else " (incomplete)"))
        _hosts(lab)


@command.command(short_help="Take a lab down.")
@_name
@click.option("--all", "every", is_flag=True, help="All labs of this machine.")
def down(name: str, every: bool) -> None:
    """Take a lab down: its namespaces, all processes that live in them, and what its balancer pinned.

    Also those that `evener lab exec` started; they are asked first, and killed when they take too long.

    \b
    Example: evener lab down --all
    """
    from evener.errors import EvenerError
    from evener.lab import topology

    names = [lab.name for lab in topology.list_labs()] if every else [name]
    for one in names:
        if not topology.down(one):
            raise EvenerError(f"no lab '{one}'", "", "evener lab list shows those there are")
        click.echo(f"lab {one} is down")


def _hosts(lab: Lab) -> None:
    for host in lab.hosts:
        click.echo(f"  {host.name:5} {host.address!s:12} {host.mac}  {host.role}")


def _lab_to_json(lab: Lab) -> dict[str, Any]:
    hosts = [
        {
            "name": host.name,
            "address": str(host.address),
            "mac": host.mac,
            "role": host.role.value,
            "namespace": host.namespace,
        }
        for host in lab.hosts
    ]
    return {"name": lab.name, "ready": lab.ready, "switch": lab.switch, "hosts": hosts}
