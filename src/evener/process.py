# SPDX-License-Identifier: Apache-2.0
"""What the system tells of processes, and how one ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path


def fields(pid: int) -> list[str]:
    """Fields 3 (the state) and up of /proc/PID/stat; empty when the process is gone, or may not be looked at.

    "4711 (name) S 4710 ...", where the name may have any character in it.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def ancestry() -> Iterator[int]:
    """This process, its parent, and so on, for as far as can be seen."""
    pid = os.getpid()
    while pid > 0:
        yield pid
        pid = int(next(iter(fields(pid)[1:]), 0))


def ending(code: int) -> str:
    """How a process ended, as half a sentence. code: as subprocess.Popen has it."""
    if code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"
