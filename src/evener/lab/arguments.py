# SPDX-License-Identifier: Apache-2.0
"""DPDK's arguments as the user gives them, and the daemon's configuration that they end up in; pure."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evener import config
from evener.eal import devices, has, interface_of, own_value, split, strays
from evener.errors import ConfigError, EvenerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Interface
    from pathlib import Path

_IDLE_US = 50
_EXAMPLE = "evener-dpdk -l 0 --vdev=net_tap0,iface=tapdpdk"

_SCENARIO = """
[pool.web]
backends = ["10.0.0.2:8080", "10.0.0.3:8080"]

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
"""


class CommandLineError(EvenerError):
    """The arguments are wrong, or too few."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A configuration, and of it: interfaces of the exception path, DPDK's arguments, the VIPs."""

    text: str
    interfaces: tuple[str, ...]
    eal: tuple[str, ...]
    vips: tuple[str, ...]


def configuration(text: str | None, eal: Sequence[str], netns: Path, source: str) -> Wanted:
    """The configuration that the daemon is to run with.

    :param text: the user's, named `source` in errors; None for the scenario. Its driver may be another, or
        none: what it says of devices is then not for us
    :param eal: DPDK's arguments, and behind "--" the worker's; empty for those of the text
    :param netns: where devices are made

    Raises ConfigError for what is wrong with the text, CommandLineError for a word that belongs to no option,
    and when nobody names a device.
    """
    if left := strays(eal):
        raise CommandLineError(
            f"{left[0]!r} is no option of DPDK's, nor the value of one",
            " ".join(eal),
            "leave it out",
        )
    table: dict[str, Any] = tomllib.loads(_SCENARIO) if text is None else _read(text, source)
    datapath = table.get("datapath", {})
    own = datapath if datapath.get("driver") == "dpdk" else {}
    eal = eal or own.get("eal", [])
    if not devices(eal):
        raise CommandLineError("no device is named", " ".join(eal), f"such as {_EXAMPLE}")
    whole = worker(eal, netns)
    interfaces = own.get("interfaces") or [f"eth{number}" for number in range(len(devices(eal)))]
    replaced = {"driver": "dpdk", "interfaces": interfaces, "eal": [*whole]}
    made = "\n".join(_toml({**table, "datapath": {**datapath, **replaced}})) + "\n"
    read = config.loads(made, source)
    vips = dict.fromkeys(str(service.address) for service in read.services)
    return Wanted(made, read.datapath.interfaces, whole, tuple(vips))


def _read(text: str, source: str) -> dict[str, Any]:
    """A configuration that need not say where packets come from; ConfigError for all else."""
    try:
        config.loads(text, source)
    except ConfigError as error:
        missing = [f"datapath.{key}: is missing" for key in ("interfaces", "eal")]
        left = [
            problem
            for problem in error.problems
            if not f"{problem.path}: {problem.message}".startswith(tuple(missing))
        ]
        if left:
            raise ConfigError(left, source) from None
    return tomllib.loads(text)


def unanswered(wanted: Wanted, addresses: Sequence[IPv4Interface]) -> list[str]:
    """VIPs that no interface of the exception path has, so that nobody says where they are."""
    there = {str(address.ip) for address in addresses[: len(wanted.interfaces)]}
    return [vip for vip in wanted.vips if vip not in there]


def taps(eal: Sequence[str]) -> list[str]:
    """The interfaces that net_tap devices are to be, those that have a name."""
    found = (interface_of(value) for value in devices(eal) if value.startswith("net_tap"))
    return [interface for interface in found if interface]


def worker(eal: Sequence[str], netns: Path) -> tuple[str, ...]:
    """DPDK's arguments, then the worker's: where devices are made, and that an idle lane rests, which
    virtual devices like. A card is polled without end, unless told otherwise."""
    before, after = split(eal)
    if own_value(eal, "netns") is None:
        after = [*after, f"--netns={netns}"]
    if not has(before, "allow") and own_value(eal, "idle-us") is None:
        after = [*after, f"--idle-us={_IDLE_US}"]
    return (*before, "--", *after)


def _toml(table: dict[str, Any], path: str = "") -> Iterator[str]:
    """The lines of a table and of those within it; what JSON and TOML write alike is written so."""
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if path and values:
        yield f"[{path}]"
    for key, value in values.items():
        yield f"{json.dumps(key, ensure_ascii=False)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(value, f"{path}.{json.dumps(key)}" if path else json.dumps(key))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)
