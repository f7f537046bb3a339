# SPDX-License-Identifier: Apache-2.0
"""Tables for the worker of tier T5: the same configuration as T1's, in a shared file, at a time that
stands still (a run's flows must not age while others are measured)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evener.bench import dut
from evener.datapath import native
from evener.datapath.dpdk_share import Share
from evener.tables.compile import Ids, compile_tables
from evener.tables.effective import merge
from evener.tables.memory import Sizes
from evener.tables.publish import publish

NEVER_NS: Final = 1 << 62
SEED: Final = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89)
"""Digits of pi: a run is like any other."""
PROGRAMS: Final = Path(__file__).parents[1] / "_native"


def shared_tables(path: Path, flows: int, lanes: int = 1) -> Share:
    """A file at `path` with the configuration in force and no flows."""
    config = dut.configuration(flows)
    sizes = Sizes.for_config(config, lanes)
    share = Share.make(path, sizes)
    share.head["second_ns"] = NEVER_NS
    share.tables.prepare(SEED)
    compiled = compile_tables(
        merge(config, dut.network(config)),
        Ids.empty(sizes),
        sizes,
        share.tables.seed,
        native.maglev,
    )
    publish(share.tables, compiled, lambda: None)
    return share
