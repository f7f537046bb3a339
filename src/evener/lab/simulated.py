# SPDX-License-Identifier: Apache-2.0
"""The demo without a network: invented TCP peers around the simulator, which is the real core.

Each frame that a host sends is noted, handed to the core, noted again as it leaves, and given to the
host whose MAC it is addressed to. The peers are scripted, but believe nothing: each checks what
reaches it against what it expects.
"""

from __future__ import annotations

import secrets
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evener import config
from evener.datapath.sim import Simulator
from evener.lab import balancer, topology
from evener.lab.exchange import Exchange, answer, enough, message
from evener.lab.frames import Flag, Segment, build, parse
from evener.model import Config, Driver
from evener.tables.effective import Network, NextHop

if TYPE_CHECKING:
    from collections.abc import Callable

    from evener.lab.topology import Host, Lab

_IFINDEX = 1
_STEP_NS = 100_000  # between two frames, as on a quiet veth
_WINDOW = 64_240
_MTU_PAYLOAD = 1460
# MSS, window scale, SACK permitted, filled up with no-operations
_OPTIONS = struct.pack("!BBHBBBBBBBB", 2, 4, _MTU_PAYLOAD, 1, 3, 3, 7, 1, 1, 4, 2)


@dataclass(slots=True)
class _Peer:
    """One end of a TCP connection: what it sends next and what it has received."""

    host: Host
    port: int
    sequence: int
    acknowledged: int = 0
    received: bytes = b""


class Segmented:
    """The lab's Ethernet segment, simulated: hosts, the balancer, and all frames that passed."""

    def __init__(self, driver_config: Config, lab: Lab) -> None:
        neighbours = {
            host.address: NextHop(_mac(host.mac), _mac(lab.balancer.mac), _IFINDEX)
            for host in lab.hosts
            if host is not lab.balancer
        }
        self.simulator = Simulator.of(driver_config, Network(neighbours))
        self.simulator.tables.settings["trace"] = 1
        self.frames: list[tuple[int, bytes]] = []
        self._time_ns = time.time_ns()

    def carry(self, frame: bytes) -> bytes | None:
        """A frame to the balancer; what leaves it, None if nothing does."""
        self._note(frame)
        outcome = self.simulator.send(frame)
        if outcome.frame == frame:
            return None
        self._note(outcome.frame)
        return outcome.frame

    def _note(self, frame: bytes) -> None:
        self._time_ns += _STEP_NS
        self.frames.append((self._time_ns, frame))


class Conversation:
    """As `netcat.Conversation`, with invented peers.

    :param passed: called after every frame, for the narration
    """

    def __init__(self, lab: Lab, port: int, check: Callable[[], None]) -> None:
        text = balancer.configuration(lab, Driver.SIM, flows=10_000)
        self.config = config.loads(text, "the demo's configuration")
        self.segment = Segmented(self.config, lab)
        self._lab, self._port, self._check = lab, port, check
        self._next_port = 32_768 + secrets.randbelow(20_000)
        self._passed: Callable[[], None] = lambda: None

    def hold(self, begun: Callable[[int], None], passed: Callable[[], None]) -> list[Exchange]:
        """Connection after connection until it is enough; `passed` is called after every frame."""
        self._passed = passed
        exchanges: list[Exchange] = []
        while not enough(exchanges, len(self._lab.backends)):
            number = len(exchanges) + 1
            begun(number)
            exchanges.append(self._connect(number))
        return exchanges

    def _connect(self, number: int) -> Exchange:
        said = message(number)
        self._next_port += 2
        client = _Peer(self._lab.clients[0], self._next_port, secrets.randbits(32))
        connection = _Connection(self._lab, self._port, client, self._send)
        try:
            connection.open()
            connection.say(client, said)
            replied = answer(number, connection.server.host.name)
            connection.say(connection.server, replied)
            connection.close()
        except _LostError as error:
            return Exchange(number, said, b"", problem=str(error))
        server = connection.server
        return Exchange(
            number, said, replied, server.host.name, server.received == said,
            client.received == replied,
        )  # fmt: skip

    def _send(self, segment: Segment) -> Segment:
        self._check()
        frame = self.segment.carry(build(segment))
        self._passed()
        arrived = parse(frame) if frame else None
        if arrived is None:
            raise _LostError(f"the balancer did not forward {segment}")
        if not (arrived.ip_ok and arrived.tcp_ok):
            raise _LostError(f"a wrong checksum arrived: {arrived}")
        return arrived


class _LostError(Exception):
    """A segment that did not arrive as it must."""


class _Connection:
    """Open, say, close, with an acknowledgement for everything."""

    def __init__(
        self, lab: Lab, port: int, client: _Peer, send: Callable[[Segment], Segment]
    ) -> None:
        self._lab, self._port, self._send = lab, port, send
        self._backends = {host.mac: host for host in lab.backends}
        self.client = client
        self._server: _Peer | None = None
        self._snat_port = 0

    @property
    def server(self) -> _Peer:
        """The backend that the SYN reached."""
        if self._server is None:
            raise _LostError("no backend has been reached")
        return self._server

    def open(self) -> None:
        """The handshake; its first segment finds the backend."""
        arrived = self._send(self._segment(self.client, Flag.SYN, options=_OPTIONS))
        host = self._backends.get(arrived.eth_dst)
        if host is None or host.address != arrived.dst:
            raise _LostError(f"no backend takes {arrived}")
        self._server = _Peer(host, arrived.dport, secrets.randbits(32), arrived.seq + 1)
        self._snat_port = arrived.sport
        self.client.sequence += 1
        self._deliver(self.server, Flag.SYN | Flag.ACK, options=_OPTIONS)
        self._deliver(self.client, Flag.ACK)

    def say(self, speaker: _Peer, data: bytes) -> None:
        """Data from one side, acknowledged by the other."""
        listener = self.server if speaker is self.client else self.client
        for at in range(0, len(data), _MTU_PAYLOAD):
            self._deliver(speaker, Flag.PSH | Flag.ACK, data[at : at + _MTU_PAYLOAD])
            self._deliver(listener, Flag.ACK)

    def close(self) -> None:
        """The client closes, then the server."""
        self._deliver(self.client, Flag.FIN | Flag.ACK)
        self._deliver(self.server, Flag.FIN | Flag.ACK)
        self._deliver(self.client, Flag.ACK)

    def _deliver(
        self, speaker: _Peer, flags: Flag, data: bytes = b"", options: bytes = b""
    ) -> None:
        listener = self.server if speaker is self.client else self.client
        arrived = self._send(self._segment(speaker, flags, data, options))
        if arrived.eth_dst != listener.host.mac or arrived.dst != listener.host.address:
            raise _LostError(f"meant for {listener.host.name}: {arrived}")
        if arrived.dport != listener.port:
            raise _LostError(f"meant for port {listener.port}: {arrived}")
        length = len(arrived.payload) + bool(arrived.flags & (Flag.SYN | Flag.FIN))
        speaker.sequence = (speaker.sequence + length) % 2**32
        listener.acknowledged = (arrived.seq + length) % 2**32
        listener.received += arrived.payload

    def _segment(
        self, speaker: _Peer, flags: Flag, data: bytes = b"", options: bytes = b""
    ) -> Segment:
        """To the balancer: the client talks to the service, the server to who talked to it."""
        to = self._port if speaker is self.client else self._snat_port
        rest = struct.pack("!BHHHH", 0, secrets.randbits(16), 0x4000, _WINDOW, 0)
        return Segment(
            0, speaker.host.mac, self._lab.balancer.mac, speaker.host.address,
            self._lab.balancer.address, 64, speaker.port, to, speaker.sequence % 2**32,
            speaker.acknowledged % 2**32, flags, options, data, rest,
        )  # fmt: skip


def plan_lab() -> Lab:
    """The demo's lab as a plan: nothing of it is made."""
    return topology.Lab("simulated", topology.plan_hosts("simulated"))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
