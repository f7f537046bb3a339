# SPDX-License-Identifier: Apache-2.0
"""The core and its twin, side by side in one small random world, with a script of bytes.

Four bytes are one step: what happens, and three numbers that say to whom and how. All zeros are no
step, so that Hypothesis, which tries zeros first, shrinks a script by leaving steps out.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

import numpy as np
from hypothesis import strategies as st

from evener._generated import layout
from evener._generated.reasons import Reason
from evener.clock import ManualClock
from evener.datapath.native import Core
from evener.datapath.sim import SEED, Simulator
from evener.model import Backend, Config, Datapath, Driver, Mode, Pool, Protocol, Service, Timeouts
from evener.tables.effective import Network, NextHop, Route
from tests.reference.flow_slow import Flow, Key
from tests.reference.lb_model import Model, Plan
from tests.support import packets
from tests.support.machine import SIZES

OWN = "de:ad:be:ef:00:10"


def _address(text: str) -> bytes:
    return IPv4Address(text).packed


def _key(address: str, port: int) -> Key:
    return _address(address), port


VIPS = (_key("10.0.0.10", 8080), _key("10.0.0.10", 1030), _key("10.0.0.20", 8080))
SNATS = tuple(map(_address, ("10.0.0.10", "10.0.0.20", "10.0.0.11", "10.0.0.12")))
BACKENDS = (
    _key("10.0.0.2", 8080),
    _key("10.0.0.3", 8080),
    _key("10.0.0.2", 8081),
    _key("10.0.1.4", 80),
)
FLEETS: tuple[tuple[tuple[int, int], ...], ...] = (
    (),
    ((0, 1),),
    ((1, 1),),
    ((0, 0), (1, 0)),
    ((0, 1), (1, 1)),
    ((0, 1), (1, 0)),
    ((0, 3), (1, 1)),
    ((0, 1), (2, 1)),
    ((0, 1), (1, 1), (2, 1), (3, 1)),
    ((3, 1),),
)
"""Pools as pairs of a backend's number and its weight; few, as their Maglev tables are built slowly."""
CLIENTS = tuple(map(_address, ("10.0.0.1", "10.0.0.5", "192.0.2.7", "198.51.100.9", "10.0.0.2")))
PORTS = (1023, 1024, 1025, 1030, 8080, 40_000, 40_001, 64_511, 64_512, 65_535)
CLIENT_SAYS = ("S", "S", "S", "S", "A", "A", "A", "A", "A", "PA", "FA", "FA", "R", "SA", "SF", "")
BACKEND_SAYS = (
    "SA",
    "SA",
    "SA",
    "SA",
    "SA",
    "A",
    "A",
    "A",
    "PA",
    "FA",
    "FA",
    "FA",
    "R",
    "RA",
    "S",
    "",
)
PAUSES = (1, 1, 1, 1, 1, 2, 2, 2, 3, 5, 10, 30, 31, 62, 900, 20_000)
IFINDEX = 1
COMPARE_EVERY = 64


def _hop(last: int, ifindex: int = IFINDEX) -> NextHop:
    own = bytes.fromhex(OWN.replace(":", ""))
    return NextHop(bytes([0xDE, 0xAD, 0xBE, 0xEF, 0, last]), own, ifindex)


NEIGHBOURS = {IPv4Address(f"10.0.0.{n}"): _hop(n) for n in (1, 2, 3)}
GATEWAY = Route(IPv4Network("0.0.0.0/0"), _hop(0xFE))
FAR = Route(IPv4Network("10.0.1.0/24"), _hop(0xFD, 3))
UNKNOWN = Route(IPv4Network("192.0.2.0/24"), None)
NETWORKS = (
    Network(NEIGHBOURS, (FAR, UNKNOWN, GATEWAY)),
    Network(NEIGHBOURS, (FAR,)),
    Network(NEIGHBOURS, ()),
    Network({IPv4Address("10.0.0.2"): _hop(2)}, (FAR,)),
)


@dataclass(frozen=True)
class World:
    """What a pair is made of; configurations take turns at reloads."""

    configs: tuple[Config, ...]
    flow_groups: int
    port_tables: int
    local_first: int
    start: int


@st.composite
def _configs(draw: st.DrawFn) -> Config:
    fleets = draw(st.lists(st.sampled_from(FLEETS[1:] + FLEETS), min_size=1, max_size=2))
    pools = tuple(
        Pool(
            f"p{n}",
            "maglev",
            tuple(
                Backend(f"{i}", IPv4Address(BACKENDS[i][0]), BACKENDS[i][1], weight)
                for i, weight in fleet
            ),
        )
        for n, fleet in enumerate(fleets)
    )
    listens = draw(st.lists(st.sampled_from(VIPS), min_size=1, max_size=3, unique=True))
    services = tuple(
        Service(
            f"s{n}",
            IPv4Address(address),
            port,
            Protocol.TCP,
            pools[n % len(pools)].name,
            Mode.FULL_NAT,
            tuple(
                IPv4Address(a)
                for a in draw(st.lists(st.sampled_from(SNATS), min_size=1, max_size=3, unique=True))
            ),
        )
        for n, (address, port) in enumerate(listens)
    )
    seconds = st.integers(min_value=1, max_value=70)
    timeouts = draw(st.sampled_from([Timeouts(), Timeouts(5, 20, 10, 4), None]))
    if timeouts is None:
        timeouts = Timeouts(*(draw(seconds) for _ in range(4)))
    return Config(Datapath(Driver.SIM, ()), pools, services, timeouts)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Small ones: down to one group of flows and 16 ports."""
    return World(
        tuple(draw(st.lists(_configs(), min_size=1, max_size=3))),
        draw(st.sampled_from([64, 1, 2, 5])),
        draw(st.sampled_from([4, 1, 2])),
        draw(st.sampled_from([64_512, 1024 + 16, 1024 + 64])),
        draw(st.sampled_from([0, 30_000, 65_530])),
    )


class Pair:
    """Simulator and twin. `seen` counts reasons."""

    def __init__(self, world: World, seen: Counter[Reason]) -> None:
        self._world, self._seen = world, seen
        sizes = replace(SIZES, flow_groups=world.flow_groups, port_tables=world.port_tables)
        self._clock = ManualClock(world.start)
        self._sim = Simulator(sizes, self._clock, ifindex=IFINDEX)
        self._sim.tables.settings["local_first"] = world.local_first
        self._model = Model(SEED, world.flow_groups, world.port_tables, world.local_first)
        self._talks: list[tuple[Key, Key, Key, Key]] = []
        """The last few flows that something came of: client, VIP, SNAT and backend end of each."""
        self._steps = 0
        self._configure(0, 0)

    def step(self, code: bytes) -> None:
        """One step; AssertionError when the two disagree."""
        kind, a, b, c = code
        if kind == 0:
            return
        if kind < 60 or (kind < 200 and not self._talks):
            listens = [(s.address.packed, s.port) for s in self._config.services]
            vip = listens[b % len(listens)] if b < 240 else VIPS[b % len(VIPS)]
            client = (CLIENTS[a % len(CLIENTS)], PORTS[a // len(CLIENTS) % len(PORTS)])
            self._packet(_frame(client, vip, CLIENT_SAYS[c & 15], c >> 4))
        elif kind < 200:
            client, vip, snat, backend = self._talks[-1 - a % len(self._talks)]
            if kind < 130:
                self._packet(_frame(client, vip, CLIENT_SAYS[c & 15], c >> 4))
            else:
                self._packet(_frame(backend, snat, BACKEND_SAYS[c & 15], c >> 4))
        elif kind < 210:
            snat = (SNATS[b % len(SNATS)], PORTS[b // len(SNATS) % len(PORTS)])
            self._packet(_frame(BACKENDS[a % len(BACKENDS)], snat, BACKEND_SAYS[c & 15], c >> 4))
        elif kind < 219:
            self._clock.advance(PAUSES[a % len(PAUSES)])
        elif kind < 222:
            self._configure(a, b)
        elif kind < 224:
            self._sweep()
        elif kind < 246:
            self._handshake(a, b)
        else:
            self._packet(_mangled(_frame((CLIENTS[0], 40_000), VIPS[0], "S", 0), a, b, c))
        self._steps += 1
        if self._steps % COMPARE_EVERY == 0:
            self.compare_tables()

    def _handshake(self, a: int, b: int) -> None:
        """Three packets that make a connection, if the first one comes through."""
        client = (CLIENTS[a % len(CLIENTS)], PORTS[a // len(CLIENTS) % len(PORTS)])
        service = self._config.services[b % len(self._config.services)]
        vip = (service.address.packed, service.port)
        plan = self._packet(_frame(client, vip, "S", 0))
        if plan.src and plan.dst:
            self._packet(_frame(plan.dst, plan.src, "SA", 0))
            self._packet(_frame(client, vip, "A", 0))

    def _packet(self, frame: bytes) -> Plan:
        now = self._sim.now()
        outcome = self._sim.send(frame)
        plan, out = self._model.packet(frame, IFINDEX, now)
        self._seen[plan.reason] += 1
        where = f"step {self._steps}, second {now}, frame {frame.hex()}"
        if outcome.plan.tobytes() != _plan_bytes(plan):
            theirs = dict(zip(outcome.plan.dtype.names or (), outcome.plan.item(), strict=True))
            name = Reason(int(outcome.plan["reason"])).name
            raise AssertionError(f"{where}\ncore: {name} {theirs}\ntwin: {plan}")
        assert outcome.frame == out, f"{where}\ncore: {outcome.frame.hex()}\ntwin: {out.hex()}"
        if plan.direction == layout.DIRECTION_FORWARD and plan.src and plan.dst:
            client = (frame[26:30], int.from_bytes(frame[plan.l4 : plan.l4 + 2], "big"))
            vip = (frame[30:34], int.from_bytes(frame[plan.l4 + 2 : plan.l4 + 4], "big"))
            talk = (client, vip, plan.src, plan.dst)
            self._talks = [*[t for t in self._talks if t != talk][-7:], talk]
        return plan

    def _configure(self, config: int, network: int) -> None:
        self._config = self._world.configs[config % len(self._world.configs)]
        around = NETWORKS[network % len(NETWORKS)]
        self._sim.configure(self._config, around)
        self._model.configure(self._config, around)

    def _sweep(self) -> None:
        now, sizes, ids = self._sim.now(), self._sim.tables.sizes, self._sim.ids
        backends = np.zeros(sizes.backends, np.uint8)
        backends[list(ids.backends.retired.values())] = 1
        services = np.zeros(sizes.services, np.uint8)
        services[list(ids.services.retired.values())] = 1
        freed = Core(self._sim.tables).sweep(0, sizes.flow_groups, now, backends, services)
        ids.backends.forget()
        ids.services.forget()
        assert freed == self._model.sweep(now)

    def compare_tables(self) -> None:
        """Every flow, at its place, and every word of the port tables."""
        flows = self._sim.tables.flows
        used = np.flatnonzero(flows["binding"])
        there = {int(i): _words(int(flows["client"][i]), int(flows["binding"][i])) for i in used}
        assert there == {i: _flow_words(flow) for i, flow in self._model.records.items()}
        ports = self._sim.tables.ports
        tables, numbers = np.nonzero(ports)
        held = zip(tables.tolist(), numbers.tolist(), ports[tables, numbers].tolist(), strict=True)
        assert {(t, n): holder for t, n, holder in held} == self._model.ports


def _words(client: int, binding: int) -> tuple[int, int]:
    return (0, 0) if not binding & 0xFFFF else (client, binding)


def _flow_words(flow: Flow | None) -> tuple[int, int]:
    """The two words of a record as core/tables.h describes them; zeros for a freed one."""
    if flow is None:
        return 0, 0
    address, port = flow.client
    client = struct.pack("<4s2sH", address, port.to_bytes(2, "big"), flow.service)
    ends = (flow.backend, flow.port.to_bytes(2, "big"), flow.snat, flow.flags(), flow.stamp)
    binding = struct.pack("<H2sBBH", *ends)
    return int.from_bytes(client, "little"), int.from_bytes(binding, "little")


def _plan_bytes(plan: Plan) -> bytes:
    """struct lb_plan."""
    hop = plan.nexthop or NextHop(bytes(6), bytes(6), 0)
    return struct.pack(
        "<16s16s6s6sI2s2sHBxBBBBIHHHBxQII",
        _mapped(plan.src),
        _mapped(plan.dst),
        hop.dst,
        hop.src,
        hop.ifindex,
        plan.src[1].to_bytes(2, "big") if plan.src else bytes(2),
        plan.dst[1].to_bytes(2, "big") if plan.dst else bytes(2),
        plan.l4,
        plan.ttl,
        plan.flow_flags,
        plan.verdict,
        plan.reason,
        plan.direction,
        plan.slot,
        plan.service,
        plan.backend,
        plan.snat,
        plan.mode,
        plan.hash,
        plan.generation,
        0,
    )


def _mapped(key: Key | None) -> bytes:
    return bytes(10) + b"\xff\xff" + key[0] if key else bytes(16)


@lru_cache(maxsize=1 << 16)
def _frame(src: Key, dst: Key, flags: str, odd: int) -> bytes:
    """A TCP frame; `odd`, 0 to 15, is what is unusual about it."""
    (saddr, sport), (daddr, dport) = (IPv4Address(src[0]), src[1]), (IPv4Address(dst[0]), dst[1])
    segment = packets.tcp(
        saddr,
        daddr,
        sport,
        dport,
        b"odd" if odd & 1 else b"",
        flags=flags,
        seq=odd * 0x1111_1111,
        ack=~odd & 0xFFFF_FFFF,
        options=b"\x01\x01\x04\x02" if odd == 10 else b"",
        segment_checksum=sport if odd == 11 else None,
    )
    packet = packets.ipv4(
        saddr,
        daddr,
        packets.TCP,
        segment,
        ttl=1 if odd == 15 else 2 if odd == 14 else 64,
        flags=packets.MORE_FRAGMENTS if odd == 13 else 0,
        options=b"\x01" * 40 if odd == 12 else b"",
    )
    client = f"02:00:00:00:0{int(odd == 8)}:" + saddr.packed[3:].hex()
    return packets.ethernet(OWN, client, packet + bytes(odd if odd < 8 else 0))


def _mangled(frame: bytes, a: int, b: int, c: int) -> bytes:
    """A frame with a tag, or with one byte changed, and cut now and then."""
    if a % 16 == 1:
        return frame[:12] + (b"\x81\x00" if b % 2 else b"\x88\xa8") + bytes(2) + frame[12:]
    at = b % len(frame)
    changed = frame[:at] + bytes([frame[at] ^ c]) + frame[at + 1 :]
    return changed[: a % len(frame)] if a % 4 == 0 else changed
