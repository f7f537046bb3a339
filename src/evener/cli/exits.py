# SPDX-License-Identifier: Apache-2.0
"""What the exit codes of the `evener` command mean. The classes are in evener.errors."""

from __future__ import annotations

from typing import Final

INTERRUPTED: Final = 130

EXIT_CODES: Final[tuple[tuple[int, str], ...]] = (
    (0, "done"),
    (1, "failed; of demo and bench also: the verdict is no"),
    (2, "the command line is wrong"),
    (3, "the configuration is wrong"),
    (4, "this machine lacks something: root, BPF, a newer kernel, a tool"),
    (5, "a network interface is absent or unsuitable"),
    (6, "the daemon cannot be reached, or refused"),
    (7, "the datapath failed: load, attach, publish"),
    (
        INTERRUPTED,
        "ended by Ctrl-C; 0 where that is the way to end it: run, and dpdk once it is ready",
    ),
)


def table() -> str:
    """The codes, one line each, for the help text."""
    return "\n".join(f"  {code:3}  {meaning}" for code, meaning in EXIT_CODES)
