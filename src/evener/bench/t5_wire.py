# SPDX-License-Identifier: Apache-2.0
"""Tier T5 on the wire: the worker on net_af_xdp over a veth pair, beside dpdk-testpmd with
--forward-mode=macswap on the same device, in turns.

One CPU makes packets (bench/t5_wire.bpf.c, live frames of BPF_PROG_TEST_RUN) and more than the other
side can take; the other runs the polling process. What comes back is counted by XDP where it was sent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from evener.bench import dut
from evener.bench.t5_tables import PROGRAMS, shared_tables
from evener.datapath import bpf, dpdk_eal, native
from evener.errors import DatapathError
from evener.lab import namespaces

_NEAR, _FAR = "wire0", "wire1"
_BATCH: Final = 1 << 14  # packets of one call
_TESTPMD: Final = (
    "--forward-mode=macswap", "--auto-start", "--nb-cores=1", "--total-num-mbufs=16384",
    "--rxd=1024", "--txd=1024", "--burst=32",
)  # fmt: skip
"""As the worker has it."""
_READY_S: Final = 10.0
_SETTLE_S: Final = 0.2
_OWN_MAC, _PEER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


@dataclass(frozen=True, slots=True)
class Wire:
    """Packets a second that came back, run by run and in turns."""

    flows: int
    evener: list[float]
    macswap: list[float]

    @property
    def share(self) -> float:
        """The worker's part of what macswap does: median of the runs' ratios."""
        return float(np.median(np.divide(self.evener, self.macswap)))


def testpmd() -> str | None:
    """DPDK's own forwarder, from Debian's dpdk-dev; None if it is not installed."""
    return shutil.which("dpdk-testpmd")


def run(source_cpu: int, worker_cpu: int, flows: int, runs: int, seconds: float) -> Wire:
    """Both, `runs` times each. DatapathError: one could not run, or nothing came back."""
    name = f"evener-bench-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evener-bench-")))
        for side in ("a", "b"):
            namespaces.create(f"{name}-{side}")
            stack.callback(namespaces.delete, f"{name}-{side}")
        _connect(f"{name}-a", f"{name}-b")
        source = stack.enter_context(_source(f"{name}-a", flows, source_cpu))
        taken: dict[str, list[float]] = {"evener": [], "macswap": []}
        starters: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            "evener": lambda: _worker(f"{name}-b", folder, flows, worker_cpu),
            "macswap": lambda: _macswap(f"{name}-b", worker_cpu),
        }
        for _ in range(runs):
            for target, starter in starters.items():
                with starter():
                    taken[target].append(source(seconds))
    return Wire(flows, taken["evener"], taken["macswap"])


def _connect(near: str, far: str) -> None:
    """A veth pair between two namespaces, its MAC addresses known, up."""
    from pyroute2 import IPRoute

    def make() -> None:
        with IPRoute() as ip, (namespaces.DIRECTORY / far).open("rb") as there:
            peer = {"ifname": _FAR, "net_ns_fd": there.fileno(), "address": _mac(_PEER_MAC)}
            ip.link("add", ifname=_NEAR, kind="veth", address=_mac(_OWN_MAC), peer=peer)
            ip.link("set", index=socket.if_nametoindex(_NEAR), state="up")

    def rise() -> None:
        with IPRoute() as ip:
            ip.link("set", index=socket.if_nametoindex(_FAR), state="up")

    for namespace in (near, far):
        namespaces.in_namespace(namespace, _no_ipv6)
    namespaces.in_namespace(near, make)
    namespaces.in_namespace(far, rise)


def _no_ipv6() -> None:
    if Path("/proc/sys/net/ipv6").exists():
        namespaces.sysctl("net/ipv6/conf/default/disable_ipv6", "1")


def _mac(octets: bytes) -> str:
    return ":".join(f"{octet:02x}" for octet in octets)


@contextlib.contextmanager
def _source(namespace: str, flows: int, cpu: int) -> Iterator[Callable[[float], float]]:
    """A function that sends for so many seconds and says how many packets came back in one."""

    def load() -> tuple[Any, Any, Any, int]:
        index = socket.if_nametoindex(_NEAR)
        with bpf.Object.open(PROGRAMS / "t5_wire.bpf.o") as obj:
            obj.set_constant("t5_flows", flows)
            obj.set_constant("t5_interface", index)
            obj.load()
            link = bpf.attach_xdp(obj.program("t5_sink"), index)
            return obj.program("t5_source"), link, obj.map("t5_counts").mmap().view("<u8"), index

    source, link, counts, index = namespaces.in_namespace(namespace, load)
    frame = _segment()
    context = bpf.xdp_context(len(frame), index)

    def measure(seconds: float) -> float:
        enough = threading.Event()

        def send() -> None:
            os.sched_setaffinity(0, {cpu})  # of this thread alone
            while not enough.is_set():
                source.run_live(frame, _BATCH, context)

        thread = threading.Thread(
            target=lambda: namespaces.in_namespace(namespace, send), daemon=True
        )
        thread.start()
        try:
            idle, end = int(counts[1]), time.monotonic() + _READY_S
            while int(counts[1]) == idle:
                if time.monotonic() > end:
                    raise DatapathError("no packet came back", "the wire of the bench")
                time.sleep(0.01)
            time.sleep(_SETTLE_S)
            begun, before = time.monotonic(), int(counts[1])
            time.sleep(seconds)
            return (int(counts[1]) - before) / (time.monotonic() - begun)
        finally:
            enough.set()
            thread.join()

    try:
        yield measure
    finally:
        link.close()


def _segment() -> bytes:
    """A client's ACK to the VIP; the program fills in who the client is."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes(4), dut.VIP[0].packed)
    tcp = struct.pack(">HHIIBBHHH", 0, dut.VIP[1], 0, 0, 0x50, 0x10, 0, 0, 0)
    return _PEER_MAC + _OWN_MAC + b"\x08\x00" + ip + tcp + bytes(6)


@contextlib.contextmanager
def _worker(namespace: str, folder: Path, flows: int, cpu: int) -> Iterator[None]:
    """evener-dpdk over tables that hold the flows, handling packets."""
    path = folder / "tables"
    share = shared_tables(path, max(flows, 1024))
    _establish(native.Core(share.tables), flows)
    kernel, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
    eal = dpdk_eal.complete(["-l", str(cpu), f"--vdev=net_af_xdp0,iface={_FAR}"], ports=1)
    own = [f"--tables={path}", f"--kernel=1:{other.fileno()}"]
    own += [f"--netns={namespaces.DIRECTORY / namespace}"]
    with kernel, other, _words() as words:
        process = subprocess.Popen(
            [PROGRAMS / "evener-dpdk", *eal, "--", *own],
            pass_fds=(other.fileno(),),
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        with _ending(process, words):
            _until(lambda: bool(share.head["ready"][0]), process)
            yield


@contextlib.contextmanager
def _macswap(namespace: str, cpu: int) -> Iterator[None]:
    program = testpmd()
    if program is None:
        raise DatapathError(
            "dpdk-testpmd is not installed", "", "install Debian's package dpdk-dev"
        )
    # Of its two lcores one only waits for commands: it shares the first CPU.
    other = min(os.sched_getaffinity(0) - {cpu}, default=cpu)
    eal = dpdk_eal.complete(
        ["--lcores", f"0@{other},1@{cpu}", f"--vdev=net_af_xdp0,iface={_FAR}"], ports=1
    )
    with _words() as words:
        process = namespaces.popen(
            namespace,
            [program, *eal, "--", *_TESTPMD],
            stdin=subprocess.PIPE,  # its end would end testpmd
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        with _ending(process, words):
            yield  # it says nothing that could be waited for; that packets come back tells


def _words() -> IO[bytes]:
    """Where a process writes what it has to say. A pipe that nobody reads would stop it when it is full."""
    return tempfile.TemporaryFile(buffering=0)


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes], words: IO[bytes]) -> Iterator[None]:
    """End it afterwards; what went wrong because it had ended by itself, its last words tell."""
    try:
        yield
    except DatapathError as error:
        if process.poll() is None:
            raise
        said = os.pread(words.fileno(), 300, max(0, os.fstat(words.fileno()).st_size - 300))
        raise DatapathError(
            "a process of the bench ended", str(process.args), said.decode(errors="replace").strip()
        ) from error
    finally:
        _end(process)


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while not condition():
        if process.poll() is not None:
            raise DatapathError("a process of the bench was not ready", str(process.args))
        if time.monotonic() > end:
            raise DatapathError("a process of the bench was not ready in time", str(process.args))
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _establish(core: native.Core, flows: int) -> None:
    """Handshakes of the flows that t5_source sends, through the core on the same tables."""
    for flow in range(flows):
        client = struct.pack(">I", 0x0A000001 + flow // 50_000), 10_000 + flow % 50_000
        _, _, out = core.packet(_handshake(client, (dut.VIP[0].packed, dut.VIP[1]), 0x02), 1, 0)
        snat = out[26:30], int.from_bytes(out[34:36], "big")
        backend = out[30:34], int.from_bytes(out[36:38], "big")
        core.packet(_handshake(backend, snat, 0x12), 1, 0)
        core.packet(_handshake(client, (dut.VIP[0].packed, dut.VIP[1]), 0x10), 1, 0)


def _handshake(src: tuple[bytes, int], dst: tuple[bytes, int], flags: int) -> bytes:
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, src[0], dst[0])
    tcp = struct.pack(">HHIIBBHHH", src[1], dst[1], 0, 0, 0x50, flags, 0, 0, 0)
    return _PEER_MAC + _OWN_MAC + b"\x08\x00" + ip + tcp
