# SPDX-License-Identifier: Apache-2.0
"""The interfaces that DPDK's virtual devices open, as the kernel knows them.

Many such devices say that their link is up whatever becomes of the interface, and do not count what they had
no room for. The kernel knows, in the network namespace in which the worker made its devices. What has no
interface, a card for example, tells of its link itself, through the shared file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evener import netns
from evener.datapath import dpdk_counts, dpdk_eal
from evener.datapath.dpdk_share import LINK_DOWN
from evener.datapath.dpdk_worker import Worker

log = logging.getLogger("evener")

LOOK_EVERY_S: Final = 1.0
ENDS_S: Final = 0.1  # a process that ends may be without its namespaces for so long before it has
_LOOK: Final = "the look at DPDK's devices"
_UP: Final = 0x1  # linux/if.h
_RUNNING: Final = 0x40


@dataclass(frozen=True, slots=True)
class Interface:
    """What the kernel says of one. master: the name of the bridge that it is in, or the like."""

    ifindex: int
    up: bool
    carrier: bool
    master: str
    rx_dropped: int
    tx_dropped: int


def interfaces(namespace: Path, names: Iterable[str]) -> dict[str, Interface]:
    """Those of these names that a network namespace has. OSError: there is no such namespace."""

    def ask() -> dict[str, Interface]:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        with namespace.open("rb") as file:
            netns.enter(file.fileno(), str(namespace))
        found = {}
        with IPRoute() as kernel:
            for name in names:
                try:
                    (link,) = kernel.link("get", ifname=name)
                    master = link.get_attr("IFLA_MASTER")
                    above = kernel.link("get", index=master)[0] if master else None
                except NetlinkError:
                    continue
                found[name] = _read(link, above)
        return found

    return netns.in_thread(ask)


def _read(link: Any, master: Any) -> Interface:
    counted = link.get_attr("IFLA_STATS64")
    return Interface(
        link["index"],
        bool(link["flags"] & _UP),
        bool(link["flags"] & _RUNNING),
        master.get_attr("IFLA_IFNAME") if master is not None else "",
        counted["rx_dropped"],
        counted["tx_dropped"],
    )


class Devices:
    """Those of the worker's ports. warnings: what is wrong with them now, sentences."""

    def __init__(self, ports: int) -> None:
        self._said: dict[str, str] = {}
        self._next = 0.0
        self._ports = ports
        self._pid = 0
        self._opened: dict[str, int] = {}  # numbers of the interfaces that this worker has
        self._last: dict[str, Interface] = {}  # as they were when all was well

    @property
    def warnings(self) -> list[str]:
        """Those of the last look; while there is no worker, nobody can look."""
        return [text for text in self._said.values() if text]

    def look(self, worker: Worker | None, head: Any, now: float) -> None:
        """To be called several times a second. worker: one that is ready; head: dpdk_share.HEAD."""
        if worker is None or now < self._next:
            return
        self._next = now + LOOK_EVERY_S
        try:
            self._look(worker, head)
        except Exception as error:  # the datapath's other troubles are to be told all the same
            if worker.alive(ENDS_S):
                why = f"{type(error).__name__}: {error}"
                self._tell(_LOOK, f"fails, so warnings of them and imissed are old: {why}")
        else:
            self._tell(_LOOK, "")

    def _look(self, worker: Worker, head: Any) -> None:
        line = worker.line()
        wires = dpdk_eal.wires(line[1:], self._ports)
        there = interfaces(
            Path(f"/proc/{worker.pid}/ns/net"), {w.interface for w in wires if w.interface}
        )
        if not (line and worker.line()):
            return  # it ends: it has no command line any more, then no devices, and at last no namespace
        if self._pid != worker.pid:
            self._pid, self._opened = worker.pid, {n: i.ifindex for n, i in there.items()}
            self._recall(wires, head["kernel"])
            self._forget(wires)
        ip = _ip(dpdk_eal.namespace(line))
        for port, wire in enumerate(wires):
            if not wire.interface:
                down = head["link"][port] == LINK_DOWN
                self._tell(
                    _what(port, wire),
                    "is down, so nothing is received: look at its other end" if down else "",
                )
                continue
            found = there.get(wire.interface)
            self._tell(_what(port, wire), self._trouble(wire.interface, found, ip))
            if found is not None and found.ifindex == self._opened.get(wire.interface):
                dpdk_counts.note_missed(
                    head["kernel"][port],
                    worker.pid,
                    found.ifindex,
                    getattr(found, dpdk_counts.KERNEL_COUNTS.get(wire.driver, "rx_dropped")),
                )

    def _recall(self, wires: Sequence[dpdk_eal.Wire], records: Any) -> None:
        """Which interfaces the worker has, where a daemon before this one has noted it."""
        for wire, record in zip(wires, records, strict=False):
            if wire.interface and record["ifindex"] and record["worker"] == self._pid:
                self._opened[wire.interface] = int(record["ifindex"])

    def _forget(self, wires: Sequence[dpdk_eal.Wire]) -> None:
        """What is not among a new worker's: nobody looks at it any more."""
        whats = {_what(port, wire) for port, wire in enumerate(wires)}
        self._said = {w: text for w, text in self._said.items() if w in whats or w == _LOOK}
        names = {wire.interface for wire in wires}
        self._last = {name: last for name, last in self._last.items() if name in names}

    def _trouble(self, name: str, found: Interface | None, ip: str) -> str:
        """What is wrong with an interface: the end of a sentence, or nothing."""
        open_it = "end the worker (SIGTERM): another one opens it"
        if found is None:
            return f"is gone, so nothing is received: make it again as it was, then {open_it}"
        if self._opened.get(name) != found.ifindex:
            return f"was made anew, and the worker has the one that is gone: {open_it}"
        if not found.up:
            return f"is down, so nothing is received: `{ip} link set {name} up`"
        if not found.carrier:
            return "has no carrier, so nothing is received: look at its other end"
        before = self._last.get(name, found)
        anew = "was gone and has been made anew, and " if before.ifindex != found.ifindex else ""
        if before.master and not found.master:  # net_tap makes one where there is none
            join = f"`{ip} link set {name} master {before.master}`"
            return f"{anew}is not in {before.master} any more, in which it was: {join}"
        if anew:
            log.warning(
                "interface %s was gone and has been made anew: what it had, it has no more", name
            )
        self._last[name] = found
        return ""

    def _tell(self, what: str, text: str) -> None:
        said = f"{what} {text}" if text else ""
        before, self._said[what] = self._said.get(what, ""), said
        if said and said != before:
            log.warning("%s", said)
        elif before and not said:
            log.warning("%s is as it should be again", what)


def _what(port: int, wire: dpdk_eal.Wire) -> str:
    if wire.interface:
        return f"interface {wire.interface}"
    return f"the link of DPDK port {port} ({wire.driver})"


def _ip(namespace: str) -> str:
    """The command `ip` for a worker's --netns."""
    path = Path(namespace)
    if not namespace:
        return "ip"
    return f"ip -n {path.name}" if path.parent.name == "netns" else f"nsenter --net={path} ip"
