# SPDX-License-Identifier: Apache-2.0
"""The twin's flow: a life told in booleans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

FIN, SYN, RST, ACK = 1, 2, 4, 16

Key: TypeAlias = tuple[bytes, int]
"""Address and port; all of it is TCP."""


@dataclass(slots=True)
class Flow:
    """A record of the flow table that holds a port."""

    client: Key
    service: int
    backend: int
    snat: int
    port: int
    stamp: int
    replied: bool = False
    established: bool = False
    fin_forward: bool = False
    fin_reply: bool = False
    reset: bool = False
    live_forward: bool = False
    live_reply: bool = False

    def flags(self) -> int:
        """The flags as core/flow.h numbers them."""
        bits = (False, self.replied, self.established, self.fin_forward, self.fin_reply, self.reset)
        return sum(
            1 << n for n, bit in enumerate((*bits, self.live_forward, self.live_reply)) if bit
        )

    def state(self) -> str:
        """What the flags amount to."""
        if self.reset or (self.fin_forward and self.fin_reply):
            return "closed"
        if not self.established:
            return "opening"
        return "half closed" if self.fin_forward or self.fin_reply else "established"

    def see(self, forward: bool, tcp: int) -> None:
        """One packet's part in the life of the connection."""
        if tcp & RST:
            self.reset, self.live_forward, self.live_reply = True, False, False
            return
        if self.reset:
            self.live_forward |= forward
            self.live_reply |= not forward
            if self.live_forward and self.live_reply:
                self.reset = self.live_forward = self.live_reply = False
        if tcp & FIN:
            self.fin_forward |= forward
            self.fin_reply |= not forward
        if not forward and tcp & SYN and tcp & ACK:
            self.replied = True
        if forward and not tcp & SYN and tcp & ACK and self.replied:
            self.established = True

    def age(self, now: int) -> int:
        """Seconds since it was seen; a stamp of the future counts as now."""
        age = (now - self.stamp) & 0xFFFF
        return 0 if age >= 0x8000 else age
