# SPDX-License-Identifier: Apache-2.0
"""What clients and backends of the demo say to each other, and what became of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

LEAST, MOST = 4, 16
"""So many connections at least; more, up to the most, until both backends have served."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One connection: a message to whoever serves, and its answer.

    backend is the host's name, empty if the message came nowhere. problem is a sentence.
    """

    number: int
    message: bytes
    answer: bytes
    backend: str = ""
    message_ok: bool = False
    answer_ok: bool = False
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Both arrived, every byte."""
        return self.message_ok and self.answer_ok and not self.problem


def message(number: int) -> bytes:
    """What the client says: different in every connection and of another length."""
    return f"connection {number} from h1: {secrets.token_hex(8 + number)}\n".encode()


def answer(number: int, backend: str) -> bytes:
    """What a backend answers."""
    return f"{backend} heard connection {number}: {secrets.token_hex(12 + number)}\n".encode()


def served_by(exchanges: list[Exchange]) -> set[str]:
    """The backends that have served so far."""
    return {exchange.backend for exchange in exchanges if exchange.backend}


def enough(exchanges: list[Exchange], backends: int) -> bool:
    """Whether the demo may stop: all backends have served, or it was tried often enough."""
    if exchanges and exchanges[-1].problem:
        return True
    seen = len(exchanges)
    return seen >= MOST or (seen >= LEAST and len(served_by(exchanges)) == backends)
