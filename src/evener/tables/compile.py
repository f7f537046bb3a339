# SPDX-License-Identifier: Apache-2.0
"""The effective model, compiled to arrays. Pure: the same inputs give the same bytes.

Ids are stable: a service, backend, pool table or SNAT address keeps the id that `Ids` remembers for
it, because flows remember ids. An id comes free when the daemon has swept the flows that held it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.errors import DatapathError
from evener.model import Address, Mode
from evener.tables.effective import Effective, EffectiveBackend, EndpointKey, NextHop
from evener.tables.hashing import (
    address_bytes,
    digest64,
    index_factor,
    index_hash,
    port_bit,
    port_word,
)
from evener.tables.maglev import Candidate, Fill
from evener.tables.memory import Sizes
from evener.tables.schedulers import SCHEDULERS

K = TypeVar("K", bound=Hashable)
Array = npt.NDArray[Any]
MODES = {Mode.FULL_NAT: layout.MODE_FULL_NAT}


@dataclass(slots=True)
class IdSpace(Generic[K]):
    """Ids 1..limit-1 for keys. A key that goes is retired: its id is not given out again until
    `forget`, since flows may still hold it; a key that comes back meanwhile has its old id."""

    what: str
    limit: int
    ids: dict[K, int] = field(default_factory=dict)
    retired: dict[K, int] = field(default_factory=dict)

    def assign(self, keys: Iterable[K]) -> IdSpace[K]:
        """A new space that has ids for exactly these keys. DatapathError when it is too small."""
        wanted = dict.fromkeys(keys)
        known = {**self.ids, **self.retired}
        ids = {key: known[key] for key in wanted if key in known}
        retired = {key: number for key, number in known.items() if key not in wanted}
        taken = set(ids.values()) | set(retired.values())
        free = (number for number in range(1, self.limit) if number not in taken)
        for key in wanted:
            if key in ids:
                continue
            number = next(free, None)
            if number is None:
                raise DatapathError(
                    f"no room for {len(wanted)} {self.what}: this datapath was started with room "
                    f"for {self.limit - 1}",
                    do="restart the daemon with the new configuration; it sizes the tables anew",
                )
            ids[key] = number
        return IdSpace(self.what, self.limit, ids, retired)

    def forget(self) -> None:
        """No flow holds a retired id any more."""
        self.retired.clear()


@dataclass(slots=True)
class Ids:
    """Which id stands for what, in one running datapath."""

    services: IdSpace[EndpointKey]
    backends: IdSpace[EndpointKey]
    snats: IdSpace[Address]
    tables: IdSpace[str]

    @classmethod
    def empty(cls, sizes: Sizes) -> Ids:
        return cls(
            IdSpace("services", sizes.services),
            IdSpace("backends", sizes.backends),
            IdSpace("SNAT addresses and VIPs", sizes.snats),
            IdSpace("pools", sizes.tables),
        )

    def assign(self, effective: Effective) -> Ids:
        """Ids for everything in the effective model; those that are known stay."""
        services, pools = effective.services, effective.pools()
        return Ids(
            self.services.assign(s.key for s in services),
            self.backends.assign(b.key for pool in pools.values() for b in pool),
            self.snats.assign(a for s in services for a in (s.service.address, *s.service.snat)),
            self.tables.assign(pools),
        )


Filled: TypeAlias = dict[tuple[bytes, tuple[Candidate, ...]], Array]
"""Tables of slots by all that they are made from, seed and candidates; read only."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One copy of the configuration tables, ready to publish. Arrays as in `Tables`, one copy."""

    ids: Ids
    header: Array
    endpoints: Array
    services: Array
    backends: Array
    snats: Array
    neighbours: Array
    routes: Array
    slots: Array
    filled: Filled
    timeouts: tuple[int, int, int, int]


def compile_tables(
    effective: Effective,
    old_ids: Ids,
    sizes: Sizes,
    seed: bytes,
    fill: Fill,
    filled: Filled | None = None,
) -> Compiled:
    """Arrays for one copy. seed: the datapath's secret; fill: Maglev's inner loop; filled: that of an
    earlier compilation, whose tables of slots serve again where they would come out the same.

    Raises DatapathError when something does not fit the sizes that the datapath was started with.
    """
    ids = old_ids.assign(effective)
    records = _endpoints(effective, ids, sizes)
    mask, index_seed, groups = _index(records, sizes.index_groups)
    header = np.zeros((), layout.COPY)
    header["index_mask"], header["index_seed"] = mask, index_seed
    header["index_factor"] = index_factor(index_seed)
    for _, port, _ in ids.services.ids:
        bit = port_bit(port_word(port))
        header["listening"][bit // 64] |= np.uint64(1 << bit % 64)
    routes = _routes(effective)
    header["routes"] = min(len(effective.network.routes), layout.ROUTES)
    timeouts = effective.timeouts
    slots, filled = _slots(effective, ids, sizes, seed, fill, filled or {})
    return Compiled(
        ids=ids,
        header=header,
        endpoints=groups,
        services=_services(effective, ids, sizes, seed),
        backends=_backends(effective, ids, sizes),
        snats=_snats(ids, sizes),
        neighbours=_neighbours(effective, sizes),
        routes=routes,
        slots=slots,
        filled=filled,
        timeouts=(timeouts.syn, timeouts.established, timeouts.fin, timeouts.closed),
    )


def _halves(address: Address) -> Array:
    return np.frombuffer(address_bytes(address), "<u8")


def _nexthop(record: Any, nexthop: NextHop | None) -> None:
    if nexthop is None:
        return
    record["dst"] = np.frombuffer(nexthop.dst, np.uint8)
    record["src"] = np.frombuffer(nexthop.src, np.uint8)
    record["ifindex"] = nexthop.ifindex


def _endpoints(effective: Effective, ids: Ids, sizes: Sizes) -> Array:
    """Every key that a packet's address, port and protocol may match, one record each."""
    rows: list[tuple[Address, int, int, int, int]] = []  # address, port, protocol, kind, id
    for key, number in ids.services.ids.items():
        rows.append((*key, layout.ENDPOINT_SERVICE, number))
    for key, number in ids.backends.ids.items():
        rows.append((*key, layout.ENDPOINT_BACKEND, number))
    # Flows that use an address which was taken out of use still get their replies.
    for address, number in {**ids.snats.retired, **ids.snats.ids}.items():
        rows.append((address, 0, 0, layout.ENDPOINT_SNAT, number))
    known = list(effective.network.neighbours)[: sizes.neighbours - 1]
    for number, neighbour in enumerate(known, 1):
        rows.append((neighbour, 0, 0, layout.ENDPOINT_NEIGHBOUR, number))
    records = np.zeros(len(rows), layout.ENDPOINT)
    for record, (address, port, protocol, kind, number) in zip(records, rows, strict=True):
        record["addr"]["half"] = _halves(address)
        record["port"], record["protocol"] = port_word(port), protocol
        record["kind"], record["id"] = kind, number
    return records


def _index(records: Array, room: int) -> tuple[int, int, Array]:
    """Group mask, seed and groups such that no group has more records than ways.

    One endpoint to a group keeps the index small; when no seed fits, twice the groups are tried.
    """
    groups = min(room, max(16, 1 << max(1, len(records) - 1).bit_length()))
    while groups <= room:
        for seed in range(1, 65):
            place = index_hash(records, seed) & np.uint32(groups - 1)
            if not len(records) or np.bincount(place).max() <= layout.INDEX_WAYS:
                return groups - 1, seed, _place(records, place, room)
        groups *= 2
    raise DatapathError(
        f"{len(records)} endpoints and neighbours do not fit the index of {room} groups",
        do="restart the daemon with the new configuration; it sizes the tables anew",
    )


def _place(records: Array, place: Array, room: int) -> Array:
    groups = np.zeros(room, layout.INDEX_GROUP)
    used: dict[int, int] = {}
    for record, group in zip(records, place.tolist(), strict=True):
        way = used.get(group, 0)
        groups["way"][group, way] = record
        used[group] = way + 1
    return groups


def _services(effective: Effective, ids: Ids, sizes: Sizes, seed: bytes) -> Array:
    out = np.zeros(sizes.services, layout.SERVICE)
    for item in effective.services:
        service, record = item.service, out[ids.services.ids[item.key]]
        record["addr"]["half"] = _halves(service.address)
        record["salt"] = digest64(seed, service.listen)
        record["port"], record["protocol"] = port_word(service.port), service.protocol
        record["mode"] = MODES[service.mode]
        record["table"] = ids.tables.ids[item.table]
        record["snat_count"] = len(service.snat)
        record["snat"][: len(service.snat)] = [ids.snats.ids[a] for a in service.snat]
    return out


def _backend(record: Any, key: EndpointKey, state: int) -> None:
    address, port, protocol = key
    record["addr"]["half"] = _halves(address)
    record["port"], record["protocol"], record["state"] = port_word(port), protocol, state


def _backends(effective: Effective, ids: Ids, sizes: Sizes) -> Array:
    out = np.zeros(sizes.backends, layout.BACKEND)
    for key, number in ids.backends.retired.items():
        _backend(out[number], key, layout.BACKEND_GONE)
    for pool in effective.pools().values():
        for backend in pool:
            record = out[ids.backends.ids[backend.key]]
            _backend(record, backend.key, layout.BACKEND_USABLE)
            _nexthop(record["nexthop"], backend.nexthop)
    return out


def _snats(ids: Ids, sizes: Sizes) -> Array:
    out = np.zeros(sizes.snats, layout.SNAT)
    for address, number in {**ids.snats.retired, **ids.snats.ids}.items():
        out[number]["addr"]["half"] = _halves(address)
    return out


def _neighbours(effective: Effective, sizes: Sizes) -> Array:
    """By the order of `effective.network.neighbours`; `_endpoints` numbers them the same way."""
    out = np.zeros(sizes.neighbours, layout.NEXTHOP)
    for record, nexthop in zip(out[1:], effective.network.neighbours.values(), strict=False):
        _nexthop(record, nexthop)
    return out


def _routes(effective: Effective) -> Array:
    out = np.zeros(layout.ROUTES, layout.ROUTE)
    for record, route in zip(out, effective.network.routes, strict=False):
        record["addr"]["half"] = _halves(route.prefix.network_address)
        mask = bytes([0xFF] * 12) + route.prefix.netmask.packed
        record["mask"]["half"] = np.frombuffer(mask, "<u8")
        _nexthop(record["nexthop"], route.nexthop)
    return out


def _slots(
    effective: Effective, ids: Ids, sizes: Sizes, seed: bytes, fill: Fill, known: Filled
) -> tuple[Array, Filled]:
    """One table for each pool and protocol, its entries padded to whole lines; and the same tables by
    what they were made from. Filling one takes milliseconds, and the network changes often."""
    filled: Filled = {}
    out = np.zeros((sizes.tables, layout.SLOT_LINES * 32), np.uint16)
    build = SCHEDULERS["maglev"]
    for name, backends in effective.pools().items():
        key = seed, tuple(_candidates(backends, ids))
        slots = known.get(key)
        if slots is None:
            slots = build(key[1], layout.SLOTS, seed, fill)
        filled[key] = slots
        out[ids.tables.ids[name], : layout.SLOTS] = slots
    return out, filled


def _candidates(backends: Iterable[EffectiveBackend], ids: Ids) -> list[Candidate]:
    return [
        Candidate(ids.backends.ids[b.key], f"{b.key[0]}:{b.key[1]}/{b.key[2]}", b.weight)
        for b in backends
    ]
