# SPDX-License-Identifier: Apache-2.0
"""The driver dpdk's adapter and its worker (tests/support/fake_worker.py): starting, ending, watching."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evener import instance as instances
from evener.datapath import dpdk, dpdk_eal, dpdk_worker
from evener.datapath.base import HopelessError, Lane
from evener.datapath.dpdk_share import Room
from evener.errors import DatapathError, InterfaceError, MachineError
from evener.instance import Instance
from evener.lock import locked
from tests.support.dpdk_bench import EAL, SIZES, Bench, FakeTap, line, tended, wait_until

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
