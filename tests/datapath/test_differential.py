# SPDX-License-Identifier: Apache-2.0
"""One source, two machines: random and mutated packets through the simulator and through XDP. The same
plans, the same bytes, and afterwards the same memory.

Traced packets all go the long way, where plans can be compared; so every other thousand is not traced,
and its settled flows go the quick way, which the simulator has not.

This guards the idea that one source serves several drivers: a compiler, the verifier's masks, or an
environment that differs would show here. EVENER_DIFFERENTIAL_PACKETS is how many packets; unless it
is set there are 10^5, the same ones every time. 10^7 take some ten minutes.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import numpy as np
import pytest

from evener._generated.reasons import Reason
from tests.support.bpf import needs_bpf
from tests.support.traffic import Traffic

PACKETS = int(os.environ.get("EVENER_DIFFERENTIAL_PACKETS", "100000"))
SEED = 1 if "EVENER_DIFFERENTIAL_PACKETS" not in os.environ else random.randrange(1 << 32)
CHUNK = 1000  # no more than the rings hold
SAME = ("flows", "ports", "locks", "learned", "wanted")
SUMMED = ("service_counters", "backend_counters", "reason_counters")


@needs_bpf
@pytest.mark.timeout(max(120, PACKETS // 200))
def test_simulator_and_xdp_agree() -> None:
    from tests.support.machine import SimMachine
    from tests.support.xdp_machine import XdpMachine, expected_action

    sim, xdp = SimMachine(), XdpMachine()
    traffic = Traffic(random.Random(SEED), sim, xdp)
    seen: Counter[int] = Counter()
    for start in range(0, PACKETS, CHUNK):
        where = f"seed {SEED}, packets from {start}"
        frames, outcomes = traffic.chunk(CHUNK)
        traced = start // CHUNK % 2
        xdp.tables.settings["trace"] = traced
        results = [xdp.program.test_run(frame) for frame in frames]
        views = np.array([outcome.view for outcome in outcomes])
        plans = np.array([outcome.plan for outcome in outcomes])
        events = xdp.events(len(frames)) if traced else {"view": views, "plan": plans}
        for n in np.flatnonzero((events["view"] != views) | (events["plan"] != plans)):
            both = (
                f"sim {plans[n]}\nxdp {events['plan'][n]}\nsim {views[n]}\nxdp {events['view'][n]}"
            )
            pytest.fail(f"{where}: {frames[n].hex()}\n{both}")
        for frame, outcome, result in zip(frames, outcomes, results, strict=True):
            assert outcome.frame == result.data, f"{where}: {frame.hex()}"
        pairs = zip(plans["verdict"].tolist(), plans["nexthop"]["ifindex"].tolist(), strict=True)
        wanted = [expected_action(verdict, ifindex) for verdict, ifindex in pairs]
        assert [result.retval for result in results] == wanted, where
        for name in SAME:
            a, b = (machine.tables.raw(name).view(np.uint8) for machine in (sim, xdp))
            assert np.array_equal(a, b), f"{where}: {name}"
        for name in SUMMED:
            mine, theirs = (_sums(getattr(machine.tables, name)) for machine in (sim, xdp))
            assert np.array_equal(mine, theirs), f"{where}: {name}"
        seen.update(plans["reason"].tolist())
        if (start + CHUNK) % 1_000_000 == 0:
            print(f"\nseed {SEED}: {start + CHUNK} packets, no difference", end="", flush=True)
    print(f"\nseed {SEED}:", ", ".join(f"{Reason(r).name} {n}" for r, n in seen.most_common()))
    sim.close()
    xdp.close()


def _sums(rows: np.ndarray) -> np.ndarray:
    """Over all CPUs."""
    words = rows.view(np.uint64).reshape(len(rows), -1)
    return words.sum(axis=0)
