# SPDX-License-Identifier: Apache-2.0
"""The Maglev scheduler: which backend each slot of the table names (NSDI 2016, section 3.4).

A backend's order of slots comes from a keyed digest of its address and port, so that every node with
the same seed and the same backends builds the same table, whatever their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evener.tables.hashing import digest64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend as schedulers see it: its id, what it is called on every node, its weight."""

    id: int
    identity: str
    weight: int


Fill = Callable[..., None]
"""`NativeLibrary.maglev`: the inner loop, in C."""


def build(
    candidates: Sequence[Candidate], size: int, seed: bytes, fill: Fill
) -> npt.NDArray[np.uint16]:
    """The table: `size` backend ids, uint16; all 0 when nobody has any weight. size is prime."""
    slots = np.zeros(size, np.uint16)
    able = [c for c in sorted(candidates, key=lambda c: c.identity) if c.weight > 0]
    if not able:
        return slots
    digests = [digest64(seed, c.identity) for c in able]
    columns: dict[str, npt.NDArray[Any]] = {
        "ids": np.array([c.id for c in able], np.uint16),
        "offsets": np.array([(d >> 32) % size for d in digests], np.uint32),
        "skips": np.array([(d & 0xFFFF_FFFF) % (size - 1) + 1 for d in digests], np.uint32),
        "weights": np.array([c.weight for c in able], np.uint32),
    }
    fill(slots, **columns)
    return slots
