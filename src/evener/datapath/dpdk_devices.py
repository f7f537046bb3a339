# SPDX-License-Identifier: Apache-2.0
"""Whether the interfaces that DPDK is to open are free: each is for one worker.

A worker holds them (drivers/dpdk/devices.c), by files that it has locked, named after the network namespace
where its devices are made. Here is asked who has one, before anything is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evener.datapath.dpdk_eal import namespace
from evener.datapath.dpdk_share import holder
from evener.eal import devices, interface_of
from evener.errors import InterfaceError
from evener.instance import Instance


def check_free(eal: Sequence[str], worker: int = 0) -> None:
    """InterfaceError: another worker than the process `worker` has an interface that `eal` names, or it names
    one twice."""
    try:
        path = namespace(eal)
        place = Instance.of(Path(path).stat().st_ino) if path else Instance.here()
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
        pid = holder(place.port(interface))
        if pid and pid != worker:
            raise InterfaceError(
                f"{interface} is in use by another worker, process {pid}",
                device,
                "end the evener that it belongs to, or itself if that is gone; or name another interface",
            )
