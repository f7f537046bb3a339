# SPDX-License-Identifier: Apache-2.0
"""Tier T5: the DPDK form. What a packet costs on a ring device, how many come through a real one, and how
many instructions one takes, each beside its goal and beside macswap in the same run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from evener import __version__
from evener.bench import t5_count, t5_ring, t5_wire
from evener.bench.cases import thousands
from evener.bench.report import machine
from evener.errors import MachineError

GOAL_NS: Final = ("forward", 1_000_000, 45.0)
GOAL_SHARE: Final = 0.8
GOAL_INSTRUCTIONS: Final = ("forward", 150)
_ROW = "{:<34}{:>9}{:>9}{:>9}{:>9}{:>7}  {}"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    counts: tuple[int, ...]
    runs: int
    packets: int
    wire_flows: int
    wire_runs: int
    wire_seconds: float


FULL: Final = Effort((1_000, 64_000, 1_000_000), 20, 200_000, 1_000, 5, 2.0)
QUICK: Final = Effort((1_000, 20_000), 2, 3_200, 100, 1, 0.3)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: `goal` is None where there is none; below: whether less is better."""

    name: str
    texts: tuple[str, ...]
    value: float
    goal: float | None = None
    below: bool = True

    @property
    def hit(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.below else self.value >= self.goal


@dataclass(slots=True)
class Report:
    """Everything that one call found out."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every goal that was measured is hit."""
        return all(row.hit is not False for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "tier": "T5",
            "evener": __version__,
            "machine": machine(),
            "ok": self.ok,
            "rows": [asdict(row) | {"hit": row.hit} for row in self.rows],
            "left_out": self.left_out,
        }


def measure(effort: Effort, cpu: int, told: Callable[[str], object]) -> Report:
    """Run everything; `told` gets each line as it is known. MachineError: built without libdpdk."""
    if not t5_ring.PROGRAM.exists():
        raise MachineError(
            "this evener was built without DPDK",
            t5_ring.PROGRAM.name,
            "install Debian's packages libdpdk-dev and pkgconf, then `make build`",
        )
    report = Report()

    def add(row: Row) -> None:
        report.rows.append(row)
        goal = "" if row.goal is None else f"{row.goal:g}"
        verdict = {None: "", True: "hit", False: "miss"}[row.hit]
        told(_ROW.format(row.name, *row.texts, goal, verdict).rstrip())

    told(
        _ROW.format(
            "ns for each packet, ring device", "median", "p10", "best", "macswap", "goal", ""
        )
    )
    for case in t5_ring.run(cpu, effort.counts, effort.runs, effort.packets):
        add(_ring_row(case))
    told("")
    _wire(effort, cpu, report, add, told)
    told("")
    for direction in ("forward", "reply"):
        count = t5_count.instructions(direction)
        if count is None:
            report.left_out.append("instructions: valgrind is not installed")
            break
        goal = GOAL_INSTRUCTIONS[1] if direction == GOAL_INSTRUCTIONS[0] else None
        name = f"instructions, {direction}"
        add(Row(name, (f"{count:.0f}", "", "", ""), count, goal))
    for line in report.left_out:
        told(f"left out: {line}")
    return report


def _ring_row(case: t5_ring.Case) -> Row:
    ns = case.evener
    goal = GOAL_NS[2] if (case.direction, case.flows) == GOAL_NS[:2] else None
    texts = (*(f"{n:.1f}" for n in (ns.median, ns.p10, ns.least)), f"{case.macswap.median:.1f}")
    return Row(f"{case.direction} {thousands(case.flows)}", texts, ns.median, goal)


def _wire(
    effort: Effort,
    cpu: int,
    report: Report,
    add: Callable[[Row], None],
    told: Callable[[str], object],
) -> None:
    others = os.sched_getaffinity(0) - {cpu}
    if t5_wire.testpmd() is None:
        report.left_out.append("af_xdp: dpdk-testpmd is not installed (Debian's dpdk-dev)")
    elif not others:
        report.left_out.append("af_xdp: it takes two CPUs")
    else:
        told(_ROW.format("packets/s, af_xdp over veth", "evener", "", "", "macswap", "goal", ""))
        found = t5_wire.run(
            min(others), cpu, effort.wire_flows, effort.wire_runs, effort.wire_seconds
        )
        evener, macswap = (sorted(of)[len(of) // 2] for of in (found.evener, found.macswap))
        texts = (f"{evener:,.0f}", "", "", f"{macswap:,.0f}")
        name = f"forward {thousands(found.flows)}, share {found.share:.0%}"
        add(Row(name, texts, found.share, GOAL_SHARE, below=False))
