# SPDX-License-Identifier: Apache-2.0
"""What needs more than one value to be found wrong: references, duplicates, loops, totals.

These run on the raw data of the file, also when the schema has refused parts of it, so that one run
shows everything. What cannot be read is skipped here: the schema reports it. All checks take time
in proportion to the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from evener import eal
from evener.config import schema, values
from evener.config.values import Endpoint, Finding, attempt, listed, nearest, show
from evener.model import (
    MAX_BACKENDS,
    MAX_OWN_ADDRESSES,
    MAX_POOLS,
    MAX_SERVICES,
    MAX_SNAT,
    Driver,
    endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from evener.config.lines import Path


class Located(NamedTuple):
    """A finding and the key that it is about."""

    path: Path
    finding: Finding


@dataclass(frozen=True, slots=True)
class _Readable:
    """The parts of a file that have the right shape."""

    datapath: dict[str, Any]
    pools: dict[str, dict[str, Any]]
    services: dict[str, dict[str, Any]]
    pool_names: list[str] | None
    """Also of pools that cannot be read; None if `pool` is no table at all."""

    @classmethod
    def of(cls, raw: dict[str, Any]) -> _Readable:
        pools = raw.get("pool", {})
        return cls(
            datapath=_table(raw.get("datapath", {})),
            pools=_tables(pools),
            services=_tables(raw.get("service")),
            pool_names=list(pools) if isinstance(pools, dict) else None,
        )

    def backends(self) -> Iterator[tuple[Path, Any]]:
        """Every backend with its path, as the file writes it."""
        for name, pool in self.pools.items():
            for position, backend in enumerate(_list(pool.get("backends"))):
                yield ("pool", name, "backends", position), backend


def check(raw: dict[str, Any]) -> list[Located]:
    """Every problem of a parsed file that the schema cannot see, in no particular order."""
    readable = _Readable.of(raw)
    return [
        *_interfaces(readable),
        *_eal(readable),
        *_pool_references(readable),
        *_listen_twice(readable),
        *_backends_twice(readable),
        *_loops(readable),
        *_snat(readable),
        *_totals(readable),
        *_own_addresses(readable),
    ]


def text_of(path: Path) -> str:
    """A path as the operator writes it: pool.web.backends[1].weight; odd names are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = part.isascii() and part.replace("_", "").replace("-", "").isalnum()
            text += ("." if text else "") + (part if bare else show(part))
    return text


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> dict[str, dict[str, Any]]:
    return {name: item for name, item in _table(value).items() if isinstance(item, dict)}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _endpoint_of(backend: object) -> Endpoint | None:
    """Where a backend serves, if that can be read from either way of writing it."""
    return attempt(values.endpoint, _table(backend).get("address", backend))


def _interfaces(readable: _Readable) -> Iterator[Located]:
    path: Path = ("datapath", "interfaces")
    given = readable.datapath.get("interfaces", [])
    needed = attempt(values.driver, readable.datapath.get("driver", "xdp")) is not Driver.SIM
    if given == [] and needed:
        fault = "is empty" if "interfaces" in readable.datapath else "is missing"
        yield Located(path, Finding(f"{fault}: nothing to attach to", schema.INTERFACES))
    yield from _repeated(path, _list(given), values.interface, "interface")


def _eal(readable: _Readable) -> Iterator[Located]:
    path: Path = ("datapath", "eal")
    driver = attempt(values.driver, readable.datapath.get("driver", "xdp"))
    given = readable.datapath.get("eal", [])
    if driver is not Driver.DPDK:
        if driver is not None and given != []:
            yield Located(path, Finding(f"means nothing to driver {driver}", 'driver = "dpdk"'))
    elif given == []:
        fault = "is empty" if "eal" in readable.datapath else "is missing"
        yield Located(path, Finding(f"{fault}: no device that packets come from", schema.EAL))
    elif (
        isinstance(given, list)
        and all(isinstance(text, str) for text in given)
        and not eal.devices(given)
    ):
        yield Located(path, Finding("names no device that packets come from", schema.EAL))


def _repeated(path: Path, items: list[Any], parse: Any, noun: str) -> Iterator[Located]:
    """Items of a list that stand in it twice; those that parse refuses are left to the schema."""
    first: dict[object, int] = {}
    for position, item in enumerate(items):
        value = attempt(parse, item)
        if value is None:
            continue
        if value in first:
            message = f"{noun} {value} is already {text_of((*path, first[value]))}"
            yield Located((*path, position), Finding(message, f"each {noun} once"))
        first.setdefault(value, position)


def _pool_references(readable: _Readable) -> Iterator[Located]:
    known = readable.pool_names
    if known is None:
        return
    exists = set(known)
    for name, service in readable.services.items():
        wanted = service.get("pool")
        if not isinstance(wanted, str) or wanted in exists:
            continue
        message = f"there is no pool {show(wanted)}{nearest(wanted, known)}"
        allowed = listed(known) if known else "name of a pool; this file has none, add [pool.NAME]"
        yield Located(("service", name, "pool"), Finding(message, allowed))


def _listen_twice(readable: _Readable) -> Iterator[Located]:
    first: dict[object, str] = {}
    for name, service in readable.services.items():
        listen = attempt(values.listen, service.get("listen"))
        if listen is None:
            continue
        if listen in first:
            message = f"{show(service['listen'])} is already {text_of(('service', first[listen]))}"
            finding = Finding(message, "one service for each address, port and protocol")
            yield Located(("service", name, "listen"), finding)
        first.setdefault(listen, name)


def _backends_twice(readable: _Readable) -> Iterator[Located]:
    places: dict[tuple[object, Endpoint], Path] = {}
    names: dict[tuple[object, str], Path] = {}
    for path, backend in readable.backends():
        pool = path[1]
        found = _endpoint_of(backend)
        if found is not None:
            earlier = places.setdefault((pool, found), path)
            if earlier != path:
                message = f"backend {endpoint(*found)} is already {text_of(earlier)}"
                yield Located(path, Finding(message, "each address and port once in a pool"))
        name = attempt(values.name, _table(backend).get("name"))
        if name is not None:
            earlier = names.setdefault((pool, name), path)
            if earlier != path:
                message = f"name {show(name)} is already that of {text_of(earlier)}"
                yield Located((*path, "name"), Finding(message, "each name once in a pool"))


def _loops(readable: _Readable) -> Iterator[Located]:
    """A backend on an address of the balancer itself: its packets would come straight back."""
    owners: dict[IPv4Address, Path] = {}
    listens: dict[Endpoint, Path] = {}
    for path, address in _own(readable):
        owners.setdefault(address, path)
    for name, service in readable.services.items():
        listen = attempt(values.listen, service.get("listen"))
        if listen is not None:
            listens.setdefault(Endpoint(listen.address, listen.port), ("service", name, "listen"))
    for path, backend in readable.backends():
        found = _endpoint_of(backend)
        if found is None or found.address not in owners:
            continue
        if found in listens:
            message = f"backend {endpoint(*found)} is {text_of(listens[found])} itself: a loop"
        else:
            owner = text_of(owners[found.address])
            message = f"backend {endpoint(*found)} is on the balancer's own address ({owner})"
        yield Located(path, Finding(message, "address of another host, neither VIP nor snat"))


def _own(readable: _Readable) -> Iterator[tuple[Path, IPv4Address]]:
    """Every VIP and SNAT address, with repetitions."""
    for name, service in readable.services.items():
        listen = attempt(values.listen, service.get("listen"))
        if listen is not None:
            yield ("service", name, "listen"), listen.address
        for position, item in enumerate(_list(service.get("snat"))):
            address = attempt(values.address, item)
            if address is not None:
                yield ("service", name, "snat", position), address


def _snat(readable: _Readable) -> Iterator[Located]:
    for name, service in readable.services.items():
        path: Path = ("service", name, "snat")
        given = _list(service.get("snat"))
        allowed = f"1 to {MAX_SNAT} addresses, or no snat at all for the VIP"
        if service.get("snat") == []:
            yield Located(path, Finding("is empty", allowed))
        if len(given) > MAX_SNAT:
            yield Located(
                (*path, MAX_SNAT), Finding(f"{len(given)} addresses are too many", allowed)
            )
        yield from _repeated(path, given, values.address, "address")


def _totals(readable: _Readable) -> Iterator[Located]:
    totals: list[tuple[str, list[Path], int]] = [
        ("pools", [("pool", name) for name in readable.pools], MAX_POOLS),
        ("services", [("service", name) for name in readable.services], MAX_SERVICES),
        ("backends in all pools", [path for path, _ in readable.backends()], MAX_BACKENDS),
    ]
    for noun, paths, limit in totals:
        if len(paths) > limit:
            finding = Finding(f"{len(paths)} {noun} are too many", f"at most {limit} {noun}")
            yield Located(paths[limit], finding)


def _own_addresses(readable: _Readable) -> Iterator[Located]:
    seen: set[IPv4Address] = set()
    beyond: Path | None = None
    for path, address in _own(readable):
        seen.add(address)
        if len(seen) > MAX_OWN_ADDRESSES and beyond is None:
            beyond = path
    if beyond is not None:
        message = f"{len(seen)} different VIPs and SNAT addresses are too many"
        yield Located(beyond, Finding(message, f"at most {MAX_OWN_ADDRESSES} in all services"))
