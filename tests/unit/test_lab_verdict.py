# SPDX-License-Identifier: Apache-2.0
"""Does the demo's verdict say no when something is wrong? A good run of the simulator is spoilt in one
place, and exactly the checks that are about it must fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from evener.errors import EvenerError
from evener.lab import balancer, frames, simulated, verdict, witness
from evener.lab.demo import Stop
from evener.lab.exchange import Exchange
from evener.lab.frames import Flag, Segment
from evener.lab.verdict import Report, Watched
from evener.model import Driver
from tests.support import packets

LAB = simulated.plan_lab()

SERVED = "both backends served"
BYTES = "every byte arrived, in both directions"
STREAMS = "the capture holds the same bytes, with the same backend"
TWICE = "the capture shows every segment twice"
RIGHT = "each copy has the right addresses, MACs and ports, the rest untouched"
SUMS = "all IP and TCP checksums are right"
DROPS = "no packet was dropped"
NARRATED = "every forwarded packet was narrated"

Run = tuple[list[Exchange], list[Segment]]


def good() -> Run:
    talk = simulated.Conversation(LAB, balancer.PORT, Stop().check)
    exchanges = talk.hold(lambda _: None, lambda: None)
    parsed = [frames.parse(frame, at) for at, frame in talk.segment.frames]
    return exchanges, [segment for segment in parsed if segment]


@pytest.fixture(scope="module")
def run() -> Run:
    return good()


def judge(run: Run, narrated: int = 0, lost: int = 0, drops: int = 0) -> Report:
    exchanges, segments = run
    cast = witness.Cast(LAB.clients[0], LAB.balancer, LAB.backends, balancer.PORT)
    evidence = witness.examine(segments, cast)
    reasons = [{"reason": "BAD_FLAGS", "verdict": "drop", "packets": drops, "sentence": "bad"}]
    watched = Watched(narrated or len(segments) // 2, lost, reasons, [])
    return verdict.judge(LAB, Driver.SIM, True, exchanges, evidence, watched)


def failed(report: Report) -> set[str]:
    return {check.claim for check in report.checks if not check.ok}


def test_a_good_run_passes(run: Run) -> None:
    report = judge(run)
    assert failed(report) == set()
    assert report.ok
    assert all(row.ok and row.client_port for row in report.connections)
    assert sum(row.packets_forward + row.packets_reply for row in report.connections) * 2 == len(
        run[1]
    )


def test_copies_may_be_captured_before_what_they_are_copies_of(run: Run) -> None:
    """The bridge hands a frame on, then shows it; meanwhile another CPU has sent the copy."""
    exchanges, segments = run
    turned = list(segments)
    for i in range(0, len(turned) - 1, 2):
        turned[i], turned[i + 1] = turned[i + 1], turned[i]
    assert turned[0].src == LAB.balancer.address  # a copy comes first
    assert failed(judge((exchanges, turned))) == set()
    late = [*segments[1:4], segments[0], *segments[4:]]  # the SYN, after the answer to it
    assert failed(judge((exchanges, late))) == set()


def copy_of(segments: list[Segment], which: Callable[[Segment], bool]) -> int:
    """The place of the first copy (a segment that the balancer has sent) of some kind."""
    return next(i for i, s in enumerate(segments) if s.src == LAB.balancer.address and which(s))


def has_data(segment: Segment) -> bool:
    return bool(segment.payload)


CHANGES: dict[str, tuple[dict[str, object], set[str]]] = {
    "source MAC": ({"eth_src": "de:ad:be:ef:00:01"}, {RIGHT}),
    "destination MAC": ({"eth_dst": "de:ad:be:ef:00:77"}, {RIGHT}),
    "time to live": ({"ttl": 64}, {RIGHT}),
    "no backend": ({"dst": IPv4Address("10.0.0.99")}, {RIGHT, STREAMS}),
    "destination port": ({"dport": 81}, {RIGHT}),
    "source port": ({"sport": 1024}, {TWICE}),
    "sequence number": ({"seq": 7}, {TWICE}),
    "acknowledgement": ({"ack": 7}, {TWICE}),
    "flags": ({"flags": Flag.RST}, {TWICE}),
    "payload": ({"payload": b"something else"}, {TWICE}),
    "options": ({"options": b"\1\1\1\1"}, {TWICE}),
    "window": ({"rest": bytes(9)}, {TWICE}),
    "IP checksum": ({"ip_ok": False}, {SUMS}),
    "TCP checksum": ({"tcp_ok": False}, {SUMS}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_copy_that_is_wrong(run: Run, what: str) -> None:
    changes, checks = CHANGES[what]
    segments = list(run[1])
    place = copy_of(segments, lambda s: s.dst != LAB.clients[0].address and has_data(s))
    segments[place] = replace(segments[place], **changes)  # type: ignore[arg-type]
    report = judge((run[0], segments))
    assert checks <= failed(report)
    assert failed(report) <= checks | {STREAMS, NARRATED}
    assert not report.ok


@pytest.mark.parametrize("side", ["came", "left"])
def test_a_segment_that_is_seen_once(run: Run, side: str) -> None:
    segments = list(run[1])
    at_balancer = side == "left"
    place = next(
        i for i, s in enumerate(segments) if (s.src == LAB.balancer.address) == at_balancer
    )
    del segments[place]
    report = judge((run[0], segments), narrated=len(run[1]) // 2)
    assert TWICE in failed(report)


def test_a_message_that_did_not_arrive(run: Run) -> None:
    first, *others = run[0]
    for wrong in (
        replace(first, message_ok=False), replace(first, answer_ok=False),
        replace(first, problem="the line is dead"),
    ):  # fmt: skip
        report = judge(([wrong, *others], run[1]))
        assert failed(report) == {BYTES}
        assert not report.connections[0].ok


def test_bytes_that_were_not_captured(run: Run) -> None:
    first, *others = run[0]
    report = judge(([replace(first, message=b"never said"), *others], run[1]))
    assert STREAMS in failed(report)
    report = judge(([replace(first, answer=b"never said"), *others], run[1]))
    assert failed(report) == {STREAMS}
    other = "h3" if first.backend == "h2" else "h2"
    assert STREAMS in failed(judge(([replace(first, backend=other), *others], run[1])))


def test_one_backend_that_does_all_the_work(run: Run) -> None:
    exchanges = [replace(exchange, backend="h2") for exchange in run[0]]
    assert SERVED in failed(judge((exchanges, run[1])))


def test_drops_and_silence(run: Run) -> None:
    assert failed(judge(run, drops=1)) == {DROPS}
    assert failed(judge(run, narrated=3)) == {NARRATED}
    assert failed(judge(run, lost=1)) == {NARRATED}


def test_nothing_at_all() -> None:
    assert not judge(([], []), narrated=0).ok


def test_a_report_as_json(run: Run) -> None:
    report = judge(run).finished(Path("/there/x.pcap"), "no root", 1.234)
    found = verdict.to_json(report)
    assert found["ok"] is True
    assert (found["pcap"], found["excuse"], found["seconds"]) == ("/there/x.pcap", "no root", 1.23)
    assert len(found["connections"]) == len(run[0])


def test_frames_are_read_as_the_other_parser_reads_them(run: Run) -> None:
    for segment in run[1]:
        frame = frames.build(segment)
        assert frames.parse(frame, segment.time_ns) == segment
        other = packets.parse(frame)
        assert other.ip_ok
        assert other.l4_ok
        assert (other.src, other.dst, other.sport, other.dport) == (
            segment.src, segment.dst, segment.sport, segment.dport,
        )  # fmt: skip
        assert (other.seq, other.ack, other.payload) == (segment.seq, segment.ack, segment.payload)
        assert (other.eth_src, other.eth_dst) == (segment.eth_src, segment.eth_dst)


def test_a_wrong_checksum_is_seen(run: Run) -> None:
    frame = bytearray(frames.build(run[1][0]))
    frame[14 + 8] ^= 1  # time to live
    parsed = frames.parse(bytes(frame))
    assert parsed is not None
    assert (parsed.ip_ok, parsed.tcp_ok) == (False, True)
    frame[-1] ^= 1
    parsed = frames.parse(bytes(frame))
    assert parsed is not None
    assert (parsed.ip_ok, parsed.tcp_ok) == (False, False)


@pytest.mark.parametrize("size", [0, 13, 14, 33, 34, 53])
def test_frames_that_are_cut_short(run: Run, size: int) -> None:
    assert frames.parse(frames.build(run[1][0])[:size]) is None


def test_a_signal_is_noted_and_raised_later() -> None:

    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with stop.listening():
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EvenerError, match="SIGTERM"):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before
