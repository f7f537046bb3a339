# SPDX-License-Identifier: Apache-2.0
"""Services, backends, and what was counted: rows for tables and JSON.

Every CPU counts for itself; a row is their sum, read without stopping anyone, so numbers of one row
may be a few packets apart. Counters begin at 0 with the tables and count on over reloads. Packets
and bytes are of frames as they came in, forward (client to backend) and reply apart.

A backend's counters belong to its address, port and protocol: pools that share it show the same
numbers. Flows are counted for each service and backend together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener._generated.reasons import SENTENCES, VERDICTS, Reason
from evener.datapath.base import FrameCount, Lane
from evener.model import Backend, Pool, Service, endpoint
from evener.observe.flows import Live, live
from evener.observe.snapshot import Snapshot
from evener.observe.values import mac

COUNTED: Final = (
    "flows_new", "forward_packets", "reply_packets", "forward_bytes", "reply_bytes", "refused",
)  # fmt: skip
"""The counters of services and backends, by their names in core/tables.h."""


class _Sums:
    """The counters of one table, summed over CPUs."""

    def __init__(self, table: npt.NDArray[Any]) -> None:
        self._sums = {name: table[name].sum(axis=0, dtype=np.uint64) for name in COUNTED}

    def of(self, number: int) -> dict[str, int]:
        return {name: int(sums[number]) for name, sums in self._sums.items()}


class _Flows:
    """How many flows there are now, by service and backend: all, and those established."""

    def __init__(self, found: Live) -> None:
        established = (found.state == layout.STATE_ESTABLISHED).astype(np.uint64)
        words = found.service << np.uint64(17) | found.backend << np.uint64(1) | established
        values, counts = np.unique(words, return_counts=True)
        self._now: Counter[tuple[int, int]] = Counter()
        self._established: Counter[tuple[int, int]] = Counter()
        for word, number in zip(values.tolist(), counts.tolist(), strict=True):
            service, backend = word >> 17, word >> 1 & 0xFFFF
            keys = {(service, backend), (service, 0), (0, backend)}
            for key in keys if service else {(0, backend)}:
                self._now[key] += number
                self._established[key] += number * (word & 1)

    def of(self, service: int = 0, backend: int = 0) -> dict[str, int]:
        """Of a service, of a backend (with the ports it has in quarantine), or of both together."""
        key = (service, backend)
        return {"flows_now": self._now[key], "flows_established": self._established[key]}

    def backends(self) -> set[int]:
        return {backend for service, backend in self._now if not service}


def services(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row for each service, in the order of the file; `backends` has a row for each of its
    backends, with this service's flows on it."""
    sums = _Sums(snapshot.reader.tables.service_counters)
    now = _Flows(live(snapshot))
    return [_service(snapshot, service, sums, now) for service in snapshot.config.services]


def _service(snapshot: Snapshot, service: Service, sums: _Sums, now: _Flows) -> dict[str, Any]:
    number = snapshot.ids.services.ids.get((service.address, service.port, service.protocol), 0)
    pool = snapshot.config.pool(service.pool)
    return {
        "service": service.name,
        "protocol": service.protocol.name.lower(),
        "vip": endpoint(service.address, service.port),
        "pool": pool.name,
        "scheduler": pool.scheduler,
        "mode": service.mode.value,
        "snat": [str(address) for address in service.snat],
        **(now.of(service=number) if number else {"flows_now": 0, "flows_established": 0}),
        **sums.of(number),
        "backends": [_member(snapshot, service, number, b, now) for b in pool.backends],
    }


def _member(
    snapshot: Snapshot, service: Service, number: int, backend: Backend, now: _Flows
) -> dict[str, Any]:
    key = (backend.address, backend.port, service.protocol)
    backend_id = snapshot.ids.backends.ids.get(key, 0)
    return {
        "backend": backend.name,
        "address": endpoint(backend.address, backend.port),
        "weight": backend.weight,
        **(now.of(number, backend_id) if number and backend_id else now.of(0, 0)),
    }


def backends(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row for each backend of each pool that a service uses, in the order of the file; then
    those that were removed and still have flows, with state "gone" and no pool.

    share: the part of the pool's slots that name it, 0..1. mac is None while the next hop is not
    resolved by the control plane.
    """
    sums = _Sums(snapshot.reader.tables.backend_counters)
    now = _Flows(live(snapshot))
    rows = []
    for pool in snapshot.config.pools:
        users = [s for s in snapshot.config.services if s.pool == pool.name]
        for protocol in dict.fromkeys(s.protocol for s in users):
            held = _slots_held(snapshot, f"{pool.name}/{protocol}")
            names = [s.name for s in users if s.protocol == protocol]
            for backend in pool.backends:
                number = snapshot.ids.backends.ids.get((backend.address, backend.port, protocol), 0)
                share = int(held[number]) / layout.SLOTS if number else 0.0
                told = _told(pool, backend, names, share)
                rows.append(_backend(snapshot, number, told, sums, now))
    gone = sorted(set(snapshot.ids.backends.retired.values()) & now.backends())
    return rows + [_backend(snapshot, n, _told(None, None, [], 0.0), sums, now) for n in gone]


def _told(
    pool: Pool | None, backend: Backend | None, services: list[str], share: float
) -> dict[str, Any]:
    """What configuration and slots say of a backend; nothing, if it was removed."""
    return {
        "pool": pool.name if pool else None,
        "backend": backend.name if backend else None,
        "weight": backend.weight if backend else 0,
        "services": services,
        "share": round(share, 6),
    }


def _backend(
    snapshot: Snapshot, number: int, told: dict[str, Any], sums: _Sums, now: _Flows
) -> dict[str, Any]:
    tables = snapshot.reader.tables
    record = tables.backends[tables.active][number]
    resolved = int(record["nexthop"]["ifindex"]) != 0
    key = snapshot.backend_keys.get(number)
    return {
        "pool": told["pool"],
        "backend": told["backend"] or snapshot.backend_end(number),
        "address": snapshot.backend_end(number),
        "protocol": key[2].name.lower() if key else None,
        "state": "usable" if told["pool"] else "gone",
        "weight": told["weight"],
        "share": told["share"],
        "services": told["services"],
        "mac": mac(record["nexthop"]["dst"].tobytes()) if resolved else None,
        "interface": snapshot.interface_name(int(record["nexthop"]["ifindex"])),
        **now.of(backend=number),
        **sums.of(number),
    }


def _slots_held(snapshot: Snapshot, table: str) -> npt.NDArray[np.int64]:
    """How many slots of a pool's table name each backend id."""
    tables = snapshot.reader.tables
    number = snapshot.ids.tables.ids.get(table, 0)
    slots = tables.slots[tables.active, number, : layout.SLOTS]
    return np.bincount(slots, minlength=tables.sizes.backends)


def counters(snapshot: Snapshot) -> list[dict[str, Any]]:
    """What was counted, one row for each service followed by those of its pool's backends.

    kind is "service" or "backend"; the columns are those of `ipvsadm --stats` by their own names.
    """
    of_services = _Sums(snapshot.reader.tables.service_counters)
    of_backends = _Sums(snapshot.reader.tables.backend_counters)
    rows = []
    for service in snapshot.config.services:
        protocol = service.protocol
        number = snapshot.ids.services.ids.get((service.address, service.port, protocol), 0)
        row = {"kind": "service", "protocol": protocol.name.lower(), "service": service.name}
        row["address"] = endpoint(service.address, service.port)
        rows.append({**row, **of_services.of(number)})
        for backend in snapshot.config.pool(service.pool).backends:
            key = (backend.address, backend.port, protocol)
            row = {**row, "kind": "backend", "address": endpoint(backend.address, backend.port)}
            row["backend"] = f"{service.pool}/{backend.name}"
            rows.append({**row, **of_backends.of(snapshot.ids.backends.ids.get(key, 0))})
    return rows


def frames(counts: Iterable[FrameCount]) -> list[dict[str, Any]]:
    """What a reader's driver counts outside the core: one row for each counter; None where nobody counts."""
    return [
        {
            "counter": of.name,
            "lost": of.lost,
            "frames": _sum(of.by.values()),
            "by": of.by,
            "sentence": of.sentence,
        }
        for of in counts
    ]


def lanes(of: Iterable[Lane]) -> list[dict[str, Any]]:
    """One row for each of a reader's lanes: whether packets are spread over them."""
    return [{"lane": lane.number, "lcore": lane.lcore, "packets": lane.packets} for lane in of]


def _sum(numbers: Collection[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known or not numbers else None


def reasons(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every reason with its verdict, how many packets had it, and what it means."""
    sums = snapshot.reader.tables.reason_counters.sum(axis=0, dtype=np.uint64)
    return [
        {
            "reason": reason.name,
            "verdict": VERDICTS[reason].name.lower(),
            "packets": int(sums[reason]),
            "sentence": SENTENCES[reason],
        }
        for reason in Reason
    ]
