# SPDX-License-Identifier: Apache-2.0
"""What is to be in force: configuration and network, merged by one pure function.

Health results and the operator's wishes are the other inputs of this merge; they change a backend's
weight here and never in the configuration.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from typing import Generic, TypeAlias, TypeVar

from evener.model import Address, Config, Protocol, Service, Timeouts

EndpointKey: TypeAlias = tuple[Address, int, Protocol]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where to send a frame: both MAC addresses (6 bytes each) and the interface's index."""

    dst: bytes
    src: bytes
    ifindex: int


@dataclass(frozen=True, slots=True)
class Route:
    """A prefix and the gateway's next hop; None while it is unresolved or on the link itself."""

    prefix: IPv4Network
    nexthop: NextHop | None


class Prefixes(Generic[T]):
    """What prefixes lead to, by the longest one that an address is in; the first counts if there are two.

    A dictionary for each length: to find one does not cost more when there are many.
    """

    def __init__(self, pairs: Iterable[tuple[IPv4Network, T]]) -> None:
        by_mask: dict[int, dict[int, T]] = {}
        for prefix, what in pairs:
            of = by_mask.setdefault(int(prefix.netmask), {})
            of.setdefault(int(prefix.network_address), what)
        self._by_mask = sorted(by_mask.items(), key=lambda i: -i[0])

    def find(self, address: IPv4Address) -> T | None:
        """None: it is in no prefix."""
        number = int(address)
        for mask, of in self._by_mask:
            if number & mask in of:
                return of[number & mask]
        return None


@dataclass(frozen=True, slots=True)
class Network:
    """What the kernel knows: neighbours by address, and routes, longest prefix first."""

    neighbours: Mapping[IPv4Address, NextHop] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    _ways: Prefixes[NextHop | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ways", Prefixes((r.prefix, r.nexthop) for r in self.routes))

    def nexthop(self, address: Address) -> NextHop | None:
        """The next hop to an address: the neighbour itself, or the gateway of its route."""
        if not isinstance(address, IPv4Address):
            return None
        if address in self.neighbours:
            return self.neighbours[address]
        return self._ways.find(address)

    def by(self, ifindexes: Container[int]) -> Network:
        """What of it can be reached by these interfaces; where other routes lead is not known then."""
        return Network(
            {a: hop for a, hop in self.neighbours.items() if hop.ifindex in ifindexes},
            tuple(
                route
                if route.nexthop is None or route.nexthop.ifindex in ifindexes
                else replace(route, nexthop=None)
                for route in self.routes
            ),
        )


@dataclass(frozen=True, slots=True)
class EffectiveBackend:
    """A backend that is to be in force; nexthop None: its MAC address is not known yet."""

    key: EndpointKey
    weight: int
    nexthop: NextHop | None


@dataclass(frozen=True, slots=True)
class EffectiveService:
    """A service with its pool's backends, and the name of the pool whose table it uses."""

    service: Service
    pool: str
    backends: tuple[EffectiveBackend, ...]

    @property
    def key(self) -> EndpointKey:
        return (self.service.address, self.service.port, self.service.protocol)

    @property
    def table(self) -> str:
        """The name of the table of slots that it uses: one for each pool and protocol."""
        return f"{self.pool}/{self.service.protocol}"


@dataclass(frozen=True, slots=True)
class Effective:
    """Everything that the tables are compiled from."""

    services: tuple[EffectiveService, ...]
    timeouts: Timeouts
    network: Network

    def pools(self) -> dict[str, tuple[EffectiveBackend, ...]]:
        """The backends behind each table that some service uses, by the table's name."""
        return {service.table: service.backends for service in self.services}


def merge(config: Config, network: Network) -> Effective:
    """Configuration and network in, the effective model out."""

    pools = {pool.name: pool for pool in config.pools}

    @cache
    def backends(pool: str, protocol: Protocol) -> tuple[EffectiveBackend, ...]:
        return tuple(
            EffectiveBackend((b.address, b.port, protocol), b.weight, network.nexthop(b.address))
            for b in pools[pool].backends
        )

    services = tuple(
        EffectiveService(s, s.pool, backends(s.pool, s.protocol)) for s in config.services
    )
    return Effective(services, config.timeouts, network)
