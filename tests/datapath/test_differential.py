# SPDX-License-Identifier: Apache-2.0
"""One source, two machines: random and mutated packets through the simulator and through XDP or DPDK. The
same plans, the same bytes in the same order, and afterwards the same memory.

Traced packets all go the long way, where plans can be compared; so every other thousand is not traced,
and its settled flows go the quick way, which the simulator has not. DPDK gets the packets of a thousand
as they come, or all at once after it was paused: then it handles them by the dozen.

This guards the idea that one source serves several drivers: a compiler, the verifier's masks, or an
environment that differs would show here. EVENER_DIFFERENTIAL_PACKETS is how many packets; unless it
is set there are 10^5, the same ones every time. 10^7 take some ten minutes.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from evener._generated.reasons import Reason, Verdict
from evener.datapath.sim import Outcome
from tests.support.bpf import needs_bpf, needs_namespaces
from tests.support.dpdk_machine import DpdkMachine
from tests.support.machine import SimMachine, TableMachine
from tests.support.traffic import Traffic

PACKETS = int(os.environ.get("EVENER_DIFFERENTIAL_PACKETS", "100000"))
SEED = 1 if "EVENER_DIFFERENTIAL_PACKETS" not in os.environ else random.randrange(1 << 32)
CHUNK = 1000  # no more than the rings hold
PROGRAMS = (("evener-dpdk", PACKETS), ("evener-dpdk-asan", PACKETS // 10))
SAME = ("flows", "ports", "locks", "learned", "wanted")
SUMMED = ("service_counters", "backend_counters", "reason_counters")

Outcomes = list[Outcome]


@needs_bpf
@pytest.mark.timeout(max(120, PACKETS // 200))
def test_simulator_and_xdp_agree() -> None:
    from tests.support.xdp_machine import XdpMachine, expected_action

    xdp = XdpMachine()

    def chunk(number: int, frames: list[bytes], outcomes: Outcomes) -> None:
        results = [xdp.program.test_run(frame) for frame in frames]
        for frame, outcome, result in zip(frames, outcomes, results, strict=True):
            assert outcome.frame == result.data, frame.hex()
            plan = outcome.plan
            wanted = expected_action(int(plan["verdict"]), int(plan["nexthop"]["ifindex"]))
            assert result.retval == wanted, frame.hex()

    agree(xdp, PACKETS, chunk)


@needs_namespaces
@pytest.mark.timeout(max(120, PACKETS // 200))
@pytest.mark.parametrize(("program", "packets"), PROGRAMS)
def test_simulator_and_dpdk_agree(program: str, packets: int) -> None:
    dpdk = DpdkMachine(program=program)

    def chunk(number: int, frames: list[bytes], outcomes: Outcomes) -> None:
        wanted: dict[int, list[bytes]] = {verdict: [] for verdict in Verdict}
        for outcome in outcomes:
            wanted[int(outcome.plan["verdict"])].append(outcome.frame)
        forwarded, passed = wanted[Verdict.FORWARD], wanted[Verdict.PASS]
        if number % 4 < 2:
            dpdk.worker.pause()
        dpdk.put(frames)
        dpdk.worker.go_on()
        dpdk.handled(len(frames))
        sent, given = dpdk.take(len(forwarded), len(passed))
        for which, expected, found in (("sent", forwarded, sent), ("given", passed, given)):
            for n, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
                assert ours == theirs, f"{which}, number {n}: {ours.hex()}\n{theirs.hex()}"
        lane = dpdk.share.lanes[0]
        lost = ("tx_full", "in_pieces", "too_long", "kernel_full", "from_kernel")
        assert [int(lane[name]) for name in lost] == [0] * len(lost)

    agree(dpdk, packets, chunk)


def agree(
    machine: TableMachine, packets: int, chunk: Callable[[int, list[bytes], Outcomes], None]
) -> None:
    """Send the same through the simulator and through `machine`, which it closes. `chunk(number,
    frames, outcomes)` sends frames through `machine` and compares what came out."""
    with closing(SimMachine()) as sim, closing(machine):
        _agree(sim, machine, packets, chunk)


def _agree(
    sim: TableMachine,
    machine: TableMachine,
    packets: int,
    chunk: Callable[[int, list[bytes], Outcomes], None],
) -> None:
    traffic = Traffic(random.Random(SEED), sim, machine)
    seen: Counter[int] = Counter()
    for start in range(0, packets, CHUNK):
        where = f"seed {SEED}, packets from {start}"
        frames, outcomes = traffic.chunk(CHUNK)
        traced = start // CHUNK % 2
        machine.tables.settings["trace"] = traced
        try:
            chunk(start // CHUNK, frames, outcomes)
        except AssertionError as error:
            raise AssertionError(where) from error
        views = np.array([outcome.view for outcome in outcomes])
        plans = np.array([outcome.plan for outcome in outcomes])
        events = machine.events(len(frames)) if traced else {"view": views, "plan": plans}
        for n in np.flatnonzero((events["view"] != views) | (events["plan"] != plans)):
            both = (
                f"sim {plans[n]}\nnot {events['plan'][n]}\nsim {views[n]}\nnot {events['view'][n]}"
            )
            pytest.fail(f"{where}: {frames[n].hex()}\n{both}")
        for name in SAME:
            a, b = (side.tables.raw(name).view(np.uint8) for side in (sim, machine))
            assert np.array_equal(a, b), f"{where}: {name}"
        for name in SUMMED:
            mine, theirs = (_sums(getattr(side.tables, name)) for side in (sim, machine))
            assert np.array_equal(mine, theirs), f"{where}: {name}"
        seen.update(plans["reason"].tolist())
        if (start + CHUNK) % 1_000_000 == 0:
            print(f"\nseed {SEED}: {start + CHUNK} packets, no difference", end="", flush=True)
    print(f"\nseed {SEED}:", ", ".join(f"{Reason(r).name} {n}" for r, n in seen.most_common()))


def _sums(rows: np.ndarray) -> np.ndarray:
    """Over all CPUs."""
    words = rows.view(np.uint64).reshape(len(rows), -1)
    return words.sum(axis=0)
