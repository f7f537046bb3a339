# SPDX-License-Identifier: Apache-2.0
"""What tier T1 measures, and the goals.

Flows are drawn uniformly from those in a table that is filled to its nominal capacity, so a case with
a thousand flows has them scattered over all of it. "overlapped": as the kernel's loop runs, the next
packet may begin while memory is still awaited for the one before. "serialised": the next flow is known
only when the packet before is done, as when packets arrive one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from evener._generated.reasons import Reason
from evener.bench.driver import ACK, PSH, SYN, Driver
from evener.bench.dut import VIP, Dut, difference, require
from evener.bench.measure import Comparison, compare
from evener.datapath import bpf
from evener.tables.memory import Array

GOALS: Final = {
    "forward 1k": 30.0,
    "forward 1M": 168.0,
    "new, fresh table": 220.0,
    "new, aged table": 220.0,
    "bytes per flow": 40.0,
    "instructions": 1200.0,
}
"""What each figure should be at most: nanoseconds for cases, else as the name says."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure; flows: the table's nominal capacity."""

    flows: int
    counts: tuple[int, ...]
    pairs: int
    warm_up: int
    packets: int  # of one run
    new: int  # of one run that opens flows


FULL: Final = Effort(
    1_000_000, (1, 1_000, 16_000, 64_000, 256_000, 1_000_000), 20, 3, 250_000, 20_000
)
QUICK: Final = Effort(20_000, (1, 1_000, 20_000), 3, 1, 4_000, 500)


@dataclass(frozen=True, slots=True)
class Case:
    """One figure. start: set the driver up; reason: what its packets have to meet."""

    name: str
    reason: Reason | None
    packets: int
    start: Callable[[Driver], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A case and what came out; met: how many of its packets met which reason."""

    name: str
    comparison: Comparison
    packets: int
    met: dict[str, int]

    @property
    def goal(self) -> float | None:
        return GOALS.get(self.name)

    @property
    def hit(self) -> bool | None:
        """Whether the median is within the goal; None: there is none."""
        return None if self.goal is None else self.comparison.net.median <= self.goal


def thousands(count: int) -> str:
    """1, 1k, 256k, 1M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)


class Bench:
    """The cases of T1 on one CPU, in the order in which the table can be had for them."""

    def __init__(self, effort: Effort, cpu: int) -> None:
        self.effort, self.cpu = effort, cpu
        self.driver = Driver()
        self.dut = Dut(effort.flows)
        self.aged: float = 0.0

    def run(self) -> Iterator[Measured]:
        """Every case, one after the other."""
        yield self._measure("empty program", None, self.driver.empty, self._forward(1))
        yield self._measure("reflector", None, self.driver.reflect, self._forward(1))
        yield self._new("new, fresh table")
        self._clear()
        self.dut.establish(self.driver, self.effort.flows)
        for count in self.effort.counts:
            yield self._established(f"forward {thousands(count)}", self._forward(count))
        for count in (self.effort.counts[1], self.effort.counts[-1]):
            label = thousands(count)
            start = self._forward(count, serialised=True)
            yield self._established(f"forward {label}, serialised", start)
        answers = self.driver.ends[: self.effort.flows].copy()
        for serialised in (False, True):
            for count in (self.effort.counts[1], self.effort.counts[-1]):
                name = f"reply {thousands(count)}" + (", serialised" if serialised else "")
                self._script(answers, count)
                start = self._reply(serialised)
                yield self._measure(name, Reason.REPLY, self.dut.program, start)
        self._clear()
        self.aged = self.dut.age(self.driver)
        yield self._new("new, aged table")

    def _clear(self) -> None:
        """The flow tables as they are when loaded; nothing runs meanwhile."""
        for name in ("flows", "ports"):
            self.dut.tables.raw(name).view(np.uint8)[:] = 0

    def _forward(self, count: int, serialised: bool = False) -> Callable[[], None]:
        return lambda: self.driver.client(VIP, ACK | PSH, uniform=count, serialised=serialised)

    def _reply(self, serialised: bool) -> Callable[[], None]:
        return lambda: self.driver.backends(ACK | PSH, serialised=serialised)

    def _script(self, answers: Array, count: int) -> None:
        """Backends' frames for flows drawn uniformly from the first `count`, ready to be read in order,
        so that the driver's own memory is prefetched."""
        drawn = np.random.default_rng(1).integers(0, count, len(self.driver.ends))
        self.driver.ends[:] = answers[drawn]

    def _established(self, name: str, start: Callable[[], None]) -> Measured:
        return self._measure(name, Reason.FORWARD, self.dut.program, start)

    def _new(self, name: str) -> Measured:
        def start() -> None:
            self.driver.client(VIP, SYN, first=self.dut.fresh_clients(self.effort.new))

        return self._measure(name, Reason.FORWARD_NEW, self.dut.program, start, self.effort.new)

    def _measure(
        self,
        name: str,
        reason: Reason | None,
        program: bpf.Program,
        start: Callable[[], None],
        packets: int = 0,
    ) -> Measured:
        """One case; each run begins with `start`, the null target's too, on frames of the same kind."""
        packets = packets or self.effort.packets
        before = self.dut.reasons()

        def run(target: bpf.Program) -> float:
            self.driver.aim(target)
            start()
            return self.driver.run(packets).ns

        comparison = compare(
            lambda: run(program),
            lambda: run(self.driver.empty),
            pairs=self.effort.pairs,
            warm_up=self.effort.warm_up,
            cpu=self.cpu,
        )
        met = difference(self.dut.reasons(), before)
        sent = packets * (self.effort.pairs + self.effort.warm_up)
        if reason is not None:
            require(met, reason, sent, sent)
        return Measured(name, comparison, sent, met)
