# SPDX-License-Identifier: Apache-2.0
"""The datapath under test: the production program, loaded and configured as in production, attached to
nothing; flows come into its tables by their own handshakes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import numpy as np

from evener._generated.reasons import Reason
from evener.bench.driver import ACK, ENDS, SYN, Driver
from evener.datapath import bpf, native, xdp
from evener.datapath.seed import new_seed
from evener.errors import DatapathError
from evener.model import Backend, Config, Datapath, Mode, Pool, Protocol, Service
from evener.model import Driver as DriverName
from evener.tables.compile import Ids, compile_tables
from evener.tables.effective import Network, NextHop, Route, merge
from evener.tables.memory import Sizes, Tables, shapes
from evener.tables.publish import publish

VIP: Final = (IPv4Address("198.18.0.10"), 8080)
_BACKENDS = 16
_SNATS = 4
_BATCH = 1 << 12
# Flows whose handshakes are run at a time: over before a record may be given away (LB_OPENING_S), and
# the first ones established, so that nobody pushes them out, long before the table is full.
_LOOPBACK = 1  # the interface that BPF_PROG_TEST_RUN says frames came from
_LOST_MAX = 1e-3  # share of packets that may meet another end than the expected one


def configuration(flows: int) -> Config:
    """16 backends, 4 SNAT addresses: a million flows take half of the ports."""
    backends = tuple(
        Backend(f"b{i}", IPv4Address("198.19.0.1") + i, 8080) for i in range(_BACKENDS)
    )
    snat = tuple(IPv4Address("198.18.1.1") + i for i in range(_SNATS))
    return Config(
        Datapath(DriverName.XDP, ("lo",), flows),
        (Pool("web", "maglev", backends),),
        (Service("web", *VIP, Protocol.TCP, "web", Mode.FULL_NAT, snat),),
    )


def network(config: Config) -> Network:
    """Backends on the link, everybody else behind a router, all on one interface."""
    mac = bytes.fromhex("0200000000fe")
    hops = {
        b.address: NextHop(bytes.fromhex(f"0200000001{i:02x}"), mac, _LOOPBACK)
        for i, b in enumerate(config.pools[0].backends)
    }
    router = NextHop(bytes.fromhex("0200000000ff"), mac, _LOOPBACK)
    routes = (Route(IPv4Network("198.18.0.0/15"), None), Route(IPv4Network("0.0.0.0/0"), router))
    return Network(hops, routes)  # type: ignore[arg-type]


class Dut:
    """One loaded datapath with room for `flows` flows."""

    def __init__(self, flows: int) -> None:
        self.capacity = flows
        self.config = configuration(flows)
        self.sizes = Sizes.for_config(self.config, bpf.possible_cpus())
        started = time.perf_counter()
        with xdp.load(self.sizes) as obj:
            self.load_seconds = time.perf_counter() - started
            self.program = obj.program("lb_xdp")
            maps = {name: obj.map(name).mmap() for name in shapes(self.sizes)}
        self.tables = Tables(self.sizes, maps)
        self.tables.prepare(new_seed())
        compiled = compile_tables(
            merge(self.config, network(self.config)),
            Ids.empty(self.sizes),
            self.sizes,
            self.tables.seed,
            native.maglev,
        )
        publish(self.tables, compiled, bpf.membarrier_global)
        self._next_client = 0

    def reasons(self) -> dict[str, int]:
        """How many packets met which end since the program was loaded; only those that are not 0."""
        totals = self.tables.reason_counters.sum(axis=0)
        return {Reason(i).name: int(n) for i, n in enumerate(totals) if n}

    def fresh_clients(self, count: int) -> int:
        """The first of `count` flow numbers that nobody has used."""
        first, self._next_client = self._next_client, self._next_client + count
        return first

    def establish(self, driver: Driver, flows: int) -> None:
        """Open flows 0..flows-1 by SYN, SYN-ACK and ACK; `driver.ends` then has the backends' ends."""
        if flows > ENDS:
            raise ValueError(f"the driver scripts at most {ENDS} flows")
        driver.aim(self.program)
        for first in range(0, flows, _BATCH):
            end = min(first + _BATCH, flows)
            before = self.reasons()
            driver.client(VIP, SYN, first=first, record=True)
            driver.run(end - first)
            driver.keep_last(end - 1)
            driver.backends(SYN | ACK, first=first, end=end)
            driver.run(end - first)
            driver.client(VIP, ACK, first=first)
            driver.run(end - first)
            met = difference(self.reasons(), before)
            for reason in (Reason.FORWARD_NEW, Reason.REPLY, Reason.FORWARD):
                require(met, reason, end - first, 3 * (end - first))
        self.fresh_clients(flows)

    def age(self, driver: Driver) -> float:
        """Use every record that can be reached, then let the daemon's sweep free them all; the share
        of records that were used."""
        driver.aim(self.program)
        many = 2 * self.sizes.flows
        driver.client(VIP, SYN, first=self.fresh_clients(many))
        driver.run(many)
        used = np.count_nonzero(self.tables.flows["binding"]) / self.sizes.flows
        driver.client(VIP, SYN, first=self.fresh_clients(1))
        driver.run(1)
        now = int(self.tables.flows["binding"].max() >> 48)  # stamped a moment ago
        late = now + self.config.timeouts.established + 60
        native.Core(self.tables).sweep(0, self.sizes.flow_groups, late)
        return float(used)

    def bytes_per_flow(self) -> float:
        """What flow and port tables take for each flow of the nominal capacity."""
        tables = shapes(self.sizes)
        return (tables["flows"].nbytes + tables["ports"].nbytes) / self.capacity


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What was counted between two calls of `Dut.reasons`."""
    found = {name: n - before.get(name, 0) for name, n in after.items()}
    return {name: n for name, n in found.items() if n}


def require(met: Mapping[str, int], reason: Reason, packets: int, total: int) -> None:
    """DatapathError unless `packets` met `reason`, but for one in a thousand or eight, and `total` met any.

    At a table's nominal capacity some 25 in a million find no room (core/tables.h), the last ones.
    """
    if (
        met.get(reason.name, 0) < packets - max(8, packets * _LOST_MAX)
        or sum(met.values()) != total
    ):
        raise DatapathError(
            f"of {packets} packets {met.get(reason.name, 0)} met {reason.name}: {dict(met)}",
            "benchmark",
            "figures of packets that met another end would be no figures of the case",
        )
