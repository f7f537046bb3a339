# SPDX-License-Identifier: Apache-2.0
"""The worker on each of DPDK's devices that its lesson names: whatever brings the packets, the core does with
them what the simulator does.

Each device has another end, which is driven here. A device more is an entry more in DEVICES.
"""

from __future__ import annotations

import random
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evener import netns
from evener._generated.reasons import Reason, Verdict
from evener.config import loads
from evener.datapath.dpdk_share import Share
from tests.support.bpf import needs_bpf, needs_namespaces
from tests.support.dpdk_machine import open_wire
from tests.support.dpdk_worker import PATIENCE_S, ROOT, Worker, namespace, owned, roomy, share
from tests.support.machine import SIZES, SimMachine, TableMachine
from tests.support.packets import TCP, ipv4
from tests.support.segment import NETWORK, TEXT, answer, frame, to_vip

pytestmark = needs_namespaces

ASAN = "evener-dpdk-asan"
FRAME_MAX = 1 << 16
BURST = 200  # fewer than any device holds
NEAR, FAR = "near0", "far0"
LINK_UP = 2  # LB_LINK_UP of share.h
VHOST_NET = Path("/dev/vhost-net")


@pytest.fixture(autouse=True)
def _leaks_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """net_af_xdp does not give back what libxdp holds of its memory; all other leaks are failures."""
    (tmp_path / "known").write_text("leak:xsk_umem__create\n")
    monkeypatch.setenv("LSAN_OPTIONS", f"suppressions={tmp_path}/known:print_suppressions=0")


# ---- devices, and their other ends


@dataclass(frozen=True)
class Joined:
    """DPDK's argument for a device; the namespace it is in; what opens its other end once it is there."""

    argument: str
    place: int | None
    open: Callable[[], socket.socket]


def in_place(place: int, *commands: str) -> None:
    """Run commands in a namespace, one after the other."""

    def run() -> None:
        netns.enter(place, "a device's namespace")
        for command in commands:
            subprocess.run(command.split(), check=True)

    netns.in_thread(run)


def tap(stack: ExitStack, _: Path, argument: str) -> Joined:
    """A device that is an interface of the kernel's, made by DPDK."""
    place = stack.enter_context(owned(namespace()))

    def connect() -> socket.socket:
        in_place(place, f"ip link set {NEAR} txqueuelen 4096 up")
        return netns.in_thread(partial(open_wire, place, NEAR))

    return Joined(f"{argument},iface={NEAR}", place, connect)


def veth(stack: ExitStack, _: Path, argument: str) -> Joined:
    """A device that opens one end of a veth."""
    place = stack.enter_context(owned(namespace()))
    in_place(
        place,
        f"ip link add {NEAR} type veth peer name {FAR}",
        f"ip link set {NEAR} up",
        f"ip link set {FAR} up",
    )
    return Joined(
        f"{argument},iface={NEAR}", place, partial(netns.in_thread, partial(open_wire, place, FAR))
    )


def vhost(stack: ExitStack, folder: Path, argument: str) -> Joined:
    """A device that shares its memory with another process: a worker with nothing to balance, which gives
    to its kernel what comes, and sends what that says."""
    path = folder / "vhost"
    tables = share(folder / "others", SIZES)
    TableMachine(tables.tables).tables.settings["trace"] = 0
    ours, theirs = map(
        stack.enter_context, map(roomy, socket.socketpair(type=socket.SOCK_SEQPACKET))
    )
    ours.settimeout(PATIENCE_S)
    other = stack.enter_context(
        Worker(tables.path, [f"--vdev=net_vhost0,iface={path}"], [theirs.fileno()])
    )
    other.until(lambda: tables.head["ready"][0], "the other end is not ready")
    return Joined(f"{argument},path={path}", None, lambda: ours)


Setup = Callable[[ExitStack, Path, str], Joined]
DEVICES: dict[str, tuple[Setup, str]] = {
    "net_tap": (tap, "--vdev=net_tap0"),
    "net_af_packet": (veth, "--vdev=net_af_packet0"),
    "net_af_xdp": (veth, "--vdev=net_af_xdp0"),
    "net_pcap": (veth, "--vdev=net_pcap0"),
    "net_virtio_user": (vhost, "--vdev=net_virtio_user0"),
    "net_virtio_user-kernel": (tap, f"--vdev=net_virtio_user0,path={VHOST_NET}"),
}
MARKS = {
    "net_af_xdp": needs_bpf,
    "net_virtio_user-kernel": pytest.mark.skipif(
        not VHOST_NET.exists(), reason=f"there is no {VHOST_NET}: the kernel's module is vhost_net"
    ),
}


@dataclass(frozen=True)
class Running:
    """A worker, and what is at both of its sides."""

    worker: Worker
    share: Share
    machine: TableMachine
    wire: socket.socket
    kernel: socket.socket
    place: int | None

    def put(self, frames: Sequence[bytes]) -> None:
        """Onto the wire while the worker does not look; then wait until all of them are counted."""
        reasons = self.machine.tables.reason_counters
        wanted = reasons.sum() + len(frames)
        self.worker.pause()
        for one in frames:
            assert self.wire.send(one) == len(one)
        self.worker.go_on()
        self.worker.until(lambda: reasons.sum() >= wanted, f"{len(frames)} frames")

    def end(self) -> None:
        """As SIGTERM has it."""
        assert self.worker.stop() == 0, self.worker.said()
        assert not self.share.lanes["running"].any()
        assert self.share.head["worker"] == self.share.head["ready"] == 0


@contextmanager
def running(folder: Path, name: str = "", eal: str = "", lanes: int = 1) -> Iterator[Running]:
    """The worker under the sanitizers, with the configuration of segment.py, on a device of DEVICES, or on
    one that `eal` names, which has no other end."""
    with ExitStack() as stack:
        joined = Joined(eal, None, lambda: ours)
        if name:
            setup, argument = DEVICES[name]
            joined = setup(stack, folder, argument + eal)
        tables = share(folder / "tables", replace(SIZES, cpus=lanes))
        machine = TableMachine(tables.tables)
        machine.configure(loads(TEXT), NETWORK)
        tables.tables.settings["trace"] = 0
        ours, theirs = map(
            stack.enter_context, map(roomy, socket.socketpair(type=socket.SOCK_SEQPACKET))
        )
        ours.settimeout(PATIENCE_S)
        worker = stack.enter_context(
            Worker(tables.path, [joined.argument], [theirs.fileno()], joined.place, ASAN, lanes)
        )
        worker.until(lambda: tables.head["ready"][0], "it is not ready")
        wire = stack.enter_context(joined.open())
        yield Running(worker, tables, machine, wire, ours, joined.place)


def simulator() -> SimMachine:
    made = SimMachine()
    made.configure(loads(TEXT), NETWORK)
    return made


def drain(end: socket.socket, count: int) -> list[bytes]:
    return [end.recv(FRAME_MAX) for _ in range(count)]


def nothing_more(end: socket.socket) -> bool:
    """Whether nothing waits there."""
    end.setblocking(False)
    with suppress(BlockingIOError):
        raise AssertionError(f"and {end.recv(FRAME_MAX).hex()}")
    return True


def talk(sim: SimMachine) -> list[bytes]:
    """A hundred connections, mixed, with data of all sizes, and what is not for the core."""
    frames, later = [], []
    for port in range(4000, 4100):
        syn = sim.send(to_vip(port, "S")).frame
        size = (port - 4000) * 14
        frames.append(to_vip(port, "S"))
        later += [
            answer(syn),
            to_vip(port, "A"),
            to_vip(port, "PA", random.Random(port).randbytes(size)),
            answer(syn, "PA", random.Random(port + 1).randbytes(size)),
            frame("10.0.0.1", port, "10.0.0.77", 80, "S", bytes(size)),
            frame("10.0.0.1", port, "10.0.0.10", 8080, "SF"),
        ]
    random.Random(1).shuffle(later)
    return frames + later


# ---- tests


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, ())) for name in DEVICES]
)
def test_device(name: str, tmp_path: Path) -> None:
    """Frames of the kernel go out unchanged; those of the wire are handled as in the simulator, in order."""
    sim, chance = simulator(), random.Random(1)
    frames = talk(simulator())
    said = [chance.randbytes(12) + b"\x08\x06" + chance.randbytes(n) for n in (46, 500, 1500)]
    with running(tmp_path, name) as run:
        for one in said:
            run.kernel.send(one)
        assert drain(run.wire, len(said)) == said
        for start in range(0, len(frames), BURST):
            part = frames[start : start + BURST]
            outcomes = [sim.send(one) for one in part]
            run.put(part)
            for end, verdict in ((run.wire, Verdict.FORWARD), (run.kernel, Verdict.PASS)):
                due = [o.frame for o in outcomes if o.plan["verdict"] == verdict]
                assert drain(end, len(due)) == due
        assert np.array_equal(run.machine.tables.raw("flows"), sim.tables.raw("flows"))
        assert np.array_equal(run.machine.tables.reason_counters, sim.tables.reason_counters)
        assert nothing_more(run.wire)
        assert nothing_more(run.kernel)
        run.end()
        lane = run.share.lanes[0]
        lost = [int(lane[what]) for what in ("tx_full", "kernel_full", "too_long", "in_pieces")]
        assert (lane["from_kernel"], lane["to_kernel"], lost) == (len(said), 100, [0] * 4)


@pytest.mark.parametrize(("option", "length"), [("", 64), (",size=1514,copy=1", 1514)])
def test_net_null(option: str, length: int, tmp_path: Path) -> None:
    """Frames of zeros without end, far more than there are buffers: each is the kernel's, which takes some,
    and each is counted once. What the kernel says is taken and gone. Rounds end, and so does the worker."""
    with running(tmp_path, eal=f"--vdev=net_null0{option}") as run:
        reasons, lane = run.machine.tables.reason_counters, run.share.lanes
        for _ in range(100):
            run.kernel.send(bytes(60))
        run.worker.until(lambda: lane["from_kernel"][0] == 100, "the kernel's frames")
        run.worker.until(lambda: reasons.sum() > 200_000, "more frames than buffers")
        rounds = int(lane["rounds"][0])
        run.worker.until(lambda: lane["rounds"][0] > rounds + 1, "a round does not end")
        run.worker.until(lambda: run.share.head["link"][0, 0] == LINK_UP, "its link is up")
        run.end()
        count = int(reasons[:, Reason.NOT_IPV4].sum())
        assert reasons.sum() == count == lane["to_kernel"][0] + lane["kernel_full"][0]
        assert lane["tx_full"][0] == lane["too_long"][0] == 0
        assert set(drain(run.kernel, int(lane["to_kernel"][0]))) == {bytes(length)}
        assert nothing_more(run.kernel)


def test_net_ring(tmp_path: Path) -> None:
    """What goes out comes in: a SYN once more after it was forwarded, and then it is nobody's."""
    stranger = frame("10.0.0.1", 1, "10.0.0.77", 80, "S", bytes(1000))
    syns = [to_vip(port, "S") for port in range(4000, 4100)]
    with running(tmp_path, eal="--vdev=net_ring0") as run:
        for one in (stranger, *syns):
            run.kernel.send(one)
        sim = simulator()
        assert drain(run.kernel, 1 + len(syns)) == [stranger, *(sim.send(s).frame for s in syns)]
        assert nothing_more(run.kernel)
        run.end()
        counted = run.machine.tables.reason_counters.sum(axis=0)
        assert counted[Reason.FORWARD_NEW] == len(syns)
        assert counted.sum() == 2 * len(syns) + 1


def test_af_packet_with_two_lanes(tmp_path: Path) -> None:
    """The kernel spreads connections over the queues (qpairs); both lanes do their part."""
    frames, sim = talk(simulator()), simulator()
    with running(tmp_path, "net_af_packet", ",qpairs=2", lanes=2) as run:
        assert run.share.head["lanes"] == 2
        for start in range(100):
            sim.send(frames[start])
            run.put([frames[start]])
            run.wire.recv(FRAME_MAX)
        due = Counter(
            o.frame for o in map(sim.send, frames[100:]) if o.plan["verdict"] == Verdict.FORWARD
        )
        for start in range(100, len(frames), BURST):
            run.put(frames[start : start + BURST])
        assert Counter(drain(run.wire, due.total())) == due
        assert nothing_more(run.wire)
        assert run.machine.tables.reason_counters.any(axis=1).tolist() == [True, True]
        run.end()


def test_af_packet_cuts_long_frames(tmp_path: Path) -> None:
    """Its ring has places of one size: of a frame that is longer there is only the beginning, which the core
    does not take for a whole one."""
    whole, cut = (
        frame("10.0.0.1", 4000, "10.0.0.10", 8080, "S", bytes(n - 54)) for n in (1982, 1983)
    )
    with running(tmp_path, "net_af_packet") as run:
        assert run.place is not None
        in_place(run.place, f"ip link set {NEAR} mtu 9000", f"ip link set {FAR} mtu 9000")
        run.put([cut, whole])
        assert run.wire.recv(FRAME_MAX) == simulator().send(whole).frame
        counted = run.machine.tables.reason_counters.sum(axis=0)
        assert counted[[Reason.MALFORMED, Reason.FORWARD_NEW]].tolist() == [1, 1]
        assert counted.sum() == 2
        assert nothing_more(run.wire)
        run.end()


def test_af_packet_has_fragments_put_together(tmp_path: Path) -> None:
    """The kernel does so for packet sockets that share the work, which one by itself does, too. On other
    devices each is a FRAGMENT."""
    whole = to_vip(4000, "S", bytes(1000))
    pieces = {0: whole[34:434], 400: whole[434:834], 800: whole[834:]}
    with running(tmp_path, "net_af_packet") as run:
        for offset, piece in pieces.items():
            options = {"ident": 1, "flags": int(offset != 800), "offset": offset}
            run.wire.send(whole[:14] + ipv4("10.0.0.1", "10.0.0.10", TCP, piece, **options))
        reasons = run.machine.tables.reason_counters
        run.worker.until(reasons.any, "the whole of it")
        sent = run.wire.recv(FRAME_MAX)
        assert sent[34:] == simulator().send(whole).frame[34:]
        assert reasons[:, Reason.FORWARD_NEW].sum() == reasons.sum() == 1
        run.end()


def test_the_lesson_names_them() -> None:
    lesson = (ROOT / "docs/tutorial/02-dpdk.md").read_text()
    for name, (_, argument) in DEVICES.items():
        assert f"`{name.partition('-')[0]}`" in lesson
        assert argument in lesson
