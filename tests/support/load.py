#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TCP peers for tests, run as processes inside namespaces; the standard library only.

    load.py serve NAME ADDRESS PORT...     greets with NAME and a newline, then echoes; prints "ready"
    load.py short ADDRESS PORT COUNT       COUNT short connections, each with a message of its own
    load.py hold ADDRESS PORT COUNT        COUNT connections that say something every --every seconds

`short` prints one JSON object. `hold` prints one when all are open and one for each line that it reads
("stop" ends it). Both verify every byte, and tell retransmitted segments by TCP_INFO. A connection that
nothing is heard on for --patience seconds counts as broken.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

PATIENCE_S = 8.0
_TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info (linux/tcp.h)


def retransmissions(connection: socket.socket) -> int:
    """How many segments this end has sent again."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    total: int = struct.unpack_from("=I", info, _TOTAL_RETRANS)[0]
    return total


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, fewer if the other side has closed."""
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return bytes(data)


def greeting(connection: socket.socket) -> str:
    """The server's name."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            raise ConnectionError("closed before the greeting")
        line += part
    return line.decode().strip()


def connect(address: str, port: int, patience_s: float, source: int = 0) -> socket.socket:
    """A connection, from a given port if it is not 0."""
    connection = socket.socket()
    connection.settimeout(patience_s)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if source:
        connection.bind(("0.0.0.0", source))
    connection.connect((address, port))
    return connection


# ---- serve


@dataclass
class Peer:
    """One accepted connection and what it is still owed."""

    connection: socket.socket
    owed: bytearray = field(default_factory=bytearray)


def serve(name: str, address: str, ports: list[int]) -> None:
    poll = selectors.DefaultSelector()
    for port in ports:
        listener = socket.create_server((address, port), backlog=4096)
        listener.setblocking(False)
        poll.register(listener, selectors.EVENT_READ, None)
    print("ready", flush=True)
    while True:
        for key, _ in poll.select():
            if key.data is None:
                assert isinstance(key.fileobj, socket.socket)
                accept_all(poll, key.fileobj, f"{name}\n".encode())
            else:
                echo(poll, key.data)


def accept_all(poll: selectors.BaseSelector, listener: socket.socket, hello: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.send(hello)
        except OSError:
            connection.close()
            continue
        poll.register(connection, selectors.EVENT_READ, Peer(connection))


def echo(poll: selectors.BaseSelector, peer: Peer) -> None:
    try:
        data = b"" if peer.owed else peer.connection.recv(1 << 16)
        if not data and not peer.owed:
            raise ConnectionError
        peer.owed += data
        sent = peer.connection.send(peer.owed)
        del peer.owed[:sent]
    except BlockingIOError:
        pass
    except OSError:
        poll.unregister(peer.connection)
        peer.connection.close()
        return
    poll.modify(peer.connection, selectors.EVENT_WRITE if peer.owed else selectors.EVENT_READ, peer)


# ---- short


def short(
    address: str, port: int, count: int, at_once: int, first_port: int, patience_s: float
) -> None:
    """`at_once` connections are open together; each has a message of its own."""
    begun, slowest, again = time.monotonic(), 0.0, 0
    backends: dict[str, int] = {}
    errors: list[str] = []
    for start in range(0, count, at_once):
        began = time.monotonic()
        batch: list[tuple[socket.socket, bytes]] = []
        for number in range(start, min(start + at_once, count)):
            message = os.urandom(24) + f"{os.getpid()}/{number}".encode()
            message = bytes([len(message)]) * (1 + number % 300) + message
            try:
                connection = connect(address, port, patience_s, first_port and first_port + number)
                connection.sendall(message)
                batch.append((connection, message))
            except OSError as error:
                errors.append(f"{number}: {error}")
        for connection, message in batch:
            try:
                name = greeting(connection)
                heard = receive(connection, len(message))
                if heard != message:
                    errors.append(f"sent {message[-40:]!r}, heard {heard[-40:]!r}")
                backends[name] = backends.get(name, 0) + 1
                again += retransmissions(connection)
            except OSError as error:
                errors.append(f"{error}")
            connection.close()
        slowest = max(slowest, time.monotonic() - began)
    print(
        json.dumps(
            {
                "connections": sum(backends.values()),
                "backends": backends,
                "errors": len(errors),
                "examples": errors[:5],
                "retransmitted": again,
                "slowest_s": round(slowest, 3),
                "seconds": round(time.monotonic() - begun, 3),
            }
        )
    )


# ---- hold


@dataclass
class Held:
    """One connection that is kept, and how it fares."""

    connection: socket.socket
    backend: str
    port: int
    messages: int = 0
    broken: str = ""
    expected: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    said_at: float = 0.0

    def say(self, now: float) -> None:
        self.expected = struct.pack("!II", self.port, self.messages) + os.urandom(56)
        self.heard.clear()
        self.said_at = now
        try:
            self.connection.send(self.expected)
        except OSError as error:
            self.broken = str(error)

    def hear(self) -> None:
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken = str(error)
            return
        if not data:
            self.broken = "closed by the other side"
        self.heard += data
        if self.heard == self.expected:
            self.messages += 1
            self.expected = b""
        elif not self.expected.startswith(self.heard):
            self.broken = f"heard {bytes(self.heard[:20])!r}, not {self.expected[:20]!r}"


class Holder:
    """Connections that take turns to speak, so that there is always something on its way."""

    def __init__(
        self,
        address: str,
        port: int,
        count: int,
        every_s: float,
        first_port: int,
        patience_s: float,
    ) -> None:
        self.every_s, self.patience_s = every_s, patience_s
        self.poll = selectors.DefaultSelector()
        self.held: list[Held] = []
        for number in range(count):
            connection = connect(address, port, patience_s, first_port and first_port + number)
            held = Held(connection, greeting(connection), connection.getsockname()[1])
            connection.setblocking(False)
            self.held.append(held)
            self.poll.register(connection, selectors.EVENT_READ, held)
        self.poll.register(sys.stdin, selectors.EVENT_READ, None)

    def run(self) -> None:
        self.report()
        turn, next_at = 0, time.monotonic()
        while True:
            for key, _ in self.poll.select(max(0.0, next_at - time.monotonic())):
                if key.data is None:
                    line = sys.stdin.readline()
                    self.report()
                    if line.strip() in ("", "stop"):
                        return
                else:
                    key.data.hear()
                    self.drop_if_broken(key.data)
            now = time.monotonic()
            if now >= next_at and self.held:
                next_at = max(next_at, now - 0.1) + self.every_s / len(self.held)
                turn = (turn + 1) % len(self.held)
                self.turn(self.held[turn], now)

    def turn(self, held: Held, now: float) -> None:
        if held.broken:
            return
        if not held.expected:
            held.say(now)
        elif now - held.said_at > self.patience_s:
            held.broken = f"no answer for {self.patience_s} s"
        self.drop_if_broken(held)

    def drop_if_broken(self, held: Held) -> None:
        if held.broken and held.connection.fileno() in self.poll.get_map():
            self.poll.unregister(held.connection)

    def report(self) -> None:
        rows = [
            {
                "port": held.port,
                "backend": held.backend,
                "messages": held.messages,
                "broken": held.broken,
                "retransmitted": retransmissions(held.connection),
            }
            for held in self.held
        ]
        print(json.dumps({"time": time.time(), "connections": rows}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("serve")
    one.add_argument("name")
    one.add_argument("address")
    one.add_argument("ports", type=int, nargs="+")
    for name in ("short", "hold"):
        one = commands.add_parser(name)
        one.add_argument("address")
        one.add_argument("port", type=int)
        one.add_argument("count", type=int)
        one.add_argument("--first-port", type=int, default=0)
        one.add_argument("--at-once", type=int, default=8)
        one.add_argument("--every", type=float, default=0.1)
        one.add_argument("--patience", type=float, default=PATIENCE_S)
    asked = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a login shell's own limit is 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if asked.command == "serve":
        serve(asked.name, asked.address, asked.ports)
    elif asked.command == "short":
        short(
            asked.address,
            asked.port,
            asked.count,
            asked.at_once,
            asked.first_port,
            asked.patience,
        )
    else:
        Holder(
            asked.address,
            asked.port,
            asked.count,
            asked.every,
            asked.first_port,
            asked.patience,
        ).run()


if __name__ == "__main__":
    main()
