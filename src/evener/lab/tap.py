# SPDX-License-Identifier: Apache-2.0
"""Persistent TAP devices, which stay when the program at their other end is gone, and with them what was
set up around them: a place in a bridge, addresses, routes.
"""

from __future__ import annotations

import fcntl
import socket

from evener.datapath.tap import Tap
from evener.errors import InterfaceError

_TUNSETPERSIST = 0x400454CB  # linux/if_tun.h


def make(name: str) -> int:
    """Make a TAP with several queues in the *current* namespace, up; its interface number.

    Raises InterfaceError when the name is taken or bad, MachineError when this machine has no TAPs.
    """
    if exists(name):
        raise InterfaceError("an interface of this name is there already", name)
    tap = Tap.open(name)
    try:
        fcntl.ioctl(tap.fileno(), _TUNSETPERSIST, 1)
    finally:
        tap.close()
    return tap.ifindex


def exists(name: str) -> bool:
    """Whether the *current* namespace has an interface of this name."""
    return name in (known for _, known in socket.if_nameindex())
