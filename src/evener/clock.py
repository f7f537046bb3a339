# SPDX-License-Identifier: Apache-2.0
"""Time as an argument: only `control` reads a real clock, all below it is given one or a number."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Something that tells monotonic time."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never goes back when the wall clock is changed."""
        ...


class MonotonicClock:
    """CLOCK_MONOTONIC of this machine: the clock that the datapath stamps flows with."""

    def now(self) -> float:
        """Seconds since boot, without the time that the machine was suspended."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)


class ManualClock:
    """A clock that stands still until it is told to move: for tests and for replaying a capture."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        """The time in seconds that was set last."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`; ValueError if negative, since monotonic time never goes back."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back ({seconds} s)")
        self._now += seconds
