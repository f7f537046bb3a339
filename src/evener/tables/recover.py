# SPDX-License-Identifier: Apache-2.0
"""Ids, read back from the tables that are in force: what a daemon that starts needs to go on where
another one ended. The memory itself is the record; there is no file that could disagree with it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from evener._generated import layout
from evener.model import Address, Protocol
from evener.tables.compile import Ids
from evener.tables.memory import Array, Sizes


def address_of(record: Any) -> Address:
    """The address in a field of type layout.ADDR."""
    raw = record["half"].tobytes()
    if raw[:12] == bytes(10) + b"\xff\xff":
        return IPv4Address(raw[12:])
    return IPv6Address(raw)


def port_of(word: Any) -> int:
    """A port in host order from its two bytes on the wire."""
    return int.from_bytes(int(word).to_bytes(2, "little"), "big")


def ids_in_force(raw: Mapping[str, Array], active: int, sizes: Sizes) -> Ids:
    """Ids as the copy in force has them. raw: at least services, backends and snats, both copies, one
    record after the other; sizes as for `recover_ids`."""
    both = (raw[name].reshape(layout.COPIES, -1) for name in ("services", "backends", "snats"))
    services, backends, snats = (rows[active & 1] for rows in both)
    return recover_ids(services, backends, snats, sizes)


def recover_ids(services: Array, backends: Array, snats: Array, sizes: Sizes) -> Ids:
    """Ids as one copy of the tables has them. Backends that are gone come back as retired.

    sizes: no smaller than the tables, or ids would be lost that flows refer to.
    """
    ids = Ids.empty(sizes)
    for number, record in enumerate(services):
        if record["mode"]:
            key = address_of(record["addr"]), port_of(record["port"]), Protocol(record["protocol"])
            ids.services.ids[key] = number
    for number, record in enumerate(backends):
        if record["state"] == layout.BACKEND_NONE:
            continue
        key = address_of(record["addr"]), port_of(record["port"]), Protocol(record["protocol"])
        gone = record["state"] == layout.BACKEND_GONE
        (ids.backends.retired if gone else ids.backends.ids)[key] = number
    for number, record in enumerate(snats):
        if record["addr"]["half"].any():
            ids.snats.ids[address_of(record["addr"])] = number
    return ids
