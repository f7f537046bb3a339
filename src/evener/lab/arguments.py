# SPDX-License-Identifier: Apache-2.0
"""DPDK's arguments as the user gives them, and the daemon's configuration that they end up in; pure."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evener import config
from evener.eal import devices, has, split
from evener.errors import EvenerError
from evener.model import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """A configuration, and of it: interfaces of the exception path, DPDK's arguments."""

    text: str
    interfaces: tuple[str, ...]
    eal: tuple[str, ...]


def configuration(text: str | None, eal: Sequence[str], netns: Path, source: str) -> Wanted:
    """The configuration that the daemon is to run with.

    :param text: the user's, named `source` in errors; None for the scenario
    :param eal: DPDK's arguments, and behind "--" the worker's; empty for those of the text
    :param netns: where devices are made

    Raises ConfigError for what is wrong with the text, EvenerError when nobody names a device.
    """
    table: dict[str, Any] = tomllib.loads(_SCENARIO)
    interfaces = tuple(f"eth{number}" for number in range(len(devices(eal))))
    if text is not None:
        read = config.loads(text, source)
        if read.datapath.driver is not Driver.DPDK:
            raise EvenerError(f"its driver is {read.datapath.driver}", source, 'driver = "dpdk"')
        table = tomllib.loads(text)
        interfaces = read.datapath.interfaces
        eal = eal or read.datapath.eal
    if not devices(eal):
        raise EvenerError("no device is named", " ".join(eal), f"such as {_EXAMPLE}")
    whole = worker(eal, netns)
    datapath = {**table.get("datapath", {}), "driver": "dpdk"}
    table["datapath"] = {**datapath, "interfaces": [*interfaces], "eal": [*whole]}
    return Wanted("\n".join(_toml(table)) + "\n", interfaces, whole)


def taps(eal: Sequence[str]) -> list[str]:
    """The interfaces that net_tap devices are to be, those that have a name."""
    found = (re.search(r"^net_tap\w*(?:,.*)?,iface=([^,]+)", value) for value in devices(eal))
    return [match[1] for match in found if match]


def worker(eal: Sequence[str], netns: Path) -> tuple[str, ...]:
    """DPDK's arguments, then the worker's: where devices are made, and that an idle lane rests, which
    virtual devices like. A card is polled without end, unless told otherwise."""
    before, after = split(eal)
    if not any(word.startswith("--netns") for word in after):
        after = [*after, f"--netns={netns}"]
    if not has(before, "allow") and not any(word.startswith("--idle-us") for word in after):
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
