# SPDX-License-Identifier: Apache-2.0
"""The kernel's network, followed through netlink: what it says, what it does not say, what it drops.

This process ---- one namespace ---- left 10.1.0.1/24 ---- (gateway 10.1.0.254)
                                ---- right 10.2.0.1/24 --- (gateway 10.2.0.254)
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from evener.control.network import NetworkWatcher
from evener.lab import namespaces
from tests.support.bpf import needs_namespaces

pytestmark = [pytest.mark.netns, needs_namespaces]

FAR = IPv4Address("198.51.100.1")
LEFT, RIGHT = bytes.fromhex("0200000001fe"), bytes.fromhex("0200000002fe")
MANY = 3000
SMALL = 4096  # bytes of a socket's buffer: some messages, not thousands


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"evener-network-{os.getpid()}"
    namespaces.create(name)
    for number, link in enumerate(("left", "right"), 1):
        for words in (
            f"link add {link} type veth peer name {link}1",
            f"link set {link} up",
            f"link set {link}1 up",
            f"address add 10.{number}.0.1/24 dev {link}",
            f"neigh add 10.{number}.0.254 lladdr 02:00:00:00:0{number}:fe dev {link}",
            f"route add default via 10.{number}.0.254 metric {number}",
        ):
            namespaces.run(name, ["ip", *words.split()])
    yield name
    namespaces.delete(name)


def follow(namespace: str, work: Callable[[NetworkWatcher], Awaitable[None]]) -> None:
    """Run `work` beside a watcher of the namespace; it has to end without an exception, too."""

    async def main() -> None:
        watcher = NetworkWatcher(lambda _: None)
        await watcher.start()
        try:
            await work(watcher)
        finally:
            await watcher.stop()

    namespaces.in_namespace(namespace, lambda: asyncio.run(main()))


async def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


def ip(*words: str | Path) -> None:
    """Run `ip` in the namespace of this thread; the event loop stands still meanwhile."""
    subprocess.run(["ip", *words], check=True)


def gateway(watcher: NetworkWatcher) -> bytes | None:
    nexthop = watcher.network.nexthop(FAR)
    return nexthop.dst if nexthop else None


def test_a_neighbour_comes_changes_and_goes(namespace: str) -> None:
    async def work(watcher: NetworkWatcher) -> None:
        address = IPv4Address("10.1.0.7")
        for words, wanted in (
            ("replace 10.1.0.7 lladdr 02:00:00:00:00:07 dev left", "020000000007"),
            ("replace 10.1.0.7 lladdr 02:00:00:00:00:08 dev left", "020000000008"),
            ("del 10.1.0.7 dev left", None),
        ):
            ip("neigh", *words.split())
            mac = bytes.fromhex(wanted) if wanted else None
            await until(
                lambda mac=mac: (  # type: ignore[misc]
                    getattr(watcher.network.neighbours.get(address), "dst", None) == mac
                ),
                words,
            )

    follow(namespace, work)


def test_the_routes_of_a_link_go_with_it(namespace: str) -> None:
    """Of IPv4 routes that go with their link the kernel says nothing."""

    async def work(watcher: NetworkWatcher) -> None:
        assert gateway(watcher) == LEFT
        ip("link", "set", "left", "down")
        await until(lambda: gateway(watcher) == RIGHT, "the other gateway")
        assert watcher.gateway_of(FAR) == (
            IPv4Address("10.2.0.254"), socket.if_nametoindex("right"),
        )  # fmt: skip

    follow(namespace, work)


@pytest.mark.parametrize("link", ["left", "right"])
def test_a_neighbour_on_two_links_is_taken_where_the_route_is(namespace: str, link: str) -> None:
    """Both links know 10.1.0.7 and the gateway 10.3.0.1; the routes say where they are."""
    address = IPv4Address("10.1.0.7")

    async def work(watcher: NetworkWatcher) -> None:
        for number, name in enumerate(("left", "right"), 1):
            for known in ("10.1.0.7", "10.3.0.1"):
                ip("neigh", "replace", known, "lladdr", f"02:00:00:00:0{number}:07", "dev", name)
        ip("route", "add", "10.1.0.4/30", "dev", link)
        ip("route", "add", "198.51.100.0/24", "via", "10.3.0.1", "dev", link, "onlink")
        wanted = bytes.fromhex("020000000107" if link == "left" else "020000000207")
        await until(lambda: gateway(watcher) == wanted, "the gateway's link")
        assert watcher.network.neighbours[address].dst == wanted
        assert watcher.network.neighbours[address].ifindex == socket.if_nametoindex(link)

    follow(namespace, work)


def test_changes_that_came_too_fast(namespace: str, tmp_path: Path) -> None:
    """The kernel drops what does not fit the socket; everything is read again, and followed on."""
    batch = tmp_path / "batch"
    batch.write_text(
        "".join(
            f"neigh add 10.2.{8 + i // 250}.{1 + i % 250} lladdr 02:00:00:01:00:00 dev right\n"
            for i in range(MANY)
        )
    )

    async def work(watcher: NetworkWatcher) -> None:
        watcher._events.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        ip("-batch", batch)
        await until(lambda: len(watcher.network.neighbours) == MANY + 2, "all neighbours", 30)
        ip("neigh", "del", "10.2.8.1", "dev", "right")
        await until(lambda: len(watcher.network.neighbours) == MANY + 1, "the next change")

    follow(namespace, work)
