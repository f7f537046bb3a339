# SPDX-License-Identifier: Apache-2.0
"""Maglev's table, as slow and as plain as the paper tells it (NSDI 2016, section 3.4).

Each backend has a list of all slots in its own order of preference. In turn each takes the first slot
of its list that is still free. A backend with half the weight of the heaviest takes part in every
second round, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b


def build(backends: Sequence[tuple[str, int]], size: int, seed: bytes) -> list[str | None]:
    """For each slot the name of its backend; None when nobody has any weight. size is prime.

    backends: name and weight of each.
    """
    able = sorted((name, weight) for name, weight in backends if weight > 0)
    slots: list[str | None] = [None] * size
    if not able:
        return slots
    heaviest = max(weight for _, weight in able)
    lists = {name: iter(_preferences(name, size, seed)) for name, _ in able}
    credit = {name: 0 for name, _ in able}
    left = size
    while left:
        for name, weight in able:
            credit[name] += weight
            if credit[name] >= heaviest and left:
                credit[name] -= heaviest
                slot = next(slot for slot in lists[name] if slots[slot] is None)
                slots[slot] = name
                left -= 1
    return slots


def _preferences(name: str, size: int, seed: bytes) -> list[int]:
    """A backend's order of all slots: from a place, in strides, both out of a digest of its name."""
    digest = int.from_bytes(blake2b(name.encode(), key=seed, digest_size=8).digest(), "little")
    start, stride = (digest >> 32) % size, (digest & 0xFFFF_FFFF) % (size - 1) + 1
    return [(start + step * stride) % size for step in range(size)]
