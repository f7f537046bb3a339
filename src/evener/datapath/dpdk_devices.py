# SPDX-License-Identifier: Apache-2.0
"""Whether the interfaces that DPDK is to open are free: each is for one worker.

A worker claims them (drivers/dpdk/devices.c), by abstract Unix sockets in the network namespace where its
devices are made. They go with it, however it ends. Here is asked who has one, before anything is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evener.eal import devices, interface_of, own_value
from evener.errors import InterfaceError
from evener.netns import enter, in_thread

_CLAIM = "@evener-dpdk:"


def check_free(eal: Sequence[str], worker: int = 0) -> None:
    """InterfaceError: another worker than the process `worker` has an interface that `eal` names."""
    given = own_value(eal, "netns")

    def look() -> dict[str, str]:
        if given is not None:
            with Path(given).open("rb") as file:
                enter(file.fileno(), given)
        return claims()

    try:
        claimed = in_thread(look)
    except OSError:
        return  # the worker has the words for it
    for device in devices(eal):
        interface = interface_of(device)
        if interface not in claimed:
            continue
        pid = owner(claimed[interface])
        if not pid or pid != worker:
            raise InterfaceError(
                f"{interface} is in use by another worker" + (f", process {pid}" if pid else ""),
                device,
                "end the evener that it belongs to, or itself if that is gone; or name another interface",
            )


def claims() -> dict[str, str]:
    """Interfaces of the calling thread's network namespace that workers have, and their sockets' inodes.

    A line of that file: "0000000000000000: 00000002 00000000 00000000 0001 01 4711 @evener-dpdk:tap0".
    """
    rows = (line.split() for line in Path("/proc/thread-self/net/unix").read_text().splitlines())
    return {
        row[7].removeprefix(_CLAIM): row[6]
        for row in rows
        if len(row) == 8 and row[7].startswith(_CLAIM)
    }


def owner(inode: str) -> int:
    """The process that has a socket open; 0 if none can be seen."""
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(path.readlink()) == f"socket:[{inode}]":
                return int(path.parts[2])
        except OSError:  # it has just ended, or is not ours to look at
            continue
    return 0
