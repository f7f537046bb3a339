# SPDX-License-Identifier: Apache-2.0
"""The scenario that must always work, segment by segment, as the bridge saw it.

h1 10.0.0.1 (client) ---+
h2 10.0.0.2 (backend) --+-- br0     capture here
h3 10.0.0.3 (backend) --+
lb 10.0.0.10 (VIP) -----+
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evener.lab import namespaces
from evener.lab.capture import Capture
from evener.lab.topology import BRIDGE, Host
from tests.support.bpf import needs_namespaces
from tests.support.packets import Packet
from tests.support.running import FORMS, VIP, Running, running
from tests.support.wire import BALANCER, pairs

pytestmark = [pytest.mark.netns, needs_namespaces]

CLOSED = 8081  # a service that no backend listens for


@pytest.fixture(scope="module", params=FORMS)
def system(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Running]:
    both = ("h2", "h3")
    services = {8080: both, CLOSED: both}
    with running(tmp_path_factory.mktemp("wire"), services, form=request.param) as system:
        yield system


@pytest.fixture
def listeners(system: Running) -> Iterator[dict[str, socket.socket]]:
    """A listening socket on each backend."""
    found = {}
    for host in system.lab.backends:
        found[host.name] = namespaces.in_namespace(
            host.namespace, lambda host=host: socket.create_server((str(host.address), 8080))
        )
        found[host.name].settimeout(5)
    yield found
    for listener in found.values():
        listener.close()


def dial(system: Running, port: int = 8080) -> socket.socket:
    return namespaces.in_namespace(
        system.lab.host("h1").namespace, lambda: socket.create_connection((VIP, port), timeout=5)
    )


def answer(listeners: dict[str, socket.socket]) -> tuple[str, socket.socket]:
    """Whoever was connected to: its name and the accepted connection."""
    ready, _, _ = select.select(list(listeners.values()), [], [], 5)
    assert ready, "nobody was connected to"
    connection, _ = ready[0].accept()
    connection.settimeout(5)
    return next(name for name, listener in listeners.items() if listener is ready[0]), connection


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def check_copies(system: Running, path: Path, backend: Host | None = None) -> list[Packet]:
    """Every segment has its copy, and the copy is what full NAT makes of it; the segments."""
    h1, lb = system.lab.host("h1"), system.lab.balancer
    came = []
    for segment, copy in pairs(path):
        assert segment.ip_ok
        assert segment.l4_ok
        assert segment.dst == BALANCER
        assert segment.eth_dst == lb.mac
        if segment.src == h1.address:
            server = backend or next(h for h in system.lab.backends if h.address == copy.dst)
            assert segment.eth_src == h1.mac
            new_ends = {"src": BALANCER, "dst": server.address, "eth_dst": server.mac}
        else:
            server = next(h for h in system.lab.backends if h.address == segment.src)
            assert backend in (None, server)
            assert segment.eth_src == server.mac
            new_ends = {"src": BALANCER, "dst": h1.address, "eth_dst": h1.mac}
        # All other fields, also of the checks of the sums, are as they came: ports are kept.
        assert copy == replace(segment, eth_src=lb.mac, ttl=segment.ttl - 1, **new_ends)
        came.append(segment)
    return came


def says(segments: list[Packet], client: int) -> list[str]:
    """The flags of segments that carry more than an acknowledgement, "<" before the server's."""
    return [
        ("" if p.sport == client else "<") + p.flags
        for p in segments
        if client in (p.sport, p.dport) and (p.payload or p.flags != "A")
    ]


def test_a_whole_connection(
    system: Running, listeners: dict[str, socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "a.pcap"
    with Capture(system.lab.switch, BRIDGE, path):
        client = dial(system)
        name, server = answer(listeners)
        port = client.getsockname()[1]
        assert server.getpeername() == (VIP, port)
        client.sendall(b"to whom it may concern")
        assert receive(server, 22) == b"to whom it may concern"
        server.sendall(b"dear client")
        assert receive(client, 11) == b"dear client"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.close()
        assert client.recv(1) == b""
        client.close()
    segments = check_copies(system, path, system.lab.host(name))
    assert says(segments, port) == ["S", "<SA", "PA", "<PA", "FA", "<FA"]
    syn, syn_ack = segments[0], segments[1]
    assert (syn.flags, syn_ack.flags) == ("S", "SA")
    assert syn_ack.ack == (syn.seq + 1) % 2**32
    # Maximum segment size, selective acknowledgements, time stamps, window scale
    for handshake in (syn, syn_ack):
        assert handshake.tcp_options[:4] == struct.pack("!BBH", 2, 4, 1460)
        assert len(handshake.tcp_options) == 20
    data = next(p for p in segments if p.payload == b"to whom it may concern")
    assert data.seq == (syn.seq + 1) % 2**32
    assert segments[-1].flags == "A"  # of the client, to the last FIN


def test_much_data_both_ways(
    system: Running, listeners: dict[str, socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "a.pcap"
    there, back = bytes(range(256)) * 200, bytes(reversed(range(256))) * 300
    with Capture(system.lab.switch, BRIDGE, path), dial(system) as client:
        _, server = answer(listeners)
        with server:
            client.sendall(there)
            assert receive(server, len(there)) == there
            server.sendall(back)
            assert receive(client, len(back)) == back
    segments = check_copies(system, path)
    assert sum(len(p.payload) for p in segments if p.dport == 8080) >= len(there)
    assert sum(len(p.payload) for p in segments if p.sport == 8080) >= len(back)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset(
    system: Running, listeners: dict[str, socket.socket], tmp_path: Path, who: str
) -> None:
    path = tmp_path / "a.pcap"
    with Capture(system.lab.switch, BRIDGE, path):
        client = dial(system)
        port = client.getsockname()[1]
        _, server = answer(listeners)
        first, second = (client, server) if who == "client" else (server, client)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        with pytest.raises(ConnectionResetError):
            second.recv(1)
        second.close()
    segments = check_copies(system, path)
    assert says(segments, port) == ["S", "<SA", "RA" if who == "client" else "<RA"]


def test_a_refusal(system: Running, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Capture(system.lab.switch, BRIDGE, path), pytest.raises(ConnectionRefusedError):
        dial(system, CLOSED)
    assert [p.flags for p in check_copies(system, path)] == ["S", "RA"]


def test_both_backends_serve_and_nothing_is_dropped(
    system: Running, listeners: dict[str, socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "a.pcap"
    served = set()
    with Capture(system.lab.switch, BRIDGE, path):
        for _ in range(32):
            with dial(system):
                name, server = answer(listeners)
                server.close()
            served.add(name)
    check_copies(system, path)
    assert served == {"h2", "h3"}
    assert system.drops() == {}


def test_the_vip_answers_pings_and_other_ports_itself(system: Running) -> None:
    system.lab.run("h1", ["ping", "-c1", "-W2", VIP])
    with pytest.raises(ConnectionRefusedError):
        dial(system, 9)
