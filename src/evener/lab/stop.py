# SPDX-License-Identifier: Apache-2.0
"""Signals that are only noted: who waits looks in small steps, so no clean-up is ever cut short."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from evener.errors import EvenerError

if TYPE_CHECKING:
    from collections.abc import Iterator


class StoppedError(EvenerError):
    """We were told to stop; `exit_code` is a shell's 128 + number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}, nothing was left behind")
        self.number = number


class Stop:
    """Whether somebody wants us to end."""

    def __init__(self) -> None:
        self._number = 0

    @property
    def wanted(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    def check(self) -> None:
        """Raise StoppedError if a signal has come."""
        if self._number:
            raise StoppedError(self._number)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of dying of them; the main thread only."""

        def note(number: int, frame: object) -> None:
            self._number = self._number or number

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
