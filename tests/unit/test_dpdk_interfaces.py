# SPDX-License-Identifier: Apache-2.0
"""What becomes of the interfaces of DPDK's devices is told, and what the kernel counts of them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyroute2.netlink.exceptions import NetlinkError

from evener.control import devices
from evener.control.devices import Devices, Interface
from evener.datapath import dpdk_counts
from evener.datapath.dpdk_share import HEAD, LINK_DOWN
from evener.observe import counters

WELL = Interface(5, up=True, carrier=True, master="br0", rx_dropped=0, tx_dropped=0)
TAP = "--vdev=net_tap0,iface=tapdpdk"
OWN = ("--", "--tables=x", "--netns=/run/netns/sw")


class Machine:
    """A worker, the interfaces that there are, and a look at both each time that it is asked."""

    def __init__(self, *eal: str) -> None:
        self.there: dict[str, Interface] = {}
        self.eal = eal
        self.pid = 7
        self.head = np.zeros(1, HEAD)[0]
        self.devices = Devices(len(eal))
        self.now = 1000.0
        self.alive = True
        self.lines = 2  # times that it has a command line, at one look
        self.error: Exception | None = None  # of who asks the kernel

    def warnings(self) -> list[str]:
        lines = iter([["evener-dpdk", *self.eal, *OWN]] * self.lines)
        worker: Any = SimpleNamespace(
            pid=self.pid,
            line=lambda: next(lines, []),
            alive=lambda wait_s: self.alive,
        )
        self.now += devices.LOOK_EVERY_S
        self.devices.look(worker, self.head, self.now)
        return self.devices.warnings

    def missed(self) -> list[int | None]:
        self.warnings()
        drivers = [e.removeprefix("--vdev=").partition("0")[0] for e in self.eal]
        names = [f"eth{number}" for number in range(len(self.eal))]
        rows = counters.frames(dpdk_counts.counts(self.head, names, drivers))
        (row,) = (row for row in rows if row["counter"] == "imissed")
        return [row["frames"], *row["by"].values()]


Make = Callable[..., Machine]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(*eal: str) -> Machine:
        machine = Machine(*eal)

        def interfaces(namespace: Path, names: set[str]) -> dict[str, Interface]:
            assert namespace == Path(f"/proc/{machine.pid}/ns/net")
            if machine.error is not None:
                raise machine.error
            return {name: machine.there[name] for name in names & machine.there.keys()}

        monkeypatch.setattr(devices, "interfaces", interfaces)
        return machine

    return made


def test_down_and_without_a_carrier(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    machine = make(TAP)
    machine.there["tapdpdk"] = WELL
    assert machine.warnings() == []
    machine.there["tapdpdk"] = replace(WELL, up=False)
    down = "interface tapdpdk is down, so nothing is received: `ip -n sw link set tapdpdk up`"
    assert machine.warnings() == machine.warnings() == [down]
    machine.there["tapdpdk"] = replace(WELL, carrier=False)
    other = "interface tapdpdk has no carrier, so nothing is received: look at its other end"
    assert machine.warnings() == [other]
    machine.there["tapdpdk"] = WELL
    assert machine.warnings() == []
    assert caplog.messages == [down, other, "interface tapdpdk is as it should be again"]


def test_gone_and_made_anew(make: Make) -> None:
    machine = make(TAP)
    machine.there["tapdpdk"] = WELL
    machine.warnings()
    machine.there.clear()
    end = "end the worker (SIGTERM): another one opens it"
    assert machine.warnings() == [
        f"interface tapdpdk is gone, so nothing is received: make it again as it was, then {end}"
    ]
    machine.there["tapdpdk"] = replace(WELL, ifindex=6)
    anew = f"interface tapdpdk was made anew, and the worker has the one that is gone: {end}"
    assert machine.warnings() == [anew]
    for _ in range(2):
        machine.devices = Devices(1)  # the next daemon, and one more
        assert machine.warnings() == machine.warnings() == [anew]
    machine.pid = 8
    assert machine.warnings() == []


def test_made_anew_by_the_worker(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """net_tap does so, without a word; the bridge has no part in it."""
    machine = make(TAP)
    machine.there["tapdpdk"] = WELL
    machine.warnings()
    machine.pid = 8
    machine.there["tapdpdk"] = replace(WELL, ifindex=6, master="")
    join = "is not in br0 any more, in which it was: `ip -n sw link set tapdpdk master br0`"
    assert machine.warnings() == [f"interface tapdpdk was gone and has been made anew, and {join}"]
    machine.there["tapdpdk"] = replace(WELL, ifindex=6)
    assert machine.warnings() == []
    machine.there["tapdpdk"] = replace(WELL, ifindex=6, master="")
    assert machine.warnings() == [f"interface tapdpdk {join}"]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), KeyError("index"), NetlinkError(105)]
)
def test_a_look_that_fails(make: Make, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """It is told, beside what was seen before; unless it fails because the worker has ended."""
    machine = make(TAP)
    gone = machine.warnings()
    machine.error, machine.alive = error, False
    assert machine.warnings() == gone
    machine.alive = True
    fails = "the look at DPDK's devices fails, so warnings of them and imissed are old: "
    fails += f"{type(error).__name__}: {error}"
    assert machine.warnings() == machine.warnings() == [*gone, fails]
    machine.error, machine.pid = None, 8
    assert machine.warnings() == gone
    assert caplog.messages == [*gone, fails, "the look at DPDK's devices is as it should be again"]


@pytest.mark.parametrize("lines", [0, 1])
def test_a_worker_that_ends(make: Make, lines: int) -> None:
    """First its command line goes, then what it has open."""
    machine = make("--vdev=net_af_packet0,iface=wire0", TAP)
    machine.there = {"wire0": WELL, "tapdpdk": WELL}
    machine.head["link"][0] = LINK_DOWN  # the kernel says otherwise
    assert machine.warnings() == []
    machine.lines = lines
    del machine.there["tapdpdk"]
    assert machine.warnings() == []


def test_a_worker_with_other_devices(make: Make) -> None:
    """Of those of the one before, nothing is said any more, nor what they once were."""
    machine = make(TAP, "--vdev=net_vhost0")
    machine.there["tapdpdk"] = WELL
    machine.warnings()
    machine.there = {"tapother": WELL}
    machine.head["link"][1] = LINK_DOWN
    assert [text.partition(" is ")[0] for text in machine.warnings()] == [
        "interface tapdpdk",
        "the link of DPDK port 1 (net_vhost)",
    ]
    machine.pid, machine.eal = 8, ("--vdev=net_tap0,iface=tapother", "--vdev=net_ring0")
    machine.head["link"][1] = 0
    assert machine.warnings() == []
    machine.pid, machine.eal = 9, (TAP, "--vdev=net_ring0")
    machine.there = {"tapdpdk": replace(WELL, ifindex=6, master="")}  # of its own
    assert machine.warnings() == []


@pytest.mark.parametrize("device", ["net_vhost0,iface=/x", "net_vhost0,iface=foo%d", "net_vhost0"])
def test_what_has_no_interface_tells_itself(make: Make, device: str) -> None:
    """Neither a path nor a pattern is one."""
    machine = make(f"--vdev={device}", TAP)
    machine.there["tapdpdk"] = WELL
    assert machine.warnings() == []
    machine.head["link"][0] = LINK_DOWN
    machine.head["link"][1] = LINK_DOWN  # the kernel says otherwise
    assert machine.warnings() == [
        "the link of DPDK port 0 (net_vhost) is down, so nothing is received: look at its other end"
    ]


def test_what_the_kernel_counts_is_missed(make: Make) -> None:
    """From when the interface was first seen, and on when a worker has the one that was made anew."""
    machine = make(TAP, "--vdev=net_af_xdp0,iface=wire0", "--vdev=net_af_packet0,iface=wire1")
    machine.there["tapdpdk"] = replace(WELL, tx_dropped=100, rx_dropped=1)
    machine.there["wire0"] = replace(WELL, ifindex=9, rx_dropped=5)
    assert machine.missed() == [0, 0, 0, None]
    machine.there["tapdpdk"] = replace(WELL, tx_dropped=130)
    assert machine.missed() == [30, 30, 0, None]
    machine.there["wire0"] = replace(WELL, ifindex=9, rx_dropped=7)
    machine.there["tapdpdk"] = replace(WELL, ifindex=6)
    assert machine.missed() == [32, 30, 2, None]
    machine.there["tapdpdk"] = replace(WELL, ifindex=6, tx_dropped=4)  # not the one it has
    machine.head["device"]["imissed"][2] = 3  # a later DPDK may count
    assert machine.missed() == [35, 30, 2, 3]
    machine.pid = 8
    machine.there["tapdpdk"] = replace(WELL, ifindex=6, tx_dropped=9)  # while nobody had it
    assert machine.missed() == [35, 30, 2, 3]
    machine.devices = Devices(3)  # the next daemon
    machine.there["tapdpdk"] = replace(WELL, ifindex=6, tx_dropped=10)
    assert machine.missed() == [36, 31, 2, 3]


def test_where_nobody_counts(make: Make) -> None:
    assert make("--vdev=net_af_packet0,iface=wire0").missed() == [None, None]
