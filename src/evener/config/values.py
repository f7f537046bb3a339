# SPDX-License-Identifier: Apache-2.0
"""Single values of the file, each parsed by one function.

A function takes what TOML gave and returns the model's value, or raises RefusedError. Both users
need exactly the same answers: the schema, which reports, and the cross checks, which compare
whatever could be read. A function reports everything that is wrong with its value, not only the
first thing.

What this version can do is said here once, in AVAILABLE_*; the model's enumerations name more.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from evener.errors import ProblemKind
from evener.model import (
    FLOWS_MAX,
    FLOWS_MIN,
    SCHEDULERS,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    WEIGHT_MAX,
    Driver,
    Mode,
    Protocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AVAILABLE_DRIVERS: Final = (Driver.XDP, Driver.DPDK, Driver.SIM)
AVAILABLE_MODES: Final = (Mode.FULL_NAT,)
AVAILABLE_PROTOCOLS: Final = (Protocol.TCP,)

# The sentences after "allowed:", also published in the JSON schema.
ADDRESS = "IPv4 address of one host, such as 10.0.0.10"
PORT = "1..65535"
ENDPOINT = "ADDRESS:PORT, such as 10.0.0.2:8080"
LISTEN = "ADDRESS:PORT/tcp, such as 10.0.0.10:8080/tcp"
NAME = "1 to 64 characters of A-Z a-z 0-9 . _ -"
WEIGHT = f"whole number 0..{WEIGHT_MAX}"
FLOWS = f"whole number {FLOWS_MIN}..{FLOWS_MAX}"
DURATION = (
    f"{TIMEOUT_MIN_S} s to {TIMEOUT_MAX_S // 3600} h, "
    'as seconds (30) or with a unit ("30s", "15m", "8h")'
)
INTERFACE = "name of a network interface, 1 to 15 characters without / : and spaces"
EAL_ARGUMENT = "one argument of DPDK's EAL, such as --vdev=net_af_packet0,iface=eth1"
DRIVER = ", ".join(AVAILABLE_DRIVERS)
MODE = ", ".join(AVAILABLE_MODES)
SCHEDULER = ", ".join(SCHEDULERS)
PROTOCOL = ", ".join(protocol.name.lower() for protocol in AVAILABLE_PROTOCOLS)

NAME_PATTERN: Final = r"[A-Za-z0-9._-]{1,64}"
DURATION_PATTERN: Final = r"([1-9][0-9]{0,8})([smh])"
_ENDPOINT_PATTERN: Final = r"(\[[^\[\]]*\]|[^:\[\]]*):([^:]*)"
_Value = TypeVar("_Value")
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one value, and what would be right."""

    message: str
    allowed: str
    kind: ProblemKind = ProblemKind.WRONG


class RefusedError(ValueError):
    """A value with at least one finding."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(finding.message for finding in findings))
        self.findings = findings


class Endpoint(NamedTuple):
    """Where a backend serves."""

    address: IPv4Address
    port: int


class Listen(NamedTuple):
    """What a service answers to."""

    address: IPv4Address
    port: int
    protocol: Protocol


def show(value: object) -> str:
    """A value as the file would write it, on one line and never long."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 128:  # str() of a huge integer raises
        return "a huge number"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    return str(value)


def attempt(
    parse: Callable[[object], _Value], value: object, findings: list[Finding] | None = None
) -> _Value | None:
    """parse(value), or None if it was refused; what it found is added to findings."""
    try:
        return parse(value)
    except RefusedError as refused:
        if findings is not None:
            findings += refused.findings
        return None


def unavailable(what: str, available: str) -> Finding:
    """A finding for something that the design knows and this version does not do."""
    return Finding(f"{what} is not available in this version", available, ProblemKind.UNAVAILABLE)


def _text(value: object, noun: str, allowed: str) -> str:
    if isinstance(value, str):
        return value
    raise RefusedError(Finding(f"{show(value)} is not {noun} (a string)", allowed))


def _whole(value: object, low: int, high: int, noun: str, allowed: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise RefusedError(Finding(f"{show(value)} is not {noun}", allowed))


def weight(value: object) -> int:
    """Share of new flows, 0..65535."""
    return _whole(value, 0, WEIGHT_MAX, "a weight", WEIGHT)


def flows(value: object) -> int:
    """Capacity of the flow table."""
    return _whole(value, FLOWS_MIN, FLOWS_MAX, "a number of flows", FLOWS)


def duration(value: object) -> int:
    """Whole seconds from 30, "30s", "15m" or "8h"."""
    seconds = value
    if isinstance(value, str) and (match := re.fullmatch(DURATION_PATTERN, value)):
        seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if isinstance(seconds, int) and not isinstance(seconds, bool):
        if TIMEOUT_MIN_S <= seconds <= TIMEOUT_MAX_S:
            return seconds
        fault = "too short" if seconds < TIMEOUT_MIN_S else "too long"
        raise RefusedError(Finding(f"{show(value)} is {fault}", DURATION))
    raise RefusedError(Finding(f"{show(value)} is not a duration", DURATION))


def name(value: object) -> str:
    """The name of a service, pool or backend."""
    text = _text(value, "a name", NAME)
    if re.fullmatch(NAME_PATTERN, text):
        return text
    raise RefusedError(Finding(f"{show(text)} is not a name", NAME))


def interface(value: object) -> str:
    """The name of a network interface, by the kernel's rule (dev_valid_name)."""
    text = _text(value, "an interface", INTERFACE)
    if (
        1 <= len(text.encode()) <= 15
        and text not in {".", ".."}
        and not re.search(r"[/:\s\0]", text)
    ):
        return text
    raise RefusedError(Finding(f"{show(text)} is not the name of an interface", INTERFACE))


def eal_argument(value: object) -> str:
    """One argument of a command line."""
    text = _text(value, "an argument", EAL_ARGUMENT)
    if text and text.isprintable():
        return text
    raise RefusedError(Finding(f"{show(text)} is not an argument", EAL_ARGUMENT))


_Choice = TypeVar("_Choice", Driver, Mode)


def _choice(value: object, known: type[_Choice], available: tuple[_Choice, ...]) -> _Choice:
    noun, allowed = known.__name__.lower(), ", ".join(available)
    text = _text(value, f"a {noun}", allowed)
    if text not in set(known):
        raise RefusedError(Finding(f"{show(text)} is not a {noun}", allowed))
    if text not in available:
        raise RefusedError(unavailable(f"{noun} {show(text)}", allowed))
    return known(text)


def driver(value: object) -> Driver:
    """What runs the packets."""
    return _choice(value, Driver, AVAILABLE_DRIVERS)


def mode(value: object) -> Mode:
    """How packets reach the backend."""
    return _choice(value, Mode, AVAILABLE_MODES)


def scheduler(value: object) -> str:
    """How a backend is chosen, by the registry of schedulers."""
    text = _text(value, "a scheduler", SCHEDULER)
    if text in SCHEDULERS:
        return text
    raise RefusedError(unavailable(f"scheduler {show(text)}", SCHEDULER))


def pool_name(value: object) -> str:
    """A reference to a pool; whether it exists is a cross check."""
    return _text(value, "the name of a pool", "name of a pool of this file")


def address(value: object) -> IPv4Address:
    """An IPv4 address that one host can have."""
    text = _text(value, "an address", ADDRESS)
    try:
        parsed = IPv4Address(text)
    except ValueError:
        raise RefusedError(_not_ipv4(text)) from None
    if parsed in _THIS_NETWORK or parsed.is_multicast or parsed.is_reserved or parsed.is_loopback:
        raise RefusedError(Finding(f"{parsed} cannot be the address of one host", ADDRESS))
    return parsed


def _not_ipv4(text: str) -> Finding:
    try:
        parsed = IPv6Address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return Finding(f"{show(text)} is not an IPv4 address", ADDRESS)
    return unavailable(f"IPv6 address {show(str(parsed))}", "IPv4")


def port(value: object) -> int:
    """A port from its digits."""
    text = _text(value, "a port", PORT)
    if re.fullmatch(r"[1-9][0-9]{0,4}", text) and int(text) <= 65535:
        return int(text)
    raise RefusedError(Finding(f"{show(text)} is not a port", PORT))


def endpoint(value: object, allowed: str = ENDPOINT) -> Endpoint:
    """Where a backend serves: "10.0.0.2:8080"."""
    text = _text(value, "an address with a port", allowed)
    match = re.fullmatch(_ENDPOINT_PATTERN, text)
    if match is None:
        bare = _not_ipv4(text)
        if bare.kind is ProblemKind.UNAVAILABLE:
            raise RefusedError(bare)
        fault = "is not an address with a port" if ":" in text else "has no port"
        raise RefusedError(Finding(f"{show(text)} {fault}", allowed))
    findings: list[Finding] = []
    host = attempt(address, match[1], findings)
    number = attempt(port, match[2], findings)
    if host is None or number is None:
        raise RefusedError(*findings)
    return Endpoint(host, number)


def listen(value: object) -> Listen:
    """What a service answers to: "10.0.0.10:8080/tcp"."""
    text = _text(value, "an address, port and protocol", LISTEN)
    where, slash, name_of_protocol = text.rpartition("/")
    findings: list[Finding] = []
    if not slash:
        findings.append(Finding(f"{show(text)} does not name its protocol", LISTEN))
    elif name_of_protocol == "udp":
        findings.append(unavailable('protocol "udp"', PROTOCOL))
    elif name_of_protocol != "tcp":
        findings.append(Finding(f"{show(name_of_protocol)} is not a protocol", PROTOCOL))
    found = attempt(lambda value: endpoint(value, LISTEN), where if slash else text, findings)
    if found is None or findings:
        raise RefusedError(*findings)
    return Listen(found.address, found.port, Protocol.TCP)


def listed(names: list[str]) -> str:
    """Names for "allowed:", few enough to read."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def nearest(wrong: str, names: list[str]) -> str:
    """A suggestion to put behind a message: ', did you mean "web"?', or nothing."""
    close = difflib.get_close_matches(wrong, names, n=1)
    return f", did you mean {show(close[0])}?" if close else ""
