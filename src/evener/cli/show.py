# SPDX-License-Identifier: Apache-2.0
"""`evener show`: what there is and what happens, in the layouts that ipvsadm, HAProxy and conntrack
users know."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import click

from evener.cli.common import client, json_option, plural, print_json
from evener.cli.groups import Group
from evener.cli.output import columns, table

LIMIT = 1_000


@click.group(
    name="show", short_help="Services, backends, flows, counters, reasons, status.", cls=Group
)
def command() -> None:
    """Show services, backends, flows, counters, reasons, or the daemon's status.

    \b
    Example: evener show flows --service web
    """


@command.command()
@json_option
def services(as_json: bool) -> None:
    """Each service and its backends, as `ipvsadm -Ln` lists them.

    ACTIVE: flows that are established; INACTIVE: opening, closing, or a port in quarantine.

    \b
    Example: evener show services
    """
    rows = client().rows("services")
    if as_json:
        return print_json({"rows": rows})
    heads = columns(
        "PROT", "ADDRESS:PORT", "NAME", "SCHEDULER", "FORWARD", "WEIGHT#", "ACTIVE#", "INACTIVE#"
    )
    lines: list[list[object]] = []
    for row in rows:
        head = [row["protocol"], row["vip"], row["service"], row["scheduler"], "", ""]
        lines.append([*head, *_activity(row)])
        for backend in row["backends"]:
            name = f"{row['pool']}/{backend['backend']}"
            told = ["  ->", backend["address"], name, "", row["mode"], backend["weight"]]
            lines.append([*told, *_activity(backend)])
    return table(heads, lines)


def _activity(row: dict[str, Any]) -> list[object]:
    established = row["flows_established"]
    return [established, row["flows_now"] - established]


@command.command()
@json_option
def backends(as_json: bool) -> None:
    """Each backend of each pool, in the manner of HAProxy's statistics.

    CUR and TOTAL: flows now and since the start; IN: bytes from clients, OUT: to them. SHARE: the
    part of new flows that it is to get. MAC: where its frames are sent.

    \b
    Example: evener show backends
    """
    rows = client().rows("backends")
    if as_json:
        return print_json({"rows": rows})
    heads = columns(
        "POOL", "BACKEND", "ADDRESS", "STATUS", "WEIGHT#", "SHARE#", "CUR#", "TOTAL#", "IN#",
        "OUT#", "MAC",
    )  # fmt: skip
    lines = [
        [
            row["pool"], row["backend"], row["address"], row["state"], row["weight"],
            f"{row['share']:.1%}", row["flows_now"], row["flows_new"], row["forward_bytes"],
            row["reply_bytes"], row["mac"] or "unresolved",
        ]
        for row in rows
    ]  # fmt: skip
    return table(heads, lines)


@command.command()
@click.option("--client", "of_client", help="Only this client: address, ADDRESS:PORT or prefix.")
@click.option("--service", help="Only this service.")
@click.option("--backend", help="Only this backend: POOL/BACKEND, a name, or its address.")
@click.option("--state", help="Only this state: OPENING, ESTABLISHED, HALF_CLOSED or CLOSED.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=LIMIT, show_default=True,
    help="At most so many; 0 for all.",
)  # fmt: skip
@json_option
def flows(of_client: str | None, limit: int, as_json: bool, **filters: str | None) -> None:
    """One row for each flow, with all four ends.

    LEFT: seconds of silence until the flow is forgotten. The backend sees SNAT as its peer, the
    client sees VIP.

    \b
    Example: evener show flows --client 10.0.0.1
    """
    given = {n: t for n, t in {"client": of_client, **filters}.items() if t is not None}
    rows = client().rows("flows", limit=limit, **given)
    if as_json:
        return print_json({"rows": rows})
    heads = columns("PROT", "STATE", "LEFT#", "CLIENT", "VIP", "SNAT", "BACKEND", "SERVICE")
    names = ("protocol", "state", "left_s", "client", "vip", "snat", "backend", "service")
    table(heads, [[row[name] for name in names] for row in rows])
    if limit and len(rows) == limit:
        click.echo(f"evener: there may be more than these {limit:,}: --limit", err=True)
    return None


@command.command()
@json_option
def counters(as_json: bool) -> None:
    """What services and backends handled since the start, as `ipvsadm -Ln --stats` lists it.

    IN: from clients, OUT: to them. REFUSED: packets that were not forwarded.

    \b
    Example: evener show counters
    """
    rows = client().rows("counters")
    if as_json:
        return print_json({"rows": rows})
    heads = columns(
        "PROT", "ADDRESS:PORT", "NAME", "CONNS#", "INPKTS#", "OUTPKTS#", "INBYTES#", "OUTBYTES#",
        "REFUSED#",
    )  # fmt: skip
    names = (
        "flows_new", "forward_packets", "reply_packets", "forward_bytes", "reply_bytes", "refused",
    )  # fmt: skip
    lines = [[*_who(row), *(row[name] for name in names)] for row in rows]
    return table(heads, lines)


def _who(row: dict[str, Any]) -> list[object]:
    if row["kind"] == "service":
        return [row["protocol"], row["address"], row["service"]]
    return ["  ->", row["address"], row["backend"]]


@command.command()
@json_option
def reasons(as_json: bool) -> None:
    """Why packets were forwarded, passed to the kernel or dropped: every reason, and how many.

    \b
    Example: evener show reasons
    """
    rows = client().rows("reasons")
    if as_json:
        return print_json({"rows": rows})
    lines = [[row["reason"], row["verdict"], row["packets"], row["sentence"]] for row in rows]
    return table(columns("REASON", "VERDICT", "PACKETS#", "MEANING"), lines)


@command.command()
@json_option
def status(as_json: bool) -> None:
    """What the daemon is, where it is attached, how full it is, what was lost.

    A frame that the driver could not take or hand on has no reason, or has that of a packet that was sent:
    it is listed here.

    \b
    Example: evener show status
    """
    answer = client().status()
    if as_json:
        return print_json(answer)
    attached = [f"{i['interface']} ({i['mode']})" for i in answer["interfaces"]]
    worker = "" if answer["worker"] is None else f", worker {answer['worker'] or 'none'}"
    lines = {
        "evener": f"{answer['evener']}, process {answer['pid']}, up {_duration(answer['uptime_s'])}",
        "instance": answer["instance"],
        "configuration": f"{answer['config']}, generation {answer['generation']}",
        "datapath": f"{answer['driver']} on {', '.join(attached) or 'no interface'}{worker}",
        **({"lanes": _lanes(answer["lanes"])} if answer.get("lanes") else {}),
        "flows": _fill(answer["flows"]),
        "memory": f"{answer['memory_bytes'] / 2**20:,.1f} MiB",
    }
    for name, text in lines.items():
        click.echo(f"{name + ':':15}{text}")
    if lost := [row for row in answer.get("frames", []) if row["lost"] and row["frames"]]:
        click.echo("\nframes that the driver lost:")
        table(columns("COUNTER", "FRAMES#", "OF", "MEANING"), [_lost(row) for row in lost])
    if answer["warnings"]:
        click.echo(f"\n{plural(len(answer['warnings']), 'warning')}:")
        for warning in answer["warnings"]:
            click.echo(indent(warning, "  "))
    return None


def _lanes(rows: list[dict[str, Any]]) -> str:
    """How many, and whether packets are spread over them."""
    told = [f"on lcore {row['lcore']}: {row['packets']:,}" for row in rows]
    return f"{len(rows)}, packets {'; '.join(told)}"


def _fill(flows: dict[str, int]) -> str:
    """How full the flow table is: it has more records than flows were asked for, since a part of them must be
    free for all to find a place."""
    now, capacity = flows["now"], flows["capacity"]
    if now <= capacity:
        return f"{now:,} of {capacity:,}"
    return (
        f"{now:,}, more than the {capacity:,} of datapath.flows; the table is full at {flows['records']:,}, "
        "and before that some new ones are refused"
    )


def _lost(row: dict[str, Any]) -> list[object]:
    of = {where: number for where, number in row["by"].items() if number}
    told = ", ".join(of) if len(of) == 1 else ", ".join(f"{w} {n}" for w, n in of.items())
    return [row["counter"], row["frames"], told, row["sentence"]]


def _duration(seconds: float) -> str:
    """The two largest units that matter: 3 d 4 h."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    rest = int(seconds)
    for name, size in units:
        amount, rest = divmod(rest, size)
        if amount or parts or name == "s":
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])
