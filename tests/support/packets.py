# SPDX-License-Identifier: Apache-2.0
"""Frames for tests: build them and take them apart. Nothing here is shared with the core.

Builders nest: `ethernet(DST, SRC, ipv4(a, b, TCP, tcp(a, b, 1024, 80, flags="S")))`. Checksums are
computed over all bytes unless given; a given one is taken as it is, so that wrong ones can be made.
Addresses are dotted strings or IPv4Address, MACs are strings, all numbers are in host order, sizes
and offsets are in bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ICMP, TCP, UDP = 1, 6, 17
IPV4, ARP, IPV6, VLAN, QINQ = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
DONT_FRAGMENT, MORE_FRAGMENTS = 2, 1

_TCP_FLAGS = "FSRPAUEC"

Address = str | IPv4Address


def checksum(data: bytes) -> int:
    """The Internet checksum of some bytes (RFC 1071): 0 over data that includes a right one."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def l4_checksum(src: Address, dst: Address, protocol: int, segment: bytes) -> int:
    """The checksum of a TCP or UDP segment with its IPv4 pseudo header."""
    pseudo = struct.pack("!4s4sBBH", _ip(src), _ip(dst), 0, protocol, len(segment))
    return checksum(pseudo + segment)


def ethernet(
    dst: str, src: str, payload: bytes, *, ethertype: int = IPV4, vlans: Sequence[int] = ()
) -> bytes:
    """A frame, not padded. `vlans` are tags of 16 bits, the outermost first; two make QinQ."""
    types = [QINQ] * (len(vlans) - 1) + [VLAN] * bool(vlans)
    tags = b"".join(struct.pack("!HH", *tag) for tag in zip(types, vlans, strict=True))
    return _mac(dst) + _mac(src) + tags + struct.pack("!H", ethertype) + payload


def ipv4(
    src: Address,
    dst: Address,
    protocol: int,
    payload: bytes = b"",
    *,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    flags: int = 0,
    offset: int = 0,
    options: bytes = b"",
    total: int | None = None,
    header_checksum: int | None = None,
) -> bytes:
    """An IPv4 packet; options are padded with zeros, `offset` is a fragment's, `total` may lie."""
    options += bytes(-len(options) % 4)
    length = 20 + len(options)
    total = length + len(payload) if total is None else total
    header = struct.pack("!BBHHH", 0x40 | length // 4, tos, total, ident, flags << 13 | offset // 8)
    header += struct.pack("!BBH4s4s", ttl, protocol, 0, _ip(src), _ip(dst))
    return _sealed(header + options, 10, header_checksum) + payload


def tcp(
    src: Address,
    dst: Address,
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    flags: str = "A",
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    urgent: int = 0,
    options: bytes = b"",
    segment_checksum: int | None = None,
) -> bytes:
    """A TCP segment; flags are letters of FSRPAUEC, options are padded with zeros (end of list)."""
    options += bytes(-len(options) % 4)
    bits = sum(1 << _TCP_FLAGS.index(flag) for flag in flags)
    size = (20 + len(options)) // 4 << 4
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, size, bits, window, 0, urgent)
    segment = header + options + payload
    right = l4_checksum(src, dst, TCP, segment)
    return _sealed(segment, 16, right if segment_checksum is None else segment_checksum)


def udp(
    src: Address,
    dst: Address,
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    segment_checksum: int | None = None,
) -> bytes:
    """A UDP datagram; a given checksum of 0 means that there is none."""
    segment = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if segment_checksum is None:
        segment_checksum = l4_checksum(src, dst, UDP, segment) or 0xFFFF
    return _sealed(segment, 6, segment_checksum)


def icmp_echo(ident: int, seq: int, payload: bytes = b"", *, reply: bool = False) -> bytes:
    """An ICMP echo request or reply."""
    return _sealed(struct.pack("!BBHHH", 0 if reply else 8, 0, 0, ident, seq) + payload, 2, None)


def fragments(packet: bytes, size: int) -> list[bytes]:
    """Cut an IPv4 packet without options into some with `size` bytes (8, 16, ...) of payload."""
    body = packet[20:]
    pieces = []
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        cut = (MORE_FRAGMENTS if at + size < len(body) else 0) << 13 | at // 8
        length = struct.pack("!H", 20 + len(piece))
        header = packet[:2] + length + packet[4:6] + struct.pack("!H", cut) + packet[8:10]
        pieces.append(_sealed(header + bytes(2) + packet[12:20], 10, None) + piece)
    return pieces


@dataclass(slots=True)
class Packet:
    """All that a frame says; what its protocols do not have stays as it is here.

    `ip_ok` and `l4_ok` tell if the checksums are right; None: there is none, or a fragment does not
    show it. `trailer` are the bytes after the end of the IP packet.
    """

    eth_dst: str
    eth_src: str
    ethertype: int
    vlans: tuple[int, ...] = ()
    src: IPv4Address = field(default_factory=lambda: IPv4Address(0))
    dst: IPv4Address = field(default_factory=lambda: IPv4Address(0))
    protocol: int = 0
    ttl: int = 0
    tos: int = 0
    ident: int = 0
    ip_flags: int = 0
    offset: int = 0
    total: int = 0
    ip_options: bytes = b""
    ip_ok: bool | None = None
    sport: int = 0
    dport: int = 0
    flags: str = ""
    seq: int = 0
    ack: int = 0
    window: int = 0
    urgent: int = 0
    tcp_options: bytes = b""
    icmp_type: int = 0
    icmp_code: int = 0
    l4_ok: bool | None = None
    payload: bytes = b""
    trailer: bytes = b""


def parse(frame: bytes) -> Packet:
    """Take a frame apart; ValueError when it is cut short or its lengths contradict each other."""
    try:
        return _parse(frame)
    except struct.error as error:
        raise ValueError(f"truncated: {error}") from error


def _parse(frame: bytes) -> Packet:
    dst, src, ethertype = struct.unpack_from("!6s6sH", frame)
    at, vlans = 14, []
    while ethertype in (VLAN, QINQ):
        tag, ethertype = struct.unpack_from("!HH", frame, at)
        vlans.append(tag)
        at += 4
    packet = Packet(dst.hex(":"), src.hex(":"), ethertype, tuple(vlans), payload=frame[at:])
    if ethertype == IPV4:
        _parse_ipv4(packet, frame[at:])
    return packet


def _parse_ipv4(p: Packet, data: bytes) -> None:
    first, p.tos, p.total, p.ident, cut, p.ttl, p.protocol, _, src, dst = struct.unpack_from(
        "!BBHHHBBH4s4s", data
    )
    size = (first & 15) * 4
    if first >> 4 != 4 or not 20 <= size <= p.total <= len(data):
        raise ValueError(f"IPv4 header {first:#x}, total {p.total}, there are {len(data)}")
    p.src, p.dst = IPv4Address(src), IPv4Address(dst)
    p.ip_flags, p.offset = cut >> 13, (cut & 0x1FFF) * 8
    p.ip_options, p.ip_ok = data[20:size], checksum(data[:size]) == 0
    p.payload, p.trailer = data[size : p.total], data[p.total :]
    whole = not (p.offset or p.ip_flags & MORE_FRAGMENTS)
    parser = {TCP: _parse_tcp, UDP: _parse_udp, ICMP: _parse_icmp}.get(p.protocol)
    if parser and not p.offset:
        parser(p, whole)


def _parse_tcp(p: Packet, whole: bool) -> None:
    data = p.payload
    p.sport, p.dport, p.seq, p.ack, words, bits, p.window, _, p.urgent = struct.unpack_from(
        "!HHIIBBHHH", data
    )
    size = (words >> 4) * 4
    if not 20 <= size <= len(data):
        raise ValueError(f"TCP header {size}, there are {len(data)}")
    p.flags = "".join(flag for bit, flag in enumerate(_TCP_FLAGS) if bits >> bit & 1)
    p.l4_ok = l4_checksum(p.src, p.dst, TCP, data) == 0 if whole else None
    p.tcp_options, p.payload = data[20:size], data[size:]


def _parse_udp(p: Packet, whole: bool) -> None:
    data = p.payload
    p.sport, p.dport, length, stated = struct.unpack_from("!HHHH", data)
    if whole and not 8 <= length <= len(data):
        raise ValueError(f"UDP length {length}, there are {len(data)}")
    p.l4_ok = l4_checksum(p.src, p.dst, UDP, data[:length]) == 0 if whole and stated else None
    p.payload = data[8:length] if whole else data[8:]


def _parse_icmp(p: Packet, whole: bool) -> None:
    p.icmp_type, p.icmp_code = struct.unpack_from("!BB2x", p.payload)
    p.l4_ok = checksum(p.payload) == 0 if whole else None
    p.payload = p.payload[4:]


def _sealed(data: bytes, at: int, value: int | None) -> bytes:
    """Put a checksum into its place; without one, that of the data."""
    value = checksum(data) if value is None else value
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def _ip(address: Address) -> bytes:
    return IPv4Address(address).packed


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))
