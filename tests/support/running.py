# SPDX-License-Identifier: Apache-2.0
"""A lab with its daemon and peers running, for tests of the whole system; labs of several tests do
not know of each other, so tests run in parallel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evener.api.client import Client
from evener.lab import balancer, namespaces, topology
from evener.lab import leftovers as left_behind
from evener.lab.device import DEFAULT, DEVICES, Device
from evener.lab.topology import Lab
from evener.model import Driver
from tests.support.dpdk import needs_dpdk

Form = tuple[Driver, Device]
XDP: Form = (Driver.XDP, DEFAULT)
DPDK_FORMS = [
    pytest.param((Driver.DPDK, device), id=device.name, marks=needs_dpdk)
    for device in DEVICES.values()
]
FORMS = [pytest.param(XDP, id="xdp"), *DPDK_FORMS]
"""How the balancer may be joined to the segment: for `params` of a fixture that calls `running`."""

LOAD = Path(__file__).with_name("load.py")
VIP = "10.0.0.10"


def configuration(
    lab: Lab, services: dict[int, Sequence[str]], weights: dict[str, int] | None = None,
    flows: int = 100_000, timeouts: str = "", lcores: str = "0",
) -> str:  # fmt: skip
    """A service for each port of the VIP, with the backends (names of hosts) that serve it."""
    weights = weights or {}
    text = balancer.datapath(lab, flows=flows, lcores=lcores)
    for port, names in services.items():
        rows = "".join(
            f'  {{ address = "{lab.host(name).address}:{port}", name = "{name}", '
            f"weight = {weights.get(name, 1)} }},\n"
            for name in names
        )
        text += f"\n[pool.p{port}]\nbackends = [\n{rows}]\n"
        text += f'\n[service.s{port}]\nlisten = "{VIP}:{port}/tcp"\npool = "p{port}"\n'
    return text + timeouts


class Running:
    """A lab and the daemon on its host lb."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.config = folder / "lab.toml"
        self.log = folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        self.daemon = balancer.start(self.lab, self.config, self.log)
        balancer.wait_ready(self.lab, self.daemon, self.log)

    @property
    def workers(self) -> list[int]:
        """The process numbers of DPDK's workers; not more than one, unless something is wrong."""
        return left_behind.workers(balancer.instance(self.lab))

    def kill(self) -> None:
        """kill -9, as the daemon cannot expect it."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    @property
    def api(self) -> Client:
        """A new client of the daemon."""
        return balancer.client(self.lab)

    def rows(self, what: str) -> list[dict[str, Any]]:
        """What `evener show` would show."""
        return self.api.rows(what)

    def reasons(self) -> dict[str, int]:
        """Packets by reason."""
        return {row["reason"]: row["packets"] for row in self.rows("reasons")}

    def drops(self) -> dict[str, int]:
        """Packets by reason, only those that were dropped."""
        return {
            row["reason"]: row["packets"]
            for row in self.rows("reasons")
            if row["verdict"] == "drop" and row["packets"]
        }

    def apply(self, text: str) -> int:
        """Put a configuration in force; the new generation."""
        generation: int = self.api.apply(text, "a test")["generation"]
        return generation

    def serve(self, *names: str, ports: Sequence[int] = (8080,)) -> None:
        """Start greeting echo servers (load.py) on hosts, and wait until they listen."""
        for name in names:
            address = str(self.lab.host(name).address)
            process = self.lab.popen(
                name,
                [sys.executable, LOAD, "serve", name, address, *map(str, ports)],
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"

    def load(self, host: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start load.py on a host, its standard input and output in our hands."""
        return self.lab.popen(
            host,
            [sys.executable, LOAD, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def hold(self, host: str, port: int, count: int, *arguments: object) -> Held:
        """Connections that keep talking; returns when all are open."""
        return Held(self.load(host, "hold", VIP, port, count, *arguments))


class Held:
    """load.py hold, and its reports: one row for each connection."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.first = self._read()

    def _read(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        rows: list[dict[str, Any]] = json.loads(self._process.stdout.readline())["connections"]
        return rows

    def report(self, word: str = "report") -> list[dict[str, Any]]:
        """How the connections fare now."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> list[dict[str, Any]]:
        """End all connections; their last report."""
        rows = self.report("stop")
        self._process.communicate(timeout=10)
        return rows


def result(process: subprocess.Popen[bytes], timeout: float = 60.0) -> dict[str, Any]:
    """What `load.py short` says at its end."""
    output, _ = process.communicate(timeout=timeout)
    found: dict[str, Any] = json.loads(output)
    return found


@contextmanager
def running(
    folder: Path,
    services: dict[int, Sequence[str]] | None = None,
    clients: int = 1,
    backends: int = 2,
    form: Form = XDP,
    **options: Any,
) -> Iterator[Running]:
    """A lab whose daemon is ready; services as in `configuration`, by default 8080 on all backends."""
    lab = topology.up(topology.unique_name(), clients, backends, *form)
    try:
        system = Running(lab, folder)
        wanted = services or {8080: [host.name for host in lab.backends]}
        system.config.write_text(configuration(lab, wanted, **options))
        system.start()
        yield system
    finally:
        topology.down(lab.name)


def wait_until(done: Callable[[], object], what: str, limit_s: float = 10.0) -> None:
    """Poll until it is so; AssertionError when it takes too long."""
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, f"waited {limit_s} s in vain for {what}"
        time.sleep(0.01)


def leftovers(lab: Lab, instance: str) -> list[str]:
    """What reminds of a lab and its daemon: namespaces, pins, files, processes."""
    found = [name for name in namespaces.names() if f"-{lab.name}-" in name]
    pins = Path("/sys/fs/bpf/evener") / instance
    found += [str(pins)] if pins.exists() else []
    found += [
        str(path)
        for path in Path("/run/evener").rglob("*")
        if instance in path.name or f"lab-{lab.name}." in path.name
    ]
    return found


def environment() -> dict[str, str]:
    """For `evener` as a child process: as ours, and without colours."""
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
