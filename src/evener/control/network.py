# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of the network, followed through netlink: links, neighbours and routes.

The datapath sends frames by itself, so it needs MAC addresses. The kernel finds them out and watches
over them; here they are read, and the kernel is asked for those that are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from evener.tables.effective import Network, NextHop, Prefixes, Route

log = logging.getLogger("evener")

# linux/neighbour.h
_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable .. probe, noarp, permanent
_PERMANENT: Final = 0x40 | 0x80
_USE: Final = 0x01  # NTF_USE: as if a packet were to be sent there
_SETTLE_S: Final = 0.02  # events within this time are one change
_MAIN_TABLE: Final = 254
_GROUPS: Final = 0x1 | 0x4 | 0x40  # RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_ROUTE
_LINK_EVENTS: Final = ("RTM_NEWLINK", "RTM_DELLINK")
_AGAIN_S: Final = 0.5  # between two attempts to read everything anew


@dataclass(slots=True)
class _Seen:
    """The kernel's tables as the messages told them."""

    links: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    neighbours: dict[tuple[int, IPv4Address], bytes] = field(default_factory=dict)
    routes: dict[tuple[IPv4Network, int], tuple[IPv4Address | None, int]] = field(
        default_factory=dict
    )


def _mac(text: str | None) -> bytes | None:
    return bytes.fromhex(text.replace(":", "")) if text else None


def note(seen: _Seen, message: Any) -> bool:
    """Take one netlink message in; whether it changed anything."""
    event = message.get("event", "")
    if event in _LINK_EVENTS:
        return _note_link(seen, message, event)
    if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
        return _note_neighbour(seen, message, event)
    if event in ("RTM_NEWROUTE", "RTM_DELROUTE"):
        return _note_route(seen, message, event)
    return False


def _change(table: dict[Any, Any], key: Any, value: Any) -> bool:
    if table.get(key) == value:
        return False
    if value is None:
        del table[key]
    else:
        table[key] = value
    return True


def _note_link(seen: _Seen, message: Any, event: str) -> bool:
    if message["family"] != 0:  # a bridge telling of its ports: one that leaves is a link still
        return False
    address = _mac(message.get_attr("IFLA_ADDRESS"))
    gone = event == "RTM_DELLINK"
    ethernet = not gone and address is not None and len(address) == 6
    name = None if gone else message.get_attr("IFLA_IFNAME")
    renamed = _change(seen.names, message["index"], name)
    return _change(seen.links, message["index"], address if ethernet else None) or renamed


def _note_neighbour(seen: _Seen, message: Any, event: str) -> bool:
    if message["family"] != 2:
        return False
    key = (message["ifindex"], IPv4Address(message.get_attr("NDA_DST")))
    address = _mac(message.get_attr("NDA_LLADDR"))
    usable = event == "RTM_NEWNEIGH" and message["state"] & _USABLE and address
    return _change(seen.neighbours, key, address if usable else None)


def _note_route(seen: _Seen, message: Any, event: str) -> bool:
    table = message.get_attr("RTA_TABLE") or message["table"]
    if message["family"] != 2 or table != _MAIN_TABLE or message["type"] != 1:
        return False
    network = IPv4Network((message.get_attr("RTA_DST") or "0.0.0.0", message["dst_len"]))
    metric = message.get_attr("RTA_PRIORITY") or 0
    hops = message.get_attr("RTA_MULTIPATH") or [message]  # of several gateways the first
    gateway = hops[0].get_attr("RTA_GATEWAY")
    oif = message.get_attr("RTA_OIF") or hops[0].get("oif", 0)
    value = (IPv4Address(gateway) if gateway else None, oif)
    return _change(seen.routes, (network, metric), value if event == "RTM_NEWROUTE" else None)


def network_of(seen: _Seen) -> Network:
    """The network as the tables want it: neighbours on any link, routes longest prefix first."""
    hops: dict[IPv4Address, dict[int, NextHop]] = {}
    for (ifindex, address), mac in sorted(seen.neighbours.items(), key=lambda i: i[0][::-1]):
        if ifindex in seen.links:
            found = NextHop(mac, seen.links[ifindex], ifindex)
            hops.setdefault(address, {})[ifindex] = found
    routes = _routes(seen)
    neighbours = {address: _chosen(address, of, routes) for address, of in hops.items()}

    def gateway(address: IPv4Address | None, ifindex: int) -> NextHop | None:
        there = hops.get(address, {}) if address else {}
        return there.get(ifindex) or (neighbours.get(address) if address else None)

    return Network(neighbours, tuple(Route(n, gateway(*hop)) for n, hop in routes.items()))


def _routes(seen: _Seen) -> dict[IPv4Network, tuple[IPv4Address | None, int]]:
    """Gateway and interface of each prefix, by the route with the least metric; longest prefix first."""
    best: dict[IPv4Network, tuple[IPv4Address | None, int]] = {}
    for (network, _), hop in sorted(
        seen.routes.items(), key=lambda i: (-i[0][0].prefixlen, i[0][1])
    ):
        best.setdefault(network, hop)
    return best


def _chosen(
    address: IPv4Address,
    hops: dict[int, NextHop],
    routes: dict[IPv4Network, tuple[IPv4Address | None, int]],
) -> NextHop:
    """Of an address that is known on several links the one that the kernel's own packets would take,
    else that on the link with the lowest number."""
    if len(hops) > 1:
        for network, (_, ifindex) in routes.items():
            if address in network:
                return hops.get(ifindex) or hops[min(hops)]
    return hops[min(hops)]


def _interfaces(seen: _Seen) -> dict[str, int]:
    return {name: index for index, name in seen.names.items()}


class NetworkWatcher:
    """Follows the kernel and calls `changed(network)` when something that matters did change, and
    `links_changed()` when interfaces came, went, or were renamed.

    Two sockets: one is told of changes, the other asks. When changes come faster than they are read, the
    kernel drops some and says so (ENOBUFS): then the first is opened anew and everything is read again.
    """

    def __init__(
        self, changed: Callable[[Network], None], links_changed: Callable[[], None] = lambda: None
    ) -> None:
        self._changed = changed
        self._links_changed = links_changed
        self._seen = _Seen()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ways: Prefixes[tuple[IPv4Address | None, int]] | None = None  # None: not as seen
        self.network = Network()
        self.interfaces: dict[str, int] = {}
        """Every interface's number by its name."""

    async def start(self) -> None:
        """Read everything once, then follow."""
        from pyroute2 import AsyncIPRoute

        self._ipr = AsyncIPRoute()
        self._events = await self._subscribe()
        self.network, self.interfaces = network_of(self._seen), _interfaces(self._seen)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer; nothing is called again."""
        self._changed, self._links_changed = lambda _: None, lambda: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._events.close()
            self._ipr.close()

    async def _subscribe(self) -> Any:
        """A socket that is told of changes, and everything as it was at some time after it was opened."""
        from pyroute2 import AsyncIPRoute

        events = AsyncIPRoute()
        await events.bind(_GROUPS)
        seen = _Seen()
        for dump in ("get_links", "get_neighbours", "get_routes"):
            await self._read(dump, seen)
        self._seen = seen
        return events

    async def _read(self, dump: str, seen: _Seen) -> None:
        async for message in await getattr(self._ipr, dump)():
            note(seen, message)

    async def _follow(self) -> None:
        while True:
            try:
                await self._take_batch()
            except Exception as error:
                log.warning("the network's changes were not heard (%s): reading it anew", error)
                await self._start_again()

    async def _take_batch(self) -> None:
        changed = links = False
        async for message in self._events.get():
            changed |= note(self._seen, message)
            links |= message.get("event") in _LINK_EVENTS
        if links:  # IPv4 routes go with their link without a word (fib_sync_down_dev)
            now = _Seen()
            await self._read("get_routes", now)
            self._seen.routes = now.routes
        if changed or links:
            self._settle_soon()

    async def _start_again(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                events = await self._subscribe()
            except Exception as error:
                log.error("the kernel does not tell of the network: %s", error)
                continue
            self._events.close()
            self._events = events
            self._settle_soon()
            return

    def _settle_soon(self) -> None:
        self._ways = None
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() <= loop.time():
            self._timer = loop.call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        network = network_of(self._seen)
        interfaces = _interfaces(self._seen)
        before, self.interfaces = self.interfaces, interfaces
        if network != self.network:
            self.network = network
            self._changed(network)
        if interfaces != before:
            self._links_changed()

    def gateway_of(self, address: IPv4Address) -> tuple[IPv4Address, int] | None:
        """Whom to ask ARP for to reach an address, and on which interface."""
        if self._ways is None:
            self._ways = Prefixes(_routes(self._seen).items())
        way = self._ways.find(address)
        return (way[0] or address, way[1]) if way else None

    async def resolve(self, addresses: Iterable[IPv4Address]) -> None:
        """Ask the kernel to find out, or confirm, the MAC addresses on the way to these."""
        targets = {t for a in addresses if (t := self.gateway_of(a)) is not None}
        for address, ifindex in targets:
            with contextlib.suppress(Exception):  # the interface may be going
                await self._ipr.neigh(
                    "replace", dst=str(address), ifindex=ifindex, flags=_USE, state=0
                )
