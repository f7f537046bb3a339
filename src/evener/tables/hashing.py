# SPDX-License-Identifier: Apache-2.0
"""Digests that the control plane makes, and the index hash of core/hash.h in NumPy.

The per-packet hash is not repeated here: it is called in the native library.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from evener.model import Address

_ODD = 0x9E3779B97F4A7C15


def digest64(seed: bytes, text: str) -> int:
    """A keyed 64-bit digest (BLAKE2b, RFC 7693): the same on every node that has the seed."""
    return int.from_bytes(blake2b(text.encode(), key=seed, digest_size=8).digest(), "little")


def address_bytes(address: Address) -> bytes:
    """16 bytes as on the wire, IPv4 in its mapped form (RFC 4291 section 2.5.5.2)."""
    if address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def port_word(port: int) -> int:
    """A port as a little-endian load of its two bytes on the wire."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def port_bit(word: int) -> int:
    """Which bit of a copy's `listening` stands for a port_word (lb_may_listen)."""
    return (word ^ word >> 8) & 0xFF


def index_factor(seed: int) -> int:
    """The odd multiplier that a seed stands for (lb_index_factor)."""
    return _ODD * (2 * seed + 1) & 0xFFFF_FFFF_FFFF_FFFF


def index_hash(records: npt.NDArray[Any], seed: int) -> npt.NDArray[np.uint32]:
    """lb_index_hash of every endpoint record (layout.ENDPOINT)."""
    half = records["addr"]["half"]
    port = records["port"].astype(np.uint64) << np.uint64(16)
    word = half[:, 1] ^ (half[:, 0] * np.uint64(3)) ^ (port | records["protocol"].astype(np.uint64))
    return ((word * np.uint64(index_factor(seed))) >> np.uint64(32)).astype(np.uint32).byteswap()
