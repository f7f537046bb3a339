# SPDX-License-Identifier: Apache-2.0
"""TCP segments in Ethernet frames, for the demo: read from a capture, or made up for the simulator.

Deliberately not the core's parser: what the core did is checked here by other code, and checksums
are computed over all bytes (RFC 1071) instead of adjusted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address

_ETHERNET_BYTES = 14
_IPV4, _TCP = 0x0800, 6


class Flag(IntFlag):
    """TCP header flags."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment as a frame carried it.

    `rest` is what a balancer has no business with: type of service, identification and fragment
    bits, IP options, window, urgent pointer. `ip_ok` and `tcp_ok`: the checksums are right.
    """

    time_ns: int
    eth_src: str
    eth_dst: str
    src: IPv4Address
    dst: IPv4Address
    ttl: int
    sport: int
    dport: int
    seq: int
    ack: int
    flags: Flag
    options: bytes
    payload: bytes
    rest: bytes
    ip_ok: bool = True
    tcp_ok: bool = True

    def __str__(self) -> str:
        names = "".join(flag.name[0] if flag.name else "" for flag in self.flags) or "-"
        text = f"{self.src}.{self.sport} > {self.dst}.{self.dport} [{names}] seq {self.seq}"
        return f"{text}, length {len(self.payload)}"


def parse(frame: bytes, time_ns: int = 0) -> Segment | None:
    """The TCP segment in a frame; None for everything else, fragments included."""
    if len(frame) < _ETHERNET_BYTES + 40 or frame[12:14] != struct.pack("!H", _IPV4):
        return None
    packet = frame[_ETHERNET_BYTES:]
    header = (packet[0] & 15) * 4
    total, ident, cut, ttl, protocol = struct.unpack_from("!HHHBB", packet, 2)
    if packet[0] >> 4 != 4 or protocol != _TCP or cut & 0x3FFF or total > len(packet):
        return None
    tcp = packet[header:total]
    if header < 20 or len(tcp) < 20 or not 20 <= (size := (tcp[12] >> 4) * 4) <= len(tcp):
        return None
    sport, dport, seq, ack, _, flags, window, _, urgent = struct.unpack_from("!HHIIBBHHH", tcp)
    pseudo = packet[12:20] + struct.pack("!HH", _TCP, len(tcp))
    return Segment(
        time_ns, frame[6:12].hex(":"), frame[:6].hex(":"),
        IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), ttl, sport, dport, seq, ack,
        Flag(flags), tcp[20:size], tcp[size:],
        struct.pack("!BHHHH", packet[1], ident, cut, window, urgent) + packet[20:header],
        checksum(packet[:header]) == 0, checksum(pseudo + tcp) == 0,
    )  # fmt: skip


def build(segment: Segment) -> bytes:
    """The frame of a segment, with right checksums, not padded; `rest` is taken apart as above."""
    tos, ident, cut, window, urgent = struct.unpack_from("!BHHHH", segment.rest)
    src, dst = segment.src.packed, segment.dst.packed
    options = segment.options + bytes(-len(segment.options) % 4)
    tcp = struct.pack(
        "!HHIIBBHHH", segment.sport, segment.dport, segment.seq, segment.ack,
        (20 + len(options)) // 4 << 4, segment.flags, window, 0, urgent,
    )  # fmt: skip
    tcp += options + segment.payload
    pseudo = src + dst + struct.pack("!HH", _TCP, len(tcp))
    tcp = _with_checksum(tcp, 16, checksum(pseudo + tcp))
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(tcp), ident, cut, segment.ttl, _TCP, 0)
    header = _with_checksum(header + src + dst, 10, checksum(header + src + dst))
    macs = bytes.fromhex((segment.eth_dst + segment.eth_src).replace(":", ""))
    return macs + struct.pack("!H", _IPV4) + header + tcp


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): 0 over data that includes a right one."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_checksum(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]
