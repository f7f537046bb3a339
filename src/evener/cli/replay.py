# SPDX-License-Identifier: Apache-2.0
"""`evener replay`: a capture through the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evener.cli.common import config_argument, json_option, plural, print_json
from evener.cli.output import columns, table
from evener.errors import EvenerError

if TYPE_CHECKING:
    from evener.cli.replaying import Hosts, Summary


@click.command(name="replay", short_help="A capture through the simulator: which frames leave?")
@config_argument
@click.argument("in_pcap", metavar="IN.pcap", type=click.Path(path_type=Path))
@click.argument("out_pcap", metavar="OUT.pcap", type=click.Path(path_type=Path))
@json_option
def command(config: Path, in_pcap: Path, out_pcap: Path, as_json: bool) -> None:
    """Put the frames of IN.pcap through the packet core with CONFIG, and write those that would leave
    to OUT.pcap, in order, with their time stamps. Needs neither root nor the daemon.

    IN.pcap holds what arrives at the balancer, in the classic pcap format, Ethernet. The capture's
    time drives timeouts. MAC addresses are learnt from its frames and ARP messages; those of hosts
    that it does not show are made up: 02:00 and the four bytes of the IPv4 address.

    The simulator's hash seed is fixed, so that a replay always gives the same; it is not that of a
    daemon. Replies of backends therefore match only where the simulator chose the same backend.

    \b
    Example: evener replay evener.toml in.pcap out.pcap
    """
    from evener.cli.replaying import Hosts, Replay
    from evener.config import load
    from evener.pcap import Reader, Writer

    read, capture = load(config), Reader(in_pcap)
    if out_pcap.exists() and out_pcap.samefile(in_pcap):
        raise EvenerError("OUT.pcap is IN.pcap", str(out_pcap), "give another name")
    hosts = Hosts.learn(read, (record.frame for record in capture))
    replay = Replay(read, hosts)
    with Writer(out_pcap, capture.nanoseconds) as out:
        for record in capture:
            replay.feed(record, out.write)
    told = notes(replay.summary, capture.cut)
    if as_json:
        print_json(_json(replay.summary, hosts, told))
        return
    table(columns("REASON", "VERDICT", "FRAMES#", "MEANING"), _rows(replay.summary))
    summary = replay.summary
    click.echo(f"\n{plural(summary.frames, 'frame')} in, {summary.sent:,} out: {out_pcap}")
    for note in [*told, *_made_up(hosts)]:
        click.echo(f"note: {note}")


def _rows(summary: Summary) -> list[list[object]]:
    from evener._generated.reasons import SENTENCES, VERDICTS

    return [
        [reason.name, VERDICTS[reason].name.lower(), summary.reasons[reason], SENTENCES[reason]]
        for reason in sorted(summary.reasons)
    ]


def notes(summary: Summary, cut: bool) -> list[str]:
    """What a reader of the table has to know."""
    from evener._generated.reasons import Reason

    found = []
    if cut:
        found.append("the capture ends in the middle of a frame; that frame is left out")
    if summary.cut_short:
        frames = plural(summary.cut_short, "frame")
        found.append(f"of {frames} the capture has only the beginning: tcpdump -s 0 keeps all")
    if summary.too_large:
        frames = plural(summary.too_large, "frame")
        found.append(f"{frames} of more than 65,535 bytes left out: switch GRO off to capture")
    if summary.unfinished:
        syns = plural(summary.unfinished, "SYN")
        found.append(f"{syns} with an unfinished checksum: the sender's transmit offload was on")
    if replies := summary.reasons[Reason.NO_REPLY_FLOW]:
        frames = plural(replies, "frame")
        found.append(f"{frames} of backends answer what the simulator sent elsewhere, or never")
    return found


def _made_up(hosts: Hosts) -> list[str]:
    """The MAC addresses that the capture does not show."""
    made = [who for who in _macs(hosts) if who["made_up"]]
    if not made:
        return []
    names = ", ".join(f"{who['address']} at {who['mac']}" for who in made[:5])
    more = f" and {len(made) - 5} more" if len(made) > 5 else ""
    return [f"made up, as the capture does not show them: {names}{more}"]


def _macs(hosts: Hosts) -> list[dict[str, Any]]:
    """The balancer and the backends, with their MAC addresses."""
    who = [hosts.balancer()[0], *sorted(hosts.backends())]
    macs = {address: nexthop.dst for address, nexthop in hosts.network().neighbours.items()}
    macs[who[0]] = hosts.balancer()[1]
    return [
        {"address": str(a), "mac": macs[a].hex(":"), "made_up": a not in hosts.seen} for a in who
    ]


def _json(summary: Summary, hosts: Hosts, told: list[str]) -> dict[str, Any]:
    rows = [
        {"reason": reason, "verdict": verdict, "frames": frames, "sentence": sentence}
        for reason, verdict, frames, sentence in _rows(summary)
    ]
    counts = {"frames": summary.frames, "sent": summary.sent}
    return {**counts, "rows": rows, "mac_addresses": _macs(hosts), "notes": told}
