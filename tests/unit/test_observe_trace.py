# SPDX-License-Identifier: Apache-2.0
"""Traced packets and explained ones: read from the rings, told in words."""

import json

import numpy as np
import pytest

from evener._generated import layout
from evener.datapath import native
from evener.errors import EvenerError
from evener.observe import explain, trace
from evener.observe.query import EVENT_FILTERS, Query
from evener.tables.effective import Network
from tests.support import packets, segment


def test_a_connection_is_narrated_in_full() -> None:
    made, snapshot = segment.simulator()
    follower = trace.Follower(made)
    syn = segment.handshake(made, 34952)[0]
    backend = packets.parse(syn.frame).dst
    name = "web/h3" if str(backend).endswith("3") else "web/10.0.0.2:8080"
    events, lost = follower.read()
    assert (len(events), lost) == (3, 0)
    stories = [trace.event_json(event, cpu, snapshot) for event, cpu in events]
    assert [story["reason"] for story in stories] == ["FORWARD_NEW", "REPLY", "FORWARD"]
    assert [story["number"] for story in stories] == [0, 1, 2]
    number = {"slot": stories[0]["slot"], "hash": stories[0]["hash"]}
    assert trace.narrate(stories[0]) == [
        "packet received on sim0: 54 bytes, TCP flags [S], seq 1, ack 0",
        "  client 10.0.0.1:34952",
        "  destination 10.0.0.10:8080, service web",
        f"  hash {number['hash']}, slot {number['slot']} of 65537: backend {backend}:8080 ({name})",
        "  source address 10.0.0.1 -> 10.0.0.10",
        "  source port 34952 (kept)",
        f"  destination address 10.0.0.10 -> {backend}",
        "  destination port 8080 (kept)",
        "  TTL 64 -> 63",
        "  source MAC de:ad:be:ef:00:01 -> de:ad:be:ef:00:10",
        f"  destination MAC de:ad:be:ef:00:10 -> de:ad:be:ef:00:0{str(backend)[-1]}",
        "  IP and TCP checksums updated",
        f"sent to backend {backend}:8080 on sim0 (FORWARD_NEW, flow OPENING)",
    ]
    assert trace.narrate(stories[1]) == [
        "packet received on sim0: 54 bytes, TCP flags [S.], seq 1, ack 0",
        f"  from backend {backend}:8080 ({name})",
        "  to SNAT address 10.0.0.10:34952",
        "  flow known: client 10.0.0.1:34952, service web",
        f"  source address {backend} -> 10.0.0.10",
        "  source port 8080 (kept)",
        "  destination address 10.0.0.10 -> 10.0.0.1",
        "  destination port 34952 (kept)",
        "  TTL 64 -> 63",
        f"  source MAC {segment.mac(int(str(backend)[-1]))} -> de:ad:be:ef:00:10",
        "  destination MAC de:ad:be:ef:00:10 -> de:ad:be:ef:00:01",
        "  IP and TCP checksums updated",
        "sent to client 10.0.0.1:34952 on sim0 (REPLY, flow OPENING)",
    ]
    known = f"  hash {number['hash']}, flow known: backend {backend}:8080 ({name})"
    assert known in trace.narrate(stories[2])
    assert trace.narrate(stories[2])[-1].endswith("(FORWARD, flow ESTABLISHED)")
    json.dumps(stories)
    assert follower.read() == ([], 0)


@pytest.mark.parametrize(
    ("frame", "last"),
    [
        (b"\xff" * 60, "passed to the kernel: NOT_IPV4, neither IPv4"),
        (b"\xff" * 10, "passed to the kernel: MALFORMED, "),
        (segment.to_vip(1, "A"), "passed to the kernel: NO_FLOW, "),
        (segment.to_vip(1, "SF"), "dropped: BAD_FLAGS, a SYN that is also"),
        (segment.to_vip(1, "S", client="10.0.0.77"), "sent to backend"),
        (segment.frame("10.0.0.2", 8080, segment.VIP, 9, "SA"), "dropped: NO_REPLY_FLOW, "),
        (
            packets.ethernet(
                segment.mac(10),
                segment.mac(1),
                packets.ipv4("10.0.0.1", "10.0.0.10", packets.ICMP, packets.icmp_echo(1, 1)),
            ),
            "passed to the kernel: NOT_TCP",
        ),
    ],
)
def test_every_packet_ends_in_a_sentence(frame: bytes, last: str) -> None:
    made, snapshot = segment.simulator()
    follower = trace.Follower(made)
    made.send(frame)
    ((event, cpu),) = follower.read()[0]
    story = trace.event_json(event, cpu, snapshot)
    assert trace.narrate(story)[-1].startswith(last)
    assert json.loads(json.dumps(story)) == story


def test_an_unresolved_next_hop_says_what_was_intended() -> None:
    made, snapshot = segment.simulator(network=Network())
    follower = trace.Follower(made)
    made.send(segment.to_vip(1024, "S"))
    ((event, cpu),) = follower.read()[0]
    story = trace.event_json(event, cpu, snapshot)
    assert (story["verdict"], story["reason"]) == ("drop", "NEIGHBOUR_UNRESOLVED")
    assert story["slot"] is not None
    assert story["out"]["destination_mac"] is None
    lines = trace.narrate(story)
    assert any(line.startswith("  destination address 10.0.0.10 -> 10.0.0.") for line in lines)
    assert lines[-1].startswith("dropped: NEIGHBOUR_UNRESOLVED")


def test_filters_of_events() -> None:
    made, snapshot = segment.simulator()

    def reasons(**filters: str) -> list[str]:
        query = Query.parse(filters, snapshot, EVENT_FILTERS)
        follower = trace.Follower(made, query)
        syn = segment.handshake(made, 34952)[0]
        made.send(segment.answer(syn.frame, "RA"))
        made.send(segment.frame("10.0.0.9", 7, "10.0.0.8", 34952, "S"))
        events, lost = follower.read()
        assert lost == 0
        return [trace.event_json(event, cpu, snapshot)["reason"] for event, cpu in events]

    connection = ["FORWARD_NEW", "REPLY", "FORWARD", "REPLY"]
    assert reasons() == [*connection, "NOT_OURS"]
    assert reasons(client="10.0.0.1") == connection
    assert reasons(client="10.0.0.1:34952", service="web") == connection
    assert reasons(client="10.0.0.8") == ["NOT_OURS"]
    assert reasons(client="10.0.0.10") == []
    assert reasons(reason="reply") == ["REPLY", "REPLY"]
    assert reasons(verdict="pass") == ["NOT_OURS"]
    backends = [reasons(backend="h3"), reasons(backend="10.0.0.2:8080")]
    assert sorted(backends) == [[], connection]
    with pytest.raises(EvenerError, match='did you mean "NO_BACKEND"'):
        reasons(reason="NO_BACKENDS")


def test_what_was_overwritten_is_lost_and_counted() -> None:
    made, _ = segment.simulator()
    follower = trace.Follower(made)
    for _ in range(layout.EVENTS + 5):
        made.send(b"\xff" * 60)
    events, lost = follower.read()
    assert (len(events), lost) == (layout.EVENTS, 5)
    assert [int(event["sequence"]) for event, _ in events[:2]] == [6, 7]
    made.send(b"\xff" * 60)
    made.tables.events[0][(layout.EVENTS + 5) % layout.EVENTS]["sequence"] = 0  # being written
    assert follower.read() == ([], 1)


def test_events_of_all_cpus_come_in_the_order_of_time() -> None:
    made, _ = segment.simulator()
    tables = type(made.tables).allocate(
        type(made.tables.sizes)(**{**_fields(made.tables.sizes), "cpus": 2})
    )
    made.tables = tables
    follower = trace.Follower(made)
    for cpu, times in enumerate(((10, 40), (20, 30))):
        for number, time_ns in enumerate(times):
            tables.events[cpu][number]["time_ns"] = time_ns
            tables.events[cpu][number]["sequence"] = number + 1
        tables.event_heads["count"][cpu] = 2
    events, lost = follower.read()
    assert lost == 0
    assert [(int(event["time_ns"]), cpu) for event, cpu in events] == [
        (10, 0),
        (20, 1),
        (30, 1),
        (40, 0),
    ]


def _fields(sizes: object) -> dict[str, int]:
    return {name: getattr(sizes, name) for name in type(sizes).__slots__}  # type: ignore[attr-defined]


# --- explain


def test_explain_tells_what_then_happens_and_disturbs_nothing() -> None:
    made, snapshot = segment.simulator()
    before = {
        n: made.tables.raw(n).tobytes() for n in ("flows", "ports", "learned", "reason_counters")
    }
    story = explain.explain(snapshot, native.Core, "10.0.0.1:34952", "10.0.0.10:8080/tcp")
    for name, content in before.items():
        assert made.tables.raw(name).tobytes() == content
    outcome = made.send(segment.to_vip(34952, "S"))
    assert story["out"]["destination"] == f"{packets.parse(outcome.frame).dst}:8080"
    assert story["slot"] == int(outcome.plan["slot"])
    assert (story["known_flow"], story["pool"]) == (False, "web")
    assert story["share"] == pytest.approx(0.67 if "h3" in story["backend"] else 0.33, abs=0.01)
    lines = explain.sentences(story)
    assert lines[0] == "A SYN from 10.0.0.1:34952 to 10.0.0.10:8080/tcp:"
    assert "  is for service web, mode full-nat, pool web" in lines
    assert lines[-1].startswith("Verdict: forward, FORWARD_NEW: ")


def test_explain_knows_the_flows() -> None:
    made, snapshot = segment.simulator()
    segment.handshake(made, 34952)
    story = explain.explain(snapshot, native.Core, "10.0.0.1:34952", "10.0.0.10:8080/tcp")
    assert story["known_flow"]
    assert any("a flow that is known (ESTABLISHED)" in line for line in explain.sentences(story))


def test_explain_is_not_held_up_by_a_lock_of_the_datapath() -> None:
    made, snapshot = segment.simulator()
    made.tables.locks[:] = 1
    story = explain.explain(snapshot, native.Core, "10.0.0.1:34952", "10.0.0.10:8080/tcp")
    assert story["reason"] == "FORWARD_NEW"
    assert np.all(made.tables.locks == 1)


def test_explain_what_is_not_balanced() -> None:
    _, snapshot = segment.simulator()
    story = explain.explain(snapshot, native.Core, "10.0.0.1:34952", "10.0.0.10:81/tcp")
    assert (story["verdict"], story["reason"], story["out"]) == ("pass", "NOT_OURS", None)
    assert explain.sentences(story)[-1].startswith("Verdict: pass, NOT_OURS: ")


def test_explain_an_empty_pool() -> None:
    text = segment.TEXT.split("backends = [")[0] + "backends = []\n"
    text += '[service.web]\nlisten = "10.0.0.10:8080/tcp"\npool = "web"\n'
    _, snapshot = segment.simulator(text)
    story = explain.explain(snapshot, native.Core, "10.0.0.1:34952", "10.0.0.10:8080/tcp")
    assert explain.sentences(story)[-1].startswith("Verdict: drop, NO_BACKEND: ")


@pytest.mark.parametrize("offline", [False, True])
def test_explain_without_neighbours(offline: bool) -> None:
    _, snapshot = segment.simulator(network=Network())
    ends = ("10.0.0.1:34952", "10.0.0.10:8080/tcp")
    story = explain.explain(snapshot, native.Core, *ends, offline=offline)
    lines = "\n".join(explain.sentences(story))
    assert story["out"]["destination_mac"] is None
    if offline:
        assert (story["verdict"], story["reason"]) == ("forward", "FORWARD_NEW")
        assert "next hops come from the running system" in lines
        assert "secret hash seed" in lines
    else:
        assert (story["verdict"], story["reason"]) == ("drop", "NEIGHBOUR_UNRESOLVED")
        assert "the kernel is to be asked" in lines


@pytest.mark.parametrize(
    ("client", "listen", "message"),
    [
        ("10.0.0.1", "10.0.0.10:8080/tcp", '"10.0.0.1" is not an IPv4 address with a port'),
        ("10.0.0.1:1", "10.0.0.10:8080", "does not end in a protocol"),
        ("10.0.0.1:1", "10.0.0.10:53/udp", "udp is not balanced by this version"),
        ("[2001:db8::1]:1", "10.0.0.10:53/tcp", "is not an IPv4 address with a port"),
        ("10.0.0.1:1", "10.0.0.10:65536/tcp", "is not an IPv4 address with a port"),
    ],
)
def test_explain_ends_that_cannot_be_understood(client: str, listen: str, message: str) -> None:
    _, snapshot = segment.simulator()
    with pytest.raises(EvenerError) as caught:
        explain.explain(snapshot, native.Core, client, listen)
    assert message in str(caught.value)
