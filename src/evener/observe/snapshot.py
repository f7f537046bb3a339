# SPDX-License-Identifier: Apache-2.0
"""What observers look at, and what the ids in it are called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evener.datapath.base import Reader
from evener.model import Backend, Config, Pool, Service, endpoint
from evener.tables.compile import Ids
from evener.tables.effective import EndpointKey


@dataclass(frozen=True)
class Place:
    """Where the configuration has a backend: its pool, and what the file says of it there."""

    pool: Pool
    backend: Backend

    @property
    def name(self) -> str:
        """POOL/BACKEND, as the command line writes it."""
        return f"{self.pool.name}/{self.backend.name}"


@dataclass(frozen=True)
class Snapshot:
    """The configuration in force, its ids, and a datapath to read.

    A backend's id stands for address, port and protocol, so it may be in several pools; a service
    that is known says which is meant. Ids that were removed from the configuration have the names
    of their ends until they are forgotten. An id that is unknown is called by its number.
    """

    config: Config
    ids: Ids
    reader: Reader

    @cached_property
    def service_keys(self) -> dict[int, EndpointKey]:
        """Address, port and protocol of each service id, removed ones included."""
        space = self.ids.services
        return {number: key for key, number in {**space.retired, **space.ids}.items()}

    @cached_property
    def backend_keys(self) -> dict[int, EndpointKey]:
        """Address, port and protocol of each backend id, removed ones included."""
        space = self.ids.backends
        return {number: key for key, number in {**space.retired, **space.ids}.items()}

    @cached_property
    def snats(self) -> dict[int, Any]:
        """The SNAT address of each id, removed ones included."""
        space = self.ids.snats
        return {number: address for address, number in {**space.retired, **space.ids}.items()}

    @cached_property
    def _services(self) -> dict[int, Service]:
        known = self.ids.services.ids
        keys = {(s.address, s.port, s.protocol): s for s in self.config.services}
        return {known[key]: service for key, service in keys.items() if key in known}

    @cached_property
    def _places(self) -> dict[int, list[Place]]:
        """Each backend id's places, in the order of the file."""
        found: dict[int, list[Place]] = {}
        protocols: dict[str, list[Any]] = {}
        for service in self.config.services:
            protocols.setdefault(service.pool, []).append(service.protocol)
        for pool in self.config.pools:
            for protocol in dict.fromkeys(protocols.get(pool.name, [])):
                for backend in pool.backends:
                    number = self.ids.backends.ids.get((backend.address, backend.port, protocol))
                    if number:
                        found.setdefault(number, []).append(Place(pool, backend))
        return found

    def service(self, number: int) -> Service | None:
        """The service of the configuration that has this id."""
        return self._services.get(number)

    def places(self, number: int) -> list[Place]:
        """Every pool that has the backend with this id."""
        return self._places.get(number, [])

    def place(self, number: int, service: int = 0) -> Place | None:
        """The backend in the pool of a service, else in the first pool that has it."""
        places = self.places(number)
        known = self.service(service)
        of_service = [place for place in places if known and place.pool.name == known.pool]
        return next(iter(of_service or places), None)

    def service_name(self, number: int) -> str | None:
        """The service's name; its ends if it was removed; None for id 0."""
        service = self.service(number)
        if service or not number:
            return service.name if service else None
        return self.service_listen(number) or f"service {number}"

    def service_listen(self, number: int) -> str | None:
        """VIP:PORT/PROTOCOL of a service id; None if the id stands for nothing."""
        key = self.service_keys.get(number)
        return f"{endpoint(key[0], key[1])}/{key[2].name.lower()}" if key else None

    def service_end(self, number: int) -> str | None:
        """VIP:PORT of a service id."""
        key = self.service_keys.get(number)
        return endpoint(key[0], key[1]) if key else None

    def backend_name(self, number: int, service: int = 0) -> str | None:
        """POOL/BACKEND; the ends alone if it was removed; None for id 0."""
        place = self.place(number, service)
        if place or not number:
            return place.name if place else None
        return self.backend_end(number) or f"backend {number}"

    def backend_end(self, number: int) -> str | None:
        """ADDRESS:PORT of a backend id."""
        key = self.backend_keys.get(number)
        return endpoint(key[0], key[1]) if key else None

    def snat_address(self, number: int) -> str | None:
        """The SNAT address of an id."""
        address = self.snats.get(number)
        return None if address is None else str(address)

    def interface_name(self, ifindex: int) -> str | None:
        """The interface's name; None for index 0. Only those of the datapath are known by name."""
        names = {a.ifindex: a.interface for a in self.reader.attachments}
        return names.get(ifindex, f"interface {ifindex}") if ifindex else None
