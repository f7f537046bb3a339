# SPDX-License-Identifier: Apache-2.0
"""XDP programs on interfaces: as a link, or the old way through netlink. Use it as
`evener.datapath.bpf`.

A link is the better way: others cannot replace it by accident, its program is exchanged in one
step, it can be pinned, and it is gone with its last reference when it is not. What is attached
through netlink stays until someone takes it off or the interface goes.

Interfaces are numbers in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import socket
from enum import IntEnum, IntFlag, StrEnum
from typing import NamedTuple

from evener.datapath.libbpf import failure, ffi, forget, lib, options
from evener.datapath.objects import Handle, Program
from evener.errors import DatapathError, EvenerError, InterfaceError

_BPF_XDP = 37  # enum bpf_attach_type


class XdpAction(IntEnum):
    """What an XDP program returns (linux/bpf.h)."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


class XdpFlags(IntFlag):
    """How to attach (linux/if_link.h)."""

    NONE = 0
    UPDATE_IF_NOEXIST = 1
    GENERIC = 2
    NATIVE = 4
    OFFLOAD = 8
    REPLACE = 16


class XdpMode(StrEnum):
    """Where a program runs: in the driver, after it (slow), on the card; or there is none."""

    NONE = "none"
    NATIVE = "native"
    GENERIC = "generic"
    OFFLOAD = "offload"


class Attachment(NamedTuple):
    """The XDP program of an interface; program_id is 0 when there is none."""

    mode: XdpMode
    program_id: int


class Link(Handle):
    """A program's hold on an interface. When the last reference, pins included, goes, it is off."""

    kind = "link"

    @property
    def ifindex(self) -> int:
        """The interface, 0 once that is gone or the link was detached."""
        return int(self._info("bpf_link_info").ifindex)

    @property
    def id(self) -> int:
        """The kernel's number for the link."""
        return int(self._info("bpf_link_info").id)

    @property
    def program_id(self) -> int:
        """Which program is attached now."""
        return int(self._info("bpf_link_info").prog_id)

    def mode(self) -> XdpMode:
        """How it runs. The calling thread has to be in the interface's namespace."""
        ifindex = self.ifindex
        return query(ifindex).mode if ifindex else XdpMode.NONE

    def update_program(self, program: Program) -> None:
        """Exchange the program in one step: each packet meets the old one or the new one."""
        forget()
        if error := lib().bpf_link_update(self.fd, program.fd, options("bpf_link_update_opts")):
            raise failure("the program cannot be exchanged", program.name, error)

    def detach(self) -> None:
        """Take the program off now, whoever else holds the link; a pin of it has to be removed."""
        if error := lib().bpf_link_detach(self.fd):
            raise failure("the XDP link cannot be detached", "", error)


def attach_xdp(program: Program, ifindex: int, mode: XdpMode | None = None) -> Link:
    """Attach through a link: in the driver where it can, else in the generic way; or as told.

    InterfaceError when the interface is not there, has a program already, or cannot run it.
    """
    _name(ifindex)
    flags = {
        None: (XdpFlags.NATIVE, XdpFlags.GENERIC),
        XdpMode.NATIVE: (XdpFlags.NATIVE,),
        XdpMode.GENERIC: (XdpFlags.GENERIC,),
        XdpMode.OFFLOAD: (XdpFlags.OFFLOAD,),
    }[mode]
    fd = -errno.EINVAL
    for flag in flags:
        forget()
        more = options("bpf_link_create_opts", flags=flag)
        fd = lib().bpf_link_create(program.fd, ifindex, _BPF_XDP, more)
        if fd >= 0:
            return Link(fd)
        if fd != -errno.EOPNOTSUPP:  # the driver has no XDP at all: only then is generic an answer
            break
    raise _attach_error(program, ifindex, fd)


def attach_netlink(program: Program, ifindex: int, flags: int = XdpFlags.UPDATE_IF_NOEXIST) -> None:
    """Attach so that it stays without a reference.

    flags: XdpFlags; 0 replaces what is there, in the driver where it can, else in the generic way.
    A link's program is never replaced.
    """
    _name(ifindex)
    forget()
    if error := lib().bpf_xdp_attach(ifindex, program.fd, flags, ffi.NULL):
        raise _attach_error(program, ifindex, error)


def detach_netlink(ifindex: int, flags: int = 0) -> None:
    """Take off what was attached through netlink; harmless when there is nothing."""
    name = _name(ifindex)
    forget()
    if error := lib().bpf_xdp_detach(ifindex, flags, ffi.NULL):
        raise (
            _busy(ifindex)
            if error == -errno.EBUSY
            else failure("the XDP program cannot be taken off", name, error)
        )


def query(ifindex: int) -> Attachment:
    """The XDP program of an interface; InterfaceError when the interface is not there."""
    name = _name(ifindex)
    answer = options("bpf_xdp_query_opts")
    forget()
    if error := lib().bpf_xdp_query(ifindex, 0, answer):
        raise failure("the kernel does not say which XDP program is attached", name, error)
    for mode, program_id in (
        (XdpMode.NATIVE, answer.drv_prog_id),
        (XdpMode.GENERIC, answer.skb_prog_id),
        (XdpMode.OFFLOAD, answer.hw_prog_id),
    ):
        if program_id:
            return Attachment(mode, program_id)
    return Attachment(XdpMode.NONE, 0)


def _name(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        raise InterfaceError(
            f"there is no interface with the number {ifindex} in this network namespace",
            "",
            "'ip link' lists them",
        ) from None


def _attach_error(program: Program, ifindex: int, error: int) -> EvenerError:
    if error in (-errno.EBUSY, -errno.EEXIST):
        return _busy(ifindex)
    name = _name(ifindex)
    if error == -errno.EOPNOTSUPP:
        return InterfaceError("its driver has no native XDP", name, "use the generic mode")
    found = failure(f"the XDP program {program.name} cannot be attached", name, error)
    if isinstance(found, DatapathError):
        hint = "native XDP may want a smaller MTU, or LRO switched off; 'dmesg' may say which"
        return InterfaceError(found.what, found.where, hint + found.do)
    return found


def _busy(ifindex: int) -> InterfaceError:
    """What is there, how to see it, how to remove it."""
    name = _name(ifindex)
    try:
        there = query(ifindex)
        label = f"{Program.by_id(there.program_id).name}, id {there.program_id}, {there.mode}"
    except EvenerError:  # gone meanwhile, or hidden from this user
        label = "unknown"
    return InterfaceError(
        f"another XDP program is attached there ({label})",
        name,
        f"see it with 'ip link show dev {name}' and 'bpftool net show dev {name}'; remove it with "
        f"'ip link set dev {name} xdp off', or end the program that holds it as a link "
        f"('bpftool link show', 'bpftool link detach id N')",
    )
