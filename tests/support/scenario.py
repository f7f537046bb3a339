# SPDX-License-Identifier: Apache-2.0
"""Scenario files (tests/scenarios/*.scn): read one, run it on a machine, compare.

A file is a page that a person can read: a description, then sections that each begin with a line
`-- NAME --`. `config` (TOML), `network`, and `script`; further configurations and networks are
called `config NAME` and `network NAME`. The network has one line for each host or prefix:

    lb  de:ad:be:ef:00:10                     the balancer's own MAC address
    h1  10.0.0.1  de:ad:be:ef:00:01  [if=2]   a neighbour
    gw  10.0.0.254  de:ad:be:ef:00:fe
    192.168.0.0/16 via gw                     a route; `unresolved`: nobody knows the next hop yet

The script has steps, and after each step what comes of it. A run writes the same script with what
did come of it; both must be the same text. So a failure is a diff of the script.

    in PACKET       a frame (packet_text.py); then `to=MAC` where it is not to the balancer's own, and
                    `from=MAC` where another one sent it. Of it comes one of
                        out PACKET to HOST REASON       (`CHANGED ...`: what should not have changed)
                        pass REASON
                        drop REASON
    time +SECONDS   nothing arrives for so long
    apply NAME      config NAME, network NAME or both; comes of it: generation NUMBER
    sweep           what the daemon does now and then; comes of it: freed NUMBER
    flows           all flows, indented, with their four ends: client > VIP | SNAT > backend
    counters        of services and backends, packets/bytes, indented
    reasons         REASON=COUNT of all packets so far

`#` begins a comment.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from evener._generated.reasons import Reason, Verdict
from evener.config import loads
from evener.model import Config, endpoint
from evener.tables.effective import Network, NextHop, Route
from tests.support import packet_text
from tests.support.machine import IFINDEX, Machine, flow_rows

_RESULTS = ("out ", "pass ", "drop ", "generation ", "freed ", "  ")
_COUNTED = (
    "forward_packets",
    "forward_bytes",
    "reply_packets",
    "reply_bytes",
    "flows_new",
    "refused",
)
_STRANGER = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Segment:
    """A network section: what the tables need, and names for what people read."""

    network: Network
    own: str
    names: dict[str, str]
    """By MAC address."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A file, taken apart. Configurations and networks by name, the first ones are called ""."""

    text: str
    description: str
    configs: dict[str, Config]
    segments: dict[str, Segment]
    script: str


def read(path: Path) -> Scenario:
    """Read a file; ValueError or ConfigError says what is wrong with it."""
    text = path.read_text()
    head, *parts = f"\n{text}".split("\n-- ")
    sections = {}
    for part in parts:
        name, _, body = part.partition(" --\n")
        sections[name] = body
    configs = {
        name.removeprefix("config").strip(): loads(body, str(path))
        for name, body in sections.items()
        if name.split()[0] == "config"
    }
    segments = {
        name.removeprefix("network").strip(): _segment(body)
        for name, body in sections.items()
        if name.split()[0] == "network"
    }
    return Scenario(text, head.strip(), configs, segments, sections["script"])


def _segment(text: str) -> Segment:
    hosts: dict[str, NextHop] = {}
    neighbours: dict[IPv4Address, NextHop] = {}
    routes: list[Route] = []
    own, names = "", {}
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case []:
                pass
            case ["lb", mac]:
                own = mac
            case [prefix, "via", gateway]:
                routes.append(Route(IPv4Network(prefix), hosts[gateway]))
            case [prefix, "unresolved"]:
                routes.append(Route(IPv4Network(prefix), None))
            case [name, address, mac, *interface]:
                ifindex = int(interface[0].removeprefix("if=")) if interface else IFINDEX
                hosts[name] = NextHop(_mac(mac), _mac(own), ifindex)
                neighbours[IPv4Address(address)] = hosts[name]
                names[mac] = name
            case _:
                raise ValueError(f"network: {line}")
    routes.sort(key=lambda route: -route.prefix.prefixlen)
    return Segment(Network(neighbours, tuple(routes)), own, names)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def difference(path: Path, scenario: Scenario, actual: str) -> str:
    """What a run made of the script, as a diff; empty if it is what the file says."""
    lines = difflib.unified_diff(
        scenario.script.splitlines(),
        actual.splitlines(),
        f"{path.name}: what the file says",
        "what happened",
        n=8,
        lineterm="",
    )
    return "\n".join(lines)


def rewrite(path: Path, scenario: Scenario, actual: str) -> None:
    """Put what happened into the file, for a person to review."""
    path.write_text(scenario.text.replace(scenario.script, actual))


def run(machine: Machine, scenario: Scenario) -> str:
    """The script with what came of each step on this machine."""
    return _Run(machine, scenario).script()


class _Run:
    def __init__(self, machine: Machine, scenario: Scenario) -> None:
        self._machine = machine
        self._scenario = scenario
        self._config = scenario.configs[""]
        self._segment = scenario.segments[""]
        machine.configure(self._config, self._segment.network)
        self._steps: dict[str, Callable[[str], list[str]]] = {
            "in": self._in,
            "time": self._time,
            "apply": self._apply,
            "sweep": lambda _: [f"freed {machine.sweep()}"],
            "flows": lambda _: [f"  {row}" for row in flow_rows(machine.tables, machine.ids)],
            "counters": self._counters,
            "reasons": self._reasons,
        }

    def script(self) -> str:
        lines: list[str] = []
        for number, line in enumerate(self._scenario.script.splitlines(), 1):
            if line.startswith(_RESULTS):
                continue
            lines.append(line)
            verb, _, rest = line.partition("#")[0].strip().partition(" ")
            if not verb:
                continue
            try:
                lines += self._steps[verb](rest.strip())
            except (KeyError, ValueError, IndexError) as error:
                raise ValueError(f"script, line {number}: {line}\n{error!r}") from error
        return "\n".join(lines) + "\n"

    def _in(self, text: str) -> list[str]:
        text, _, sender = text.partition(" from=")
        text, _, receiver = text.partition(" to=")
        source = text.partition(":")[0].partition(" ")[0]
        sender, receiver = sender or self._mac_of(source), receiver or self._segment.own
        frame = packet_text.frame(text, sender, receiver)
        outcome = self._machine.send(frame)
        verdict = Verdict(int(outcome.plan["verdict"]))
        reason = Reason(int(outcome.plan["reason"])).name
        if verdict is Verdict.FORWARD:
            return [
                self._out(frame, outcome.frame, int(outcome.plan["nexthop"]["ifindex"]), reason)
            ]
        changed = "" if outcome.frame == frame else " CHANGED"
        return [f"{verdict.name.lower()} {reason}{changed}"]

    def _mac_of(self, source: str) -> str:
        """The neighbour's, or that of whoever else brings such packets."""
        try:
            nexthop = self._segment.network.neighbours.get(IPv4Address(source))
        except ValueError:
            nexthop = None
        return nexthop.dst.hex(":") if nexthop else _STRANGER

    def _out(self, before: bytes, after: bytes, ifindex: int, reason: str) -> str:
        destination = after[:6].hex(":")
        words = ["out", packet_text.tcp_line(after), "to"]
        words.append(self._segment.names.get(destination, destination))
        if ifindex != IFINDEX:
            words.append(f"if={ifindex}")
        words.append(reason)
        changed = packet_text.unexpected_changes(before, after)
        if after[6:12] != _mac(self._segment.own):
            changed.append("source-MAC")
        return " ".join([*words, *(["CHANGED", *changed] if changed else [])])

    def _time(self, text: str) -> list[str]:
        self._machine.age(int(text))
        return []

    def _apply(self, name: str) -> list[str]:
        if name not in self._scenario.configs and name not in self._scenario.segments:
            raise ValueError(f"there is neither config {name} nor network {name}")
        self._config = self._scenario.configs.get(name, self._config)
        self._segment = self._scenario.segments.get(name, self._segment)
        return [f"generation {self._machine.configure(self._config, self._segment.network)}"]

    def _counters(self, _: str) -> list[str]:
        ids, tables = self._machine.ids, self._machine.tables
        lines = []
        for space, noun, array in (
            (ids.services, "service", tables.service_counters),
            (ids.backends, "backend", tables.backend_counters),
        ):
            for (address, port, _protocol), number in sorted(
                {**space.retired, **space.ids}.items()
            ):
                count = {name: int(array[name][:, number].sum()) for name in _COUNTED}
                lines.append(
                    f"  {noun} {endpoint(address, port)}"
                    f" forward {count['forward_packets']}/{count['forward_bytes']}"
                    f" reply {count['reply_packets']}/{count['reply_bytes']}"
                    f" new {count['flows_new']} refused {count['refused']}"
                )
        return lines

    def _reasons(self, _: str) -> list[str]:
        counts = self._machine.tables.reason_counters.sum(axis=0)
        words = [f"{reason.name}={counts[reason]}" for reason in Reason if counts[reason]]
        return ["  " + " ".join(words)]
