# SPDX-License-Identifier: Apache-2.0
"""The DPDK driver as a machine of the datapath suite: the worker with one TAP device of DPDK's own, whose
kernel side is fed here, and a socket pair in place of the exception path.

What became of a frame is what came out of the one or the other; why is read from the ring that
`evener trace` reads.
"""

from __future__ import annotations

import select
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from evener import netns
from evener._generated.reasons import Verdict
from evener.datapath.sim import Outcome
from tests.support.dpdk_worker import PATIENCE_S, Worker, namespace, owned, roomy, share
from tests.support.machine import SIZES, TableMachine

_DEVICE = "dpdk0"
_ETH_BYTES = 14  # a packet socket sends no less
_MTU = 1900  # the worker's buffers take 2 KiB
_QUEUE = 4096  # frames that the device holds while the worker does not look
_FRAME_MAX = 1 << 16
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23


class DpdkMachine(TableMachine):
    """See the top of this file. `program`: evener-dpdk, or the one under the address sanitizer. With
    several lanes, the order of what comes out is nobody's."""

    def __init__(self, program: str = "evener-dpdk", lanes: int = 1) -> None:
        with ExitStack() as stack:
            self._program, self._lanes = program, lanes
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="evener-dpdk-"))
            self.share = share(Path(folder, "tables"), replace(SIZES, cpus=lanes))
            self._place = stack.enter_context(owned(namespace()))
            self.kernel, self._other_end = map(roomy, socket.socketpair(type=socket.SOCK_SEQPACKET))
            stack.enter_context(self._other_end)
            stack.enter_context(self.kernel).settimeout(PATIENCE_S)
            self._things = stack
            self.start()
            super().__init__(self.share.tables)
            self._things = stack.pop_all()

    def start(self) -> None:
        """A worker over the file as it is; whichever there was has ended."""
        self.worker = self._things.enter_context(
            Worker(
                self.share.path,
                [f"--vdev=net_tap0,iface={_DEVICE}"],
                [self._other_end.fileno()],
                self._place,
                self._program,
                self._lanes,
            )
        )
        self.worker.until(lambda: self.share.head["ready"][0], "it is not ready")
        self.link("mtu", str(_MTU), "txqueuelen", str(_QUEUE))
        self.wire = self._things.enter_context(
            netns.in_thread(lambda: open_wire(self._place, _DEVICE))
        )

    def link(self, *settings: str) -> None:
        """Change the device, as `ip link set` does."""

        def change() -> None:
            netns.enter(self._place, "the worker's namespace")
            subprocess.run(["ip", "link", "set", _DEVICE, *settings], check=True)

        netns.in_thread(change)

    def _prepare(self) -> None:
        super()._prepare()
        self._handled = 0

    def send(self, frame: bytes) -> Outcome:
        """One frame in; what became of it. ValueError for a frame that the device cannot make."""
        if len(frame) < _ETH_BYTES:
            raise ValueError(f"a packet socket takes {_ETH_BYTES} bytes or more")
        self.put([frame])
        self.handled(1)
        event = self.events(1)[0]
        verdict = Verdict(int(event["plan"]["verdict"]))
        sent, passed = self.take(verdict is Verdict.FORWARD, verdict is Verdict.PASS)
        return Outcome(event["view"].copy(), event["plan"].copy(), (*sent, *passed, frame)[0])

    def put(self, frames: Sequence[bytes]) -> None:
        """So many frames onto the wire, one after the other."""
        for frame in frames:
            assert self.wire.send(frame) == len(frame)

    def handled(self, count: int) -> None:
        """Wait until the worker is done with so many packets that were not waited for before."""
        wanted, reasons = self._handled + count, self.tables.reason_counters
        self.worker.until(lambda: reasons.sum() >= wanted, f"a frame of {count} is not counted")
        self._handled = wanted
        rounds, running = self.share.lanes["rounds"].copy(), self.share.lanes["running"] != 0
        self.worker.until(
            lambda: (self.share.lanes["rounds"] != rounds)[running].all(), "a round does not end"
        )

    def take(self, sent: int, passed: int) -> tuple[list[bytes], list[bytes]]:
        """What it sent out, and what it gave to the kernel: so many frames and no more."""
        return _take(self.wire, sent), _take(self.kernel, passed)

    def close(self) -> None:
        """End the worker, in order."""
        with self._things:
            if self.worker.process.poll() is None:
                assert self.worker.stop() == 0, self.worker.said()
            assert self.worker.process.returncode == 0, self.worker.said()


def open_wire(place: int, device: str) -> socket.socket:
    """The kernel's side of a device, in its namespace."""
    netns.enter(place, "the worker's namespace")
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    wire.bind((device, _ETH_P_ALL))
    wire.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    wire.settimeout(PATIENCE_S)
    return roomy(wire)


def _take(end: socket.socket, count: int) -> list[bytes]:
    found = [end.recv(_FRAME_MAX) for _ in range(count)]
    if select.select([end], [], [], 0)[0]:
        raise AssertionError(f"beyond the {count} frames expected: {end.recv(_FRAME_MAX).hex()}")
    return found
