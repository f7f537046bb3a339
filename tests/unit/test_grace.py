# SPDX-License-Identifier: Apache-2.0
"""Both ways to a grace period wait for an RCU reader; that they do is the kernel's promise, that they
are called rightly is tested here."""

from __future__ import annotations

import time

from evener.datapath import grace
from tests.support.bpf import needs_bpf


@needs_bpf
def test_the_second_way_waits_for_the_kernel() -> None:
    wait = grace.by_map_update()
    wait()  # the first one may find the kernel's grace period machinery in any state
    began = time.perf_counter()
    for _ in range(5):
        wait()
    # An update of a plain array map takes about a microsecond; five grace periods take far more.
    assert time.perf_counter() - began > 5 * 100e-6


@needs_bpf
def test_a_grace_period_ends() -> None:
    grace.grace()
