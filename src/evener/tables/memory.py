# SPDX-License-Identifier: Apache-2.0
"""The datapath's flat memory as NumPy arrays: which tables there are, how large, and their views.

A driver supplies the memory, one buffer for each table: BPF array maps, or plain arrays in the
simulator. Everything that reads or writes tables does it through `Tables`, whatever the driver.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.model import Config

# How full the flow table is at its nominal capacity. At 0.55, 25 of a million flows find both of
# their groups of 16 full; 19 of 20 lie in their first cache line.
FILL: Final = 0.55
INDEX_ROOM: Final = 3
"""Groups of the endpoint index for each endpoint there may ever be. n endpoints in G groups of 4 leave
n^5 / (120 G^4) of the groups too small: about one of all when 10,000 endpoints fill the index, so that
one of the first few seeds fits."""
PORT_TABLES: Final = 32
"""The least number of port tables: so many backends (less one) have a table of their own for an SNAT
address, and a client keeps its port whenever that is free towards its backend. A constant, and not made
from the number of backends: a restart with more of them has to fit the port tables that there are."""
LOCAL_PORTS: Final = range(64_512, 65_536)
"""Ports of SNAT addresses that are the balancer's own (its health checks), never given to flows."""

Array = npt.NDArray[Any]


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many records each table has: in one copy of the configuration, or for one CPU."""

    cpus: int
    index_groups: int
    services: int
    backends: int
    snats: int
    neighbours: int
    tables: int
    flow_groups: int
    port_tables: int

    @classmethod
    def for_config(cls, config: Config, cpus: int) -> Sizes:
        """Room for this configuration twice over, so that most reloads fit without a restart."""
        backends = {(b.address, b.port) for pool in config.pools for b in pool.backends}
        flows = config.datapath.flows
        services = max(64, _power_of_two(2 * len(config.services) + 1))
        records = max(256, _power_of_two(2 * len(backends) + 1))
        snats, neighbours = layout.SNATS, 2048
        endpoints = services + records + snats + neighbours
        return cls(
            cpus=cpus,
            index_groups=_power_of_two(INDEX_ROOM * endpoints),
            services=services,
            backends=records,
            snats=snats,
            neighbours=neighbours,
            tables=max(4, _power_of_two(2 * len(config.pools) + 1)),
            flow_groups=max(64, -(-int(flows / FILL) // layout.FLOW_WAYS)),
            # Twice as many ports as flows.
            port_tables=max(PORT_TABLES, _power_of_two(-(-2 * flows // 65_536))),
        )

    @property
    def flows(self) -> int:
        """Records in the flow table."""
        return self.flow_groups * layout.FLOW_WAYS


def layout_digest() -> int:
    """32 bits that differ when any record is laid out differently: memory is adopted only if equal."""
    records = {n: str(d.fields) for n, d in vars(layout).items() if isinstance(d, np.dtype)}
    return zlib.crc32(repr(sorted(records.items())).encode())


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its record, and how many of them there are."""

    dtype: np.dtype[Any]
    records: int

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * self.records


def shapes(sizes: Sizes) -> dict[str, Table]:
    """Every table by its name, which is also the BPF map's and the attribute's in `Tables`."""
    copies, cpus = layout.COPIES, sizes.cpus
    word = np.dtype("<u8")
    return {
        "settings": Table(layout.SETTINGS, 1),
        "copies": Table(layout.COPY, copies),
        "endpoints": Table(layout.INDEX_GROUP, copies * sizes.index_groups),
        "services": Table(layout.SERVICE, copies * sizes.services),
        "backends": Table(layout.BACKEND, copies * sizes.backends),
        "snats": Table(layout.SNAT, copies * sizes.snats),
        "neighbours": Table(layout.NEXTHOP, copies * sizes.neighbours),
        "routes": Table(layout.ROUTE, copies * layout.ROUTES),
        "slots": Table(layout.SLOT_LINE, copies * sizes.tables * layout.SLOT_LINES),
        "flows": Table(layout.FLOW_GROUP, sizes.flow_groups),
        "ports": Table(layout.PORT_LINE, sizes.port_tables * layout.PORT_LINES),
        "locks": Table(word, layout.LOCKS),
        "service_counters": Table(layout.COUNTER, cpus * sizes.services),
        "backend_counters": Table(layout.COUNTER, cpus * sizes.backends),
        "reason_counters": Table(word, cpus * layout.REASON_ROW),
        "wanted": Table(layout.WANTED, layout.WANTED_RECORDS),
        "learned": Table(layout.LEARNED, layout.LEARNED_RECORDS),
        "event_heads": Table(layout.EVENT_HEAD, cpus),
        "events": Table(layout.EVENT, cpus * layout.EVENTS),
    }


def total_bytes(sizes: Sizes) -> int:
    """What all tables together take."""
    return sum(table.nbytes for table in shapes(sizes).values())


class Tables:
    """Views of one datapath's memory. Configuration arrays have shape (copy, record), counters
    (cpu, record), flows (record,); see core/tables.h for the fields.

    buffers: for each name of `shapes(sizes)` a writable buffer of at least its size.
    """

    def __init__(self, sizes: Sizes, buffers: Mapping[str, Any]) -> None:
        self.sizes = sizes
        self._buffers = dict(buffers)
        raw: dict[str, Array] = {}
        for name, table in shapes(sizes).items():
            flat = np.frombuffer(buffers[name], np.uint8)[: table.nbytes]
            raw[name] = flat.view(table.dtype)
        copies, cpus = layout.COPIES, sizes.cpus
        self.settings: Array = raw["settings"]
        self.copies: Array = raw["copies"]
        self.endpoints: Array = raw["endpoints"].reshape(copies, -1)
        self.services: Array = raw["services"].reshape(copies, -1)
        self.backends: Array = raw["backends"].reshape(copies, -1)
        self.snats: Array = raw["snats"].reshape(copies, -1)
        self.neighbours: Array = raw["neighbours"].reshape(copies, -1)
        self.routes: Array = raw["routes"].reshape(copies, -1)
        self.slots: Array = raw["slots"]["backend"].reshape(copies, sizes.tables, -1)
        self.flow_groups: Array = raw["flows"]
        self.flows: Array = raw["flows"]["way"].reshape(-1)
        self.ports: Array = raw["ports"]["holder"].reshape(sizes.port_tables, -1)
        self.locks: Array = raw["locks"]
        self.service_counters: Array = raw["service_counters"].reshape(cpus, -1)
        self.backend_counters: Array = raw["backend_counters"].reshape(cpus, -1)
        self.reason_counters: Array = raw["reason_counters"].reshape(cpus, -1)
        self.wanted: Array = raw["wanted"]
        self.learned: Array = raw["learned"]
        self.event_heads: Array = raw["event_heads"]
        self.events: Array = raw["events"].reshape(cpus, -1)
        self._raw = raw

    @classmethod
    def allocate(cls, sizes: Sizes) -> Tables:
        """Tables in this process's own memory, all zero."""
        return cls(sizes, {n: np.zeros(t.nbytes, np.uint8) for n, t in shapes(sizes).items()})

    def raw(self, name: str) -> Array:
        """A table as it lies in memory, one record after the other."""
        return self._raw[name]

    def prepare(self, seed: tuple[int, int, int, int]) -> None:
        """Fill in what is fixed for the life of the memory; a seed that is there stays. Nobody traces
        yet: a daemon that was killed may have left it on."""
        settings = self.settings[0]
        settings["trace"] = 0
        if not settings["seed"].any():
            settings["seed"] = seed
        settings["layout"] = layout_digest()
        settings["flow_groups"] = self.sizes.flow_groups
        settings["port_tables"] = self.sizes.port_tables
        settings["local_first"] = LOCAL_PORTS.start

    @property
    def active(self) -> int:
        """Which copy of the configuration is in force."""
        return int(self.settings["active"][0]) & 1

    @property
    def generation(self) -> int:
        """The number of the configuration in force; 0 before the first."""
        return int(self.copies["generation"][self.active])

    @property
    def seed(self) -> bytes:
        """The secret that hashes are keyed with, 32 bytes."""
        return bytes(self.settings["seed"][0].tobytes())


def no_smaller(sizes: Sizes, old: Mapping[str, int]) -> Sizes:
    """Room for every id that was given out: flows name their backend, service and SNAT address by it,
    and a smaller configuration has to leave them where they are. old: sizes of the tables that were there."""
    kept = {
        name: max(getattr(sizes, name), old[name])
        for name in ("index_groups", "services", "backends", "snats", "neighbours", "tables")
        if name in old
    }
    return replace(sizes, **kept)


def size_changes(old: Sizes, new: Sizes) -> list[str]:
    """The names of the sizes that differ."""
    return [f.name for f in fields(Sizes) if getattr(old, f.name) != getattr(new, f.name)]
