# SPDX-License-Identifier: Apache-2.0
"""The end of the demo: each connection as a row, each claim as a check that held or did not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evener.lab.exchange import served_by

if TYPE_CHECKING:
    from pathlib import Path

    from evener.lab.exchange import Exchange
    from evener.lab.topology import Lab
    from evener.lab.witness import Evidence, Story
    from evener.model import Driver


@dataclass(frozen=True, slots=True)
class Check:
    """One claim: what was seen if it holds, what is wrong if it does not."""

    claim: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection as a row: bytes are of the payload, packets are from the capture.

    client_port is 0 and packets are 0 when the capture does not show the message.
    """

    number: int
    client_port: int
    backend: str
    bytes_sent: int
    bytes_answered: int
    packets_forward: int
    packets_reply: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What was heard besides: packets narrated, events lost, reason counters, warnings."""

    narrated: int
    lost: int
    reasons: list[dict[str, Any]]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """How the demo went. segments: of TCP, in the capture; excuse: why the simulator had to do."""

    driver: Driver
    simulated: bool
    connections: tuple[Connection, ...]
    checks: tuple[Check, ...]
    segments: int
    warnings: tuple[str, ...]
    pcap: str = ""
    excuse: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return all(check.ok for check in self.checks)

    def finished(self, pcap: Path, excuse: str, seconds: float) -> Report:
        """The report with what is known at the very end."""
        return replace(self, pcap=str(pcap), excuse=excuse, seconds=round(seconds, 2))


def judge(
    lab: Lab,
    driver: Driver,
    simulated: bool,
    exchanges: list[Exchange],
    evidence: Evidence,
    watched: Watched,
) -> Report:
    """Hold what was said against what was heard, captured and counted."""
    stories = _stories_by_message(exchanges, evidence)
    checks = [
        _both_served(lab, exchanges),
        _all_arrived(exchanges),
        _streams_captured(exchanges, stories, lab),
        _list_check(
            "the capture shows every segment twice", evidence.unpaired,
            f"{evidence.pairs} segments, {evidence.frames} frames",
        ),
        _list_check(
            "each copy has the right addresses, MACs and ports, the rest untouched",
            evidence.unlike, f"{evidence.pairs} pairs compared, time to live one less",
        ),
        _list_check(
            "all IP and TCP checksums are right", evidence.checksums, f"{evidence.frames} frames"
        ),
        _no_drops(watched.reasons),
        _all_narrated(watched, evidence),
    ]  # fmt: skip
    rows = tuple(_connection(exchange, stories.get(exchange.number)) for exchange in exchanges)
    return Report(driver, simulated, rows, tuple(checks), evidence.frames, tuple(watched.warnings))


def to_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "version": 1,
        "ok": report.ok,
        "driver": report.driver.value,
        "simulated": report.simulated,
        "excuse": report.excuse,
        "seconds": report.seconds,
        "pcap": report.pcap,
        "segments": report.segments,
        "warnings": list(report.warnings),
        "connections": [
            {name: getattr(row, name) for name in Connection.__slots__}
            for row in report.connections
        ],
        "checks": [
            {"claim": check.claim, "ok": check.ok, "detail": check.detail}
            for check in report.checks
        ],
    }


def _stories_by_message(exchanges: list[Exchange], evidence: Evidence) -> dict[int, Story]:
    """Which captured connection carried which exchange: messages are unique."""
    by_stream = {story.stream(reply=False): story for story in evidence.stories.values()}
    return {
        exchange.number: by_stream[exchange.message]
        for exchange in exchanges
        if exchange.message in by_stream
    }


def _connection(exchange: Exchange, story: Story | None) -> Connection:
    return Connection(
        exchange.number,
        story.client_port if story else 0,
        exchange.backend,
        len(exchange.message),
        len(exchange.answer),
        len(story.forward) if story else 0,
        len(story.reply) if story else 0,
        exchange.ok and story is not None,
    )


def _both_served(lab: Lab, exchanges: list[Exchange]) -> Check:
    served = served_by(exchanges)
    counts = {host.name: 0 for host in lab.backends}
    for exchange in exchanges:
        if exchange.backend:
            counts[exchange.backend] += 1
    detail = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Check("both backends served", len(served) == len(lab.backends), detail)


def _all_arrived(exchanges: list[Exchange]) -> Check:
    bad = [
        f"connection {exchange.number}: {exchange.problem or 'bytes differ'}"
        for exchange in exchanges
        if not exchange.ok
    ]
    total = sum(len(exchange.message) + len(exchange.answer) for exchange in exchanges)
    return _list_check(
        "every byte arrived, in both directions", bad,
        f"{len(exchanges)} messages and {len(exchanges)} answers, {total} bytes",
    )  # fmt: skip


def _streams_captured(exchanges: list[Exchange], stories: dict[int, Story], lab: Lab) -> Check:
    """The capture tells of the same bytes and the same backend as the hosts do."""
    addresses = {host.name: host.address for host in lab.backends}
    bad = []
    for exchange in exchanges:
        story = stories.get(exchange.number)
        if story is None:
            bad.append(f"connection {exchange.number}: its message is not in the capture")
        elif story.stream(reply=True) != exchange.answer:
            bad.append(f"connection {exchange.number}: its answer is not in the capture")
        elif story.backend != addresses.get(exchange.backend):
            bad.append(f"connection {exchange.number}: captured with {story.backend}")
    return _list_check(
        "the capture holds the same bytes, with the same backend", bad,
        f"{len(stories)} connections, each with the client's own source port",
    )  # fmt: skip


def _no_drops(reasons: list[dict[str, Any]]) -> Check:
    bad = [
        f"{row['reason']}: {row['packets']} ({row['sentence']})"
        for row in reasons
        if row["verdict"] == "drop" and row["packets"]
    ]
    forwarded = sum(row["packets"] for row in reasons if row["verdict"] == "forward")
    return _list_check("no packet was dropped", bad, f"{forwarded} forwarded, every drop reason 0")


def _all_narrated(watched: Watched, evidence: Evidence) -> Check:
    ok = watched.narrated == evidence.pairs and not watched.lost
    detail = f"{watched.narrated} narrated, {evidence.pairs} captured"
    return Check("every forwarded packet was narrated", ok, detail)


def _list_check(claim: str, problems: list[str], detail: str) -> Check:
    if not problems:
        return Check(claim, True, detail)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Check(claim, False, problems[0] + more)
