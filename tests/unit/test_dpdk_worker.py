# SPDX-License-Identifier: Apache-2.0
"""The driver dpdk's adapter with a worker that handles no packets (tests/support/fake_worker.py): adoption,
watching, restarts, ends, grace periods."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from evener import config as configuration
from evener import instance as instances
from evener.control.daemon import Daemon
from evener.control.drivers import DRIVERS
from evener.datapath import (
    dpdk,
    dpdk_before,
    dpdk_eal,
    dpdk_rounds,
    dpdk_share,
    dpdk_worker,
)
from evener.datapath.base import HopelessError, Lane
from evener.datapath.dpdk import DpdkDatapath
from evener.datapath.dpdk_share import Room
from evener.errors import DatapathError, InterfaceError, MachineError
from evener.instance import Instance
from evener.lock import locked
from evener.model import Driver
from evener.tables.memory import Sizes
from tests.support import fake_worker

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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    program = tmp_path / "evener-dpdk"
    program.write_text(f"#!{sys.executable}\n" + Path(fake_worker.__file__).read_text())
    program.chmod(0o755)
    monkeypatch.setattr(dpdk, "PROGRAM", program)
    for module in (dpdk, dpdk_before):
        monkeypatch.setattr(module, "Tap", FakeTap)
    monkeypatch.setattr(FakeTap, "numbers", {"tap0": 7})
    bench = Bench(tmp_path)
    yield bench
    bench.end()


def wait_until(done: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.002)


def tended(datapath: DpdkDatapath, done: Callable[[], object], what: str) -> None:
    def step() -> object:
        datapath.tend()
        return done()

    wait_until(step, what)


# --- starting, ending


def test_from_start_to_end(bench: Bench) -> None:
    datapath = bench.open()
    assert (datapath.adopted, datapath.ids, datapath.warnings) == (False, None, [])
    assert not bench.path.exists()
    datapath.attach(["tap0"])
    (attachment,) = datapath.attachments
    assert (attachment.interface, attachment.ifindex, attachment.mode) == ("tap0", 7, "net_null")
    assert bench.pid() == datapath._share.head["worker"][0]
    datapath.grace()
    assert (time.monotonic_ns() // 1_000_000_000 - datapath.now()) & 0xFFFF in (0, 1)
    datapath.remove()
    assert (bench.pid(), list(bench.path.parent.glob(f"{bench.path.name}*"))) == (0, [])


def test_what_the_worker_says_is_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.run()
    wait_until(lambda: "evener-dpdk: ready: 1 port, 1 lane" in caplog.messages, "its words")


def test_its_own_words_when_it_cannot_start(bench: Bench) -> None:
    datapath = bench.open("--fail=no such device: net_x: see datapath.eal")
    with pytest.raises(DatapathError) as caught:
        datapath.attach(["tap0"])
    assert str(caught.value) == (
        "the DPDK worker ended with exit code 7 before it was ready (datapath.eal): "
        "no such device: net_x: see datapath.eal"
    )


def test_the_words_of_dpdk_where_the_worker_points_to_them(bench: Bench) -> None:
    datapath = bench.open("--fail=it refuses: the lines above say why", "--before=EAL: no net_x")
    with pytest.raises(
        DatapathError, match=r": EAL: no net_x; it refuses: the lines above say why"
    ):
        datapath.attach(["tap0"])


def test_what_dpdk_says_at_each_start_and_twice_is_left_out(bench: Bench) -> None:
    said = ("EAL: Detected CPU lcores: 2", "EAL: FATAL: Cannot get hugepage information.",
            "EAL: Cannot get hugepage information.")  # fmt: skip
    datapath = bench.open("--fail=refused: the lines above say why", "--before=" + "\n".join(said))
    with pytest.raises(DatapathError) as caught:
        datapath.attach(["tap0"])
    assert str(caught.value).partition("(datapath.eal): ")[2] == (
        "EAL: Cannot get hugepage information.; refused: the lines above say why; "
        "no huge pages are free: leave out what asks for them, or see section 8 of lesson 2"
    )


def test_the_loader_without_a_library(bench: Bench) -> None:
    datapath = bench.open("--code=127", "--fail=librte_eal.so.23: cannot open shared object file")
    with pytest.raises(MachineError, match=r"librte_eal.*install Debian's package libdpdk-dev"):
        datapath.attach(["tap0"])


def test_a_worker_that_was_not_built(bench: Bench) -> None:
    dpdk.PROGRAM.unlink()  # type: ignore[misc, unused-ignore]
    with pytest.raises(
        MachineError, match=r"built without the driver dpdk .* libdpdk-dev .*make build"
    ):
        bench.open()
    assert list(bench.path.parent.iterdir()) == []


def test_a_worker_that_is_never_ready(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpdk, "READY_S", 0.2)
    datapath = bench.open("--hang")
    with pytest.raises(DatapathError, match=r"was not ready after 0 seconds .*it said nothing"):
        datapath.attach(["tap0"])
    assert bench.pid() == 0


def test_one_that_does_not_end_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpdk_worker, "TERM_S", 0.1)
    datapath = bench.run("--stubborn")
    datapath.remove()
    assert bench.pid() == 0


def test_too_little_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpdk, "room", lambda folder: Room(50_000_000, 1 << 40, folder))
    with pytest.raises(MachineError, match=r"buffers 100\.7 MB, 50\.0 MB are free"):
        bench.open()
    bench.open(eal=("--in-memory", *EAL)).remove()


def test_an_interface_that_another_worker_has(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started, and nothing that runs is ended for it."""
    monkeypatch.setattr(instances, "RUN_FOLDER", tmp_path)
    taken = (*EAL, "--vdev=net_tap0,iface=evener-taken")
    with locked(Instance.here().port("evener-taken")):
        says = f"evener-taken is in use by another worker, process {os.getpid()} "
        datapath = bench.open(eal=taken)
        with pytest.raises(InterfaceError, match=says):
            datapath.attach(("tap0",))
        datapath.remove()
        first = bench.run()
        first.close()
        pid = bench.pid()
        with pytest.raises(InterfaceError, match=says):
            bench.run(eal=taken, sizes=replace(SIZES, services=SIZES.services * 2))
        assert bench.pid() == pid


def test_an_interface_that_is_named_twice_ends_no_worker(bench: Bench) -> None:
    bench.run().close()
    pid = bench.pid()
    twice = (*EAL, "--vdev=net_tap0,iface=a", "--vdev=net_tap1,mac=fixed,iface=a")
    with pytest.raises(InterfaceError, match=r"a is named twice \(net_tap1,mac=fixed,iface=a\)"):
        bench.run(eal=twice, sizes=replace(SIZES, services=SIZES.services * 2))
    assert bench.pid() == pid


def test_a_start_that_failed_leaves_nothing(bench: Bench) -> None:
    datapath = bench.open("--fail=x")
    with pytest.raises(DatapathError):
        datapath.attach(["tap0"])
    datapath.remove()
    assert [p.name for p in bench.path.parent.iterdir()] == ["evener-dpdk"]


def test_packets_of_each_lane(bench: Bench) -> None:
    datapath = bench.run(eal=("-l", "4,6", *EAL))
    datapath._share.head["lanes"] = 2
    datapath._share.lanes["lcore"][:3] = 4, 6, 8
    datapath.tables.reason_counters[0, 1:3] = 5, 6
    assert datapath.lanes() == (Lane(0, 4, 11), Lane(1, 6, 0))


# --- adoption


def flow(datapath: DpdkDatapath) -> None:
    """A flow, and a backend in the copy in force."""
    datapath.tables.flows[3] = 11, 12
    row = datapath.tables.backends[datapath.tables.active, 5]
    row["addr"]["half"][:] = 0xFFFF_0000_0000_0000, 9
    row["protocol"], row["state"] = 6, 1


def test_a_running_worker_goes_on_with_the_next_daemon(bench: Bench) -> None:
    first = bench.run()
    flow(first)
    seed, pid = first.tables.seed, bench.pid()
    first.close()
    assert bench.pid() == pid
    second = bench.open()
    assert (second.adopted, second.warnings) == (True, [])
    assert second.ids is not None
    assert 5 in second.ids.backends.ids.values()
    assert (second.tables.flows[3].tolist(), second.tables.seed) == ((11, 12), seed)
    second.grace()
    second.attach(["tap0"])
    assert bench.pid() == pid
    assert not second._taps["tap0"].attached  # type: ignore[attr-defined]
    second.remove()
    assert bench.pid() == 0


def test_a_worker_that_died_meanwhile_is_started(bench: Bench) -> None:
    first = bench.run()
    flow(first)
    pid = bench.pid()
    first.close()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: bench.pid() == 0, "its end")
    second = bench.run()
    assert bench.pid() not in (0, pid)
    assert second.tables.flows[3].tolist() == (11, 12)


def test_an_adopted_worker_is_watched(bench: Bench) -> None:
    bench.run().close()
    second = bench.run()
    pid = bench.pid()
    os.kill(pid, signal.SIGKILL)
    tended(second, lambda: bench.pid() not in (0, pid) and second._is_ready(), "a new worker")
    assert second.trouble == "the DPDK worker ended; it runs again"


def test_other_arguments_are_told_of_and_wait(bench: Bench) -> None:
    bench.run().close()
    pid = bench.pid()
    second = bench.run(eal=("--vdev=net_null7",))
    (warning,) = second.warnings
    assert warning.startswith(f"worker {pid} goes on with its arguments, -l 0 --no-huge -m 96")
    assert "--vdev=net_null0" in warning
    assert bench.pid() == pid


@pytest.mark.parametrize("change", ["flows", "layout"])
def test_what_does_not_fit_is_replaced_when_the_new_tables_are_there(
    bench: Bench, change: str
) -> None:
    first = bench.run()
    flow(first)
    pid = bench.pid()
    if change == "layout":
        first._share.head["layout"] ^= 1
    first.close()
    groups = SIZES.flow_groups * (2 if change == "flows" else 1)
    second = bench.open(sizes=replace(SIZES, flow_groups=groups))
    assert not second.adopted
    assert [w.partition(":")[0] for w in second.warnings] == [
        "the flows of the daemon before this one were lost"
    ]
    assert bench.pid() == pid  # it forwards until there is something better
    second.attach(["tap0"])
    assert bench.pid() not in (0, pid)
    found = dpdk_share.Share.find(bench.path).share
    assert found is not None
    assert found.sizes.flow_groups == groups
    assert not second.tables.flows["client"].any()
    assert not list(bench.path.parent.glob("*.new"))


def test_a_daemon_that_dies_before_it_attached_leaves_the_old_as_it_was(bench: Bench) -> None:
    first = bench.run()
    flow(first)
    first.close()
    bench.open(sizes=replace(SIZES, flow_groups=SIZES.flow_groups * 2)).close()
    third = bench.open()
    assert third.adopted
    assert third.tables.flows[3].tolist() == (11, 12)
    third.attach(["tap0"])
    third.remove()


SMALL = "its tables were too small"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"sizes": replace(SIZES, backends=SIZES.backends * 2)}, SMALL),
        (
            {"eal": ("-l", "0,1", *EAL)},
            "datapath.eal names 2 lcores, and its tables had room for 1",
        ),
        (
            {"sizes": replace(SIZES, backends=SIZES.backends * 2), "eal": ("-l", "0,1", *EAL)},
            SMALL,
        ),
    ],
)
def test_larger_tables_are_made_and_flows_go_on(
    bench: Bench, more: dict[str, Any], why: str
) -> None:
    first = bench.run()
    flow(first)
    seed, pid = first.tables.seed, bench.pid()
    first.close()
    second = bench.open(**more)
    assert second.adopted
    assert second.warnings == [f"the DPDK worker is started anew: {why}"]
    assert second.ids is not None
    assert 5 in second.ids.backends.ids.values()
    second.attach(["tap0"])
    assert bench.pid() not in (0, pid)
    assert (second.tables.flows[3].tolist(), second.tables.seed) == ((11, 12), seed)


def test_smaller_tables_stay_as_they_are(bench: Bench) -> None:
    first = bench.run(eal=("-l", "0,1", *EAL))
    sizes, pid = first.tables.sizes, bench.pid()
    first.close()
    second = bench.run(sizes=replace(SIZES, backends=8))
    assert second.tables.sizes == sizes
    assert bench.pid() == pid


HEIR = """
import fcntl, os, signal, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
if child := os.fork():
    print(child)
else:
    os.close(1)
    signal.pause()
"""


def test_a_lock_whose_owner_has_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that inherited the file has it, and the kernel names the parent."""
    monkeypatch.setattr(dpdk_worker, "LOCK_S", 0.05)
    run = [sys.executable, "-c", HEIR, str(bench.path)]
    child = int(subprocess.run(run, stdout=subprocess.PIPE, check=True, timeout=20).stdout)
    try:
        if not (pid := bench.pid()):
            pytest.skip(
                "in a namespace of processes the kernel does not name those that have ended"
            )
        with pytest.raises(DatapathError, match=rf"process {pid}, .*ended.*`fuser {bench.path}`"):
            bench.open()
    finally:
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: bench.pid() == 0, "the lock to be free")


# --- another in its place

LARGER = replace(SIZES, backends=SIZES.backends * 2)
OTHER = replace(SIZES, flow_groups=SIZES.flow_groups * 2)


def line(pid: int) -> list[str]:
    """A worker's command line, without descriptors."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return [w.rpartition(":")[0] if w.startswith("--kernel=") else w for w in words]


def test_the_old_worker_goes_on_until_the_new_one_is_about_to_begin(bench: Bench) -> None:
    """What it changes in the meantime is not lost."""
    first = bench.run()
    flow(first)
    pid = bench.pid()
    second = bench.open(sizes=LARGER)
    assert (bench.pid(), second.worker) == (pid, pid)
    assert not second.tables.flows["client"].any()
    second.grace()  # of tables that nobody reads
    first.tables.flows[3] = 13, 14
    first.tables.reason_counters[0, 1] = 15
    first.close()
    second.attach(["tap0"])
    assert bench.pid() not in (0, pid)
    assert second.tables.flows[3].tolist() == (13, 14)
    assert second.tables.reason_counters[0, 1] == 15
    assert second.tables.sizes.backends == LARGER.backends
    assert [p.name for p in bench.path.parent.glob("x*")] == ["x"]


@pytest.mark.parametrize("sizes", [LARGER, OTHER])
def test_when_the_new_one_does_not_start_the_old_one_is_started_again(
    bench: Bench, sizes: Sizes, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.run("--idle-us=5")
    flow(first)
    pid, started = bench.pid(), line(bench.pid())
    second = bench.open("--fail=no", sizes=sizes)
    first.close()
    with pytest.raises(DatapathError, match=r"before it was ready .*: no") as caught:
        second.attach(["tap0"])
    again = bench.pid()
    assert again not in (0, pid)
    assert first._share.head["ready"][0] == 1
    assert str(caught.value).endswith(
        f"no; the worker from before, pid {again}, handles packets again"
    )
    assert line(again) == started
    assert f"the DPDK worker from before handles packets again, pid {again}" in caplog.messages
    for _ in range(3):
        second.tend()
    second.remove()  # as a daemon that took nothing over does
    assert [p.name for p in bench.path.parent.glob("x*")] == ["x"]
    third = bench.open("--idle-us=5")
    assert (bench.pid(), third.adopted, third.warnings) == (again, True, [])
    assert third.tables.flows[3].tolist() == (11, 12)
    third.attach(["tap0"])
    assert bench.pid() == again


@pytest.mark.parametrize("change", ["layout", "version"])
def test_the_old_one_is_of_the_program_that_it_was(bench: Bench, change: str) -> None:
    """Which may be gone by now, and the file of a layout that the new one does not know."""
    first = bench.run()
    first._share.head[change] ^= 2
    program = Path(f"/proc/{bench.pid()}/exe").resolve()
    pid = bench.pid()
    first.close()
    second = bench.open("--fail=no")
    with pytest.raises(DatapathError, match=r"; the worker from before, pid \d+, handles packets"):
        second.attach(["tap0"])
    assert bench.pid() not in (0, pid)
    assert Path(f"/proc/{bench.pid()}/exe").resolve() == program
    assert dpdk_share.Share.find(bench.path).unfit == "its tables have another layout"


@pytest.mark.parametrize("still_there", [True, False])
def test_when_the_new_one_does_not_start_over_other_interfaces(
    bench: Bench, caplog: pytest.LogCaptureFixture, still_there: bool
) -> None:
    first = bench.run()
    flow(first)
    pid, started = bench.pid(), line(bench.pid())
    first.close()
    FakeTap.numbers["tap1"] = 8
    if not still_there:
        del FakeTap.numbers["tap0"]
    second = bench.open("--fail=no", taps=("tap1",))
    with pytest.raises(DatapathError, match="before it was ready") as caught:
        second.attach(["tap1"])
    if still_there:
        assert bench.pid() not in (0, pid)
        assert line(bench.pid()) == started
    else:
        nothing = "nothing handles packets now: the worker from before cannot go on: "
        assert f"{nothing}its interface 7 is gone" in caplog.messages
        assert str(caught.value).endswith(f"no; {nothing}its interface 7 is gone")
    assert bench.open().tables.flows[3].tolist() == (11, 12)


class Killed(BaseException):
    """In the place of SIGKILL: nobody handles it, and nothing is put in order."""


def killed_in_between(bench: Bench, monkeypatch: pytest.MonkeyPatch, *own: str) -> DpdkDatapath:
    """What a daemon leaves that was killed when the new file had its place and its worker was not ready."""

    def kill() -> None:
        raise Killed

    second = bench.open(*own, sizes=OTHER)
    monkeypatch.setattr(second, "_wait_ready", kill)
    monkeypatch.setattr(second, "_go_back", lambda _: None)
    with pytest.raises(Killed):
        second.attach(["tap0"])
    assert sorted(p.name for p in bench.path.parent.glob("x*")) == ["x", "x.old"]
    return second


def test_a_daemon_that_was_killed_before_its_worker_was_ready(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.run()
    flow(first)
    second = killed_in_between(bench, monkeypatch, "--hang")
    wait_until(lambda: bench.pid() == second.worker, "the lock")
    os.kill(second.worker, signal.SIGKILL)
    wait_until(lambda: bench.pid() == 0, "the end of the worker")
    third = bench.run()
    assert (third.adopted, third.warnings) == (True, [])
    assert third.tables.flows[3].tolist() == (11, 12)
    assert "the tables from before are back" in caplog.text
    assert [p.name for p in bench.path.parent.glob("x*")] == ["x"]


@pytest.mark.parametrize("ends", [True, False])
def test_its_worker_came_up_without_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """And handled packets, so the flows of the new file are the newest, also when it has ended in order."""
    bench.run()
    second = killed_in_between(bench, monkeypatch)
    wait_until(lambda: second._share.lanes["rounds"].any(), "packets to be handled")
    flow(second)
    if ends:
        os.kill(second.worker, signal.SIGTERM)
        wait_until(lambda: bench.pid() == 0, "the end of the worker")
        assert second._share.head["ready"][0] == 0
    third = bench.run(sizes=OTHER)
    assert third.tables.sizes == OTHER
    assert third.tables.flows[3].tolist() == (11, 12)
    assert [p.name for p in bench.path.parent.glob("x*")] == ["x"]


def test_when_neither_starts(bench: Bench) -> None:
    """A worker that was killed left the mark that it is ready; that is not believed."""
    first = bench.run()
    flow(first)
    second = bench.open(sizes=LARGER)
    program = dpdk.PROGRAM.read_text()
    dpdk.PROGRAM.write_text("import sys\nsys.exit('evener-dpdk: the machine is full')\n")
    os.kill(first.worker, signal.SIGSTOP)  # so it has to be killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpdk_worker, "TERM_S", 0.01)
        patch.setattr(dpdk, "PROGRAM", Path(sys.executable))
        patch.setattr(second, "_eal", ("-c", "import sys; sys.exit('evener-dpdk: no')", "-l0"))
        patch.setattr(dpdk_eal, "complete", lambda eal, _: list(eal))
        with pytest.raises(DatapathError) as caught:
            second.attach(["tap0"])
    ended = "the DPDK worker ended with exit code 1 before it was ready (datapath.eal)"
    nothing = "nothing handles packets now: the worker from before cannot go on"
    assert str(caught.value) == f"{ended}: no; {nothing}: {ended}: the machine is full"
    dpdk.PROGRAM.write_text(program)
    second.close()
    third = bench.run()
    assert third.tables.flows[3].tolist() == (11, 12)


def test_names_go_back_also_when_the_new_worker_cannot_be_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.run()
    flow(first)
    second = bench.open(sizes=LARGER)
    stop = dpdk_worker.Worker.stop
    left: list[dpdk_worker.Worker] = []

    def cannot(worker: dpdk_worker.Worker) -> None:
        left.append(worker)
        raise DatapathError(f"worker {worker.pid} cannot be ended")

    def interrupted() -> None:
        monkeypatch.setattr(dpdk_worker.Worker, "stop", cannot)
        raise RuntimeError

    monkeypatch.setattr(second, "_wait_ready", interrupted)
    with pytest.raises(RuntimeError):
        second.attach(["tap0"])
    stop(left[0])
    monkeypatch.setattr(dpdk_worker.Worker, "stop", stop)
    assert bench.pid() == 0
    assert bench.open().tables.flows[3].tolist() == (11, 12)


def test_what_is_wrong_is_said_before_anything_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run().close()
    pid = bench.pid()
    with pytest.raises(DatapathError, match="--tables is the daemon's to say"):
        bench.open("--tables=x", sizes=LARGER)
    with pytest.raises(DatapathError, match="does not name lcores"):
        bench.open(sizes=LARGER, eal=("-l", "a", *EAL))
    with pytest.raises(InterfaceError, match="no TAP device"):
        bench.run(sizes=LARGER, taps=("tap9",))
    monkeypatch.setattr(dpdk, "room", lambda folder: Room(1 << 20, 1 << 40, folder))
    with pytest.raises(MachineError, match="too little memory: the tables take"):
        bench.open(sizes=LARGER)
    FakeTap.numbers["tap1"] = 8
    other = bench.open(taps=("tap1",), eal=("-m", "512", *EAL))
    with pytest.raises(MachineError, match=r"buffers 536\.9 MB, 100\.7 MB of which the worker has"):
        other.attach(["tap1"])
    assert bench.pid() == pid


def test_the_memory_of_the_old_worker_is_the_new_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended by then. Its file has not gone."""
    bench.run().close()
    tables = dpdk_share.offsets(LARGER)[1]
    monkeypatch.setattr(dpdk, "room", lambda folder: Room(tables - 1, 1 << 40, folder))
    with pytest.raises(MachineError, match="too little memory"):
        bench.open(sizes=LARGER)
    monkeypatch.setattr(dpdk, "room", lambda folder: Room(tables, 1 << 40, folder))
    second = bench.open(sizes=LARGER)
    monkeypatch.setattr(dpdk, "room", lambda folder: Room(0, 1 << 40, folder))  # all of it is taken
    second.attach(["tap0"])


# --- watching


def test_killed_and_back_at_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    datapath = bench.run()
    datapath.tables.flows[3] = 11, 12
    datapath._ready -= 2 * dpdk.SETTLED_S
    pid = bench.pid()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    tended(datapath, lambda: bench.pid() not in (0, pid), "a new worker")
    assert time.monotonic() - killed < 5  # of a machine that is busy with other tests
    tended(datapath, datapath._is_ready, "it to be ready")
    assert datapath.trouble == "the DPDK worker was killed (SIGKILL); it runs again"
    assert (
        f"the DPDK worker, pid {pid}, was killed (SIGKILL): it is started again" in caplog.messages
    )
    assert datapath.tables.flows[3].tolist() == (11, 12)


def test_one_that_ends_again_and_again_is_tried_less_often(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath = bench.run("--once")
    starts: list[float] = []
    clock = [dpdk.time.monotonic()]
    times = SimpleNamespace(
        monotonic=lambda: clock[0], monotonic_ns=lambda: int(clock[0] * 1_000_000_000)
    )
    monkeypatch.setattr(dpdk, "time", times)
    start = datapath._start

    def counted() -> None:
        starts.append(clock[0])
        start()

    monkeypatch.setattr(datapath, "_start", counted)

    def step() -> bool:
        if datapath._worker is None:
            clock[0] += 0.1
        datapath.tend()
        return len(starts) == 9

    wait_until(step, "nine starts")
    waits = [round(b - a, 1) for a, b in itertools.pairwise(starts)]
    assert waits[0] <= 0.3
    assert waits == sorted(waits)
    assert max(waits) <= dpdk.BACKOFF_MOST_S + 0.2
    ended = "the DPDK worker ended with exit code 7 (9 times by now): once is enough"
    assert datapath.trouble == f"{ended}; it is started again"


def test_during_a_wait_nothing_was_started_yet(bench: Bench) -> None:
    datapath = bench.run("--once")
    tended(datapath, lambda: datapath._next > time.monotonic(), "a wait")
    ended = r"the DPDK worker ended with exit code 7 \(\d times by now\): once is enough"
    assert re.fullmatch(rf"{ended}; it is tried again in \d\.\d s", datapath.trouble)


def test_a_program_that_is_gone_is_trouble_and_no_end(bench: Bench) -> None:
    datapath = bench.run()
    dpdk.PROGRAM.unlink()
    os.kill(bench.pid(), signal.SIGKILL)
    tended(datapath, lambda: "cannot be started" in datapath.trouble, "the trouble to be told")
    assert datapath.trouble.endswith("build it with `make build`; it is tried again in 5.0 s")


def test_tables_that_are_gone_are_the_end(bench: Bench) -> None:
    datapath = bench.run()
    datapath._ready -= 2 * dpdk.SETTLED_S  # so that it would be started at once
    pid = bench.pid()
    bench.path.unlink()
    datapath.tend()
    assert datapath.worker == pid  # who has them open goes on
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HopelessError, match=rf"the tables are gone.*\({bench.path}\): start"):
        tended(datapath, lambda: False, "the end")
    assert datapath.worker == 0


def test_trouble_is_over_when_the_worker_is_ready(bench: Bench) -> None:
    """Also where none had ended: interfaces made anew, and then no program."""
    datapath = bench.run()
    program = dpdk.PROGRAM.read_bytes()
    dpdk.PROGRAM.unlink()
    FakeTap.numbers["tap0"] = 8
    with pytest.raises(MachineError, match="cannot be started"):
        datapath.attach(["tap0"])
    datapath.tend()
    assert "cannot be started" in datapath.trouble
    dpdk.PROGRAM.write_bytes(program)
    dpdk.PROGRAM.chmod(0o755)
    datapath._next = 0.0
    tended(datapath, datapath._is_ready, "a worker")
    assert datapath.trouble == ""
    os.kill(bench.pid(), signal.SIGKILL)
    dpdk.PROGRAM.unlink()
    tended(datapath, lambda: "cannot be started" in datapath.trouble, "the trouble to be told")
    dpdk.PROGRAM.write_bytes(program)
    dpdk.PROGRAM.chmod(0o755)
    datapath._next = 0.0
    tended(datapath, datapath._is_ready, "a worker")
    assert datapath.trouble == "the DPDK worker was killed (SIGKILL); it runs again"


def test_nothing_is_started_after_the_end(bench: Bench) -> None:
    datapath = bench.run()
    datapath.remove()
    datapath.tend()
    assert bench.pid() == 0


def test_an_interface_that_was_made_anew(bench: Bench) -> None:
    """The worker holds the one that is gone."""
    datapath = bench.run()
    pid = bench.pid()
    FakeTap.numbers.clear()
    datapath.attach([])
    assert (datapath.attachments, bench.pid()) == ((), pid)
    FakeTap.numbers["tap0"] = 8
    datapath.attach(["tap0"])
    assert [a.ifindex for a in datapath.attachments] == [8]
    assert bench.pid() not in (0, pid)
    pid = bench.pid()
    datapath.attach(["tap0"])
    assert bench.pid() == pid
    datapath.close()
    FakeTap.numbers["tap0"] = 9
    assert bench.run().adopted
    assert bench.pid() not in (0, pid)


TWO: dict[str, Any] = {"taps": ("tap0", "tap1"), "eal": (*EAL, "--vdev=net_null1")}


def test_of_two_that_were_made_anew_one_cannot_be_had_yet(bench: Bench) -> None:
    """The worker gets the one that it did not get before, and later the other."""
    FakeTap.numbers["tap1"] = 8
    datapath = bench.run(**TWO)
    pid = bench.pid()
    FakeTap.numbers.update(tap0=9)
    del FakeTap.numbers["tap1"]
    with pytest.raises(InterfaceError, match="no TAP device"):
        datapath.attach(["tap0", "tap1"])
    datapath.attach(["tap0"])
    assert dpdk_eal.kernels(line(bench.pid())) == [9, 8]
    pid = bench.pid()
    FakeTap.numbers["tap1"] = 10
    datapath.attach(["tap0", "tap1"])
    assert bench.pid() not in (0, pid)
    assert dpdk_eal.kernels(line(bench.pid())) == [9, 10]
    assert [a.ifindex for a in datapath.attachments] == [9, 10]


def test_an_interface_that_is_gone_starts_nothing(bench: Bench) -> None:
    FakeTap.numbers["tap1"] = 8
    first = bench.run(**TWO)
    pid = bench.pid()
    first.close()
    second = bench.open(**TWO)
    for there in ["tap0"], ["tap0", "tap1"], ["tap0"]:
        second.attach(there)
        assert bench.pid() == pid
    del FakeTap.numbers["tap1"]
    second.attach(["tap0"])
    assert bench.pid() == pid
    FakeTap.numbers["tap1"] = 11
    second.attach(["tap0", "tap1"])
    assert dpdk_eal.kernels(line(bench.pid())) == [7, 11]


def test_other_interfaces_need_a_restart(bench: Bench) -> None:
    datapath = bench.run()
    with pytest.raises(DatapathError, match="cannot take the interface tap1 while it runs"):
        datapath.attach(["tap1"])


# --- grace periods


def test_grace_waits_for_running_lanes_alone(bench: Bench) -> None:
    datapath = bench.run("--still")
    lanes = datapath._share.lanes
    lanes["running"][[0, 3]] = 1
    lanes["rounds"][5] = 1  # of a lane that does not run
    done = threading.Event()

    def wait() -> None:
        datapath.grace()
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(20):  # it may begin late
        lanes["rounds"][0] += 1
        assert not done.wait(0.005)

    def all_go_on() -> bool:
        lanes["rounds"][[0, 3]] += 1
        return done.wait(0.005)

    wait_until(all_go_on, "the end of the grace period")
    thread.join()


def test_grace_ends_with_the_worker(bench: Bench) -> None:
    datapath = bench.run("--still")
    thread = threading.Thread(target=datapath.grace)
    thread.start()
    os.kill(bench.pid(), signal.SIGKILL)
    thread.join(10)
    assert not thread.is_alive()


def test_grace_ends_where_nobody_runs(bench: Bench) -> None:
    """Whatever a worker that was killed has left in the file."""
    datapath = bench.run("--still")
    os.kill(bench.pid(), signal.SIGKILL)
    wait_until(lambda: bench.pid() == 0, "its end")
    assert datapath._share.lanes["running"].any()
    datapath.grace()
    datapath._worker = None
    datapath.grace()


@pytest.mark.parametrize("known", [True, False])
def test_lanes_that_stand_still_are_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Also of a worker that was started in this moment, and is in the file alone."""
    monkeypatch.setattr(dpdk, "GRACE_S", 0.05)
    datapath = bench.run("--still")
    if not known:
        monkeypatch.setattr(datapath, "_worker", None)
    with pytest.raises(DatapathError, match=rf"lanes stand still .*pid {bench.pid()}.*SIGKILL"):
        datapath.grace()


# --- lanes that stand still


def test_a_worker_that_is_stopped_is_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it goes on; nobody ends it, and who waits for it is told at once."""
    monkeypatch.setattr(dpdk_rounds, "NOTICED_S", 0.05)
    datapath = bench.run()
    pid = bench.pid()
    tended(datapath, lambda: datapath._share.lanes["rounds"][0] > 1, "a round")
    assert datapath.troubles == []
    os.kill(pid, signal.SIGSTOP)
    tended(datapath, lambda: datapath.troubles, "a warning")
    (told,) = datapath.troubles
    assert told.startswith(f"worker {pid} has not come round for 0 s (lane 0): what comes in waits")
    assert told.endswith(f"published: it is stopped: `kill -CONT {pid}` lets it go on")
    monkeypatch.setattr(dpdk, "GRACE_S", 1000.0)
    with pytest.raises(DatapathError, match=rf"lanes stand still \(pid {pid}\): it is stopped"):
        datapath.grace()
    for _ in range(3):
        datapath.tend()
    os.kill(pid, signal.SIGCONT)
    tended(datapath, lambda: not datapath.troubles, "it to go on")
    assert bench.pid() == pid
    ours = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert (ours[0], len(ours)) == (told, 2)
    assert ours[1].startswith(f"worker {pid} comes round again, after ")


def test_which_lanes_stand_still() -> None:
    lanes = np.zeros(dpdk_share.LANES, dpdk_share.LANE)
    lanes["running"][:3] = 1
    lanes["rounds"][:4] = 5
    rounds = dpdk_rounds.Rounds()
    for tenth in range(40):
        lanes["rounds"][1] += 1
        assert rounds.warning == ""
        rounds.look(1 << 30, lanes, tenth / 10)
        if rounds.warning:
            break
    assert tenth == 30
    assert rounds.warning.startswith(f"worker {1 << 30} has not come round for 3 s (lanes 0, 2): ")
    lanes["rounds"][0] += 1
    rounds.look(1 << 30, lanes, 3.1)
    assert "(lane 2)" in rounds.warning
    rounds.forget()
    rounds.look(1 << 30, lanes, 1000.0)  # of a daemon that was away for long
    assert rounds.warning == ""


@pytest.mark.parametrize("flipped", [False, True])
def test_what_is_pending_is_said(
    bench: Bench, instance: Instance, monkeypatch: pytest.MonkeyPatch, flipped: bool
) -> None:
    """A worker that stops before the change is in force, or after."""
    daemon = Daemon(CONFIG, Path("x.toml"), instance)
    bench.all.append(daemon.datapath)  # type: ignore[arg-type]
    calls = []

    def grace() -> None:
        calls.append(True)
        if len(calls) == 1 + flipped:
            raise DatapathError("it stands still", "pid 1", "look")

    monkeypatch.setattr(daemon.datapath, "grace", grace)
    pending = (
        "but generation 1 is in force for all packets to come"
        if flipped
        else "and nothing has changed"
    )
    with pytest.raises(DatapathError) as caught:
        asyncio.run(daemon._publish(CONFIG))
    assert str(caught.value) == f"it stands still, {pending} (pid 1): look"
    assert daemon.datapath.tables.generation == int(flipped)


# --- in the daemon


@pytest.fixture
def instance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr("evener.instance.TABLES_FOLDER", bench.path.parent)
    return Instance("x")


def test_the_daemon_tends_it(bench: Bench, instance: Instance) -> None:
    opened = DRIVERS[Driver.DPDK](CONFIG, instance)
    assert instance.tables == bench.path
    bench.all.append(opened.datapath)  # type: ignore[arg-type]
    opened.attach(("tap0",))
    assert opened.tend is not None
    assert opened.tend() == []
    os.kill(bench.pid(), signal.SIGKILL)
    wait_until(opened.tend, "trouble")


def test_arguments_do_not_change_while_it_runs(bench: Bench, instance: Instance) -> None:
    daemon = Daemon(CONFIG, Path("x.toml"), instance)
    bench.all.append(daemon.datapath)  # type: ignore[arg-type]
    other = configuration.loads(TEXT.replace("net_null0", "net_null1"))
    (refusal,) = daemon._refusals(other)
    assert re.search(r"arguments cannot change .*\(datapath\.eal\): restart", str(refusal))
    daemon._troubles = ["it limps"]
    assert daemon.status()["warnings"] == ["it limps"]
