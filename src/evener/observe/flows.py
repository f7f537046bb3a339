# SPDX-License-Identifier: Apache-2.0
"""The flow table: one row for each flow, with all four ends.

Records are read while packets change them. Client, binding, client again: the same client word
twice means that the binding between was that client's (core/flow_table.h); others are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.model import endpoint
from evener.observe.query import FLOW_FILTERS, Query
from evener.observe.snapshot import Snapshot
from evener.observe.values import STATE_OF_FLAGS, STATES, port

Words = npt.NDArray[np.uint64]
LIMIT: Final = 1_000
"""How many rows are made unless more are asked for; 0 asks for all."""


def _u64(value: int) -> np.uint64:
    return np.uint64(value)


_PORT: Final = _u64(0xFFFF)


@dataclass(frozen=True, slots=True)
class Live:
    """The flows that are not over, as arrays of the same length.

    client and binding are the two words of core/tables.h, state is an index into STATES, left_s the
    seconds of silence that the flow has left.
    """

    client: Words
    binding: Words
    state: npt.NDArray[np.uint8]
    left_s: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.client)

    def where(self, mask: npt.NDArray[Any]) -> Live:
        """Those that a mask, or a slice of indices, selects."""
        return Live(self.client[mask], self.binding[mask], self.state[mask], self.left_s[mask])

    @property
    def service(self) -> Words:
        """Each flow's service id; 0 for a port in quarantine whose client went elsewhere."""
        return self.client >> _u64(48)

    @property
    def backend(self) -> Words:
        """Each flow's backend id."""
        return self.binding & _PORT


def live(snapshot: Snapshot) -> Live:
    """Every flow that packets could still use, or whose port is in quarantine."""
    records, settings = snapshot.reader.tables.flows, snapshot.reader.tables.settings[0]
    now = snapshot.reader.now() & 0xFFFF
    client, binding = records["client"].copy(), records["binding"].copy()
    steady = client == records["client"]
    claimed = binding & _u64(layout.FLOW_CLAIMED << 40)
    used = np.flatnonzero(((binding & _PORT) != 0) & (claimed == 0) & steady)
    client, binding = client[used], binding[used]
    state = STATE_OF_FLAGS[(binding >> _u64(40)).astype(np.uint8)]
    age = np.uint16(now) - (binding >> _u64(48)).astype(np.uint16)  # wraps, as the core's does
    age[age >= 0x8000] = 0  # another CPU's clock may be a tick ahead
    names = ("syn_s", "established_s", "fin_s", "closed_s")  # in the order of STATES
    timeouts = np.array([settings[name] for name in names], np.int32)
    left = timeouts[state] - age.astype(np.int32)
    return Live(client, binding, state, left).where(left > 0)


def count(snapshot: Snapshot) -> int:
    """How many flows there are now."""
    return len(live(snapshot))


def flows(
    snapshot: Snapshot, filters: Mapping[str, str] | None = None, limit: int = LIMIT
) -> list[dict[str, Any]]:
    """One row for each flow that all filters (query.FLOW_FILTERS) match, in the table's order.

    limit: at most so many rows; 0 for all. The ends of a port in quarantine whose client has gone
    to another backend are None where nothing is known of them. Raises EvenerError for a filter that
    cannot be understood.
    """
    query = Query.parse(filters or {}, snapshot, FLOW_FILTERS)
    found = live(snapshot)
    chosen = np.flatnonzero(query.of_flows(found.client, found.binding, found.state))
    return _rows(snapshot, found.where(chosen[:limit] if limit else chosen))


def _rows(snapshot: Snapshot, found: Live) -> list[dict[str, Any]]:
    ends: dict[tuple[int, int], dict[str, Any]] = {}
    rows = []
    snat_ids = (found.binding >> _u64(32)) & _u64(0xFF)
    snat_ports = (found.binding >> _u64(16)) & _PORT
    for client, service, backend, snat, snat_port, state, left in zip(
        found.client.tolist(), found.service.tolist(), found.backend.tolist(), snat_ids.tolist(),
        snat_ports.tolist(), found.state.tolist(), found.left_s.tolist(), strict=True,
    ):  # fmt: skip
        both = (service, backend)
        if both not in ends:
            ends[both] = _ends(snapshot, service, backend)
        address = snapshot.snats.get(snat)
        rows.append(
            {
                "protocol": ends[both]["protocol"],
                "state": STATES[state],
                "left_s": left,
                "client": _client(client) if service else None,
                "vip": ends[both]["vip"],
                "snat": None if address is None else endpoint(address, port(snat_port)),
                "backend": ends[both]["backend"],
                "service": ends[both]["service"],
                "pool": ends[both]["pool"],
                "backend_name": ends[both]["backend_name"],
            }
        )
    return rows


def _client(word: int) -> str:
    a, b, c, d = (word & 0xFFFFFFFF).to_bytes(4, "little")
    return f"{a}.{b}.{c}.{d}:{port(word >> 32 & 0xFFFF)}"


def _ends(snapshot: Snapshot, service: int, backend: int) -> dict[str, Any]:
    """What all flows of a service on a backend have in common."""
    place = snapshot.place(backend, service)
    key = snapshot.backend_keys.get(backend)
    return {
        "protocol": key[2].name.lower() if key else None,
        "vip": snapshot.service_end(service),
        "service": snapshot.service_name(service),
        "backend": snapshot.backend_end(backend),
        "backend_name": snapshot.backend_name(backend, service),
        "pool": place.pool.name if place else None,
    }
