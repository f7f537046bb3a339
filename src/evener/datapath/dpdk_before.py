# SPDX-License-Identifier: Apache-2.0
"""The DPDK worker that an earlier daemon left, while another takes its place.

Whether a worker starts shows only when the one before it has ended, since both want the same devices. So what
the one before was started with is kept until the other is ready: its program (which may have been installed
anew), its arguments, and the TAPs of its ports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from evener.datapath import dpdk_eal
from evener.datapath.dpdk_share import holder, ready_mark
from evener.datapath.dpdk_worker import Worker
from evener.datapath.tap import Tap
from evener.errors import InterfaceError


class Before:
    """Made while that worker runs. `start_again` if another fails in its place; `forget` at the end."""

    def __init__(self, line: list[str], program: int, held: Iterable[Tap]) -> None:
        self._line = line
        self._program = program
        self._taps = {tap.ifindex: tap for tap in held}
        self._opened: list[Tap] = []
        for ifindex in dpdk_eal.kernels(line):
            if ifindex not in self._taps and (tap := Tap.numbered(ifindex)) is not None:
                tap.detach()  # the worker reads its own queue
                self._taps[ifindex] = tap
                self._opened.append(tap)

    @classmethod
    def of(cls, worker: Worker | None, held: Iterable[Tap]) -> Before | None:
        """held: TAPs that this process has open; those of other ports are opened. None: no worker runs."""
        if worker is None:
            return None
        line = worker.line()
        try:
            program = os.open(f"/proc/{worker.pid}/exe", os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:  # it has just ended
            return None
        return cls(line, program, held)

    def start_again(self, path: Path, patience_s: float) -> Worker:
        """As it was started before, over the file at `path`, which has its place again; returns when it is
        ready. EvenerError: it cannot be, and none runs."""
        if gone := [n for n in dpdk_eal.kernels(self._line) if n not in self._taps]:
            raise InterfaceError(f"its interface {gone[0]} is gone")
        taps = [self._taps[ifindex] for ifindex in dpdk_eal.kernels(self._line)]
        for tap in taps:
            tap.attach()
        descriptors = [tap.fileno() for tap in taps]
        ready = ready_mark(path)
        if ready is not None:
            ready[0] = 0  # a worker that was killed left it as it was
        # The program by this process's descriptor, which the worker does not have to inherit.
        program = f"/proc/{os.getpid()}/fd/{self._program}"
        worker = Worker.start(dpdk_eal.again(self._line, descriptors), descriptors, program)
        worker.wait_ready(
            lambda: bool(ready[0]) if ready is not None else holder(path) == worker.pid, patience_s
        )
        return worker

    def forget(self) -> None:
        """Close what is open; a worker that was started has what it needs."""
        os.close(self._program)
        for tap in self._opened:
            tap.close()
