# SPDX-License-Identifier: Apache-2.0
"""What a capture of the lab's segment says about full NAT: was each segment seen twice, and right?

    client:port > VIP:service                 arrives at the balancer
    VIP:port    > backend:service             leaves it: the client's own port, nothing else touched
    backend:service > VIP:port                the reply, likewise
    VIP:service > client:port

Nothing of evener is asked: addresses and MACs come from the lab's plan, the rest from the frames.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evener.lab.frames import Segment
    from evener.lab.topology import Host

_COMPARED = {
    "eth_src": "source MAC",
    "eth_dst": "destination MAC",
    "src": "source address",
    "dst": "destination address",
    "ttl": "time to live",
    "sport": "source port",
    "dport": "destination port",
    "seq": "sequence number",
    "ack": "acknowledgement number",
    "flags": "TCP flags",
    "options": "TCP options",
    "payload": "payload",
    "rest": "another header field",
}


class Cast(NamedTuple):
    """Who is who on the segment."""

    client: Host
    balancer: Host
    backends: tuple[Host, ...]
    port: int


@dataclass(slots=True)
class Story:
    """One client port's connection: segments as they came to the balancer, and their bytes.

    Only segments of which the balancer's copy was seen are in `forward` and `reply`.
    """

    client_port: int
    backend: IPv4Address | None = None
    forward: list[Segment] = field(default_factory=list)
    reply: list[Segment] = field(default_factory=list)

    def stream(self, reply: bool) -> bytes:
        """The payload of one direction, in order, retransmissions left out."""
        segments = self.reply if reply else self.forward
        if not segments:
            return b""
        start = segments[0].seq + 1  # the SYN counts as one
        out = bytearray()
        for segment in segments:
            at = (segment.seq - start) % 2**32
            if segment.payload and at <= len(out):
                out[at : at + len(segment.payload)] = segment.payload
        return bytes(out)


@dataclass(slots=True)
class Evidence:
    """What was found. Each problem is one sentence."""

    stories: dict[int, Story] = field(default_factory=dict)
    frames: int = 0
    pairs: int = 0
    unlike: list[str] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)


def examine(segments: Iterable[Segment], cast: Cast) -> Evidence:
    """Pair every segment that came to the balancer with its copy that left it, and compare them.

    The copy may be captured first: a bridge hands a frame on before it shows it to who listens there
    (Linux, br_handle_frame_finish), and a balancer on another CPU is sometimes quicker. Replies are
    compared last, when it is known which backend each connection has.
    """
    evidence = Evidence()
    waiting: dict[object, deque[Segment]] = defaultdict(deque)
    early: dict[object, deque[Segment]] = defaultdict(deque)
    pairs: list[tuple[Segment, Segment]] = []
    backends = {host.address: host for host in cast.backends}
    for segment in segments:
        evidence.frames += 1
        if not (segment.ip_ok and segment.tcp_ok):
            which = " and ".join(
                name for name, ok in (("IP", segment.ip_ok), ("TCP", segment.tcp_ok)) if not ok
            )
            evidence.checksums.append(f"wrong {which} checksum: {segment}")
        identity = _identity(segment, client_port(segment, cast))
        left = segment.src == cast.balancer.address
        mine, others = (early, waiting) if left else (waiting, early)
        if not others[identity]:
            mine[identity].append(segment)
            continue
        other = others[identity].popleft()
        pairs.append((other, segment) if left else (segment, other))
    evidence.pairs = len(pairs)
    for came, copy in sorted(pairs, key=lambda pair: pair[0].src != cast.client.address):
        _compare(evidence, came, copy, cast, backends)
    for alone, what in (
        (early, "left the balancer, but never came to it"),
        (waiting, "came to the balancer, but never left it"),
    ):
        evidence.unpaired += [f"{what}: {segment}" for queue in alone.values() for segment in queue]
    return evidence


def client_port(segment: Segment, cast: Cast) -> int:
    """The port that tells connections apart; the same on both sides when it is preserved."""
    from_client = segment.src == cast.client.address
    to_backend = segment.src == cast.balancer.address and segment.dst != cast.client.address
    return segment.sport if from_client or to_backend else segment.dport


def _identity(segment: Segment, port: int) -> tuple[object, ...]:
    """Equal for a segment and its copy if what must not be touched was not touched."""
    return (port, segment.seq, segment.ack, segment.flags, segment.options, segment.payload,
            segment.rest)  # fmt: skip


def _compare(
    evidence: Evidence, came: Segment, left: Segment, cast: Cast, backends: dict[IPv4Address, Host]
) -> None:
    """One pair: the copy must be what full NAT makes of the segment."""
    port = client_port(came, cast)
    story = evidence.stories.setdefault(port, Story(port))
    balancer = cast.balancer
    if came.src == cast.client.address:
        backend = backends.get(left.dst)
        if backend is None:
            evidence.unlike.append(f"sent to {left.dst}, which is no backend: {left}")
            return
        story.backend = story.backend or backend.address
        if story.backend != backend.address:
            evidence.unlike.append(f"a connection of {story.backend} went elsewhere: {left}")
        story.forward.append(came)
        here, there = cast.client, backend
    else:
        if came.src != story.backend:
            evidence.unlike.append(f"a reply of {came.src} in {story.backend}'s connection: {came}")
        story.reply.append(came)
        here, there = backends.get(came.src, balancer), cast.client
    ends = {"sport": came.sport, "dport": cast.port} if there is not cast.client else {
        "sport": cast.port, "dport": port,
    }  # fmt: skip
    arriving = replace(came, eth_src=here.mac, eth_dst=balancer.mac, dst=balancer.address)
    leaving = replace(
        came, eth_src=balancer.mac, eth_dst=there.mac, src=balancer.address, dst=there.address,
        ttl=came.ttl - 1, sport=ends["sport"], dport=ends["dport"],
    )  # fmt: skip
    for wanted, seen in ((arriving, came), (leaving, left)):
        for name in (name for name in _COMPARED if getattr(wanted, name) != getattr(seen, name)):
            evidence.unlike.append(
                f"{_COMPARED[name]} is {getattr(seen, name)}, not {getattr(wanted, name)}: {seen}"
            )
