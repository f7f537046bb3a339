# SPDX-License-Identifier: Apache-2.0
"""From the tables' bytes and bits to text, and the few texts that operators type to values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np

from evener._generated import layout
from evener.errors import EvenerError
from evener.model import Address, Protocol, endpoint

STATES: Final = ("OPENING", "ESTABLISHED", "HALF_CLOSED", "CLOSED")
"""The states of a flow, by enum lb_flow_state."""
DIRECTIONS: Final = (None, "forward", "reply")
MODES: Final = {layout.MODE_NONE: None, layout.MODE_FULL_NAT: "full-nat"}
_TCP_FLAGS: Final = "FSRP.UEW"  # as tcpdump writes them
_MAPPED: Final = bytes(10) + b"\xff\xff"


def _state(flags: int) -> int:
    fins = flags & (layout.FLOW_FIN_FORWARD | layout.FLOW_FIN_REPLY)
    if flags & layout.FLOW_RESET or fins == layout.FLOW_FIN_FORWARD | layout.FLOW_FIN_REPLY:
        return layout.STATE_CLOSED
    if not flags & layout.FLOW_ESTABLISHED:
        return layout.STATE_OPENING
    return layout.STATE_HALF_CLOSED if fins else layout.STATE_ESTABLISHED


STATE_OF_FLAGS: Final = np.array([_state(flags) for flags in range(256)], np.uint8)
"""lb_flow_state of core/flow.h for every value of a flow's flags."""


def address(raw: bytes) -> Address | None:
    """An address of 16 bytes, IPv4 in its mapped form; None for all zeros: there is none."""
    if not any(raw):
        return None
    return IPv4Address(raw[12:]) if raw.startswith(_MAPPED) else IPv6Address(raw)


def port(word: int) -> int:
    """A port that was loaded as a little-endian word of its two bytes on the wire."""
    return (word & 0xFF) << 8 | word >> 8


def number32(word: int) -> int:
    """The same for four bytes: sequence and acknowledgement numbers."""
    return int.from_bytes(word.to_bytes(4, "little"), "big")


def end(raw: bytes, port_word: int) -> str | None:
    """ADDRESS:PORT, or None where there is no address."""
    where = address(raw)
    return None if where is None else endpoint(where, port(port_word))


def mac(raw: bytes) -> str:
    """A MAC address as Linux writes it."""
    return raw.hex(":")


def tcp_flags(bits: int) -> str:
    """The flags of a segment as tcpdump writes them: S, S., ., P., F., R; "none" without any."""
    # tcpdump puts the acknowledgement's dot behind the rest
    letters = [letter for bit, letter in enumerate(_TCP_FLAGS) if bits >> bit & 1]
    return "".join(sorted(letters, key=lambda letter: letter == ".")) or "none"


def protocol(number: int) -> str:
    """tcp, udp, or the number."""
    names = {6: "tcp", 17: "udp", 1: "icmp", 0: ""}
    return names.get(number, str(number))


def nearest(wrong: str, names: Iterable[str]) -> str:
    """A suggestion to put behind a message: ', did you mean "web"?', or nothing."""
    names = list(names)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    folded = [name for name in names if name.lower() == wrong.lower()]
    best = (folded or close)[:1]
    return f', did you mean "{best[0]}"?' if best else ""


def parse_end(text: str, example: str = "10.0.0.1:34952") -> tuple[IPv4Address, int]:
    """ADDRESS:PORT as an operator types it; EvenerError when it is something else."""
    host, colon, number = text.rpartition(":")
    try:
        where = IPv4Address(host)
    except AddressValueError:
        where = None
    if not colon or where is None or not number.isdecimal() or not 0 < int(number) < 65_536:
        raise EvenerError(
            f'"{text}" is not an IPv4 address with a port',
            do=f"write it as ADDRESS:PORT: {example}",
        )
    return where, int(number)


def parse_listen(text: str) -> tuple[IPv4Address, int, Protocol]:
    """ADDRESS:PORT/PROTOCOL as the configuration writes it; EvenerError if it is not."""
    ends, slash, name = text.rpartition("/")
    if not slash or name not in ("tcp", "udp"):
        raise EvenerError(
            f'"{text}" does not end in a protocol', do="write it as 10.0.0.10:8080/tcp"
        )
    if name != "tcp":
        raise EvenerError(f"{name} is not balanced by this version", text, "only tcp is")
    return *parse_end(ends, "10.0.0.10:8080/tcp"), Protocol[name.upper()]


def fields(record: Any) -> dict[str, Any]:
    """The plain fields of one structured record, as Python values."""
    return dict(zip(record.dtype.names, record.item(), strict=True))
