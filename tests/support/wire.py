# SPDX-License-Identifier: Apache-2.0
"""What a capture of the lab's bridge says: segments that came to the balancer, and their copies."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from ipaddress import IPv4Address
from pathlib import Path

from tests.support.packets import TCP, Packet, parse
from tests.support.pcap import read_pcap

BALANCER = IPv4Address("10.0.0.10")


def segments(path: Path) -> list[Packet]:
    """The TCP segments of a capture, in their order."""
    return [p for _, frame in read_pcap(path) if (p := parse(frame)).protocol == TCP]


def touchless(p: Packet) -> tuple[object, ...]:
    """What the balancer must not touch; the same in a segment and its copy, and in few others."""
    return (p.seq, p.ack, p.flags, p.window, p.urgent, p.tcp_options, p.payload, p.ident, p.tos)


def pairs(path: Path) -> list[tuple[Packet, Packet]]:
    """Each segment that came to the balancer with its copy, in the order in which they came;
    AssertionError if one is alone. A copy may be captured first: see evener.lab.witness.examine."""
    copies: dict[object, deque[Packet]] = defaultdict(deque)
    came = []
    for p in segments(path):
        if p.src == BALANCER:
            copies[touchless(p)].append(p)
        else:
            came.append(p)
    found = []
    for p in came:
        assert copies[touchless(p)], f"came to the balancer, but never left it: {p}"
        found.append((p, copies[touchless(p)].popleft()))
    left = [p for queue in copies.values() for p in queue]
    assert not left, f"{len(left)} left the balancer, but never came to it, such as {left[0]}"
    return found


def missing(path: Path) -> tuple[int, int, int]:
    """How many segments came to the balancer; how many of those never left; how many copies
    nobody had sent."""
    came: Counter[int] = Counter()
    left: Counter[int] = Counter()
    for p in segments(path):
        (left if p.src == BALANCER else came)[hash(touchless(p))] += 1
    return came.total(), (came - left).total(), (left - came).total()
