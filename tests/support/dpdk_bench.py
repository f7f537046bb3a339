# SPDX-License-Identifier: Apache-2.0
"""The driver dpdk's adapter with a worker that handles no packets (tests/support/fake_worker.py), for tests
of the adapter alone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evener import config as configuration
from evener.datapath import dpdk, dpdk_before, dpdk_share, dpdk_worker
from evener.datapath.dpdk import DpdkDatapath
from evener.errors import InterfaceError
from evener.tables.memory import Sizes
from tests.support import fake_worker, running

TEXT = """
[datapath]
driver = "dpdk"
interfaces = ["tap0"]
flows = 1024
eal = ["--vdev=net_null0"]
[pool.p]
backends = ["10.0.0.2:80"]
[service.s]
listen = "10.9.0.1:80/tcp"
pool = "p"
"""
CONFIG = configuration.loads(TEXT)
SIZES = Sizes.for_config(CONFIG, cpus=1)
EAL = CONFIG.datapath.eal


class FakeTap:
    """A pair of sockets in the place of a device; `numbers` are the interfaces that there are."""

    numbers: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str) -> None:
        if name not in self.numbers:
            raise InterfaceError("it is no TAP device", name)
        self.name = name
        self.ifindex = self.numbers[name]
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.attached = True

    @classmethod
    def open(cls, name: str) -> FakeTap:
        return cls(name)

    @classmethod
    def numbered(cls, ifindex: int) -> FakeTap | None:
        return next((cls(name) for name, n in cls.numbers.items() if n == ifindex), None)

    def is_current(self) -> bool:
        return self.numbers.get(self.name) == self.ifindex

    def fileno(self) -> int:
        return self.ends[0].fileno()

    def attach(self) -> None:
        self.attached = True

    def detach(self) -> None:
        self.attached = False

    def close(self) -> None:
        for end in self.ends:
            end.close()


class Bench:
    """Datapaths over one path, and the workers that they leave: all are ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "x"
        self.all: list[DpdkDatapath] = []

    def open(
        self,
        *own: str,
        sizes: Sizes = SIZES,
        eal: tuple[str, ...] = EAL,
        taps: tuple[str, ...] = ("tap0",),
    ) -> DpdkDatapath:
        behind = ("--", *own) if own else ()
        self.all.append(DpdkDatapath.open(sizes, self.path, taps, (*eal, *behind)))
        return self.all[-1]

    def run(self, *own: str, taps: tuple[str, ...] = ("tap0",), **more: Any) -> DpdkDatapath:
        datapath = self.open(*own, taps=taps, **more)
        datapath.attach(taps)
        return datapath

    def pid(self) -> int:
        return dpdk_share.holder(self.path)

    def end(self) -> None:
        # First, since its file tells who it is.
        if worker := dpdk_worker.Worker.running(self.path):
            worker.stop()
        for datapath in self.all:
            datapath.remove()


@contextmanager
def benched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A place for them, without a device and without DPDK."""
    program = folder / "evener-dpdk"
    program.write_text(f"#!{sys.executable}\n" + Path(fake_worker.__file__).read_text())
    program.chmod(0o755)
    monkeypatch.setattr(dpdk, "PROGRAM", program)
    for module in (dpdk, dpdk_before):
        monkeypatch.setattr(module, "Tap", FakeTap)
    monkeypatch.setattr(FakeTap, "numbers", {"tap0": 7})
    bench = Bench(folder)
    try:
        yield bench
    finally:
        bench.end()


wait_until = partial(running.wait_until, limit_s=20.0)


def tended(datapath: DpdkDatapath, done: Callable[[], object], what: str) -> None:
    def step() -> object:
        datapath.tend()
        return done()

    wait_until(step, what)


def line(pid: int) -> list[str]:
    """A worker's command line, without descriptors."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return [w.rpartition(":")[0] if w.startswith("--kernel=") else w for w in words]
