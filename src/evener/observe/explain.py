# SPDX-License-Identifier: Apache-2.0
"""What would become of a client's first packet: the core itself is asked, on a copy of the flows.

A SYN is decided upon, not sent: configuration is read in place, flows and ports are copied, so the
running datapath notices nothing and its counters stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener._generated.reasons import SENTENCES, Reason
from evener.observe.snapshot import Snapshot
from evener.observe.story import Story, describe, rewritten
from evener.observe.values import parse_end, parse_listen
from evener.tables.hashing import address_bytes, port_word
from evener.tables.memory import Tables, shapes

_TTL: Final = 64
_SYN_BYTES: Final = layout.ETH_BYTES + 20 + 20
_READ_ONLY: Final = frozenset(
    (
        "settings",
        "copies",
        "endpoints",
        "services",
        "backends",
        "snats",
        "neighbours",
        "routes",
        "slots",
    )
)


class Decider(Protocol):
    """The part of datapath.native.Core that is needed here."""

    def decide(self, view: npt.NDArray[Any], now: int) -> npt.NDArray[Any]: ...


def explain(
    snapshot: Snapshot, core: Callable[[Tables], Decider], client: str, listen: str, *,
    offline: bool = False,
) -> Story:  # fmt: skip
    """The plan for a SYN from client (ADDRESS:PORT) to listen (ADDRESS:PORT/PROTOCOL).

    core: makes the core over some tables (datapath.native.Core). offline: there is no network to
    ask for next hops, so the plan is told as if they were known. Returns story.describe with
    `offline`, `pool`, `known_flow` and `share` (the part of its pool's slots that the backend has)
    added. Raises EvenerError for ends that cannot be understood.
    """
    source, sport = parse_end(client)
    destination, dport, protocol = parse_listen(listen)
    view = np.zeros((), layout.VIEW)
    view["src"]["half"] = np.frombuffer(address_bytes(source), "<u8")
    view["dst"]["half"] = np.frombuffer(address_bytes(destination), "<u8")
    view["sport"], view["dport"] = port_word(sport), port_word(dport)
    view["protocol"], view["tcp_flags"], view["ttl"] = protocol, layout.TCP_SYN, _TTL
    view["l4"], view["length"] = layout.ETH_BYTES + 20, _SYN_BYTES
    attachments = snapshot.reader.attachments
    view["ifindex"] = attachments[0].ifindex if attachments else 0
    plan = core(scratch(snapshot.reader.tables)).decide(view, snapshot.reader.now())
    story = {**describe(view, plan, snapshot), "source_mac": None, "destination_mac": None}
    known = bool(story["out"]) and story["slot"] is None
    if offline and story["reason"] == Reason.NEIGHBOUR_UNRESOLVED.name:
        reason = Reason.FORWARD if known else Reason.FORWARD_NEW
        story.update(verdict="forward", reason=reason.name, sentence=SENTENCES[reason])
    place = snapshot.place(int(plan["backend"]), int(plan["service"]))
    return {
        **story,
        "offline": offline,
        "pool": place.pool.name if place else None,
        "known_flow": known,
        "share": _share(snapshot, int(plan["service"]), int(plan["backend"])),
    }


def scratch(live: Tables) -> Tables:
    """Tables with the live configuration and a copy of the live flows. Everything else that the core
    may write is zero and its own: in the copy, locks are free."""
    buffers = {name: live.raw(name).view(np.uint8) for name in shapes(live.sizes)}
    for name in buffers.keys() - _READ_ONLY:
        copied = name in ("flows", "ports")
        buffers[name] = buffers[name].copy() if copied else np.zeros_like(buffers[name])
    return Tables(live.sizes, buffers)


def _share(snapshot: Snapshot, service: int, backend: int) -> float | None:
    if not service or not backend:
        return None
    tables = snapshot.reader.tables
    table = int(tables.services[tables.active][service]["table"])
    slots = tables.slots[tables.active, table, : layout.SLOTS]
    return round(int((slots == backend).sum()) / layout.SLOTS, 6)


def sentences(story: Story) -> list[str]:
    """The story of explain in sentences; details are indented by two spaces."""
    lines = [f"A SYN from {story['source']} to {story['destination']}/{story['protocol']}:"]
    if story["service"]:
        told = f"  is for service {story['service']}, mode {story['mode']}"
        lines.append(f"{told}, pool {story['pool']}" if story["pool"] else told)
    if story["hash"]:
        lines.append(f"  has the hash {story['hash']}")
    if story["backend"]:
        lines.append(_choice(story))
    if story["out"]:
        lines += ["It leaves with", *rewritten(story), *_hop(story)]
    lines.append(_verdict(story))
    if story["offline"] and story["hash"]:
        lines.append(
            "A running daemon has a secret hash seed of its own and knows its flows: it may choose "
            "another backend or port. Ask it without --config."
        )
    return lines


def _choice(story: Story) -> str:
    backend = f"backend {story['backend']} at {story['backend_end']}"
    if story["known_flow"]:
        return f"  belongs to a flow that is known ({story['state']}) on {backend}"
    if story["slot"] is None:
        return f"  belongs to {backend}"
    share = f", one of the {story['share']:.1%} that name" if story["share"] else ", which names"
    return f"  takes slot {story['slot']} of {layout.SLOTS}{share} {backend}"


def _hop(story: Story) -> list[str]:
    if story["out"]["interface"]:
        return [f"  interface {story['out']['interface']}"]
    if story["offline"]:
        return ["  MAC addresses and interface unknown: next hops come from the running system"]
    return ["  MAC addresses not known yet: the kernel is to be asked"]


def _verdict(story: Story) -> str:
    return f"Verdict: {story['verdict']}, {story['reason']}: {story['sentence']}"
