# SPDX-License-Identifier: Apache-2.0
"""Scenario files that are wrong say where and how; packets in words are the packets that were meant."""

from pathlib import Path

import pytest

from tests.support import packet_text, packets, scenario
from tests.support.machine import SimMachine, age_flows, flow_rows

PAGE = """\
A client and a backend.

-- config --
[datapath]
driver = "sim"
[pool.web]
backends = ["10.0.0.2:8080"]
[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"

-- network --
lb  de:ad:be:ef:00:10
h1  10.0.0.1  de:ad:be:ef:00:01
h2  10.0.0.2  de:ad:be:ef:00:02   # the backend

-- script --
# a comment stays
in 10.0.0.1:1111 > 10.0.0.10:8080 S seq=5
out 10.0.0.10:1111 > 10.0.0.2:8080 S seq=5 ttl=63 to h2 FORWARD_NEW

flows
  OPENING 10.0.0.1:1111 > 10.0.0.10:8080 | 10.0.0.10:1111 > 10.0.0.2:8080
"""
MACS = ("de:ad:be:ef:00:01", "de:ad:be:ef:00:10")


def page(tmp_path: Path, text: str) -> tuple[Path, scenario.Scenario]:
    path = tmp_path / "page.scn"
    path.write_text(text)
    return path, scenario.read(path)


def outcome(tmp_path: Path, text: str) -> str:
    path, told = page(tmp_path, text)
    return scenario.difference(path, told, scenario.run(SimMachine(), told))


def test_what_is_right_has_no_difference(tmp_path):
    assert outcome(tmp_path, PAGE) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("to h2", "to h1"), (":1111 > 10.0.0.2", ":1112 > 10.0.0.2"), ("OPENING", "CLOSED")],
)
def test_what_is_wrong_is_shown_as_a_difference(tmp_path, right, wrong):
    difference = outcome(tmp_path, PAGE.replace(right, wrong)).splitlines()
    assert difference[0] == "--- page.scn: what the file says"
    assert [line for line in difference if line.startswith("-") and wrong in line]
    assert [line for line in difference if line.startswith("+") and right in line]


def test_rewriting_makes_it_right(tmp_path):
    path, told = page(tmp_path, PAGE.replace("to h2 FORWARD_NEW", "to h7"))
    scenario.rewrite(path, told, scenario.run(SimMachine(), told))
    assert path.read_text() == PAGE


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("in 10.0.0.1:1 > 10.0.0.10:80 S colour=red", "unknown: colour"),
        ("in 10.0.0.1:1 > 10.0.0.10:80 SQ", "unknown flags: Q"),
        ("in 10.0.0.1:1", "expected SOURCE > DESTINATION"),
        ("apply nothing", "there is neither config nothing nor network nothing"),
        ("sing", "'sing'"),
        ("time soon", "soon"),
    ],
)
def test_steps_that_make_no_sense(tmp_path, step, said):
    _, told = page(tmp_path, f"{PAGE}{step}\n")
    with pytest.raises(ValueError, match="script, line 7") as caught:
        scenario.run(SimMachine(), told)
    assert said in str(caught.value)


def test_networks_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="network: h9"):
        page(tmp_path, PAGE.replace("h1  10.0.0.1  de:ad:be:ef:00:01", "h9 10.0.0.9"))


def test_packets_in_words():
    text = '10.0.0.1:1 > 10.0.0.2:2 SP.W seq=7 ack=0x10 win=9 ttl=3 data="a\\r\\nb" df vlan=5 pad=2'
    p = packets.parse(packet_text.frame(text, *MACS))
    assert (p.flags, p.seq, p.ack, p.window, p.ttl, p.payload) == ("SPAC", 7, 16, 9, 3, b"a\r\nb")
    assert (p.ip_flags, p.vlans, p.trailer) == (packets.DONT_FRAGMENT, (5,), b"\0\0")
    assert p.ip_ok
    assert p.l4_ok
    assert packet_text.frame("hex 0102 03", *MACS) == b"\1\2\3"


def test_a_frame_that_went_out_in_words():
    raw = packet_text.frame('10.0.0.1:1 > 10.0.0.2:2 P. seq=7 ack=8 data="abc"', *MACS)
    assert packet_text.tcp_line(raw) == "10.0.0.1:1 > 10.0.0.2:2 P. seq=7 ack=8 len=3 ttl=64"


def test_changes_that_should_not_be_are_noticed():
    before = packet_text.frame('10.0.0.1:1 > 10.0.0.10:80 S opts=01010101 data="abc"', *MACS)
    after = packet_text.frame('10.0.0.10:1 > 10.0.0.2:81 S ttl=63 opts=01010101 data="abc"', *MACS)
    assert packet_text.unexpected_changes(before, after) == []
    assert packet_text.unexpected_changes(before, after + b"\0") == ["length"]
    for at, said in ((-1, "byte-60"), (18, "byte-18"), (24, "IP-checksum"), (50, "TCP-checksum")):
        raw = bytearray(after)
        raw[at] ^= 1
        assert said in packet_text.unexpected_changes(before, bytes(raw))


def test_flows_grow_older(tmp_path):
    machine = SimMachine()
    scenario.run(machine, page(tmp_path, PAGE)[1])
    age_flows(machine.tables, 70)
    assert [row.age for row in flow_rows(machine.tables, machine.ids)] == [70]
    age_flows(machine.tables, 65_535)
    assert [row.age for row in flow_rows(machine.tables, machine.ids)] == [69]
    machine.sweep()
    age_flows(machine.tables, 5)
    assert flow_rows(machine.tables, machine.ids) == []
