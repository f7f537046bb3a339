# SPDX-License-Identifier: Apache-2.0
"""`evener demo`: run it, tell it, and end with a table and a verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evener.cli.common import device_option, json_option
from evener.cli.output import columns, table
from evener.model import Driver

if TYPE_CHECKING:
    from evener.lab.verdict import Report


@click.command(name="demo", short_help="The whole scenario, live, with a verdict.")
@click.option(
    "--driver",
    type=click.Choice([driver.value for driver in Driver]),
    help="What handles the packets. Default: xdp, or sim where this machine cannot.",
)
@device_option
@json_option
@click.option(
    "--pcap",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to keep the capture. Default: evener-demo.pcap in this folder.",
)
def command(driver: str | None, device: str, as_json: bool, pcap: Path | None) -> None:
    """Show the balancer at work: a client, two backends, real nc, in throw-away namespaces.

    Every packet is narrated. Exits with 0 only if both backends served, every byte arrived, and the
    capture shows each segment twice and right; with 1 otherwise. Nothing stays but the capture.

    \b
    Example: evener demo --pcap /tmp/demo.pcap
    """
    from evener.lab import demo, verdict
    from evener.lab.device import DEVICES
    from evener.lab.stop import StoppedError

    try:
        report = demo.run(
            Driver(driver) if driver else None,
            pcap,
            _quiet if as_json else click.echo,
            DEVICES[device],
        )
    except StoppedError as error:
        click.echo(f"evener: {error}", err=True)
        sys.exit(128 + error.number)
    if as_json:
        click.echo(json.dumps(verdict.to_json(report), indent=2))
    else:
        _show(report)
    sys.exit(0 if report.ok else 1)


def _quiet(text: str) -> None:
    """The narration has no place in JSON."""


def _show(report: Report) -> None:
    click.echo("Connections" + (" (simulated)" if report.simulated else ""))
    heads = columns(
        "No#", "client port#", "backend", "message, bytes#", "answer, bytes#", "packets to it#",
        "packets back#", "result",
    )  # fmt: skip
    rows = [
        (
            row.number, row.client_port, row.backend, row.bytes_sent, row.bytes_answered,
            row.packets_forward, row.packets_reply, "PASS" if row.ok else "FAIL",
        )
        for row in report.connections
    ]  # fmt: skip
    table(heads, rows)
    click.echo()
    for check in report.checks:
        colour = "green" if check.ok else "red"
        word = click.style("PASS" if check.ok else "FAIL", fg=colour)
        click.echo(f"{word}  {check.claim}: {check.detail}")
    for warning in report.warnings:
        click.echo(f"note: {warning}")
    how = "simulated" if report.simulated else report.driver.value
    verdict = "PASS" if report.ok else "FAIL"
    click.echo(f"\nevener demo ({how}): {verdict} in {report.seconds:.1f} s")
    click.echo(f"the capture ({report.segments} segments): tcpdump -nr {report.pcap}")
