# SPDX-License-Identifier: Apache-2.0
"""Real clients: many, alike, fast, large, and slow ones.

h1, h4, ... (clients) --+
h2, h3 (backends) ------+-- br0
lb 10.0.0.10 (VIP) -----+
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener.lab import namespaces
from tests.support.bpf import needs_namespaces
from tests.support.running import FORMS, VIP, XDP, Running, result, running, wait_until

pytestmark = [pytest.mark.netns, needs_namespaces]

CLIENTS = 10
ONE, BOTH, HTTP, IPERF = 8081, 8080, 8000, 5201
BLOB = 100_000_000


@pytest.fixture(scope="module", params=FORMS)
def system(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Running]:
    services = {BOTH: ("h2", "h3"), ONE: ("h2",), HTTP: ("h2", "h3"), IPERF: ("h3",)}
    with running(
        tmp_path_factory.mktemp("clients"), services, CLIENTS, form=request.param
    ) as system:
        system.serve("h2", "h3", ports=(BOTH, ONE))
        yield system


def dial(system: Running, host: str, port: int, source: int) -> socket.socket:
    def open_there() -> socket.socket:
        return socket.create_connection((VIP, port), 5, source_address=("0.0.0.0", source))

    return namespaces.in_namespace(system.lab.host(host).namespace, open_there)


def read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        assert part, "closed"
        line += part
    return line


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def test_two_clients_with_the_same_port_to_the_same_backend(system: Running) -> None:
    source = 40_001
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(dial(system, host, ONE, source)) for host in ("h1", "h4", "h5")]
        assert [read_line(end) for end in ends] == [b"h2\n"] * 3
        for turn in range(50):
            said = [os.urandom(200 + turn) + bytes([n]) for n in range(len(ends))]
            for end, message in zip(ends, said, strict=True):
                end.sendall(message)
            for end, message in zip(ends, said, strict=True):
                assert exactly(end, len(message)) == message
        rows = [r for r in system.rows("flows") if (r["client"] or "").endswith(f":{source}")]
        assert {row["client"] for row in rows} == {
            f"{system.lab.host(host).address}:{source}" for host in ("h1", "h4", "h5")
        }
        ports = [row["snat"] for row in rows]
        assert len(set(ports)) == 3
        assert f"{VIP}:{source}" in ports  # the first kept it
    assert system.drops() == {}


def test_a_port_that_was_closed_can_be_used_again_at_once(system: Running) -> None:
    for turn in range(20):
        with dial(system, "h1", ONE, 41_000) as end:
            # Reset, so that the client's own kernel does not keep the port.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert read_line(end) == b"h2\n"
            message = os.urandom(100) + bytes([turn])
            end.sendall(message)
            assert exactly(end, len(message)) == message


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_twenty_thousand_short_connections(system: Running) -> None:
    """Half of them from the same ports on all clients, the other half from the kernel's choice."""
    each = 20_000 // CLIENTS // 2
    hosts = [host.name for host in system.lab.clients]
    outcomes = []
    for first_port in (10_000, 0):
        started = [
            system.load(host, "short", VIP, BOTH, each, "--first-port", first_port)
            for host in hosts
        ]
        outcomes += [result(process, 120) for process in started]
    examples = [example for outcome in outcomes for example in outcome["examples"]]
    assert (sum(outcome["errors"] for outcome in outcomes), examples) == (0, [])
    assert sum(outcome["connections"] for outcome in outcomes) == 20_000
    served = {name: sum(o["backends"].get(name, 0) for o in outcomes) for name in ("h2", "h3")}
    assert min(served.values()) > 8_000
    seconds = sum(max(o["seconds"] for o in outcomes[i : i + CLIENTS]) for i in (0, CLIENTS))
    again = sum(outcome["retransmitted"] for outcome in outcomes)
    print(f"20000 connections in {seconds:.1f} s, {served}, {again} segments sent again")
    assert system.drops() == {}


@pytest.mark.slow
def test_a_hundred_megabytes_over_http(system: Running, tmp_path: Path) -> None:
    blob = hashlib.shake_256(b"evener").digest(1 << 20) * (BLOB // (1 << 20) + 1)
    (tmp_path / "blob").write_bytes(blob[:BLOB])
    digest = hashlib.sha256(blob[:BLOB]).hexdigest()
    for host in system.lab.backends:
        command = [sys.executable, "-m", "http.server", str(HTTP), "--bind", str(host.address),
                   "--directory", str(tmp_path)]  # fmt: skip
        system.lab.popen(host.name, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = tmp_path / "received"

    def fetched() -> bool:
        command = ["curl", "-sSf", "--max-time", "60", "-o", str(out), f"http://{VIP}:{HTTP}/blob"]
        return system.lab.run("h4", command, timeout=70, check=False).returncode == 0

    wait_until(fetched, "the HTTP servers to be up", 70)
    begun = time.monotonic()
    assert fetched()
    took = time.monotonic() - begun
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest
    print(f"{BLOB / took / 1e6:.0f} MB/s")


@pytest.mark.slow
@pytest.mark.parametrize("system", [XDP], indirect=True)
def test_iperf_ten_seconds_each_way(system: Running) -> None:
    address = str(system.lab.host("h3").address)
    command = ["iperf3", "-s", "-B", address, "-p", str(IPERF)]
    system.lab.popen("h3", command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for direction in ([], ["-R"]):
        arguments = ["iperf3", "-c", VIP, "-p", str(IPERF), "-t", "10", "-J", *direction]
        found: dict[str, object] = {}

        def measure(arguments: list[str] = arguments, found: dict[str, object] = found) -> bool:
            done = system.lab.run("h5", arguments, timeout=40, check=False)
            found.clear()
            found.update(json.loads(done.stdout))
            return "Connection refused" not in str(found.get("error", ""))

        wait_until(measure, "iperf3 to be up", 60)
        assert "error" not in found
        end = found["end"]
        assert isinstance(end, dict)
        rate = end["sum_received"]["bits_per_second"] / 1e9
        print(f"iperf3 {' '.join(direction)}: {rate:.2f} Gbit/s, "
              f"{end['sum_sent'].get('retransmits')} sent again")  # fmt: skip
        assert end["sum_received"]["seconds"] > 9
        assert rate > 0.1


def test_connections_that_are_open_together(system: Running) -> None:
    """2,000 at once from two clients that use the same ports; nothing crosses."""
    held = [system.hold(host, BOTH, 1000, "--every", "2", "--first-port", 20_000)
            for host in ("h1", "h4")]  # fmt: skip
    wait_until(
        lambda: all(min(row["messages"] for row in one.report()) >= 2 for one in held),
        "everybody to have spoken twice", 30,
    )  # fmt: skip
    rows = [row for one in held for row in one.stop()]
    assert [row for row in rows if row["broken"]] == []
    assert {row["backend"] for row in rows} == {"h2", "h3"}
