# SPDX-License-Identifier: Apache-2.0
"""What a thread does inside another network namespace, and what ethtool does.

A namespace belongs to a thread, so work inside one is done by a short-lived thread that enters it; the
calling thread never moves. (Python 3.11 has no `os.setns`, hence ctypes.)
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from evener.errors import EvenerError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_SIOCETHTOOL = 0x8946
_IFNAMSIZ = 16

libc = ctypes.CDLL(None, use_errno=True)


class Offload(Enum):
    """A feature that `ethtool -K` can switch: the number that asks for it, the one that sets it."""

    TX_CHECKSUM = (0x16, 0x17)  # ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM
    GRO = (0x2B, 0x2C)  # ETHTOOL_GGRO, ETHTOOL_SGRO


def enter(descriptor: int, what: str) -> None:
    """Move the calling thread, and what it starts from now on, into the namespace of an open file, for
    good; OSError that names `what`."""
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise os_error(f"setns to {what}")


def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own and wait for it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def os_error(what: str) -> OSError:
    """The failure of the call of libc before this one."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def offload(interface: str, which: Offload) -> bool:
    """Whether a feature of an interface of the *current* namespace is on ."""
    return _ethtool(interface, which.value[0], 0) != 0


def set_offload(interface: str, which: Offload, on: bool) -> None:
    """Switch a feature of an interface of the *current* namespace.

    Raises EvenerError when there is no such interface or its device does not obey.
    """
    _ethtool(interface, which.value[1], int(on))
    if offload(interface, which) != on:
        raise EvenerError(f"the device keeps {which.name} {'off' if on else 'on'}", interface)


def _ethtool(interface: str, command: int, value: int) -> int:
    """One ETHTOOL ioctl with a struct ethtool_value {u32 cmd, data}; returns its data."""
    request = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
    ifreq = struct.pack(f"{_IFNAMSIZ}sP16x", interface.encode(), ctypes.addressof(request))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, ifreq)
        except OSError as error:
            raise EvenerError(
                f"ethtool request {command:#x} failed: {error.strerror}", interface
            ) from error
    data: int = struct.unpack("=II", request.raw)[1]
    return data
