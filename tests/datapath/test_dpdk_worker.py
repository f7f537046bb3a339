# SPDX-License-Identifier: Apache-2.0
"""The DPDK worker by itself: what it refuses, what it survives, and its other lanes."""

from __future__ import annotations

import errno
import os
import random
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evener import eal as options
from evener._generated.reasons import Reason, Verdict
from evener.config import loads
from evener.datapath.dpdk_counts import counts
from evener.datapath.dpdk_devices import check_free
from evener.datapath.dpdk_share import HEAD, PAGE, Share, holder
from evener.errors import InterfaceError
from evener.instance import Instance
from evener.observe import counters
from evener.tables.memory import Sizes, shapes
from tests.support.bpf import needs_namespaces
from tests.support.dpdk_machine import DpdkMachine
from tests.support.dpdk_worker import EAL, PATIENCE_S, Worker, build, namespace, owned, roomy, share
from tests.support.machine import SIZES, SimMachine, TableMachine
from tests.support.pcap import read_pcap, write_pcap
from tests.support.segment import NETWORK, TEXT, answer, frame, to_vip

pytestmark = needs_namespaces

ASAN = "evener-dpdk-asan"
DEVICE = "--vdev=net_null0"
USAGE = "usage: evener-dpdk"


@pytest.fixture
def tables(tmp_path: Path) -> Share:
    """A file that is as it should be."""
    return share(tmp_path / "tables", SIZES)


@pytest.fixture
def kernel() -> Iterator[int]:
    """A descriptor that will do for a kernel's interface."""
    ours, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours, other:
        yield other.fileno()


@pytest.fixture
def machine() -> Iterator[DpdkMachine]:
    """A worker with the configuration of segment.py."""
    with closing(DpdkMachine(ASAN)) as made:
        made.configure(loads(TEXT), NETWORK)
        yield made


def lost(machine: DpdkMachine) -> dict[str, int]:
    """What `show status` lists of it."""
    rows = counters.frames(counts(machine.share.head[0], ["dpdk0"]))
    return {row["counter"]: row["frames"] for row in rows if row["lost"] and row["frames"]}


def run_to_end(
    arguments: Sequence[str], descriptors: Sequence[int]
) -> subprocess.CompletedProcess[str]:
    """A worker that does not come to run."""
    return subprocess.run(
        [str(build(ASAN)), *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )


def refused(arguments: Sequence[str], *descriptors: int) -> str:
    """What it says, in one line of its own, of arguments that it has to refuse."""
    run = run_to_end(arguments, descriptors)
    said = [line for line in run.stdout.splitlines() if line.startswith("evener-dpdk: ")]
    assert (run.returncode, len(said)) == (7, 1), run.stdout
    return said[0]


def not_held(tables: Share) -> bool:
    """Nobody runs over the file, and nobody says so."""
    return (
        not holder(tables.path)
        and not tables.head["ready"][0]
        and not tables.lanes["running"].any()
    )


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), USAGE),
        (("--",), USAGE),
        (("--", "--tables={tables}"), USAGE),
        (("--", "--kernel=1:{fd}"), USAGE),
        (("--", "--tables={tables}", "--kernel=1:{fd}", "more"), USAGE),
        (("--", "--tables"), "option '--tables' requires an argument"),
        (("--", "--tables={tables}", "--kernel=1:{fd}", "--fast"), "unrecognized option '--fast'"),
        (("--", "--tables={tables}", "--kernel=1"), "not IFINDEX:FD: --kernel=1"),
        (("--", "--tables={tables}", "--kernel=0:{fd}"), "not IFINDEX:FD: --kernel=0:"),
        (("--", "--tables={tables}", "--kernel=eth0:{fd}"), "--kernel, IFINDEX:FD, is no number"),
        (("--", "--tables={tables}", "--kernel=1:"), "--kernel, IFINDEX:FD, is no number"),
        (("--", "--tables={tables}", "--kernel=1:-1"), "--kernel, IFINDEX:FD, is no number"),
        (("--", "--tables={tables}", "--kernel=1:{fd}x"), "no open descriptor"),
        (("--", "--tables={tables}", "--kernel=1:999"), "no open descriptor"),
        (("--", "--tables={tables}", *["--kernel=1:{fd}"] * 17), "there can be 16 ports"),
        (
            ("--", "--tables={tables}", "--kernel=1:{fd}", "--idle-us=soon"),
            "--idle-us is no number",
        ),
        (("--", "--tables={tables}", "--kernel=1:{fd}", "--idle-us=1000001"), "is at most 1000000"),
        (("--", "--tables={tables}", "--kernel=1:{fd}", "--idle-us=5ms"), "--idle-us is no number"),
        (
            ("--", "--tables={tables}", "--kernel=1:{fd}", "--netns=/run/netns/nowhere"),
            "network namespace cannot be entered (No such file or directory)",
        ),
        (
            ("--", "--tables={tables}", "--kernel=1:{fd}", "--netns=/dev/null"),
            "network namespace cannot be entered (Invalid argument)",
        ),
    ],
)
def test_arguments(arguments: tuple[str, ...], says: str, tables: Share, kernel: int) -> None:
    given = [text.format(tables=tables.path, fd=kernel) for text in arguments]
    assert says in refused(given, kernel)
    assert not_held(tables)


@pytest.mark.parametrize(
    ("eal", "kernels", "says"),
    [
        (("-l", "0"), 1, "there are 0 DPDK ports, but 1 interfaces"),
        (("-l", "0", DEVICE), 2, "there are 1 DPDK ports, but 2 interfaces"),
        (("-l", "0", DEVICE, "--vdev=net_null1"), 1, "there are 2 DPDK ports, but 1 interfaces"),
        (("--lcores=0@0,1@0", DEVICE), 1, "2 lanes, but tables for 1"),
        # ways to write it that evener.eal reads, too
        (("-l0", "--vdev", "net_null0"), 2, "there are 1 DPDK ports, but 2 interfaces"),
        (("-l0", "--vde=net_null0"), 2, "there are 1 DPDK ports, but 2 interfaces"),
        (("--lc", "0@0,1@0", DEVICE), 1, "2 lanes, but tables for 1"),
        (("--file-prefix", DEVICE, "-l0"), 1, "there are 0 DPDK ports"),
        (("-v", "-l0"), 1, "there are 0 DPDK ports"),
        (("-l", "0", "--vdev=nonsense0"), 1, "DPDK refuses its arguments"),
        (("-l", "0", "--nonsense"), 1, "DPDK refuses its arguments"),
        (("-l", "999", DEVICE), 1, "DPDK refuses its arguments"),
        (("-l", "0", DEVICE, "-m", "9999999"), 1, "DPDK refuses its arguments"),
        (("-l", "0", DEVICE, "-m", "16"), 1, "buffers for frames take"),
    ],
)
def test_eal(eal: tuple[str, ...], kernels: int, says: str, tables: Share, kernel: int) -> None:
    own = [f"--tables={tables.path}", *[f"--kernel=1:{kernel}"] * kernels]
    base = [word for word in EAL if "-m" not in eal or word not in ("-m", "128")]
    assert says in refused([*base, *eal, "--", *own], kernel)
    assert not_held(tables)


def test_long_options(tables: Share, kernel: int) -> None:
    """DPDK knows all that evener.eal does; a name without a letter could be any of them, so it lists them."""
    own = [f"--tables={tables.path}", f"--kernel=1:{kernel}"]
    said = run_to_end([*EAL, "--=", "--", *own], [kernel]).stdout
    (line,) = {line for line in said.splitlines() if "possibilities: " in line}
    assert set(options._LONG) - set(re.findall(r"'--([a-z-]+)'", line)) == set()


# ---- devices


@pytest.fixture
def place() -> Iterator[int]:
    """A network namespace for devices."""
    with owned(namespace()) as made:
        yield made


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        (("--vdev=net_af_packet0,iface=no0",), "there is no interface no0 for net_af_packet0: "),
        ((DEVICE, "--vdev=net_af_packet0,iface=no0"), "there is no interface no0 for net_af"),
        ((DEVICE, "--vdev=net_pcap0,rx_pcap=/no"), "the device net_pcap0,rx_pcap=/no: the lines"),
        (("-a", "0000:99:00.0"), "the card 0000:99:00.0 was not found"),
        ((DEVICE, "-a99:00.0"), "the card 99:00.0 was not found"),
        ((DEVICE, "--vdev=net_tap0,iface=tap0,odd=1"), "a mistake in net_tap0,iface=tap0,odd=1"),
        (("--vdev=net_tap0,iface=sixteen_letters_",), "has at most 15 characters: "),
        (
            ("--vdev=net_tap0,iface=a", "--vdev=net_tap1,mac=fixed,iface=a"),
            "a is in use by another",
        ),
    ],
)
def test_devices(
    devices: tuple[str, ...], says: str, tables: Share, kernel: int, place: int
) -> None:
    """One that is not to be had is told of, also beside one that is."""
    base = [word for word in EAL if word != "--no-pci" or "-a" not in "".join(devices)]
    own = [f"--tables={tables.path}", f"--kernel=1:{kernel}", f"--netns=/proc/self/fd/{place}"]
    assert says in refused([*base, "-l0", *devices, "--", *own], kernel, place)
    assert not_held(tables)


def test_an_interface_is_for_one_worker(
    tables: Share, kernel: int, place: int, tmp_path: Path
) -> None:
    """Of a network namespace, and until that worker ends, in whichever way."""
    eal = ["-l0", "--vdev=net_tap0,iface=tap0"]
    own = [f"--netns=/proc/{os.getpid()}/fd/{place}"]
    with Worker(tables.path, eal[1:], [kernel], place, ASAN) as worker:
        worker.until(lambda: tables.head["ready"][0], "ready")
        other = share(tmp_path / "other", SIZES)
        words = [*own, f"--tables={other.path}", f"--kernel=1:{kernel}"]
        assert "tap0 is in use by another worker" in refused([*EAL, *eal, "--", *words], kernel)
        with pytest.raises(InterfaceError, match=f"worker, process {worker.process.pid} "):
            check_free([*eal, "--", *own])
        for written in (["--netns", own[0][8:]], ["--net" + own[0][7:]]):
            assert "tap0 is in use by another worker" in refused(
                [*EAL, *eal, "--", *words[1:], *written], kernel
            )
            with pytest.raises(InterfaceError, match="tap0 is in use"):
                check_free([*eal, "--", *written])
        check_free([*eal, "--", *own], worker.process.pid)
        check_free(["--vdev=net_tap0,iface=tap1", "--", *own])
        check_free(eal)
        held = Instance.of(os.fstat(place).st_ino).port("tap0")
        assert held.stat().st_mode & 0o777 == 0o600  # whoever can read a file can lock it
        worker.process.kill()
        worker.process.wait()
        check_free([*eal, "--", *own])
        held.unlink()


# ---- files


def number(name: str, index: int, value: int | bytes) -> Callable[[Share], None]:
    def change(tables: Share) -> None:
        where = tables.head[name]
        if where.ndim == 1:
            where[0] = value
        else:
            where[0, index] = value

    return change


def moved(index: int) -> Callable[[Share], None]:
    def change(tables: Share) -> None:
        tables.head["offset"][0, index] += 8

    return change


def wrong_numbers() -> Iterator[Any]:
    for name, value in (("magic", b"evener-2"), ("version", 2), ("second_ns", 0)):
        yield pytest.param(number(name, 0, value), "", id=name)
    for value in (0, PAGE, 1 << 63):
        yield pytest.param(number("bytes", 0, value), "", id=f"bytes-{value}")
    for index, name in enumerate(Sizes.__slots__):
        for value in (0, 2 * getattr(SIZES, name), 65, (1 << 28) + 1, (1 << 32) - 1):
            if value != 65 or name == "cpus":
                says = "" if 0 < value <= 1 << 28 else f"the tables are for {value} {name}: "
                yield pytest.param(number("sizes", index, value), says, id=f"{name}-{value}")
    for index, name in enumerate(shapes(SIZES)):
        yield pytest.param(moved(index), f"the table {name} lies at", id=f"table-{name}-moved")
        for value in (0, PAGE, HEAD.itemsize, 3 * PAGE + 8, 1 << 40, (1 << 64) - PAGE):
            yield pytest.param(number("offset", index, value), "", id=f"table-{name}-{value}")


@pytest.mark.parametrize(("change", "says"), list(wrong_numbers()))
def test_numbers_of_the_file(
    change: Callable[[Share], None], says: str, tables: Share, kernel: int
) -> None:
    change(tables)
    own = [f"--tables={tables.path}", f"--kernel=1:{kernel}"]
    said = refused(["-l", "0", *EAL, DEVICE, "--", *own], kernel)
    assert says in said
    assert str(tables.path) in said
    assert not_held(tables)


@pytest.mark.parametrize("length", [0, 100, HEAD.itemsize - 1, HEAD.itemsize, 2 * PAGE, -PAGE, -1])
def test_cut_file(length: int, tables: Share, kernel: int) -> None:
    os.truncate(tables.path, length % tables.path.stat().st_size)
    own = [f"--tables={tables.path}", f"--kernel=1:{kernel}"]
    assert str(tables.path) in refused(["-l", "0", *EAL, DEVICE, "--", *own], kernel)


def test_no_file(tmp_path: Path, kernel: int) -> None:
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        assert says in refused(["--", f"--tables={path}", f"--kernel=1:{kernel}"], kernel)


def test_second_worker(machine: DpdkMachine, kernel: int) -> None:
    own = [f"--tables={machine.share.path}", f"--kernel=1:{kernel}"]
    said = refused(["-l", "0", *EAL, DEVICE, "--", *own], kernel)
    pid = machine.worker.process.pid
    assert said.startswith(f"evener-dpdk: another worker uses these tables, pid {pid}: ")
    assert machine.send(to_vip(4000, "S")).plan["reason"] == Reason.FORWARD_NEW
    assert machine.share.head["worker"] == pid


# ---- what it survives


def test_end(machine: DpdkMachine) -> None:
    assert machine.share.head["ready"] == machine.share.lanes["running"][0] == 1
    assert machine.worker.stop() == 0
    assert machine.share.head["worker"] == 0
    assert not_held(machine.share)


def test_frames_of_the_kernel(machine: DpdkMachine) -> None:
    chance = random.Random(1)
    frames = [chance.randbytes(chance.randrange(14, 1514)) for _ in range(100)]
    for one in frames:
        machine.kernel.send(one)
    assert [machine.wire.recv(1 << 16) for _ in frames] == frames
    assert machine.take(0, 0) == ([], [])
    assert machine.share.lanes["from_kernel"][0] == len(frames)
    assert not machine.tables.reason_counters.any()


def test_kernel_takes_no_more(machine: DpdkMachine) -> None:
    """What the kernel's side does not take is counted and lost, and all else goes on."""
    machine.tables.settings["trace"] = 0
    machine.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    others = [frame("10.0.0.1", n, "10.0.0.77", 80, "S", bytes(1000)) for n in range(1, 20_001)]
    for start in range(0, len(others), 1000):
        machine.put(others[start : start + 1000])
        machine.handled(1000)
        if machine.share.lanes["kernel_full"][0]:
            break
    lane = machine.share.lanes[0]
    assert lane["kernel_full"] > 0
    assert lane["kernel_full"] + lane["to_kernel"] == start + 1000
    machine.tables.settings["trace"] = 1
    taken = int(lane["to_kernel"])
    assert [machine.kernel.recv(1 << 16) for _ in range(taken)] == others[:taken]
    assert machine.send(others[0]).plan["verdict"] == Verdict.PASS


def test_kernel_is_gone(machine: DpdkMachine) -> None:
    machine.tables.settings["trace"] = 0
    machine.kernel.close()
    machine.put([frame("10.0.0.1", 1, "10.0.0.77", 80, "S")])
    machine.handled(1)
    assert lost(machine) == {"kernel_full": 1}
    machine.put([to_vip(4000, "S")])
    machine.handled(1)
    assert len(machine.wire.recv(1 << 16)) == 54


def test_device_is_down(machine: DpdkMachine) -> None:
    machine.link("down")
    for _ in range(10):
        machine.kernel.send(bytes(60))
    lane = machine.share.lanes
    machine.worker.until(lambda: lane["from_kernel"][0] == 10, "the frames are not read")
    machine.worker.until(lambda: lane["tx_full"][0] == 10, "the frames are not given up")
    machine.link("up")
    assert machine.wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN
    assert machine.send(to_vip(4000, "S")).plan["reason"] == Reason.FORWARD_NEW


def test_frame_too_large(machine: DpdkMachine) -> None:
    """The device has no buffer for it: it is lost, nobody decides about it, and the device counts it. The
    worker looks at that now and then; the count goes on when another takes its place."""
    machine.link("mtu", "9000")
    large = frame("10.0.0.1", 4000, "10.0.0.10", 8080, "S", bytes(5000))
    machine.put([large])
    assert machine.send(to_vip(4000, "S")).plan["reason"] == Reason.FORWARD_NEW
    assert machine.tables.reason_counters.sum() == 1
    machine.worker.until(lambda: lost(machine) == {"ierrors": 1}, "it is not told")
    assert machine.worker.stop() == 0
    machine.start()
    assert lost(machine) == {"ierrors": 1}
    machine.link("mtu", "9000")
    machine.put([large])
    machine.worker.until(lambda: lost(machine) == {"ierrors": 2}, "it is not told")


def test_kernel_sends_too_much_at_once(machine: DpdkMachine) -> None:
    """What fits into no buffer is lost and counted, and what comes next goes out."""
    for size in (1 << 14, 60):
        machine.kernel.send(bytes(size))
    assert machine.wire.recv(1 << 16) == bytes(60)
    assert lost(machine) == {"too_long": 1}


def test_signals_without_room(machine: DpdkMachine) -> None:
    """net_tap has the kernel send a signal with every frame. Where no more can wait, the kernel sends
    SIGIO instead."""
    pid = machine.worker.process.pid
    subprocess.run(["prlimit", f"--pid={pid}", "--sigpending=5"], check=True)
    machine.tables.settings["trace"] = 0
    machine.worker.pause()
    machine.put([to_vip(4000 + n, "S") for n in range(100)])
    machine.worker.go_on()
    machine.handled(100)
    machine.take(100, 0)


def test_killed(machine: DpdkMachine) -> None:
    """Another one over the same file goes on with its flows; locks that it held are free again."""
    syn = machine.send(to_vip(4000, "S"))
    machine.worker.process.kill()
    machine.worker.process.wait()
    machine.tables.locks[:] = 1
    machine.share.head["ready"] = 0
    machine.start()
    assert not machine.tables.locks.any()
    assert machine.send(answer(syn.frame)).plan["reason"] == Reason.REPLY
    assert machine.send(to_vip(4000, "A")).plan["reason"] == Reason.FORWARD
    assert machine.send(to_vip(4001, "S")).plan["reason"] == Reason.FORWARD_NEW


# ---- whole files


def test_file_of_frames(tmp_path: Path) -> None:
    """By full bursts, and with frames that no TAP device takes: shorter than a header, or of several buffers.
    One that fits into none is lost, and counted."""
    sim = SimMachine()
    sim.configure(loads(TEXT), NETWORK)
    frames = [to_vip(4000 + n, "S", bytes(n % 500)) for n in range(1000)]
    frames += [frame("10.0.0.1", 5000 + n, "10.0.0.77", 80, "S") for n in range(100)]
    frames += [one[:n] for n, one in enumerate(frames[:60], 1)]
    random.Random(1).shuffle(frames)
    large = frame("10.0.0.1", 4000, "10.0.0.10", 8080, "A", bytes(5000))
    write_pcap(tmp_path / "in", ((0, one) for one in [*frames[:500], large, *frames[500:]]))
    outcomes = [sim.send(one) for one in frames]
    by = {v: [o.frame for o in outcomes if o.plan["verdict"] == v] for v in Verdict}
    tables = share(tmp_path / "tables", SIZES)
    kernel, other_end = map(roomy, socket.socketpair(type=socket.SOCK_SEQPACKET))
    TableMachine(tables.tables).configure(loads(TEXT), NETWORK)
    tables.tables.settings["trace"] = 0
    device = f"--vdev=net_pcap0,rx_pcap={tmp_path}/in,tx_pcap={tmp_path}/out"
    with (
        kernel,
        other_end,
        Worker(tables.path, [device], [other_end.fileno()], program=ASAN) as w,
    ):
        reasons = tables.tables.reason_counters
        w.until(lambda: reasons.sum() == len(frames), "all frames")
        assert w.stop() == 0, w.said()
        kernel.settimeout(PATIENCE_S)
        assert [kernel.recv(1 << 16) for _ in by[Verdict.PASS]] == by[Verdict.PASS]
    assert [one for _, one in read_pcap(tmp_path / "out")] == by[Verdict.FORWARD]
    assert (tables.lanes["in_pieces"][0], tables.lanes["tx_full"][0]) == (1, 0)
    assert np.array_equal(tables.tables.raw("flows"), sim.tables.raw("flows"))
    assert np.array_equal(reasons, sim.tables.reason_counters)


# ---- lanes


def test_two_lanes() -> None:
    """What settled flows send comes out as of the simulator, on whichever lane; both do their part."""
    sim = SimMachine()
    with closing(DpdkMachine(ASAN, lanes=2)) as dpdk:
        assert dpdk.share.head["lanes"] == 2
        talk = []
        for machine in (sim, dpdk):
            machine.configure(loads(TEXT), NETWORK)
        for port in range(4000, 4100):
            syn = sim.send(to_vip(port, "S"))
            steps = (to_vip(port, "S"), answer(syn.frame), to_vip(port, "A"))
            assert [dpdk.send(one).frame for one in steps] == [
                syn.frame, *(sim.send(one).frame for one in steps[1:])
            ]  # fmt: skip
            talk += [to_vip(port, "A", b"there"), answer(syn.frame, "A", b"back")]
        random.Random(1).shuffle(talk)
        dpdk.tables.settings["trace"] = 0
        for _ in range(5):
            dpdk.worker.pause()
            dpdk.put(talk)
            dpdk.worker.go_on()
            dpdk.handled(len(talk))
            sent, _ = dpdk.take(len(talk), 0)
            assert Counter(sent) == Counter(sim.send(one).frame for one in talk)
        assert dpdk.tables.reason_counters.any(axis=1).tolist() == [True, True]
        assert np.array_equal(dpdk.tables.raw("flows"), sim.tables.raw("flows"))
        assert dpdk.share.lanes["running"][:3].tolist() == [1, 1, 0]
