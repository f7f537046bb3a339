# SPDX-License-Identifier: Apache-2.0
"""TAP devices: interfaces of the kernel whose other end is a descriptor.

A device lives for as long as anybody holds a descriptor of it, or for good if it was made persistent
(`ip tuntap add`). Each descriptor is a queue of its own; one that is detached gets no frames, it only holds.
Numbers are from linux/if_tun.h, linux/if.h and linux/sockios.h; they are the same on all architectures that
encode ioctls in the usual way (x86, ARM, RISC-V).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from typing import Final

from evener.errors import InterfaceError, MachineError

DEVICE: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x400454CA  # _IOW('T', 202, int)
_TUNSETQUEUE: Final = 0x400454D9  # _IOW('T', 217, int)
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_MULTI_QUEUE: Final = 0x0100
_IFF_ATTACH_QUEUE: Final = 0x0200
_IFF_DETACH_QUEUE: Final = 0x0400
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_NAME_MAX: Final = 15  # IFNAMSIZ, without the byte that ends it

_IFREQ: Final = struct.Struct("=16sH22x")  # ifr_name, ifr_flags


class Tap:
    """One queue of a TAP device of the current network namespace."""

    def __init__(self, name: str, descriptor: int, ifindex: int) -> None:
        self.name = name
        self.ifindex = ifindex
        self._fd = descriptor

    @classmethod
    def open(cls, name: str) -> Tap:
        """A further queue of the device of that name, which is made if there is none, and is up afterwards.

        MachineError: this machine has no TAP devices. InterfaceError: the name is too long, or
        another device's.
        """
        if len(name.encode()) > _NAME_MAX:
            raise InterfaceError(
                f"the name of an interface has at most {_NAME_MAX} characters", name, "shorten it"
            )
        try:
            descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise MachineError(
                f"this machine makes no TAP devices ({error.strerror})",
                DEVICE,
                "load the kernel's module with `modprobe tun`, and run evener as root",
            ) from None
        try:
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_MULTI_QUEUE
            fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
            ifindex = socket.if_nametoindex(name)
            bring_up(name)
        except OSError as error:
            os.close(descriptor)
            raise _refused(name, error) from None
        return cls(name, descriptor, ifindex)

    @classmethod
    def numbered(cls, ifindex: int) -> Tap | None:
        """A further queue of the device of that number, if there is such a one."""
        try:
            tap = cls.open(socket.if_indextoname(ifindex))
        except (OSError, InterfaceError):
            return None
        if tap.ifindex == ifindex:
            return tap
        tap.close()  # its name was given to another in this moment
        return None

    def is_current(self) -> bool:
        """Whether the device of this name still is this one: it may have been deleted, or made anew."""
        try:
            return socket.if_nametoindex(self.name) == self.ifindex
        except OSError:
            return False

    def fileno(self) -> int:
        """The descriptor: each read and write is one frame."""
        return self._fd

    def detach(self) -> None:
        """Get no frames any more, and hold the device all the same."""
        self._queue(_IFF_DETACH_QUEUE)

    def attach(self) -> None:
        """Get frames again; nothing happens if it does already."""
        with contextlib.suppress(OSError):
            self._queue(_IFF_ATTACH_QUEUE)

    def _queue(self, flag: int) -> None:
        fcntl.ioctl(self._fd, _TUNSETQUEUE, _IFREQ.pack(b"", flag))

    def close(self) -> None:
        """Give the queue back; a device that is not persistent goes with its last one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def bring_up(name: str) -> None:
    """`ip link set NAME up`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
        flags = _IFREQ.unpack(answer)[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))


def _refused(name: str, error: OSError) -> InterfaceError:
    # EINVAL: no TAP device, or one for a single queue; E2BIG: too many queues (256).
    if error.errno == errno.EINVAL:
        return InterfaceError(
            "it is no TAP device with several queues, which the driver dpdk needs",
            name,
            f"let evener make it, or make it with `ip tuntap add dev {name} mode tap multi_queue`",
        )
    return InterfaceError(
        f"it cannot be used as a TAP device: {error.strerror}",
        name,
        "end what else holds it, and run evener as root",
    )
