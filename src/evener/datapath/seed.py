# SPDX-License-Identifier: Apache-2.0
"""The secret that a datapath's hashes are keyed with, made once for the life of its memory."""

from __future__ import annotations

import secrets
from typing import TypeAlias

Seed: TypeAlias = tuple[int, int, int, int]


def new_seed() -> Seed:
    """Four secret 64-bit words."""
    words = [secrets.randbits(64) for _ in range(4)]
    return words[0], words[1], words[2], words[3]
