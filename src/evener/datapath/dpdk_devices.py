# SPDX-License-Identifier: Apache-2.0
"""Whether the interfaces that DPDK is to open are free: each is for one worker.

A worker holds them (drivers/dpdk/devices.c), by files that it has locked, named after the network namespace
where its devices are made. Here is asked who has one, before anything is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evener.datapath.dpdk_share import holder
from evener.eal import devices, interface_of, own_value
from evener.errors import InterfaceError
from evener.instance import RUN_FOLDER


def check_free(eal: Sequence[str], worker: int = 0) -> None:
    """InterfaceError: another worker than the process `worker` has an interface that `eal` names, or it names
    one twice."""
    try:
        namespace = Path(own_value(eal, "netns") or "/proc/thread-self/ns/net").stat().st_ino
    except OSError:
        return  # the worker has the words for it
    named: set[str] = set()
    for device in devices(eal):
        interface = interface_of(device)
        if not interface:
            continue
        if interface in named:
            raise InterfaceError(f"{interface} is named twice", device, "name each interface once")
        named.add(interface)
        pid = holder(file_of(namespace, interface))
        if pid and pid != worker:
            raise InterfaceError(
                f"{interface} is in use by another worker, process {pid}",
                device,
                "end the evener that it belongs to, or itself if that is gone; or name another interface",
            )


def file_of(namespace: int, interface: str) -> Path:
    """What the worker of an interface has locked. namespace: its inode number."""
    return RUN_FOLDER / f"net-{namespace}.port.{interface}"
