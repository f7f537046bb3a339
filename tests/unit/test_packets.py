# SPDX-License-Identifier: Apache-2.0
"""The tests' own packet builders against scapy, which shares no code with them."""

from __future__ import annotations

import logging
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.support import packets as pk
from tests.support.pcap import read_pcap, write_pcap

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it warns about missing routes

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption  # noqa: E402
from scapy.layers.inet import fragment as scapy_fragment  # noqa: E402
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.utils import rdpcap, wrpcap  # noqa: E402

A, B = "10.0.0.1", "10.0.0.10"
MAC_A, MAC_B = "de:ad:be:ef:00:01", "de:ad:be:ef:00:10"
SYN_OPTIONS = bytes.fromhex("020405b40402080a1234567800000000 01030307")


def ours(payload: bytes, **options: object) -> bytes:
    return pk.ethernet(MAC_B, MAC_A, payload, **options)  # type: ignore[arg-type]


def theirs(*layers: object) -> bytes:
    frame = Ether(dst=MAC_B, src=MAC_A)
    for layer in layers:
        frame = frame / layer
    return bytes(frame)


PAIRS = {
    "tcp-syn": (
        ours(
            pk.ipv4(A, B, pk.TCP, pk.tcp(A, B, 34952, 8080, flags="S", seq=7, options=SYN_OPTIONS))
        ),
        theirs(
            IP(src=A, dst=B, id=0),
            TCP(
                sport=34952,
                dport=8080,
                flags="S",
                seq=7,
                window=65535,
                options=[
                    ("MSS", 1460),
                    ("SAckOK", b""),
                    ("Timestamp", (0x12345678, 0)),
                    ("NOP", None),
                    ("WScale", 7),
                ],
            ),
        ),
    ),
    "tcp-data-odd": (
        ours(
            pk.ipv4(
                A,
                B,
                pk.TCP,
                pk.tcp(
                    *(A, B, 1, 65535, b"abc"),
                    flags="PAUEC",
                    seq=2**32 - 1,
                    ack=1,
                    window=0,
                    urgent=3,
                ),
                ttl=1,
                tos=0xB9,
                ident=0xFFFF,
                flags=pk.DONT_FRAGMENT,
            )
        ),
        theirs(
            IP(src=A, dst=B, id=0xFFFF, ttl=1, tos=0xB9, flags="DF"),
            TCP(sport=1, dport=65535, flags="PAUEC", seq=2**32 - 1, ack=1, window=0, urgptr=3),
            b"abc",
        ),
    ),
    "ip-options": (
        ours(pk.ipv4(A, B, pk.TCP, pk.tcp(A, B, 5, 6), options=b"\x94\x04\0\0\1")),
        theirs(
            IP(src=A, dst=B, id=0, options=[IPOption(b"\x94\x04\0\0"), IPOption(b"\1")]),
            TCP(sport=5, dport=6, flags="A", seq=0, ack=0, window=65535),
        ),
    ),
    "udp": (
        ours(pk.ipv4(A, B, pk.UDP, pk.udp(A, B, 53, 5353, b"x" * 99))),
        theirs(IP(src=A, dst=B, id=0), UDP(sport=53, dport=5353), b"x" * 99),
    ),
    "udp-no-checksum": (
        ours(pk.ipv4(A, B, pk.UDP, pk.udp(A, B, 53, 5353, b"x", segment_checksum=0))),
        theirs(IP(src=A, dst=B, id=0), UDP(sport=53, dport=5353, chksum=0), b"x"),
    ),
    "echo": (
        ours(pk.ipv4(A, B, pk.ICMP, pk.icmp_echo(7, 9, b"ping"))),
        theirs(IP(src=A, dst=B, id=0), ICMP(id=7, seq=9), b"ping"),
    ),
    "echo-reply": (
        ours(pk.ipv4(A, B, pk.ICMP, pk.icmp_echo(7, 9, reply=True))),
        theirs(IP(src=A, dst=B, id=0), ICMP(type=0, id=7, seq=9)),
    ),
    "vlan": (
        ours(pk.ipv4(A, B, pk.UDP, pk.udp(A, B, 1, 2)), vlans=[0x6123]),
        theirs(Dot1Q(prio=3, vlan=0x123), IP(src=A, dst=B, id=0), UDP(sport=1, dport=2)),
    ),
    "qinq": (
        ours(pk.ipv4(A, B, pk.UDP, pk.udp(A, B, 1, 2)), vlans=[5, 6]),
        theirs(Dot1AD(vlan=5), Dot1Q(vlan=6), IP(src=A, dst=B, id=0), UDP(sport=1, dport=2)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_bytes_as_scapy(name: str) -> None:
    mine, reference = PAIRS[name]
    assert mine.hex(" ") == reference.hex(" ")


@pytest.mark.parametrize("name", PAIRS)
def test_built_frames_are_parsed_with_right_checksums(name: str) -> None:
    packet = pk.parse(PAIRS[name][0])
    assert packet.ip_ok is True
    assert packet.l4_ok is (None if name == "udp-no-checksum" else True)
    assert (packet.src, packet.dst) == (IPv4Address(A), IPv4Address(B))
    assert (packet.eth_src, packet.eth_dst) == (MAC_A, MAC_B)
    assert packet.trailer == b""


def test_parse_returns_what_was_built() -> None:
    packet = pk.parse(PAIRS["tcp-data-odd"][0] + b"pad")
    assert (packet.sport, packet.dport, packet.flags) == (1, 65535, "PAUEC")
    assert (packet.seq, packet.ack, packet.window, packet.urgent) == (2**32 - 1, 1, 0, 3)
    assert (packet.ttl, packet.tos, packet.ident) == (1, 0xB9, 0xFFFF)
    assert (packet.ip_flags, packet.total) == (pk.DONT_FRAGMENT, 43)
    assert (packet.payload, packet.trailer) == (b"abc", b"pad")
    assert pk.parse(PAIRS["tcp-syn"][0]).tcp_options == SYN_OPTIONS
    assert pk.parse(PAIRS["qinq"][0]).vlans == (5, 6)
    assert pk.parse(PAIRS["ip-options"][0]).ip_options == b"\x94\x04\0\0\1\0\0\0"


def test_an_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    for value in range(0x10000):
        datagram = pk.udp(A, B, 1, 2, struct.pack("!H", value))
        assert datagram[6:8] != b"\0\0"
        if datagram[6:8] == b"\xff\xff":
            break
    else:
        pytest.fail("some payload must give a sum of zero")
    assert pk.parse(ours(pk.ipv4(A, B, pk.UDP, datagram))).l4_ok is True


def test_fragments_are_those_of_scapy() -> None:
    payload = bytes(range(256)) * 5
    packet = pk.ipv4(A, B, pk.UDP, pk.udp(A, B, 1, 2, payload), ident=77, ttl=9)
    reference = scapy_fragment(
        IP(src=A, dst=B, id=77, ttl=9) / UDP(sport=1, dport=2) / payload, fragsize=480
    )
    pieces = pk.fragments(packet, 480)
    assert pieces == [bytes(piece) for piece in reference]
    first, _, last = (pk.parse(ours(piece)) for piece in pieces)
    assert (first.sport, first.l4_ok, first.ip_flags) == (1, None, pk.MORE_FRAGMENTS)
    assert (last.sport, last.offset, last.ip_flags) == (0, 960, 0)


@pytest.mark.parametrize("at", [24, 25, 26, 33, 34, 37, 42, 50, 54, 56])
def test_a_flipped_bit_is_noticed(at: int) -> None:
    frame = bytearray(PAIRS["tcp-data-odd"][0])
    frame[at] ^= 1
    packet = pk.parse(bytes(frame))
    assert not (packet.ip_ok and packet.l4_ok)


@pytest.mark.parametrize("name", PAIRS)
def test_every_truncation_is_an_error(name: str) -> None:
    frame = PAIRS[name][0]
    for size in range(len(frame)):
        with pytest.raises(ValueError, match=r"truncated|there are"):
            pk.parse(frame[:size])


def test_what_is_not_ipv4_is_left_alone() -> None:
    packet = pk.parse(ours(b"who has", ethertype=pk.ARP))
    assert (packet.ethertype, packet.payload, packet.ip_ok) == (pk.ARP, b"who has", None)


def test_pcap_goes_round_and_scapy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    frames = [(1_700_000_000_123_456_789 + i, pair[0]) for i, pair in enumerate(PAIRS.values())]
    write_pcap(path, frames)
    assert read_pcap(path) == frames
    assert [bytes(packet) for packet in rdpcap(str(path))] == [frame for _, frame in frames]


@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_of_scapy_is_read(tmp_path: Path, order: str, nano: bool) -> None:
    path = tmp_path / "a.pcap"
    frames = [Ether(pair[0]) for pair in PAIRS.values()]
    wrpcap(str(path), frames, nano=nano, endianness=order)
    assert [frame for _, frame in read_pcap(path)] == [pair[0] for pair in PAIRS.values()]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        read_pcap(path)
