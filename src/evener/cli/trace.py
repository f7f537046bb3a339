# SPDX-License-Identifier: Apache-2.0
"""`evener trace`: packets, narrated as they come."""

from __future__ import annotations

import json
from typing import Any

import click

from evener.cli.common import client as daemon
from evener.cli.common import json_option


@click.command(name="trace", short_help="Narrate packets as they come.")
@click.option("--client", help="Only this client: an address, ADDRESS:PORT, or a prefix.")
@click.option("--service", help="Only this service.")
@click.option("--backend", help="Only this backend: POOL/BACKEND, a name, or its address.")
@click.option("--reason", help="Only this reason, such as NO_BACKEND; see `evener show reasons`.")
@click.option("--verdict", help="Only this verdict: forward, pass or drop.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many packets.")
@json_option
def command(count: int | None, as_json: bool, **filters: str | None) -> None:
    """Narrate each packet: received where, by whom, hash and backend, every rewritten field, sent
    where; and of those not forwarded, why.

    While someone traces, the datapath is slower. Under load only a part can be told; how many
    packets were missed is said. With --json each line is an object, as the daemon sends it. Ctrl-C
    ends it.

    \b
    Example: evener trace --client 10.0.0.1 --service web --count 10
    """
    given = {name: text for name, text in filters.items() if text is not None}
    tell = _print_json if as_json else _Narrator()
    seen = 0
    for line in daemon().trace(**given):
        tell(line)
        seen += "verdict" in line
        if seen == count:
            break


def _print_json(line: dict[str, Any]) -> None:
    click.echo(json.dumps(line))


class _Narrator:
    """Tells each packet, with the time since the first."""

    def __init__(self) -> None:
        self._first_ns: int | None = None

    def __call__(self, line: dict[str, Any]) -> None:
        from evener.observe.story import narrate

        if "trace" in line:
            click.echo("evener: tracing; Ctrl-C ends it", err=True)
        elif "lost" in line:
            click.echo(f"evener: {line['lost']} packets came too fast to be told", err=True)
        elif "verdict" in line:
            time_ns = line["time_ns"]
            self._first_ns = time_ns if self._first_ns is None else self._first_ns
            after_s = (time_ns - self._first_ns) / 1e9
            click.echo("\n".join([f"+{after_s:.6f} s, CPU {line['cpu']}:", *narrate(line), ""]))
