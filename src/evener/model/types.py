# SPDX-License-Identifier: Apache-2.0
"""The nouns: service, pool, backend and what surrounds them.

The enumerations name everything that the design knows. What this version can do is decided by
`evener.config`, which refuses the rest, so that a new mode or driver changes no type here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

SCHEDULERS: Final[tuple[str, ...]] = ("maglev",)
"""Every scheduler that this version has; the first is the default."""


class Protocol(IntEnum):
    """The transport protocol, by its number in the IP header."""

    TCP = 6
    UDP = 17


class Mode(StrEnum):
    """How packets reach the backend and how its replies come back."""

    FULL_NAT = "full-nat"
    NAT = "nat"
    DSR = "dsr"
    TUNNEL = "tunnel"


class Driver(StrEnum):
    """What runs the C core: the kernel, a DPDK poll loop, or this process."""

    XDP = "xdp"
    DPDK = "dpdk"
    SIM = "sim"


def endpoint(address: Address, port: int) -> str:
    """The one way to write an address with a port: 10.0.0.2:8080, [2001:db8::2]:8080."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A machine and port that serves.

    name is unique in its pool; unless given it is endpoint(address, port). weight is its share of
    new flows relative to the other backends of the pool, 0..65535; 0 means no new flows.
    """

    name: str
    address: Address
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A named group of backends, in the order of the file.

    Without backends it refuses every client. table_size is the number of slots of its compiled
    table, a prime (Maglev needs one).
    """

    name: str
    scheduler: str
    backends: tuple[Backend, ...]
    table_size: int = 65_537


@dataclass(frozen=True, slots=True)
class Service:
    """An address, port and protocol that clients use (IPVS: virtual service).

    pool is the name of the pool that serves. snat holds the source addresses that backends see in
    full-nat mode; unless given it is the VIP alone.
    """

    name: str
    address: Address
    port: int
    protocol: Protocol
    pool: str
    mode: Mode
    snat: tuple[Address, ...]

    @property
    def listen(self) -> str:
        """Address, port and protocol as the configuration writes them: 10.0.0.10:8080/tcp."""
        return f"{endpoint(self.address, self.port)}/{self.protocol.name.lower()}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """After how many seconds without a packet a TCP flow in each state is forgotten."""

    syn: int = 30
    established: int = 900
    fin: int = 300
    closed: int = 60


@dataclass(frozen=True, slots=True)
class Datapath:
    """Where packets are handled; flows is the flow table's capacity, eal are DPDK's arguments."""

    driver: Driver
    interfaces: tuple[str, ...]
    flows: int = 1_000_000
    eal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; pools and services in the order of the file, names unique in each."""

    datapath: Datapath
    pools: tuple[Pool, ...] = ()
    services: tuple[Service, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)

    def pool(self, name: str) -> Pool:
        """The pool of that name; KeyError if there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    def service(self, name: str) -> Service:
        """The service of that name; KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
