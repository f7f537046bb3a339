# SPDX-License-Identifier: Apache-2.0
"""Parsing and rewriting of frames for the twin: checksums are computed over everything, every time."""

from __future__ import annotations

from dataclasses import dataclass

from evener._generated.reasons import Reason

ETHERNET = 14


@dataclass(slots=True)
class View:
    """What a frame says. reason NONE: it is TCP over IPv4 and can be translated."""

    reason: Reason
    ifindex: int
    eth_dst: bytes = b""
    eth_src: bytes = b""
    src: bytes = b""
    dst: bytes = b""
    ttl: int = 0
    sport: int = 0
    dport: int = 0
    flags: int = 0
    l4: int = 0


def parse(frame: bytes, ifindex: int) -> View:
    """All that the decision needs of a frame."""
    if len(frame) < ETHERNET:
        return View(Reason.MALFORMED, ifindex)
    view = View(Reason.NONE, ifindex, frame[0:6], frame[6:12])
    match frame[12:14]:
        case b"\x08\x00":
            view.reason = _parse_ipv4(view, frame[ETHERNET:])
        case b"\x81\x00" | b"\x88\xa8":
            view.reason = Reason.VLAN_TAGGED
        case _:
            view.reason = Reason.NOT_IPV4
    return view


def _parse_ipv4(view: View, packet: bytes) -> Reason:
    if len(packet) < 20:
        return Reason.MALFORMED
    version, header, length = packet[0] >> 4, (packet[0] & 15) * 4, _number(packet[2:4])
    if version != 4 or not 20 <= header <= length <= len(packet):
        return Reason.MALFORMED
    view.src, view.dst, view.ttl = packet[12:16], packet[16:20], packet[8]
    if packet[9] != 6:
        return Reason.NOT_TCP
    if view.eth_dst[0] & 1:
        return Reason.NOT_UNICAST
    if _number(packet[6:8]) & 0x3FFF:
        return Reason.FRAGMENT
    segment = packet[header:length]
    if len(segment) < 20 or not 20 <= (segment[12] >> 4) * 4 <= len(segment):
        return Reason.MALFORMED
    view.l4 = ETHERNET + header
    view.sport, view.dport, view.flags = _number(segment[0:2]), _number(segment[2:4]), segment[13]
    return Reason.NONE


def rewrite(
    frame: bytes, macs: bytes, src: tuple[bytes, int], dst: tuple[bytes, int], ttl: int
) -> bytes:
    """The frame with other ends. Checksums that were right are right; wrong ones are as wrong."""
    header, length = (frame[ETHERNET] & 15) * 4, _number(frame[16:18])
    ip = frame[ETHERNET : ETHERNET + header]
    tcp = frame[ETHERNET + header : ETHERNET + length]
    rest = frame[ETHERNET + length :]
    new_ip = ip[:8] + bytes([ttl]) + ip[9:12] + src[0] + dst[0] + ip[20:]
    new_tcp = src[1].to_bytes(2, "big") + dst[1].to_bytes(2, "big") + tcp[4:]
    pseudo = bytes([0, 6]) + len(tcp).to_bytes(2, "big")
    new_tcp = _sum_again(tcp, ip[12:20] + pseudo, new_tcp, src[0] + dst[0] + pseudo, 16)
    return macs + frame[12:14] + _sum_again(ip, b"", new_ip, b"", 10) + new_tcp + rest


def _sum_again(old: bytes, old_pseudo: bytes, new: bytes, new_pseudo: bytes, at: int) -> bytes:
    """`new` with a checksum at `at` that makes it as wrong as `old` is: mostly not at all."""
    error = _total(old_pseudo + old)
    blank = new[:at] + bytes(2) + new[at + 2 :]
    check = (error - _total(new_pseudo + blank)) % 0xFFFF
    return new[:at] + check.to_bytes(2, "big") + new[at + 2 :]


def _total(data: bytes) -> int:
    """The sum of all 16-bit words in one's complement, with one zero; 0 if its checksum is right."""
    return int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
