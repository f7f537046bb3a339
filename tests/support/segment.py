# SPDX-License-Identifier: Apache-2.0
"""The segment of the reference scenario, as values: a client, two backends, the balancer."""

from __future__ import annotations

from ipaddress import IPv4Address

from evener import config
from evener.clock import ManualClock
from evener.datapath.sim import Outcome, Simulator
from evener.observe import Snapshot
from evener.tables.effective import Network, NextHop
from tests.support import packets

TEXT = """\
[datapath]
driver = "sim"
flows = 10_000

[pool.web]
backends = [
  "10.0.0.2:8080",
  { address = "10.0.0.3:8080", weight = 2, name = "h3" },
]

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
"""
VIP = "10.0.0.10"
PORT = 8080


def mac(number: int) -> str:
    """The MAC address of host `number` (10.0.0.number; the balancer is 10)."""
    return f"de:ad:be:ef:00:{number % 100:02d}"


def nexthop(number: int) -> NextHop:
    """How the balancer reaches a host."""
    return NextHop(
        bytes.fromhex(mac(number).replace(":", "")), bytes.fromhex(mac(10).replace(":", "")), 1
    )


NETWORK = Network({IPv4Address(f"10.0.0.{n}"): nexthop(n) for n in (1, 2, 3)})


def frame(
    src: str, sport: int, dst: str, dport: int, flags: str, payload: bytes = b"", seq: int = 1
) -> bytes:
    """A TCP segment on its way to the balancer."""
    segment = packets.tcp(src, dst, sport, dport, payload, flags=flags, seq=seq)
    source = mac(int(src.rsplit(".", 1)[1]))
    return packets.ethernet(mac(10), source, packets.ipv4(src, dst, packets.TCP, segment))


def to_vip(sport: int, flags: str, payload: bytes = b"", client: str = "10.0.0.1") -> bytes:
    """A segment from a client to the service."""
    return frame(client, sport, VIP, PORT, flags, payload)


def answer(sent: bytes, flags: str = "SA", payload: bytes = b"") -> bytes:
    """What the backend that got a frame sends back."""
    got = packets.parse(sent)
    return frame(str(got.dst), got.dport, str(got.src), got.sport, flags, payload)


def simulator(text: str = TEXT, network: Network = NETWORK) -> tuple[Simulator, Snapshot]:
    """The simulator with a configuration, at 1000 s, tracing; and its snapshot."""
    read = config.loads(text)
    made = Simulator.of(read, network, ManualClock(1000))
    made.tables.settings["trace"] = 1
    return made, Snapshot(read, made.ids, made)


def handshake(made: Simulator, sport: int, client: str = "10.0.0.1") -> list[Outcome]:
    """SYN, SYN-ACK, ACK of a client; their outcomes."""
    syn = made.send(to_vip(sport, "S", client=client))
    return [syn, made.send(answer(syn.frame)), made.send(to_vip(sport, "A", client=client))]
