# SPDX-License-Identifier: Apache-2.0
"""One packet's story: the core's view and plan as a dict, and the dict as lines of text.

The dict (also the API's and `--json`'s; absent knowledge is None):

    interface, ifindex, length (bytes of the frame), protocol, source, destination (ADDRESS:PORT),
    source_mac, destination_mac, flags (as tcpdump writes them), seq, ack, ttl, checksum_partial:
    the packet as it came
    verdict, reason, sentence
    direction (forward, reply), mode, service, listen, backend (POOL/BACKEND), backend_end, client
    hash (16 hex digits), slot (new flows only), state (of the flow after this packet), generation
    out: None, or source, destination, ttl, source_mac, destination_mac, interface as it leaves; the
    last three are None if the next hop is not known (NEIGHBOUR_UNRESOLVED)

Text and dict cannot differ: the text is made from the dict.
"""

from __future__ import annotations

from typing import Any

from evener._generated import layout
from evener._generated.reasons import SENTENCES, Reason, Verdict
from evener.observe.snapshot import Snapshot
from evener.observe.values import (
    DIRECTIONS,
    MODES,
    STATE_OF_FLAGS,
    STATES,
    end,
    fields,
    mac,
    number32,
    protocol,
    tcp_flags,
)

Story = dict[str, Any]


def describe(view: Any, plan: Any, snapshot: Snapshot) -> Story:
    """A view (layout.VIEW) and its plan (layout.PLAN), scalars, in words and numbers."""
    return {**_packet(view, snapshot), **_plan(view, plan, snapshot)}


def _packet(view: Any, snapshot: Snapshot) -> Story:
    v = fields(view)
    tcp = v["protocol"] == layout.PROTOCOL_TCP and bool(v["l4"])
    return {
        "interface": snapshot.interface_name(v["ifindex"]),
        "ifindex": v["ifindex"],
        "length": v["length"],
        "protocol": protocol(v["protocol"]) or None,
        "source": _end(view, "src", "sport", tcp),
        "destination": _end(view, "dst", "dport", tcp),
        "source_mac": mac(view["eth_src"].tobytes()),
        "destination_mac": mac(view["eth_dst"].tobytes()),
        "flags": tcp_flags(v["tcp_flags"]) if tcp else None,
        "seq": number32(v["seq"]) if tcp else None,
        "ack": number32(v["ack"]) if tcp else None,
        "ttl": v["ttl"] if v["protocol"] else None,
        "checksum_partial": bool(v["checksum_partial"]),
    }


def _end(record: Any, address: str, port: str, with_port: bool) -> str | None:
    text = end(record[address].tobytes(), int(record[port]))
    return text if with_port or text is None else text.rpartition(":")[0]


def _plan(view: Any, plan: Any, snapshot: Snapshot) -> Story:
    p = fields(plan)
    reason, direction = _reason(p["reason"]), DIRECTIONS[p["direction"]]
    unresolved = reason is Reason.NEIGHBOUR_UNRESOLVED  # all but the next hop is filled in
    out = _out(plan, p, snapshot) if p["verdict"] == Verdict.FORWARD or unresolved else None
    fresh = reason is Reason.FORWARD_NEW or (unresolved and p["slot"] and not p["flow_flags"])
    source = end(view["src"].tobytes(), int(view["sport"]))
    onward = out["destination"] if out else None
    return {
        "verdict": Verdict(p["verdict"]).name.lower(),
        "reason": reason.name,
        "sentence": SENTENCES[reason],
        "direction": direction,
        "mode": MODES.get(p["mode"]),
        "service": snapshot.service_name(p["service"]),
        "listen": snapshot.service_listen(p["service"]),
        "backend": snapshot.backend_name(p["backend"], p["service"]),
        "backend_end": snapshot.backend_end(p["backend"]),
        "client": {"forward": source, "reply": onward}.get(direction or ""),
        "hash": f"{p['hash']:016x}" if p["hash"] else None,
        "slot": p["slot"] if fresh else None,
        "state": STATES[STATE_OF_FLAGS[p["flow_flags"]]] if out else None,
        "generation": p["generation"],
        "out": out,
    }


def _reason(number: int) -> Reason:
    """A datapath of another version may know reasons that this one does not."""
    return Reason(number) if number < len(Reason) else Reason.NONE


def _out(plan: Any, p: Story, snapshot: Snapshot) -> Story:
    """What the frame is to look like; MAC addresses and interface None if not resolved."""
    hop = plan["nexthop"]
    resolved = bool(hop["ifindex"])
    return {
        "source": end(plan["src"].tobytes(), p["sport"]),
        "destination": end(plan["dst"].tobytes(), p["dport"]),
        "ttl": p["ttl"],
        "source_mac": mac(hop["src"].tobytes()) if resolved else None,
        "destination_mac": mac(hop["dst"].tobytes()) if resolved else None,
        "interface": snapshot.interface_name(int(hop["ifindex"])),
    }


def narrate(story: Story) -> list[str]:
    """What happened to the packet, a line for each step, details indented by two spaces."""
    lines = [_received(story), *_found(story)]
    if story["checksum_partial"]:
        lines.append("  its checksum looks unfinished: is the sender's transmit offload on?")
    if story["out"]:
        lines += rewritten(story)
    return [*lines, _end_of(story)]


def _received(story: Story) -> str:
    told = [f"packet received on {story['interface']}: {story['length']} bytes"]
    if story["flags"]:
        told.append(f"TCP flags [{story['flags']}], seq {story['seq']}, ack {story['ack']}")
    elif story["protocol"]:
        told.append(story["protocol"])
    return ", ".join(told)


def _found(story: Story) -> list[str]:
    """Who it is from, whom it is for, and how the backend was found."""
    if not story["source"]:
        return []
    if story["direction"] is None:
        return [f"  source {story['source']}, destination {story['destination']}"]
    if story["direction"] == "reply":
        lines = [
            f"  from backend {story['backend_end']} ({story['backend']})",
            f"  to SNAT address {story['destination']}",
        ]
        if story["client"]:
            lines.append(f"  flow known: client {story['client']}, service {story['service']}")
        return lines
    lines = [
        f"  client {story['source']}",
        f"  destination {story['destination']}, service {story['service']}",
    ]
    if story["hash"]:
        lines.append(f"  hash {story['hash']}{chosen(story)}")
    return lines


def chosen(story: Story) -> str:
    """How the backend follows from the hash; empty where none was found."""
    if not story["backend"]:
        return ""
    backend = f"backend {story['backend_end']} ({story['backend']})"
    if story["slot"] is None:
        return f", flow known: {backend}"
    return f", slot {story['slot']} of {layout.SLOTS}: {backend}"


def rewritten(story: Story) -> list[str]:
    """One line for each field that is written: old -> new."""
    out = story["out"]
    source, sport = story["source"].rsplit(":", 1)
    destination, dport = story["destination"].rsplit(":", 1)
    new_source, new_sport = out["source"].rsplit(":", 1)
    new_destination, new_dport = out["destination"].rsplit(":", 1)
    changes = [
        ("source address", source, new_source),
        ("source port", sport, new_sport),
        ("destination address", destination, new_destination),
        ("destination port", dport, new_dport),
        ("TTL", story["ttl"], out["ttl"]),
    ]
    if out["source_mac"]:
        changes += [
            ("source MAC", story["source_mac"], out["source_mac"]),
            ("destination MAC", story["destination_mac"], out["destination_mac"]),
        ]
    lines = [f"  {name} {_change(old, new)}" for name, old, new in changes]
    return [*lines, "  IP and TCP checksums updated"]


def _change(old: Any, new: Any) -> str:
    if old is None:  # explain makes up a packet, not the frame around it
        return f"{new}"
    return f"{new} (kept)" if old == new else f"{old} -> {new}"


def _end_of(story: Story) -> str:
    out, reason = story["out"], story["reason"]
    if story["verdict"] == "forward" and out:
        whom = "backend" if story["direction"] == "forward" else "client"
        flow = f"{reason}, flow {story['state']}"
        return f"sent to {whom} {out['destination']} on {out['interface']} ({flow})"
    word = "passed to the kernel" if story["verdict"] == "pass" else "dropped"
    return f"{word}: {reason}, {story['sentence']}"
