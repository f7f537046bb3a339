# SPDX-License-Identifier: Apache-2.0
"""The daemon's state and the only task that changes it.

Configuration and network come in, are merged, compiled and published; flows that are over are swept.
If this process dies, packets go on: what it did last stays in force, and the next one adopts it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np

from evener import config as configuration
from evener.control.drivers import DRIVERS
from evener.control.network import NetworkWatcher
from evener.datapath.base import HopelessError
from evener.datapath.native import Core, maglev
from evener.errors import DatapathError, EvenerError
from evener.instance import Instance
from evener.model import Config, Driver
from evener.tables.compile import Filled, IdSpace, compile_tables
from evener.tables.diff import diff
from evener.tables.effective import Network, merge
from evener.tables.memory import Array, Sizes, size_changes, total_bytes
from evener.tables.publish import publish
from evener.tables.recover import address_of

log = logging.getLogger("evener")

SWEEP_EVERY_S = 0.5
SWEEP_PARTS = 10  # so each flow is looked at every five seconds
CONFIRM_EVERY_S = 15.0  # below the kernel's base reachable time, so that backends stay confirmed
MISSING_EVERY_S = 0.5  # the kernel asks three times, a second apart, and gives up
MISSING_MOST = (
    32  # at once: to ask the kernel costs time, and many that are gone may be gone for long
)
WANTED_EVERY_S = 0.05
TEND_EVERY_S = (
    0.1  # a datapath that is a process of its own is away for so long before it is started again
)
AGAIN_S = 1.0  # how soon a publication that failed is tried once more
ATTACH_EVERY_S = 1.0  # how soon an interface that could not be attached again is tried once more


class Daemon:
    """One running balancer. Made before the event loop runs; all methods are called from its thread."""

    def __init__(self, config: Config, path: Path, instance: Instance) -> None:
        self.config = config
        self.path = path
        self.instance = instance
        self.started = time.monotonic()
        self.warnings: list[str] = []
        self.ended = asyncio.Event()
        """Set when the daemon is to be stopped; `failure` is why, if it was not asked for."""
        self.failure: HopelessError | None = None
        opened = DRIVERS[config.datapath.driver](config, instance)
        self.datapath = opened.datapath
        self.ids = opened.ids
        self.adopted = opened.adopted
        self._attach = opened.attach
        self._tend_datapath = opened.tend
        self._worker = opened.worker
        self._troubles: list[str] = []  # of the datapath, as it is tended
        if opened.warning:
            self._warn(opened.warning)
        self._watcher = NetworkWatcher(self._network_changed, self._links_changed)
        self._core = Core(self.datapath.tables)
        self._changing = asyncio.Lock()
        self._published = Network()
        self._filled: Filled = {}
        self._strangers = opened.adopted  # there may be flows of ids that are in no table any more
        self._tasks: list[asyncio.Task[None]] = []
        self._sweep_part = 0
        self._missing_first = 0  # whose turn it is
        self._running = False
        self._gone: set[str] = set()
        self._refused = ""
        self._not_reloaded = ""  # why the file, which was read again, is not in force
        self._unpublished = ""  # why the network's last change could not be

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        log.warning("%s", text)

    async def start(self) -> None:
        """Publish, then attach. On failure nothing stays that was not there before."""
        try:
            await self._watcher.start()
            await self._resolve_all()
            await self._settle_neighbours()
            async with self._changing:
                await self._publish(self.config)
                await asyncio.to_thread(self._attach, self.config.datapath.interfaces)
            # A way to the kernel that the datapath itself makes carries nothing until it is attached.
            await self._resolve_all()
            await self._settle_neighbours()
            async with self._changing:
                network = self._watcher.network
                if network is not self._published or self._reachable(network) != network:
                    await self._publish(self.config)
                # Not before: flows of an earlier daemon may only have come with the attachment.
                await asyncio.to_thread(self._end_retired)
        except BaseException:
            await self._watcher.stop()
            if self.adopted:
                self.datapath.close()
            else:
                self.datapath.remove()
            raise
        self._running = True
        self._tasks += [
            asyncio.create_task(self._every(SWEEP_EVERY_S, self._sweep)),
            asyncio.create_task(self._every(CONFIRM_EVERY_S, self._resolve_all)),
            asyncio.create_task(self._every(MISSING_EVERY_S, self._resolve_missing)),
            asyncio.create_task(self._every(WANTED_EVERY_S, self._resolve_wanted)),
            asyncio.create_task(self._every(ATTACH_EVERY_S, self._follow_interfaces)),
        ]
        if self._tend_datapath is not None:
            self._tasks.append(asyncio.create_task(self._every(TEND_EVERY_S, self._tend)))

    async def stop(self, keep: bool) -> None:
        """End. keep: the datapath stays attached and goes on with the configuration in force."""
        await self._watcher.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if keep:
            self.datapath.close()
        else:
            self.datapath.remove()

    async def apply(self, text: str, source: str) -> tuple[int, list[str]]:
        """Put a configuration in force: the generation and what changed. ConfigError: nothing did. Other
        errors say whether it is in force all the same."""
        config = await asyncio.to_thread(configuration.loads, text, source)
        try:
            return await self._change(config)
        except EvenerError as error:
            log.error("applying %s failed: %s", source, error)
            raise

    async def reload(self) -> tuple[int, list[str]]:
        """Apply the file that the daemon was started with, as it is now. Errors are those of `apply`; the
        status has them until something is applied."""
        config = None
        try:
            config = await asyncio.to_thread(configuration.load, self.path)
            return await self._change(config)
        except Exception as error:
            if config is not self.config:
                self._not_reloaded = f"the file was read again and is not in force: {error}"
            raise

    async def differences(self, text: str, source: str) -> tuple[list[str], list[str]]:
        """What `apply` would change, and why it would refuse to, if it would."""
        config = await asyncio.to_thread(configuration.loads, text, source)
        return diff(self.config, config), [str(refusal) for refusal in self._refusals(config)]

    async def _change(self, config: Config) -> tuple[int, list[str]]:
        async with self._changing:
            for refusal in self._refusals(config):
                raise refusal
            changes = diff(self.config, config)
            await self._watcher.resolve(_backend_addresses(config))
            before = self.datapath.attachments
            # Also if the names are the same: an interface may have been made anew.
            await asyncio.to_thread(self._attach, config.datapath.interfaces)
            try:
                generation = await self._publish(config)
            except EvenerError:
                await asyncio.to_thread(self._attach, tuple(a.interface for a in before))
                raise
            finally:
                if self.config is config:  # also if not all packets were seen to end
                    self._not_reloaded = ""
        for change in changes:
            log.info("%s", change)
        log.info("generation %d is in force", generation)
        return generation, changes

    def _refusals(self, config: Config) -> Iterator[DatapathError]:
        """What a running datapath cannot change: its driver, arguments and flow table."""
        if config.datapath.driver != self.config.datapath.driver:
            yield DatapathError(
                f"the driver cannot change from {self.config.datapath.driver} to "
                f"{config.datapath.driver} while the daemon runs",
                "datapath.driver",
                "restart the daemon",
            )
            return  # the rest is another driver's
        if config.datapath.eal != self.config.datapath.eal:
            yield DatapathError(
                "DPDK's arguments cannot change while the daemon runs",
                "datapath.eal",
                "restart the daemon; the worker gets them when it is started again itself",
            )
        names = config.datapath.interfaces
        if config.datapath.driver == Driver.DPDK and names != self.config.datapath.interfaces:
            yield DatapathError(
                "the interfaces of DPDK's ports cannot change while the daemon runs",
                "datapath.interfaces",
                "restart the daemon, after SIGTERM to the worker",
            )
        sizes = Sizes.for_config(config, self.datapath.tables.sizes.cpus)
        if "flow_groups" in size_changes(self.datapath.tables.sizes, sizes):
            yield DatapathError(
                f"the flow table cannot change from {self.config.datapath.flows} to "
                f"{config.datapath.flows} flows while the daemon runs",
                "datapath.flows",
                "restart the daemon; flows that are alive end with it",
            )

    async def _publish(self, config: Config) -> int:
        """Compile and publish; flows of what was removed are ended afterwards.

        DatapathError: it does not fit, and nothing changed; or packets under way were not seen to end, and
        the generation in force tells whether it did: then it is tried again. What observers are told changes
        a moment before the datapath does, so that whoever sees the generation sees its names.
        """
        tables, network = self.datapath.tables, self._watcher.network
        compiled = await asyncio.to_thread(
            compile_tables, merge(config, self._reachable(network)), self.ids, tables.sizes,
            tables.seed, maglev, self._filled,
        )  # fmt: skip
        self._filled = compiled.filled
        before, in_force = (self.config, self.ids), tables.generation
        self.config, self.ids, self._published = config, compiled.ids, network
        try:
            generation = await asyncio.to_thread(publish, tables, compiled, self.datapath.grace)
        except EvenerError as error:  # a datapath that stands still
            pending = f"but generation {tables.generation} is in force for all packets to come"
            if tables.generation == in_force:
                self.config, self.ids = before
                pending = "and nothing has changed"
            self._published = Network()  # so that it is done again
            if self._running:
                asyncio.get_running_loop().call_later(
                    AGAIN_S, self._network_changed, self._watcher.network
                )
            raise DatapathError(f"{error.what}, {pending}", error.where, error.do) from error
        if self._running:
            await asyncio.to_thread(self._end_retired)
        return generation

    def _reachable(self, network: Network) -> Network:
        """What the datapath can send to. XDP sends by any interface, a DPDK worker by its own ports alone."""
        attachments = self.datapath.attachments
        if self.datapath.driver != Driver.DPDK or not attachments:
            return network
        return network.by({a.ifindex for a in attachments})

    def _end_retired(self) -> None:
        """End flows of retired backends and services, so that their ids come free. The daemon before
        may have died after it published and before it came to this."""
        sizes, ids = self.datapath.tables.sizes, self.ids
        if ids.backends.retired or ids.services.retired or self._strangers:
            self._core.sweep(
                0,
                sizes.flow_groups,
                self.datapath.now(),
                backends=_all_but(ids.backends, sizes.backends),
                services=_all_but(ids.services, sizes.services),
            )
            ids.backends.forget()
            ids.services.forget()
            self._strangers = False
        ids.tables.forget()
        if ids.snats.retired:
            used = np.unique(
                self.datapath.tables.flows["binding"] >> np.uint64(32) & np.uint64(0xFF)
            )
            free = [a for a, number in ids.snats.retired.items() if number not in used]
            for address in free:
                del ids.snats.retired[address]

    def _network_changed(self, network: Network) -> None:
        async def publish_again() -> None:
            async with self._changing:
                if self._watcher.network is self._published:  # a later change was faster
                    self._unpublished = ""
                    return
                try:
                    await self._publish(self.config)
                except DatapathError as error:  # it is tried again, every second
                    if str(error) == self._unpublished:
                        return
                    self._unpublished = str(error)
                    raise
                self._unpublished = ""

        self._begin(publish_again(), "the network's change could not be published")

    def _links_changed(self) -> None:
        self._begin(self._follow_interfaces(), "interfaces could not be followed")

    def _begin(self, work: Coroutine[Any, Any, None], failure: str) -> None:
        async def logged() -> None:
            try:
                await work
            except Exception as error:
                log.error("%s: %s", failure, error)

        task = asyncio.create_task(logged())
        self._tasks = [t for t in self._tasks if not t.done()] + [task]

    async def _follow_interfaces(self) -> None:
        """Let go of interfaces that are gone; attach to those that came back, under a new number."""
        if not self._running or not self._stale():
            return
        gone = set(self.config.datapath.interfaces) - self._watcher.interfaces.keys()
        for name in sorted(gone - self._gone):
            log.warning("interface %s is gone: its packets are not handled", name)
        self._gone = gone
        async with self._changing:
            before = {a.interface: a.ifindex for a in self.datapath.attachments}
            if not self._stale():  # a reload was faster
                return
            there = self._watcher.interfaces
            wanted = tuple(n for n in self.config.datapath.interfaces if n in there)
            try:
                await asyncio.to_thread(self._attach, wanted)
            except EvenerError as error:
                if str(error) != self._refused:
                    self._refused = str(error)
                    log.error("not attached again: %s", error)
                return
            self._refused, self._gone = "", set(self._gone - set(wanted))
            for a in self.datapath.attachments:
                if before.get(a.interface) != a.ifindex:
                    log.info("attached again to %s in %s mode", a.interface, a.mode)

    def _stale(self) -> set[str]:
        """Configured interfaces that the datapath should be on and is not, or the other way round."""
        if self.datapath.driver == Driver.SIM:
            return set()
        there = self._watcher.interfaces
        wanted = {(n, there[n]) for n in self.config.datapath.interfaces if n in there}
        attached = {(a.interface, a.ifindex) for a in self.datapath.attachments}
        return {name for name, _ in wanted ^ attached}

    async def _every(self, seconds: float, work: Any) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception as error:  # what has to be done again and again is not given up
                log.error("%s: %s", work.__name__.strip("_").replace("_", " "), error)

    async def _sweep(self) -> None:
        """Free the flows that are over, a part of the table at a time."""
        groups = self.datapath.tables.sizes.flow_groups
        part = -(-groups // SWEEP_PARTS)
        first = self._sweep_part * part
        self._sweep_part = (self._sweep_part + 1) % SWEEP_PARTS
        count = max(0, min(part, groups - first))
        await asyncio.to_thread(self._core.sweep, first, count, self.datapath.now())

    async def _tend(self) -> None:
        assert self._tend_datapath is not None
        try:
            self._troubles = await asyncio.to_thread(self._tend_datapath)
        except HopelessError as error:
            self.failure = error
            self.ended.set()

    async def _resolve_all(self) -> None:
        await self._watcher.resolve(_backend_addresses(self.config))

    async def _resolve_missing(self) -> None:
        """Ask again for backends that nobody has answered for: what leads to them may have been joined later,
        and the first packet to each would be lost. If they are too many, they take turns."""
        network, addresses = self._watcher.network, dict.fromkeys(_backend_addresses(self.config))
        missing = [a for a in addresses if network.nexthop(a) is None]
        first = self._missing_first % max(1, len(missing))
        turn = [*missing[first:], *missing[:first]][:MISSING_MOST]
        self._missing_first = first + len(turn)
        await self._watcher.resolve(turn)

    async def _resolve_wanted(self) -> None:
        """Ask for the next hops that packets lacked."""
        wanted = self.datapath.tables.wanted
        rows = np.flatnonzero(wanted["addr"]["half"].any(axis=1))
        if not len(rows):
            return
        found = {address_of(wanted["addr"][row]) for row in rows}
        wanted["addr"]["half"][rows] = 0
        await self._watcher.resolve(a for a in found if isinstance(a, IPv4Address))

    async def _settle_neighbours(self) -> None:
        """Give the kernel a moment to resolve the backends, so that the first packet finds them."""
        wanted = _backend_addresses(self.config)
        for _ in range(20):
            if all(self._watcher.network.nexthop(address) for address in wanted):
                return
            await asyncio.sleep(0.02)

    def _interfaces(self) -> list[dict[str, Any]]:
        stale = self._stale()
        rows: list[dict[str, Any]] = [
            {"interface": a.interface, "ifindex": a.ifindex, "mode": a.mode}
            for a in self.datapath.attachments
            if a.interface not in stale
        ]
        if self.datapath.driver == Driver.SIM:
            return rows
        there, named = self._watcher.interfaces, {row["interface"] for row in rows}
        return rows + [
            {
                "interface": n,
                "ifindex": there.get(n, 0),
                "mode": "detached" if n in there else "gone",
            }
            for n in self.config.datapath.interfaces
            if n not in named
        ]

    def status(self) -> dict[str, Any]:
        """What the daemon is and does; all that the status query tells but the flows there are now, which
        those who look count."""
        sizes = self.datapath.tables.sizes
        return {
            "instance": self.instance.name,
            "pid": os.getpid(),
            "driver": self.datapath.driver,
            "worker": self._worker() if self._worker is not None else None,
            "generation": self.datapath.tables.generation,
            "uptime_s": round(time.monotonic() - self.started, 3),
            "config": str(self.path),
            "interfaces": self._interfaces(),
            "flows": {"capacity": self.config.datapath.flows, "records": sizes.flows},
            "memory_bytes": total_bytes(sizes),
            "adopted": self.adopted,
            "warnings": [*self.warnings, *filter(None, [self._not_reloaded]), *self._troubles],
        }


def _all_but(space: IdSpace[Any], room: int) -> Array:
    """A byte for each id, 1 for all that stand for nothing in force. Id 0 is no id."""
    mask = np.ones(room, np.uint8)
    mask[[0, *space.ids.values()]] = 0
    return mask


def _backend_addresses(config: Config) -> list[IPv4Address]:
    return [
        b.address for p in config.pools for b in p.backends if isinstance(b.address, IPv4Address)
    ]
