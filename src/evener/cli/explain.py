# SPDX-License-Identifier: Apache-2.0
"""`evener explain`: what would become of a client's packet?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evener.cli.common import client as daemon
from evener.cli.common import json_option, print_json


@click.command(name="explain", short_help="What would become of a client's first packet?")
@click.argument("client", metavar="CLIENT:PORT")
@click.argument("listen", metavar="VIP:PORT/PROTO")
@click.option(
    "--config", type=click.Path(path_type=Path),
    help="Ask the simulator with this configuration instead of the daemon.",
)  # fmt: skip
@json_option
def command(client: str, listen: str, config: Path | None, as_json: bool) -> None:
    """Tell in words what the core would do with a client's first packet, a SYN.

    Nothing is sent, and the running datapath is not disturbed: the core decides on a copy of its
    flows. With --config neither root nor the daemon is needed; next hops are unknown then, and the
    hash has another seed than a daemon's.

    \b
    Example: evener explain 10.0.0.1:34952 10.0.0.10:8080/tcp
    """
    plan = _offline(config, client, listen) if config else daemon().explain(client, listen)
    if as_json:
        print_json({"plan": plan})
        return
    from evener.observe.explain import sentences

    click.echo("\n".join(sentences(plan)))


def _offline(path: Path, client: str, listen: str) -> dict[str, Any]:
    from evener.config import load
    from evener.datapath.native import Core
    from evener.datapath.sim import Simulator
    from evener.observe import Snapshot
    from evener.observe.explain import explain
    from evener.tables.effective import Network

    config = load(path)
    simulator = Simulator.of(config, Network())
    return explain(
        Snapshot(config, simulator.ids, simulator), Core, client, listen, offline=True
    )  # fmt: skip
