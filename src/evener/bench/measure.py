# SPDX-License-Identifier: Apache-2.0
"""Interleaved runs, and what may be concluded from them.

The program under test and the null target (the empty program) take turns: A, B, A, B. What is
reported is the distribution of the differences of neighbours, so that a machine that gets slower for
a while slows both. The first pairs are thrown away. Nothing should be concluded when the null
target's own spread is beyond 5 % or the hypervisor took more than 1 % of the CPU: the result says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

SPREAD_MAX: Final = 0.05
STEAL_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of nanoseconds for each packet."""

    median: float
    p10: float
    p90: float
    least: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        p10, median, p90 = np.percentile(values, [10, 50, 90])
        return cls(float(median), float(p10), float(p90), float(min(values)))

    @property
    def relative(self) -> float:
        """How far apart p10 and p90 are, as a share of the median."""
        return (self.p90 - self.p10) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """net: program less null target, pair by pair; best: the least of one less the least of the
    other, which a busy machine disturbs least. gross and null: as they were measured."""

    net: Spread
    gross: Spread
    null: Spread
    best: float
    steal: float
    pairs: int

    def doubts(self) -> list[str]:
        """Why nothing should be concluded; empty when it may."""
        found = []
        if self.null.relative > SPREAD_MAX:
            found.append(f"the null target varies by {self.null.relative:.0%}")
        if self.steal > STEAL_MAX:
            found.append(f"the hypervisor took {self.steal:.1%} of the CPU")
        return found


def compare(
    program: Callable[[], float], null: Callable[[], float], *, pairs: int, warm_up: int, cpu: int
) -> Comparison:
    """Call both in turn; each makes one run and returns nanoseconds for each packet."""
    for _ in range(warm_up):
        program()
        null()
    before = cpu_times(cpu)
    taken = [(program(), null()) for _ in range(pairs)]
    after = cpu_times(cpu)
    gross, floor = [a for a, _ in taken], [b for _, b in taken]
    total = sum(after) - sum(before)
    return Comparison(
        net=Spread.of([a - b for a, b in taken]),
        gross=Spread.of(gross),
        null=Spread.of(floor),
        best=min(gross) - min(floor),
        steal=(after[7] - before[7]) / total if total else 0.0,
        pairs=pairs,
    )


def cpu_times(cpu: int) -> list[int]:
    """Ticks of one CPU as /proc/stat has them, without those of guests (already in user time)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            return [int(n) for n in ticks[:8]]
    raise ValueError(f"this machine has no CPU {cpu}")


def pin(cpu: int | None) -> int:
    """Keep this thread on one CPU, the last that it may use unless one is named; which."""
    chosen = max(os.sched_getaffinity(0)) if cpu is None else cpu
    os.sched_setaffinity(0, {chosen})
    return chosen
