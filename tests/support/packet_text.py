# SPDX-License-Identifier: Apache-2.0
"""Frames as one line of text each: what scenario files say of packets that go in and come out.

    10.0.0.1:34952 > 10.0.0.10:8080 S seq=1000 opts=020405b4
    10.0.0.1 > 10.0.0.10 icmp
    10.0.0.1:53 > 10.0.0.10:53 udp data="a query"
    hex ffffffffffff deadbeef0001 0806 00 ...

TCP flags are tcpdump's letters (S F R P . U E W, `-` for none; `.` is ACK). Numbers are decimal or
0x..., lengths and offsets in bytes. Keys of every packet: ttl tos id df mf frag (offset) ipopts (hex)
data (text with Python's escapes) and what makes a packet odd: ihl (words) version total ipsum sum
(checksums as given) vlan (tags, comma between) type (Ethernet) pad (zeros after the packet) trailer
(hex after the packet) cut (only so many bytes of the frame). Of TCP: seq ack win urg opts (hex)
offset (words). `key` without a value is `key=1`.
"""

from __future__ import annotations

import shlex
import struct
from typing import Final

from tests.support import packets
from tests.support.packets import ICMP, TCP, UDP

FLAGS: Final = {"F": "F", "S": "S", "R": "R", "P": "P", ".": "A", "U": "U", "E": "E", "W": "C"}
_LETTERS: Final = {letter: sign for sign, letter in FLAGS.items()}
_WORDS: Final = """ttl tos id df mf frag ipopts data ihl version total ipsum sum vlan type pad trailer
cut seq ack win urg opts offset"""
_KEYS: Final = frozenset(_WORDS.split())


def frame(text: str, mac: str, own: str) -> bytes:
    """The frame that the line describes, from `mac` to `own`. ValueError says what is wrong."""
    words = shlex.split(text)
    if words[:1] == ["hex"]:
        return bytes.fromhex("".join(words[1:]))
    if len(words) < 3 or words[1] != ">":
        raise ValueError("expected SOURCE > DESTINATION ..., or hex BYTES")
    kind = words[3] if len(words) > 3 and "=" not in words[3] else "."
    options = dict(word.partition("=")[::2] for word in words[3:] if word != kind)
    if unknown := options.keys() - _KEYS:
        raise ValueError(f"unknown: {' '.join(sorted(unknown))}")
    return _Builder(options).frame(words[0], words[2], kind, mac, own)


class _Builder:
    def __init__(self, options: dict[str, str]) -> None:
        self._options = options

    def number(self, key: str, default: int = 0) -> int:
        text = self._options.get(key)
        return default if text is None else int(text or "1", 0)

    def optional(self, key: str) -> int | None:
        return self.number(key) if key in self._options else None

    def raw(self, key: str) -> bytes:
        return bytes.fromhex(self._options.get(key, ""))

    def frame(self, src: str, dst: str, kind: str, mac: str, own: str) -> bytes:
        (saddr, sport), (daddr, dport) = _ends(src), _ends(dst)
        protocol, body = self._body(kind, saddr, daddr, sport, dport)
        flags = self.number("df") * packets.DONT_FRAGMENT + self.number("mf")
        packet = packets.ipv4(
            saddr,
            daddr,
            protocol,
            body,
            ttl=self.number("ttl", 64),
            tos=self.number("tos"),
            ident=self.number("id"),
            flags=flags,
            offset=self.number("frag"),
            options=self.raw("ipopts"),
            total=self.optional("total"),
            header_checksum=self.optional("ipsum"),
        )
        if {"ihl", "version"} & self._options.keys():
            first = self.number("version", 4) << 4 | self.number("ihl", packet[0] & 15)
            packet = bytes([first]) + packet[1:]
        packet += bytes(self.number("pad")) + self.raw("trailer")
        vlans = [int(tag, 0) for tag in self._options.get("vlan", "").split(",") if tag]
        ethertype = self.number("type", packets.IPV4)
        built = packets.ethernet(own, mac, packet, ethertype=ethertype, vlans=vlans)
        return built[: self.number("cut", len(built))]

    def _body(self, kind: str, src: str, dst: str, sport: int, dport: int) -> tuple[int, bytes]:
        data = self._options.get("data", "").encode().decode("unicode_escape").encode("latin-1")
        if kind == "icmp":
            return ICMP, packets.icmp_echo(1, 1, data)
        if kind == "udp":
            stated = self.optional("sum")
            return UDP, packets.udp(src, dst, sport, dport, data, segment_checksum=stated)
        if unknown := set(kind) - FLAGS.keys() - {"-"}:
            raise ValueError(f"unknown flags: {''.join(sorted(unknown))}")
        segment = packets.tcp(
            src,
            dst,
            sport,
            dport,
            data,
            flags="".join(FLAGS[sign] for sign in kind if sign != "-"),
            seq=self.number("seq"),
            ack=self.number("ack"),
            window=self.number("win", 65535),
            urgent=self.number("urg"),
            options=self.raw("opts"),
            segment_checksum=self.optional("sum"),
        )
        if "offset" in self._options:
            segment = segment[:12] + bytes([self.number("offset") << 4]) + segment[13:]
        return TCP, segment


def _ends(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    return address, int(port or 0)


def tcp_line(raw: bytes) -> str:
    """A TCP frame that went out, in the words of tcpdump."""
    p = packets.parse(raw)
    words = [f"{p.src}:{p.sport} > {p.dst}:{p.dport}"]
    words.append("".join(_LETTERS[flag] for flag in p.flags) or "-")
    words.append(f"seq={p.seq}")
    if "A" in p.flags:
        words.append(f"ack={p.ack}")
    if p.payload:
        words.append(f"len={len(p.payload)}")
    words.append(f"ttl={p.ttl}")
    return " ".join(words)


def unexpected_changes(before: bytes, after: bytes) -> list[str]:
    """What differs between the two frames besides what full NAT rewrites: words for people.

    Both are IPv4 and TCP. Checksums must be exactly as right, or as wrong, as they were.
    """
    if len(before) != len(after):
        return ["length"]
    l4 = 14 + (before[14] & 15) * 4
    rewritten = {*range(12), 22, *range(24, 34), *range(l4, l4 + 4), l4 + 16, l4 + 17}
    changed = [
        f"byte-{at}" for at in range(len(before)) if before[at] != after[at] and at not in rewritten
    ]
    if _error(before[14:l4]) != _error(after[14:l4]):
        changed.append("IP-checksum")
    if _error(_pseudo(before)) != _error(_pseudo(after)):
        changed.append("TCP-checksum")
    return changed


def _pseudo(raw: bytes) -> bytes:
    header, total = (raw[14] & 15) * 4, struct.unpack_from("!H", raw, 16)[0]
    segment = raw[14 + header : 14 + total]
    return raw[26:34] + struct.pack("!BBH", 0, raw[23], len(segment)) + segment


def _error(data: bytes) -> int:
    """By how much data with its own checksum is wrong: 0 if it is right."""
    return packets.checksum(data) % 0xFFFF
