# SPDX-License-Identifier: Apache-2.0
"""Tier T5, counted: machine instructions for a packet of an established flow (bench/t5_count.c under
callgrind, which is exact: the same number every time)."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

from evener.bench.t5_tables import PROGRAMS
from evener.errors import DatapathError

PROGRAM: Final = PROGRAMS / "t5_count"
_BURST: Final = 32
_BURSTS: Final = 10


def instructions(direction: str) -> float | None:
    """For each packet, "forward" or "reply"; None if valgrind is not installed."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, "--toggle-collect=t5_burst", PROGRAM, direction, str(_BURSTS)],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise DatapathError("callgrind failed", PROGRAM.name, done.stderr.strip()[-300:])
    return int(found[1]) / (_BURSTS * _BURST)
