# SPDX-License-Identifier: Apache-2.0
"""The driver dpdk's adapter: grace periods, lanes that stand still, and what the daemon makes of them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from evener import config as configuration
from evener.control.daemon import Daemon
from evener.control.drivers import DRIVERS
from evener.datapath import dpdk, dpdk_rounds, dpdk_share
from evener.errors import DatapathError
from evener.instance import Instance
from evener.model import Driver
from tests.support.dpdk_bench import CONFIG, TEXT, Bench, tended, wait_until

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
