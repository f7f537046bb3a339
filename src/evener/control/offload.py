# SPDX-License-Identifier: Apache-2.0
"""Frames whose checksum nobody finished.

On a veth with transmit checksum offload the sender leaves the checksum to a card that is not there; the
receiving kernel knows, an XDP program cannot. What counts is the setting of the veth's other end, through
which every frame to us passes: with the offload off there, the kernel finishes the checksum on the way
(validate_xmit_skb, net/core/dev.c).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from evener.errors import InterfaceError

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GTXCSUM: Final = 0x16
_CLONE_NEWNET: Final = 0x40000000


def refuse_offload(interface: str) -> None:
    """InterfaceError if `interface` is a veth whose other end sends with transmit checksum offload."""
    peer = _peer(interface)
    if peer is None:
        return
    namespace, name = peer
    place = f"in the network namespace {namespace}" if namespace else "in this network namespace"
    command = f"ethtool -K {name} tx off"
    if namespace:
        command = f"nsenter --net={namespace} {command}"
    raise InterfaceError(
        f"frames reach {interface} with unfinished checksums: transmit checksum offload is on at "
        f"{name}, the other end of this veth, {place}",
        interface,
        f"switch it off: {command}",
    )


def _peer(interface: str) -> tuple[str, str] | None:
    """Namespace (a path; empty: this one) and name of a veth's other end whose offload is on."""
    from pyroute2 import IPRoute

    with IPRoute() as ipr:
        link = ipr.get_links(ifname=interface)[0]
        info = link.get_attr("IFLA_LINKINFO")
        if info is None or info.get_attr("IFLA_INFO_KIND") != "veth":
            return None
        index, nsid = link.get_attr("IFLA_LINK"), link.get_attr("IFLA_LINK_NETNSID")
        if nsid is None:
            name = socket.if_indextoname(index)
            return ("", name) if _sends_unfinished(name) else None
        for path in _namespaces():
            with contextlib.suppress(OSError), path.open() as handle:
                if _netnsid(ipr, handle.fileno()) == nsid:
                    inside = _inside(handle.fileno(), index)
                    return (str(path), inside) if inside else None
    return None


def _netnsid(ipr: Any, fd: int) -> int | None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        answer = ipr.get_netnsid(fd=fd)
    except NetlinkError:
        return None
    return int(answer["nsid"]) if isinstance(answer, dict) else int(answer)


def _namespaces() -> Iterator[Path]:
    """Every network namespace that has a name or a process, once."""
    seen: set[int] = set()
    for path in (*Path("/run/netns").glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        with contextlib.suppress(OSError):
            if (inode := path.stat().st_ino) not in seen:
                seen.add(inode)
                yield path


def _sends_unfinished(name: str) -> bool:
    """Whether transmit checksum offload is on for an interface of the calling thread's namespace."""
    value = bytearray(struct.pack("II", _ETHTOOL_GTXCSUM, 0))
    pointer = ctypes.addressof(ctypes.c_char.from_buffer(value))
    request = struct.pack("16sP8x", name.encode(), pointer)
    with socket.socket() as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError:
            return False
    return bool(struct.unpack("II", value)[1])


def _inside(namespace: int, index: int) -> str | None:
    """In that namespace: the name of interface `index` if its offload is on."""
    found: list[str] = []

    def look() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        name = socket.if_indextoname(index)
        if _sends_unfinished(name):
            found.append(name)

    def attempt() -> None:
        with contextlib.suppress(OSError):
            look()

    # setns moves one thread only, and this one ends.
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return found[0] if found else None
