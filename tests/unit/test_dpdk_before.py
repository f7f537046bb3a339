# SPDX-License-Identifier: Apache-2.0
"""The driver dpdk's adapter and what was there before: a worker that is adopted, or that another replaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evener.datapath import dpdk, dpdk_eal, dpdk_share, dpdk_worker
from evener.datapath.dpdk import DpdkDatapath
from evener.datapath.dpdk_share import Room
from evener.errors import DatapathError, InterfaceError, MachineError
from evener.tables.memory import Sizes
from tests.support.dpdk_bench import EAL, SIZES, Bench, FakeTap, line, tended, wait_until

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
