# SPDX-License-Identifier: Apache-2.0
"""The packet core once more, in plain Python: a twin that is slow, obvious, and written from what the
core's headers say it does. Nothing is shared with it but the names of reasons. It never ships.

One CPU, so nothing here is about races. IPv4 addresses are packed bytes, ports are in host order,
times are seconds of 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Generic, TypeVar

from evener._generated.reasons import VERDICTS, Reason, Verdict
from evener.model import Config
from evener.tables.effective import Network, NextHop
from tests.reference import maglev_slow, packet_slow
from tests.reference.flow_slow import ACK, FIN, RST, SYN, Flow, Key
from tests.reference.packet_slow import View

MASK64 = (1 << 64) - 1
SLOTS = 65_537
WAYS = 16
ROUTES = 32
LEARNED = 1024
MARGIN = 2  # seconds between a flow's timeout and the moment that its record may be taken
STALE_OPENING = 3  # seconds after which a handshake is given up for a new flow
FIRST_PORT, LOW_PORTS_END = 1024, 32_768
STRETCH, OWNERS = 512, 16  # ports tried in one search; how many holders are looked at

K = TypeVar("K", Key, bytes)


@dataclass(slots=True)
class Backend:
    """What the tables know of a backend."""

    key: Key
    nexthop: NextHop | None
    gone: bool = False


@dataclass(slots=True)
class Service:
    """What the tables know of a service. slots: names of backends; ids: what they stand for."""

    key: Key
    salt: int
    slots: list[str | None]
    ids: dict[str | None, int]
    snats: list[int]


@dataclass(slots=True)
class Plan:
    """What is to become of a packet; fields as in struct lb_plan."""

    reason: Reason = Reason.NONE
    src: Key | None = None
    dst: Key | None = None
    nexthop: NextHop | None = None
    direction: int = 0
    mode: int = 0
    service: int = 0
    backend: int = 0
    snat: int = 0
    slot: int = 0
    hash: int = 0
    flow_flags: int = 0
    ttl: int = 0
    l4: int = 0
    generation: int = 0

    @property
    def verdict(self) -> Verdict:
        """The reason's."""
        return VERDICTS[self.reason]


@dataclass(slots=True)
class Ids(Generic[K]):
    """Numbers for names, from 1, the lowest that is free. Nobody loses a number but by `forget`."""

    live: dict[K, int] = field(default_factory=dict)
    retired: dict[K, int] = field(default_factory=dict)

    def assign(self, names: list[K]) -> None:
        """From now on exactly these names are live."""
        known = self.live | self.retired
        self.live = {name: known[name] for name in names if name in known}
        self.retired = {name: n for name, n in known.items() if name not in self.live}
        for name in names:
            if name not in self.live:
                taken = {*self.live.values(), *self.retired.values()}
                self.live[name] = next(n for n in range(1, 1 << 16) if n not in taken)


@lru_cache(maxsize=256)
def _table(backends: tuple[tuple[str, int], ...], seed: bytes) -> list[str | None]:
    return maglev_slow.build(backends, SLOTS, seed)


class Model:
    """The twin. `records`: absent is a record that was never used, None one that was freed."""

    def __init__(
        self, seed: tuple[int, int, int, int], flow_groups: int, port_tables: int, local_first: int
    ) -> None:
        self.seed = seed
        self.flow_groups = flow_groups
        self.port_tables = port_tables
        self.local_first = local_first
        self.generation = 0
        self.timeouts: dict[str, int] = {}
        self.service_ids: Ids[Key] = Ids()
        self.backend_ids: Ids[Key] = Ids()
        self.snat_ids: Ids[bytes] = Ids()
        self.services: dict[int, Service] = {}
        self.backends: dict[int, Backend] = {}
        self.network = Network()
        self.records: dict[int, Flow | None] = {}
        self.ports: dict[tuple[int, int], int] = {}
        self.learned: dict[int, tuple[bytes, NextHop]] = {}

    # ------------------------------------------------------------------ configuration

    def configure(self, config: Config, network: Network) -> None:
        """Put a configuration in force."""
        pools = {pool.name: pool for pool in config.pools}
        used = [pools[service.pool] for service in config.services]
        self.service_ids.assign([(s.address.packed, s.port) for s in config.services])
        self.backend_ids.assign(
            [(b.address.packed, b.port) for pool in used for b in pool.backends]
        )
        self.snat_ids.assign([a.packed for s in config.services for a in (s.address, *s.snat)])
        self.generation += 1
        self.network = network
        t = config.timeouts
        names = ("opening", "established", "half closed", "closed")
        self.timeouts = dict(zip(names, (t.syn, t.established, t.fin, t.closed), strict=True))
        self.backends = {
            number: Backend(key, None, gone=True)
            for key, number in self.backend_ids.retired.items()
        }
        for pool in used:
            for b in pool.backends:
                key = (b.address.packed, b.port)
                hop = self._route(b.address.packed)
                self.backends[self.backend_ids.live[key]] = Backend(key, hop)
        self.services = {}
        seed = b"".join(word.to_bytes(8, "little") for word in self.seed)
        for s, pool in zip(config.services, used, strict=True):
            names_ = {f"{b.address}:{b.port}/6": (b.address.packed, b.port) for b in pool.backends}
            table = _table(
                tuple((f"{b.address}:{b.port}/6", b.weight) for b in pool.backends), seed
            )
            ids: dict[str | None, int] = {None: 0}
            ids |= {name: self.backend_ids.live[key] for name, key in names_.items()}
            listen = f"{s.address}:{s.port}/tcp".encode()
            digest = blake2b(listen, key=seed, digest_size=8).digest()
            key = (s.address.packed, s.port)
            self.services[self.service_ids.live[key]] = Service(
                key,
                int.from_bytes(digest, "little"),
                table,
                ids,
                [self.snat_ids.live[a.packed] for a in s.snat],
            )

    def sweep(self, now: int) -> int:
        """As the daemon does: free what is dead or belongs to what was removed; forget those ids."""
        freed = 0
        for record, flow in list(self.records.items()):
            if flow and (
                self._dead(flow, now)
                or flow.backend in self.backend_ids.retired.values()
                or flow.service in self.service_ids.retired.values()
            ):
                self._free(record, flow)
                freed += 1
        self.backend_ids.retired = {}
        self.service_ids.retired = {}
        return freed

    # ------------------------------------------------------------------ packets

    def packet(self, frame: bytes, ifindex: int, now: int) -> tuple[Plan, bytes]:
        """One frame: what becomes of it, and the frame as it is afterwards."""
        view = packet_slow.parse(frame, ifindex)
        plan = self.decide(view, now & 0xFFFF)
        plan.generation = self.generation
        if plan.verdict is Verdict.FORWARD and plan.nexthop is None:
            plan.reason = Reason.NEIGHBOUR_UNRESOLVED
        if plan.verdict is not Verdict.FORWARD:
            return plan, frame
        assert plan.src
        assert plan.dst
        assert plan.nexthop
        macs = plan.nexthop.dst + plan.nexthop.src
        return plan, packet_slow.rewrite(frame, macs, plan.src, plan.dst, plan.ttl)

    def decide(self, view: View, now: int) -> Plan:
        """To a service, from a backend, or nothing of ours. A service may have come to listen on a port
        that a flow holds: replies to that are no packets to the service."""
        ours = view.dst in self.snat_ids.live or view.dst in self.snat_ids.retired
        if view.reason is Reason.FRAGMENT and not ours:
            return Plan(Reason.NOT_OURS)
        if view.reason is not Reason.NONE:
            return Plan(view.reason)
        service = self.service_ids.live.get((view.dst, view.dport))
        forward = self._forward(view, service, now) if service else None
        if forward and forward.reason is not Reason.NO_FLOW:
            return forward
        backend = self.backend_ids.live.get((view.src, view.sport))
        if backend and ours:
            snat = (self.snat_ids.retired | self.snat_ids.live)[view.dst]
            return self._reply(view, backend, snat, now)
        return forward or Plan(Reason.NOT_OURS)

    def _forward(self, view: View, number: int, now: int) -> Plan:
        service, tcp = self.services[number], view.flags
        plan = Plan(direction=1, service=number, mode=1)
        if tcp & SYN and tcp & (FIN | RST):
            return replace(plan, reason=Reason.BAD_FLAGS)
        if view.ttl <= 1:
            return replace(plan, reason=Reason.TTL_EXPIRED)
        client = (view.src, view.sport)
        plan.hash = self._hash(_word(client) ^ service.salt)
        flow = self._find(client, number)
        if flow and not self._expired(flow, now) and not self._starts_anew(flow, tcp):
            if not self._gone(flow):  # else it is left to expire
                self._note(flow, True, tcp, now)
            plan.reason = Reason.FORWARD
        elif tcp & SYN and not tcp & ACK:
            plan.slot = _scale(plan.hash, SLOTS)
            plan.reason, flow = self._open(client, number, plan, now)
            if plan.reason is Reason.FORWARD:  # the flow was there
                plan.slot = 0
        else:
            plan.reason = Reason.NO_FLOW
        if plan.verdict is not Verdict.FORWARD:
            return plan
        assert flow
        plan.backend, plan.snat, plan.flow_flags = flow.backend, flow.snat, flow.flags()
        if self._gone(flow):
            return replace(plan, reason=Reason.BACKEND_GONE)
        backend = self.backends[flow.backend]
        if plan.reason is Reason.FORWARD_NEW:
            self._learn(view)
        plan.src, plan.dst = (self._snat_address(flow.snat), flow.port), backend.key
        plan.nexthop, plan.ttl, plan.l4 = backend.nexthop, view.ttl - 1, view.l4
        return plan

    def _reply(self, view: View, backend: int, snat: int, now: int) -> Plan:
        plan = Plan(direction=2, backend=backend, snat=snat)
        if view.dport >= self.local_first:
            return replace(plan, reason=Reason.LOCAL)
        holder = self.ports.get((self._port_table(backend, snat), view.dport))
        flow = self.records.get(holder - 1) if holder else None
        ends = (backend, snat, view.dport)
        if not flow or (flow.backend, flow.snat, flow.port) != ends or self._expired(flow, now):
            return replace(plan, reason=Reason.NO_REPLY_FLOW)
        self._note(flow, False, view.flags, now)
        plan.service, plan.flow_flags = flow.service, flow.flags()
        if flow.service not in self.services:
            return replace(plan, reason=Reason.SERVICE_GONE)
        plan.mode = 1
        if view.ttl <= 1:
            return replace(plan, reason=Reason.TTL_EXPIRED)
        plan.reason = Reason.REPLY
        plan.src, plan.dst = self.services[flow.service].key, flow.client
        plan.nexthop = self._way_to(flow.client[0])
        plan.ttl, plan.l4 = view.ttl - 1, view.l4
        return plan

    # ------------------------------------------------------------------ flows

    def _find(self, client: Key, service: int) -> Flow | None:
        for record in self._order(client):
            if record not in self.records:
                return None
            flow = self.records[record]
            if flow and (flow.client, flow.service) == (client, service):
                return flow
        return None

    def _order(self, client: Key) -> list[int]:
        """The records where a flow of this hash may be, in the order of search: two groups."""
        hash_ = self._hash(_word(client))
        first = hash_ % 4 * 4
        groups = (_scale(hash_ >> 32, self.flow_groups), _scale(hash_, self.flow_groups))
        return [g * WAYS + (first + i) % WAYS for g in groups for i in range(WAYS)]

    def _starts_anew(self, flow: Flow, tcp: int) -> bool:
        unanswered = not (flow.replied or flow.established)
        nobody_there = self._gone(flow) and not tcp & ACK
        return bool(tcp & SYN) and (flow.state() == "closed" or unanswered or nobody_there)

    def _gone(self, flow: Flow) -> bool:
        backend = self.backends.get(flow.backend)
        return backend is None or backend.gone

    def _note(self, flow: Flow, forward: bool, tcp: int, now: int) -> None:
        """Stray packets do not prolong a handshake. An established flow is stamped now and then."""
        lately = (now - flow.stamp) & 0xFFFF < max(1, min(16, self.timeouts["established"] // 50))
        if flow.state() == "established" and not tcp & (SYN | FIN | RST) and lately:
            return
        flow.see(forward, tcp)
        if flow.state() != "opening" or tcp & SYN:
            flow.stamp = now

    def _open(self, client: Key, number: int, plan: Plan, now: int) -> tuple[Reason, Flow | None]:
        """A SYN: go on with the client's flow, begin it again, or make a new one."""
        service = self.services[number]
        backend = service.ids[service.slots[plan.slot]]
        flow = self._find(client, number)
        if flow:
            alive = not self._expired(flow, now) and flow.state() != "closed"
            if (
                alive
                and not self._gone(flow)
                and (flow.backend == backend or flow.replied or flow.established)
            ):
                flow.stamp = now
                return Reason.FORWARD, flow
            port_stays = flow.snat in service.snats and self._allowed(flow.port, flow.snat)
            if not alive and flow.backend == backend and port_stays:
                self._begin_again(flow)
                flow.stamp = now
                return Reason.FORWARD_NEW, flow
            flow.service = 0  # keeps its port, but no client finds it
        if not backend:
            return Reason.NO_BACKEND, None
        record = self._take(client, now)
        if record is None:
            return Reason.FLOW_TABLE_FULL, None
        self.records[record] = None
        start = _scale(plan.hash >> 16, len(service.snats))
        for snat in service.snats[start:] + service.snats[:start]:
            port = self._search_port(client, backend, snat, plan.hash, now)
            if port:
                flow = Flow(client, number, backend, snat, port, now)
                self.records[record] = flow
                self.ports[self._port_table(backend, snat), port] = record + 1
                return Reason.FORWARD_NEW, flow
        return Reason.SNAT_EXHAUSTED, None

    def _begin_again(self, flow: Flow) -> None:
        flow.replied = flow.established = flow.fin_forward = flow.fin_reply = False
        flow.reset = flow.live_forward = flow.live_reply = False

    def _take(self, client: Key, now: int) -> int | None:
        """A record for a new flow: a free one, or the one that is given up most willingly, the
        oldest first. Dead ones of the first group are good enough not to look at the second."""
        best: tuple[int, int] | None = None
        taken = None
        for position, record in enumerate(self._order(client)):
            if position == WAYS and best and best[0] <= 1:
                break
            flow = self.records.get(record)
            if flow is None:
                taken = record
                break
            cost = (self._rank(flow, now), -flow.age(now))
            if cost[0] < 5 and (best is None or cost < best):
                best, taken = cost, record
        victim = self.records.get(taken) if taken is not None else None
        if taken is not None and victim:
            self._free(taken, victim)
        return taken

    def _rank(self, flow: Flow, now: int) -> int:
        if self._dead(flow, now):
            return 1
        if flow.state() == "opening":
            return 2 if flow.age(now) >= STALE_OPENING else 4
        return 3 if flow.state() == "closed" else 5

    def _expired(self, flow: Flow, now: int) -> bool:
        return flow.age(now) >= self.timeouts[flow.state()]

    def _dead(self, flow: Flow, now: int) -> bool:
        return flow.age(now) >= self.timeouts[flow.state()] + MARGIN

    def _free(self, record: int, flow: Flow) -> None:
        self.records[record] = None
        assert self.ports.pop((self._port_table(flow.backend, flow.snat), flow.port)) == record + 1

    # ------------------------------------------------------------------ ports

    def _port_table(self, backend: int, snat: int) -> int:
        return (backend + snat * 7) % self.port_tables

    def _search_port(self, client: Key, backend: int, snat: int, hash_: int, now: int) -> int:
        """The client's own port, else one below 32768, else one above; 0 if none was found."""
        start = self._hash((hash_ + now) & MASK64) & 0xFFFF_FFFF
        low = FIRST_PORT + _scale(start, LOW_PORTS_END - FIRST_PORT)
        floor = LOW_PORTS_END if self.local_first > LOW_PORTS_END else FIRST_PORT
        high = floor + _scale(~start & 0xFFFF_FFFF, self.local_first - floor)
        if self._may_have(client[1], backend, snat, now):
            return client[1]
        for first in (low, high):
            for step in range(STRETCH):
                port = (first + step) & 0xFFFF
                held = (self._port_table(backend, snat), port) in self.ports
                if held and step >= OWNERS:
                    continue
                if self._may_have(port, backend, snat, now):
                    return port
        return 0

    def _may_have(self, port: int, backend: int, snat: int, now: int) -> bool:
        """Allowed, and nobody has it, or nobody who is alive."""
        if not self._allowed(port, snat):
            return False
        holder = self.ports.get((self._port_table(backend, snat), port))
        if not holder:
            return True
        flow = self.records[holder - 1]
        assert flow, "a port is given back with the flow that held it"
        if not self._dead(flow, now):
            return False
        self._free(holder - 1, flow)
        return True

    def _allowed(self, port: int, snat: int) -> bool:
        """Not reserved, and no service listens there."""
        own = (self._snat_address(snat), port)
        return FIRST_PORT <= port < self.local_first and own not in self.service_ids.live

    def _snat_address(self, snat: int) -> bytes:
        known = self.snat_ids.live | self.snat_ids.retired
        return next(a for a, number in known.items() if number == snat)

    # ------------------------------------------------------------------ next hops

    def _route(self, address: bytes) -> NextHop | None:
        for neighbour, hop in self.network.neighbours.items():
            if neighbour.packed == address:
                return hop
        for route in self.network.routes[:ROUTES]:
            if _covers(route.prefix.network_address.packed, route.prefix.prefixlen, address):
                return route.nexthop
        return None

    def _way_to(self, address: bytes) -> NextHop | None:
        """By neighbours and routes, or where the client's last new flow came from."""
        known = self._route(address)
        if known:
            return known
        learned = self.learned.get(_learned_place(address))
        return learned[1] if learned and learned[0] == address else None

    def _learn(self, view: View) -> None:
        if not self._route(view.src):
            hop = NextHop(view.eth_src, view.eth_dst, view.ifindex)
            self.learned[_learned_place(view.src)] = (view.src, hop)

    # ------------------------------------------------------------------ hashes

    def _hash(self, word: int) -> int:
        """Two rounds of xor, odd multiply and fold (core/hash.h)."""
        for xor, odd in ((self.seed[0], self.seed[1]), (self.seed[2], self.seed[3])):
            word = (word ^ xor) * (odd | 1) & MASK64
            word ^= word >> 32
        return word


def _covers(network: bytes, length: int, address: bytes) -> bool:
    bits = 32 - length
    return int.from_bytes(network, "big") >> bits == int.from_bytes(address, "big") >> bits


def _scale(bits: int, size: int) -> int:
    return (bits & 0xFFFF_FFFF) * size >> 32


def _word(client: Key) -> int:
    """Address and port as they lie in memory on the wire, read as a little-endian number."""
    return int.from_bytes(client[0] + client[1].to_bytes(2, "big"), "little")


def _learned_place(address: bytes) -> int:
    mapped = int.from_bytes(b"\0\0\xff\xff" + address, "little")
    product = mapped * 0x9E37_79B9_7F4A_7C15 & MASK64
    return int.from_bytes((product >> 32).to_bytes(4, "little"), "big") % LEARNED
