# SPDX-License-Identifier: Apache-2.0
"""The DPDK worker with several ports and lanes, and no more memory than the daemon gives it by itself."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import cycle
from pathlib import Path
from typing import Protocol

import pytest

from evener import netns
from evener.config import loads
from evener.datapath import dpdk_eal
from evener.datapath.tap import Tap
from evener.tables.effective import Network
from tests.support.bpf import needs_namespaces
from tests.support.dpdk_machine import open_wire
from tests.support.dpdk_worker import PATIENCE_S, Worker, lcores, namespace, owned, share
from tests.support.machine import SIZES, TableMachine
from tests.support.segment import TEXT, nexthop, to_vip

pytestmark = needs_namespaces

BACK = Network({IPv4Address(f"10.0.0.{n}"): replace(nexthop(n), ifindex=99) for n in (1, 2, 3)})
"""By an interface that no port has: frames leave by the port that they came in by."""
CLIENTS = 100
AT_ONCE = 400  # frames under way, which every ring has room for
MORE_THAN_ALL = 20_000  # frames of a port: more than there are buffers


class Wire(Protocol):
    """The other end of a port."""

    def send(self, frame: bytes, /) -> object: ...
    def recv(self, room: int, /) -> bytes: ...


class Queues:
    """A TAP device by all of its queues, used in turn; net_af_xdp takes a lane for each of a TAP's, where
    of a veth it takes one."""

    def __init__(self, device: str, count: int) -> None:
        self._taps = [Tap.open(device) for _ in range(count)]
        self._turn = cycle(self._taps)

    def send(self, frame: bytes) -> None:
        os.write(next(self._turn).fileno(), frame)

    def recv(self, room: int) -> bytes:
        ready = select.select(self._taps, [], [], PATIENCE_S)[0]
        assert ready, "nothing comes back"
        return os.read(ready[0].fileno(), room)

    def close(self) -> None:
        for tap in self._taps:
            tap.close()


def veth(near: str, far: str) -> None:
    subprocess.run(["ip", "link", "add", near, "type", "veth", "peer", "name", far], check=True)
    for end in (near, far):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)


Made = tuple[list[str], Callable[[], list[Wire]]]


def net_tap(stack: ExitStack, place: int, ports: int, lanes: int) -> Made:
    """DPDK makes the devices."""
    wires = lambda: [stack.enter_context(open_wire(place, f"near{n}")) for n in range(ports)]  # noqa: E731
    return [f"--vdev=net_tap{n},iface=near{n}" for n in range(ports)], wires


def net_af_xdp(stack: ExitStack, place: int, ports: int, lanes: int) -> Made:
    """On TAPs, or on veths where that is enough."""
    netns.enter(place, "the worker's namespace")
    devices = [f"--vdev=net_af_xdp{n},iface=far{n},queue_count={lanes}" for n in range(ports)]
    wires: list[Wire] = []
    for n in range(ports):
        if lanes > 1:
            wires.append(stack.enter_context(closing(Queues(f"far{n}", lanes))))
        else:
            veth(f"near{n}", f"far{n}")
            wires.append(stack.enter_context(open_wire(place, f"near{n}")))
    return devices, lambda: wires


DEVICES = {"net_tap": net_tap, "net_af_xdp": net_af_xdp}


def start(
    stack: ExitStack, folder: Path, device: str, ports: int, lanes: int, *more: str
) -> tuple[Worker, TableMachine, list[Wire]]:
    """A worker that is ready, its tables, and the other end of each port."""
    tables = share(folder / "tables", replace(SIZES, cpus=lanes))
    place = stack.enter_context(owned(namespace()))
    devices, connect = netns.in_thread(lambda: DEVICES[device](stack, place, ports, lanes))
    eal = dpdk_eal.complete([lcores(lanes), *devices, *more], ports)
    kernels = [stack.enter_context(end) for end in socket.socketpair(type=socket.SOCK_SEQPACKET)]
    worker = stack.enter_context(
        Worker(tables.path, eal, [kernels[0].fileno()] * ports, place, base=())
    )
    worker.until(lambda: tables.head["ready"][0], "it is not ready")
    assert tables.head["lanes"] == lanes
    machine = TableMachine(tables.tables)
    machine.configure(loads(TEXT), BACK)
    machine.tables.settings["trace"] = 0
    return worker, machine, netns.in_thread(connect)


def there_and_back(wire: Wire, frames: Sequence[bytes]) -> int:
    for one in frames:
        wire.send(one)
    return sum(1 for _ in frames if wire.recv(1 << 16))


@pytest.mark.parametrize("device", ["net_tap", "net_af_xdp"])
@pytest.mark.parametrize("ports", [1, 2, 4])
@pytest.mark.parametrize("lanes", [1, 2])
def test_as_many_frames_as_it_needs(tmp_path: Path, device: str, ports: int, lanes: int) -> None:
    """Rings keep buffers for good; there have to be others for what is under way."""
    frames = [to_vip(4000 + n % CLIENTS, "S") for n in range(AT_ONCE)]
    with ExitStack() as stack:
        worker, machine, wires = start(stack, tmp_path, device, ports, lanes)
        for _ in range(MORE_THAN_ALL // AT_ONCE // ports):
            assert [there_and_back(wire, frames) for wire in wires] == [AT_ONCE] * ports
        assert (machine.tables.reason_counters.sum(axis=1) > 0).all()  # every lane has its share
        assert worker.stop() == 0, worker.said()


def test_less_than_it_needs(tmp_path: Path) -> None:
    """So many bytes are few for two lanes of four such ports, and enough for one of one."""
    with ExitStack() as stack:
        start(stack, tmp_path, "net_af_xdp", 1, 1, "-m", "96")
    with (
        ExitStack() as stack,
        pytest.raises(
            AssertionError,
            match=r"evener-dpdk: 49920 buffers for frames take 11\d MiB and there is less .* -m in",
        ),
    ):
        start(stack, tmp_path, "net_af_xdp", 4, 2, "-m", "96")
