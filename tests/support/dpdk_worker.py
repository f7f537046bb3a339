# SPDX-License-Identifier: Apache-2.0
"""The DPDK worker by itself, without a daemon: a file of tables, the process, and its two sides.

Everything on the wire is in a network namespace that has no name: it is gone with the last descriptor of
it, whatever becomes of this process, and the worker ends with this process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import pytest

from evener import _build, netns
from evener.datapath.dpdk_share import Share
from evener.lab.namespaces import sysctl
from evener.tables.memory import Sizes

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20  # far more than anything here takes
EAL = ("--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf")
NEVER_NS = 1 << 62
"""A second of the datapath that outlasts the machine's uptime: the clock stands at 0."""


@cache
def build(name: str) -> Path:
    """`evener-dpdk`, or `evener-dpdk-asan`: compiled if need be. Skips where there is no DPDK."""
    try:
        _build.dpdk_target(ROOT)
    except _build.BuildError as error:
        pytest.skip(str(error))
    return _build.build_named([name], ROOT, print)[0]


def share(path: Path, sizes: Sizes) -> Share:
    """A new file of tables, whose second never ends."""
    made = Share.make(path, sizes)
    made.head["second_ns"] = NEVER_NS
    return made


def roomy(end: socket.socket) -> socket.socket:
    """With room for thousands of frames in both directions."""
    for option in (33, 32):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE
        end.setsockopt(socket.SOL_SOCKET, option, 16 << 20)
    return end


def namespace() -> int:
    """A descriptor of a new network namespace without IPv6, which would speak without being asked."""

    def make() -> int:
        if netns.libc.unshare(netns.CLONE_NEWNET) != 0:
            raise netns.os_error("unshare")
        for which in ("all", "default"):
            sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return netns.in_thread(make)


@contextmanager
def owned(descriptor: int) -> Iterator[int]:
    """Close it afterwards."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lcores(lanes: int) -> str:
    """So many, all on one CPU."""
    return "--lcores=" + ",".join(f"{lane}@0" for lane in range(lanes))


class Worker:
    """The process. Started over a file of tables; `eal`: devices and the like, `base`: the rest,
    unless it is one CPU and little memory; `kernel`: descriptors, one for each port, whose interfaces are
    numbered from 1."""

    def __init__(
        self,
        tables: Path,
        eal: Sequence[str],
        kernel: Sequence[int],
        namespace: int | None = None,
        program: str = "evener-dpdk",
        lanes: int = 1,
        base: Sequence[str] | None = None,
    ) -> None:
        command = [
            "setpriv", "--pdeathsig", "TERM", str(build(program)),
            *([lcores(lanes), *EAL] if base is None else base), *eal,
            "--", f"--tables={tables}", "--idle-us=50",
        ]  # fmt: skip
        command += [f"--kernel={number}:{fd}" for number, fd in enumerate(kernel, 1)]
        if namespace is not None:
            command.append(f"--netns=/proc/self/fd/{namespace}")
        self._output = os.memfd_create("evener-dpdk")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=[*kernel, *([] if namespace is None else [namespace])],
        )

    def said(self) -> str:
        """All its output so far, DPDK's included."""
        return os.pread(self._output, 1 << 20, 0).decode(errors="replace")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait; AssertionError when the worker dies meanwhile, or when it takes too long."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"worker: {self.process.returncode}\n{self.said()}"
            assert time.monotonic() < end, f"waited in vain: {what}\n{self.said()}"
            time.sleep(0.00002)

    def pause(self) -> None:
        """What arrives from now on is handled by the dozen."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """After `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, by itself; it is killed when it takes too long."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._output)
