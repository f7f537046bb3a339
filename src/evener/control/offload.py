# SPDX-License-Identifier: Apache-2.0
"""Frames whose checksum nobody finished.

On a veth with transmit checksum offload the sender leaves the checksum to a card that is not there; the
receiving kernel knows, an XDP program cannot. What counts is the setting of the veth's other end, through
which every frame to us passes: with the offload off there, the kernel finishes the checksum on the way
(validate_xmit_skb, net/core/dev.c).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evener.errors import EvenerError, InterfaceError
from evener.netns import Offload, enter, in_thread, offload


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
    try:
        return offload(name, Offload.TX_CHECKSUM)
    except EvenerError:  # it is going, or its driver has no such thing
        return False


def _inside(namespace: int, index: int) -> str | None:
    """In that namespace: the name of interface `index` if its offload is on."""

    def look() -> str | None:
        enter(namespace, "the other end's namespace")
        name = socket.if_indextoname(index)
        return name if _sends_unfinished(name) else None

    try:
        return in_thread(look)
    except OSError:
        return None
