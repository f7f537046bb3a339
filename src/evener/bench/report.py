# SPDX-License-Identifier: Apache-2.0
"""Figures beside their goals, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evener import __version__
from evener.bench import elf
from evener.bench.cases import GOALS, Bench, Measured
from evener.datapath import xdp

PROGRAM = "lb_xdp"
_OTHER_PROGRAMS = frozenset({"lb_clock"})  # in the object, but no packet meets them


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is counted, not timed."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def hit(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


@dataclass(slots=True)
class Report:
    """Everything that one call of `evener bench` found out."""

    cpu: int
    figures: list[Figure] = field(default_factory=list)
    cases: list[Measured] = field(default_factory=list)
    aged: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every goal that was measured is hit."""
        hits = [figure.hit for figure in self.figures] + [case.hit for case in self.cases]
        return False not in hits

    def doubts(self) -> list[str]:
        """Case by case, why nothing should be concluded."""
        return [f"{c.name}: {doubt}" for c in self.cases for doubt in c.comparison.doubts()]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "tier": "T1",
            "evener": __version__,
            "machine": machine() | {"cpu": self.cpu},
            "ok": self.ok,
            "doubts": self.doubts(),
            "records_used_before": self.aged,
            "figures": [asdict(figure) | {"hit": figure.hit} for figure in self.figures],
            "cases": [asdict(case) | {"goal": case.goal, "hit": case.hit} for case in self.cases],
        }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    words = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "processor": words[0] if words else platform.machine(),
        "processors": os.cpu_count(),
    }


def sizes(bench: Bench) -> list[Figure]:
    """Memory and program."""
    info = bench.dut.program.info()
    lengths = elf.functions(xdp.OBJECT)
    total = sum(n for name, n in lengths.items() if name not in _OTHER_PROGRAMS)
    bytes_per_flow = bench.dut.bytes_per_flow()
    # A small table has the same least number of ports as a large one: it says nothing about the goal.
    goal = GOALS["bytes per flow"] if bench.dut.capacity >= 1_000_000 else None
    return [
        Figure("bytes per flow", bytes_per_flow, "B", goal),
        Figure("instructions", total, "", GOALS["instructions"]),
        Figure("instructions without calls", lengths[PROGRAM], ""),
        Figure("instructions in the kernel", info.instructions, ""),
        Figure("instructions verified", info.verified_instructions, ""),
        Figure("machine code", info.jited_bytes, "B"),
        Figure("loading", bench.dut.load_seconds * 1e3, "ms"),
    ]


def measure(bench: Bench, told: Callable[[str], object]) -> Report:
    """Run everything; `told` gets each line of the table as it is known."""
    report = Report(bench.cpu, sizes(bench))
    told(_CASE.format("ns for each packet", "median", "p10", "p90", "best", "goal", ""))
    for case in bench.run():
        report.cases.append(case)
        told(case_line(case))
    report.aged = bench.aged
    told("")
    for figure in report.figures:
        told(figure_line(figure))
    told("")
    for line in footnotes(report, bench):
        told(line)
    return report


_CASE = "{:<28}{:>9}{:>9}{:>9}{:>9}{:>7}  {}"


def _goal(goal: float | None) -> str:
    return "" if goal is None else f"{goal:.0f}"


def _verdict(hit: bool | None) -> str:
    return {None: "", True: "hit", False: "miss"}[hit]


def case_line(case: Measured) -> str:
    """One row; what the program takes beyond the null target."""
    net = case.comparison.net
    numbers = (net.median, net.p10, net.p90, case.comparison.best)
    texts = [f"{number:.1f}" for number in numbers]
    return _CASE.format(case.name, *texts, _goal(case.goal), _verdict(case.hit)).rstrip()


def figure_line(figure: Figure) -> str:
    """One row of what is counted."""
    value = f"{figure.value:,.1f}" if figure.value % 1 else f"{figure.value:,.0f}"
    return _CASE.format(
        figure.name, f"{value} {figure.unit}".strip(), "", "", "", _goal(figure.goal), ""
    ).rstrip() + (f"  {_verdict(figure.hit)}" if figure.hit is not None else "")


def footnotes(report: Report, bench: Bench) -> list[str]:
    """What a reader has to know to trust the figures, or not to."""
    effort, first = bench.effort, report.cases[0].comparison
    lines = [
        f"Each figure: {effort.pairs} runs of {effort.packets:,} packets ({effort.new:,} of new flows).",
        f"Runs take turns with a program that does nothing ({first.null.median:.1f} ns, subtracted).",
        "best: the least of all runs less the least of those.",
        f"Table for {effort.flows:,} flows. Aged: {report.aged:.1%} of its records had been used.",
    ]
    for case in report.cases:
        if len(case.met) > 1:
            met = ", ".join(f"{n:,} {name}" for name, n in case.met.items())
            lines.append(f"{case.name}: {met}.")
    doubts = report.doubts()
    if doubts:
        lines.append("WARNING: conclude nothing from these, the machine was not quiet:")
        lines.extend(f"  {doubt}" for doubt in doubts)
    return lines
