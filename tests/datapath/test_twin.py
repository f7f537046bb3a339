# SPDX-License-Identifier: Apache-2.0
"""The core against its twin in Python (tests/reference/lb_model.py): random configurations, packets,
pauses, reloads. Plan and frame must be the same after each, flows and ports every few.

Few addresses and ports, and tiny tables: so that clients collide, tables run full and ports run out.
EVENER_TWIN_PACKETS is how many packets there are in all, about. Unless it is set there are 10^5, the
same ones every time.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evener._generated.reasons import Reason
from tests.support.twin import Pair, World, worlds

PACKETS = int(os.environ.get("EVENER_TWIN_PACKETS", "100000"))
FIXED = "EVENER_TWIN_PACKETS" not in os.environ
BYTES = 4  # of one step
LENGTH = 1000  # steps of a script
EXAMPLE = (
    550  # packets that come of one script, as measured: Hypothesis likes short and simple ones
)
NEVER = {Reason.NONE, Reason.FLOW_BUSY}  # the second needs two CPUs


@pytest.mark.timeout(max(120, PACKETS // 200))
def test_the_core_and_its_twin_agree() -> None:
    seen: Counter[Reason] = Counter()

    @settings(
        max_examples=max(1, PACKETS // EXAMPLE),
        deadline=None,
        derandomize=FIXED,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds(), st.binary(min_size=LENGTH * BYTES // 2, max_size=LENGTH * BYTES * 3 // 2))
    def agree(world: World, script: bytes) -> None:
        pair = Pair(world, seen)
        for at in range(0, len(script) - BYTES + 1, BYTES):
            pair.step(script[at : at + BYTES])
        pair.compare_tables()

    agree()
    print(f"\n{seen.total()} packets:", ", ".join(f"{r.name} {n}" for r, n in seen.most_common()))
    if PACKETS >= 100_000:
        assert set(Reason) - NEVER - set(seen) == set(), "what no packet came to"
