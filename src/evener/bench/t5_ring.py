# SPDX-License-Identifier: Apache-2.0
"""Tier T5, the sum of it: the worker's own round on a ring device, one lcore, beside a loop that only
swaps MAC addresses on the same device (bench/t5_ring.c)."""

from __future__ import annotations

import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evener.bench.dut import VIP
from evener.bench.measure import Spread
from evener.bench.t5_tables import PROGRAMS, shared_tables
from evener.datapath import dpdk_eal, hugefs
from evener.errors import DatapathError
from evener.instance import TABLES_FOLDER

PROGRAM: Final = PROGRAMS / "t5_ring"
_LOST_MAX: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Case:
    """Nanoseconds for each packet, devices included, of the worker and of macswap in the same runs."""

    direction: str
    flows: int
    evener: Spread
    macswap: Spread


def run(cpu: int, counts: tuple[int, ...], runs: int, packets: int) -> list[Case]:
    """Both directions at each number of flows, drawn uniformly from a table that holds the largest.

    DatapathError: the bench could not run, or packets met another end than being forwarded.
    """
    place = hugefs.ensure(TABLES_FOLDER)  # where the daemon has them
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        path = Path(folder, "tables")
        shared_tables(path, counts[-1])
        eal = dpdk_eal.complete(["-l", str(cpu)], ports=1)
        numbers = [VIP[0], VIP[1], runs, packets, *counts]
        done = subprocess.run(
            [PROGRAM, *eal, "--", path, *map(str, numbers)], capture_output=True, text=True
        )
    if done.returncode != 0:
        raise DatapathError("the ring bench failed", PROGRAM.name, done.stderr.strip()[-300:])
    return _cases(done.stdout, packets)


def _cases(lines: str, packets: int) -> list[Case]:
    """From lines of: direction flows target nanoseconds forwarded."""
    taken: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines.splitlines():
        direction, flows, target, ns, forwarded = line.split()
        if int(forwarded) < packets * (1 - _LOST_MAX):
            raise DatapathError(
                f"of {packets} packets {forwarded} were forwarded", f"{direction} {flows}", target
            )
        taken[direction, int(flows)][target].append(float(ns))
    return [
        Case(direction, flows, Spread.of(by["evener"]), Spread.of(by["macswap"]))
        for (direction, flows), by in taken.items()
    ]
