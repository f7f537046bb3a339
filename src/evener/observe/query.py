# SPDX-License-Identifier: Apache-2.0
"""Which flows or events an operator asked for: a mapping of filter names to texts, understood once.

    client    an address, ADDRESS:PORT, or a prefix such as 10.0.0.0/24
    service   a service's name, or VIP:PORT/PROTOCOL
    backend   POOL/BACKEND, a backend's name, ADDRESS:PORT or an address
    state     flows: OPENING, ESTABLISHED, HALF_CLOSED, CLOSED
    reason    events: a name of core/reasons.h
    verdict   events: pass, drop, forward

All that are given have to match. Names may be in any case where they cannot be confused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener._generated.reasons import Reason, Verdict
from evener.errors import EvenerError
from evener.observe.snapshot import Snapshot
from evener.observe.values import STATES, nearest, parse_end

Mask = npt.NDArray[np.bool_]
FLOW_FILTERS: Final = ("client", "service", "backend", "state")
EVENT_FILTERS: Final = ("client", "service", "backend", "reason", "verdict")


@dataclass(frozen=True, slots=True)
class Client:
    """A prefix of addresses, with one port or any (0); host byte order."""

    network: int
    mask: int
    port: int

    @classmethod
    def parse(cls, text: str) -> Client:
        """From an address, ADDRESS:PORT or a prefix; EvenerError if it is none of them."""
        if ":" in text:
            address, port = parse_end(text)
            return cls(int(address), 0xFFFFFFFF, port)
        try:
            prefix = IPv4Network(text, strict=False)
        except ValueError:
            raise EvenerError(
                f'"{text}" is not a client', do="give an IPv4 address, ADDRESS:PORT or a prefix"
            ) from None
        return cls(int(prefix.network_address), int(prefix.netmask), 0)

    def matches(self, address: npt.NDArray[Any], port: npt.NDArray[Any]) -> Mask:
        """address: 32 bits, port: 16 bits, both in network order as loaded by this machine."""
        found: Mask = (address.astype("<u4").view(">u4") & self.mask) == self.network
        if self.port:
            found &= port.astype("<u2").view(">u2") == self.port
        return found


@dataclass(frozen=True, slots=True)
class Query:
    """What has to hold; None: anything. Sets are of ids, states, reasons, verdicts."""

    client: Client | None = None
    services: frozenset[int] | None = None
    backends: frozenset[int] | None = None
    states: frozenset[int] | None = None
    reasons: frozenset[int] | None = None
    verdicts: frozenset[int] | None = None

    @classmethod
    def parse(
        cls, filters: Mapping[str, str], snapshot: Snapshot, allowed: Collection[str]
    ) -> Query:
        """Understand filters; EvenerError names what is wrong and what comes near."""
        for name in filters:
            if name not in allowed:
                raise EvenerError(
                    f'no filter "{name}"{nearest(name, allowed)}', do=f"use {', '.join(allowed)}"
                )
        given = {name: text.strip() for name, text in filters.items() if text.strip()}
        return cls(
            client=Client.parse(given["client"]) if "client" in given else None,
            services=_services(given.get("service"), snapshot),
            backends=_backends(given.get("backend"), snapshot),
            states=_word("state", given.get("state"), {n: i for i, n in enumerate(STATES)}),
            reasons=_word("reason", given.get("reason"), {r.name: r.value for r in Reason}),
            verdicts=_word("verdict", given.get("verdict"), {v.name: v.value for v in Verdict}),
        )

    def of_flows(
        self, client: npt.NDArray[np.uint64], binding: npt.NDArray[np.uint64],
        state: npt.NDArray[np.uint8],
    ) -> Mask:  # fmt: skip
        """Which flows match, for their two words and states."""
        found = np.ones(len(client), bool)
        if self.client:
            address, port = client & np.uint64(0xFFFFFFFF), client >> np.uint64(32)
            found &= self.client.matches(address, port & np.uint64(0xFFFF))
        found &= _among(client >> np.uint64(48), self.services)
        found &= _among(binding & np.uint64(0xFFFF), self.backends)
        return found & _among(state, self.states)

    def of_events(self, events: npt.NDArray[Any]) -> Mask:
        """Which events (layout.EVENT) match."""
        view, plan = events["view"], events["plan"]
        found = np.ones(len(events), bool)
        if self.client:
            found &= self._client_of(view, plan)
        found &= _among(plan["service"], self.services)
        found &= _among(plan["backend"], self.backends)
        found &= _among(plan["reason"], self.reasons)
        return found & _among(plan["verdict"], self.verdicts)

    def _client_of(self, view: npt.NDArray[Any], plan: npt.NDArray[Any]) -> Mask:
        """Of a reply the client is where it goes; of what is not ours it may be either end."""
        assert self.client
        direction = plan["direction"]
        source = self.client.matches(_v4(view["src"]), view["sport"])
        target = self.client.matches(_v4(view["dst"]), view["dport"])
        onward = self.client.matches(_v4(plan["dst"]), plan["dport"])
        none = direction == layout.DIRECTION_NONE
        return np.where(direction == layout.DIRECTION_REPLY, onward, source | (none & target))


def _v4(addresses: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The last four bytes of each address, as this machine loads them."""
    return (addresses["half"][:, 1] >> np.uint64(32)).astype(np.uint32)


def _among(values: npt.NDArray[Any], wanted: frozenset[int] | None) -> Mask:
    if wanted is None:
        return np.ones(len(values), bool)
    return np.isin(values, np.array(sorted(wanted), values.dtype))


def _word(what: str, text: str | None, numbers: Mapping[str, int]) -> frozenset[int] | None:
    if text is None:
        return None
    name = text.upper().replace("-", "_")
    if name not in numbers:
        raise EvenerError(
            f'no {what} "{text}"{nearest(name, numbers)}', do=f"one of {', '.join(numbers)}"
        )
    return frozenset([numbers[name]])


def _services(text: str | None, snapshot: Snapshot) -> frozenset[int] | None:
    if text is None:
        return None
    found = {
        number
        for number in snapshot.service_keys
        if text in (snapshot.service_name(number), snapshot.service_listen(number))
    }
    if not found:
        names = [service.name for service in snapshot.config.services]
        raise EvenerError(f'no service "{text}"{nearest(text, names)}', do=_listed(names))
    return frozenset(found)


def _backends(text: str | None, snapshot: Snapshot) -> frozenset[int] | None:
    if text is None:
        return None
    names: dict[str, None] = {}
    found: set[int] = set()
    for number, key in snapshot.backend_keys.items():
        places = snapshot.places(number)
        names.update(dict.fromkeys(place.name for place in places))
        called = {n for place in places for n in (place.name, place.backend.name)}
        if text in called or text in (str(key[0]), snapshot.backend_end(number)):
            found.add(number)
    if not found:
        raise EvenerError(f'no backend "{text}"{nearest(text, names)}', do=_listed(list(names)))
    return frozenset(found)


def _listed(names: list[str]) -> str:
    if not names:
        return "the configuration has none"
    return f"one of {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
