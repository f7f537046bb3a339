# SPDX-License-Identifier: Apache-2.0
"""Random traffic for two machines that are to agree: sensible packets, odd ones and garbage.

The first machine sees each packet as it is made, since replies have to go where packets went to; the
frames are returned for the other. Both are configured, aged and swept together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from evener.config import loads
from evener.datapath.sim import Outcome
from evener.model import Config
from tests.support import packets
from tests.support.machine import Machine
from tests.support.packets import DONT_FRAGMENT, IPV4, MORE_FRAGMENTS, TCP, UDP
from tests.support.twin import NETWORKS

_CONFIG = """
[datapath]
driver = "sim"
[pool.web]
backends = [{first}]
[pool.other]
backends = ["10.0.0.3:8081", {{ address = "10.0.1.4:80", weight = 2 }}]
[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
[service.snat]
listen = "10.0.0.10:9090/tcp"
pool = "web"
snat = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
[service.other]
listen = "10.0.0.20:80/tcp"
pool = "other"
[timeouts]
syn = 10
established = 60
fin = 20
closed = 5
"""
_FIRST = ('"10.0.0.2:8080", "10.0.0.3:8080"', '"10.0.0.3:8080"', '"10.0.0.2:8080"', "")
_OWN = "de:ad:be:ef:00:10"
_VIPS = (("10.0.0.10", 8080), ("10.0.0.10", 9090), ("10.0.0.20", 80), ("10.0.0.10", 22))
_SNATS = ("10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.20")
_BACKENDS = (("10.0.0.2", 8080), ("10.0.0.3", 8080), ("10.0.0.3", 8081), ("10.0.1.4", 80))
_CLIENT_SAYS = ("S", "S", "S", "A", "A", "A", "PA", "FA", "R", "SA", "SF", "")
_BACKEND_SAYS = ("SA", "SA", "A", "A", "PA", "FA", "R", "RA", "")
_PAUSES = (0, 0, 0, 1, 1, 2, 5, 10, 12, 60, 62)
_REMEMBERED = 64

End = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Talk:
    """A flow that something came of: its four ends."""

    client: End
    vip: End
    snat: End
    backend: End


class Traffic:
    """See the top of this file."""

    def __init__(self, chance: random.Random, first: Machine, second: Machine) -> None:
        self._chance = chance
        self._machines = (first, second)
        self._talks: list[_Talk] = []
        self._configs = [loads(_CONFIG.format(first=backends)) for backends in _FIRST]
        self._configure(self._configs[0], 0)

    def chunk(self, count: int) -> tuple[list[bytes], list[Outcome]]:
        """So many packets, after something happened that concerns both machines. What became of
        them on the first machine; the second has not seen them yet."""
        chance = self._chance
        happens = chance.random()
        if happens < 0.1:
            self._configure(chance.choice(self._configs), chance.randrange(len(NETWORKS)))
        elif happens < 0.2:
            assert len({machine.sweep() for machine in self._machines}) == 1
        seconds = chance.choice(_PAUSES)
        for machine in self._machines:
            machine.age(seconds)
        frames, outcomes = [], []
        for _ in range(count):
            frame = self._frame()
            outcome = self._machines[0].send(frame)
            frames.append(frame)
            outcomes.append(outcome)
            if outcome.plan["direction"] == 1 and outcome.frame != frame:
                self._remember(frame, outcome.frame)
        return frames, outcomes

    def _configure(self, config: Config, network: int) -> None:
        for machine in self._machines:
            machine.configure(config, NETWORKS[network])

    def _remember(self, before: bytes, after: bytes) -> None:
        (client, vip), (snat, backend) = _ends(before), _ends(after)
        talk = _Talk(client, vip, snat, backend)
        if len(self._talks) < _REMEMBERED:
            self._talks.append(talk)
        else:
            self._talks[self._chance.randrange(_REMEMBERED)] = talk

    def _frame(self) -> bytes:
        """A good packet more often than not."""
        chance = self._chance
        kind = chance.random()
        if kind < 0.02:
            size = chance.randrange(14, 100)
            start = b"" if chance.random() < 0.5 else bytes(12) + b"\x08\x00\x45"
            return (start + chance.randbytes(size))[:size]
        if kind < 0.25 or not self._talks:
            port = chance.choice((chance.randrange(40_000, 40_050), chance.randrange(1, 65_536)))
            client = (f"10.0.0.{chance.choice((1, 2, 5, 77))}", port)
            frame = self._segment(client, chance.choice(_VIPS), chance.choice(_CLIENT_SAYS))
        elif kind < 0.3:
            snat = (chance.choice(_SNATS), chance.randrange(1, 65_536))
            frame = self._segment(chance.choice(_BACKENDS), snat, chance.choice(_BACKEND_SAYS))
        else:
            talk = chance.choice(self._talks)
            if chance.random() < 0.5:
                frame = self._segment(talk.client, talk.vip, chance.choice(_CLIENT_SAYS))
            else:
                frame = self._segment(talk.backend, talk.snat, chance.choice(_BACKEND_SAYS))
        return self._mutated(frame) if chance.random() < 0.2 else frame

    def _segment(self, src: End, dst: End, flags: str) -> bytes:
        chance = self._chance
        odd = chance.randrange(40)
        if odd > 15:
            plain = _plain(src, dst, flags)
            return (
                plain[:38] + chance.randbytes(8) + plain[46:]
            )  # its checksum is as wrong later on
        data = chance.randbytes(chance.choice((0, 1, 5, 100, 1400))) if odd < 5 else b""
        segment = packets.tcp(
            src[0],
            dst[0],
            src[1],
            dst[1],
            data,
            flags=flags,
            seq=chance.getrandbits(32),
            ack=chance.getrandbits(32),
            window=chance.getrandbits(16),
            options=chance.randbytes(4 * chance.randrange(11)) if odd == 5 else b"",
            segment_checksum=chance.getrandbits(16) if odd == 6 else None,
        )
        packet = packets.ipv4(
            src[0],
            dst[0],
            UDP if odd == 7 else TCP,
            segment,
            ttl=chance.randrange(256) if odd == 8 else 64,
            tos=chance.getrandbits(8),
            ident=chance.getrandbits(16),
            flags=MORE_FRAGMENTS if odd == 9 else DONT_FRAGMENT,
            offset=8 * chance.randrange(1 << 13) if odd == 10 else 0,
            options=chance.randbytes(4 * chance.randrange(11)) if odd == 11 else b"",
            header_checksum=chance.getrandbits(16) if odd == 12 else None,
        )
        trailer = bytes(chance.randrange(20)) if odd == 13 else b""
        vlans = (5,) if odd == 14 else ()
        ethertype = chance.getrandbits(16) if odd == 15 else IPV4
        frame = packet + trailer
        return packets.ethernet(_OWN, _mac(src), frame, ethertype=ethertype, vlans=vlans)

    def _mutated(self, frame: bytes) -> bytes:
        """Some bytes of the headers changed, or the frame cut, or made longer."""
        chance = self._chance
        raw = bytearray(frame)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            at = chance.randrange(12, min(len(raw), 74))
            raw[at] = chance.choice(
                (0, 255, raw[at] ^ 1 << chance.randrange(8), chance.getrandbits(8))
            )
        if chance.random() < 0.3:
            del raw[chance.randrange(14, len(raw)) :]
        if chance.random() < 0.1:
            raw += chance.randbytes(chance.randrange(1, 60))
        return bytes(raw)


@lru_cache(maxsize=1 << 14)
def _plain(src: End, dst: End, flags: str) -> bytes:
    """Nothing odd about it. Sequence numbers are at 38 and 42."""
    segment = packets.tcp(src[0], dst[0], src[1], dst[1], flags=flags)
    packet = packets.ipv4(src[0], dst[0], TCP, segment)
    return packets.ethernet(_OWN, _mac(src), packet)


def _mac(end: End) -> str:
    return f"02:00:00:00:00:{int(end[0].rpartition('.')[2]):02x}"


def _ends(frame: bytes) -> tuple[End, End]:
    l4 = 14 + (frame[14] & 15) * 4
    src, dst = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
    ports = [int.from_bytes(frame[at : at + 2], "big") for at in (l4, l4 + 2)]
    return (src, ports[0]), (dst, ports[1])
