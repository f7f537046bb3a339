# SPDX-License-Identifier: Apache-2.0
"""Whom the kernel is asked to find, by its routes as they were told. The kernel itself is in tests/netns."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from evener.control import network
from evener.control.network import NetworkWatcher

ROUTES = {
    "0.0.0.0/0": ("10.0.0.254", 1),
    "10.0.0.0/24": (None, 1),
    "198.51.100.0/24": ("10.0.0.253", 1),
}


class Kernel:
    """In the place of a netlink socket: keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, int]] = set()

    async def neigh(self, what: str, dst: str, ifindex: int, **rest: Any) -> None:
        """Note it."""
        self.asked.add((dst, ifindex))


def test_routes_are_put_in_order_once_for_all_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be thousands, and it is done twice a second."""
    calls, routes = [], network._routes

    def counted(seen: Any) -> Any:
        calls.append(True)
        return routes(seen)

    monkeypatch.setattr(network, "_routes", counted)

    async def work() -> None:
        watcher = NetworkWatcher(lambda _: None)
        watcher._ipr = kernel = Kernel()
        seen = watcher._seen.routes
        for text, (gateway, ifindex) in ROUTES.items():
            hop = IPv4Address(gateway) if gateway else None
            seen[IPv4Network(text), 0] = hop, ifindex
        for _ in range(2):
            await watcher.resolve(
                IPv4Address(f"{of}.7") for of in ("10.0.0", "198.51.100", "8.8.8")
            )
        assert kernel.asked == {("10.0.0.7", 1), ("10.0.0.253", 1), ("10.0.0.254", 1)}
        assert len(calls) == 1
        del seen[IPv4Network("198.51.100.0/24"), 0]
        watcher._settle_soon()
        assert watcher.gateway_of(IPv4Address("198.51.100.7")) == (IPv4Address("10.0.0.254"), 1)
        seen.clear()
        watcher._settle_soon()
        assert watcher.gateway_of(IPv4Address("198.51.100.7")) is None

    asyncio.run(work())
