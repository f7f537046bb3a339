# SPDX-License-Identifier: Apache-2.0
"""Lanes that do not come round: a worker that is stopped, that hangs, or that has no CPU.

A lane counts its rounds, also when there is nothing to do (drivers/dpdk/lane.c), so a count that stands still
is a lane that handles nothing. It is told of and nothing else: what is in its hands may still go on.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from evener.datapath.dpdk_share import LANES
from evener.process import fields
from evener.tables.memory import Array

log = logging.getLogger("evener")

NOTICED_S: Final = 3.0
_STEP_MOST_S: Final = 0.5  # who looks may have been stopped, too: that is no time of the lanes'


class Rounds:
    """To be looked at several times a second. warning: what is wrong, a sentence, or nothing."""

    def __init__(self) -> None:
        self.warning = ""
        self._told = 0  # the worker that the log has been told of
        self._at = 0.0
        self._seen: Array = np.zeros(LANES, np.uint64)
        self._still_s: Array = np.zeros(LANES)

    def look(self, pid: int, lanes: Array, now: float) -> None:
        """lanes: records of dpdk_share.LANE, of the worker `pid`, which lives; now: seconds."""
        rounds = lanes["rounds"].copy()
        stands = (lanes["running"] != 0) & (rounds == self._seen)
        longest_s = self._still_s.max()
        self._still_s = np.where(stands, self._still_s + min(now - self._at, _STEP_MOST_S), 0.0)
        self._at, self._seen = now, rounds
        still = np.flatnonzero(self._still_s >= NOTICED_S)
        if len(still):
            which = f"lane{'' if len(still) == 1 else 's'} {', '.join(map(str, still))}"
            self.warning = (
                f"worker {pid} has not come round for {self._still_s.max():.0f} s ({which}): what comes in "
                f"waits or is lost, and nothing can be published: {advice(pid)}"
            )
            if self._told != pid:
                self._told = pid
                log.error("%s", self.warning)
        elif self._told:
            if self._told == pid:
                log.warning("worker %d comes round again, after %.0f s", pid, longest_s)
            self.forget()

    def forget(self) -> None:
        """That worker does not run any more."""
        self.warning, self._told = "", 0
        self._still_s = np.zeros(LANES)


def advice(pid: int) -> str:
    """What to do about a worker whose lanes stand still."""
    if fields(pid)[:1] in (["T"], ["t"]):  # stopped, the second by a debugger
        return f"it is stopped: `kill -CONT {pid}` lets it go on"
    return (
        f"see with `top -H -p {pid}` whether it has too little of a CPU; after SIGKILL to it a daemon starts"
        " another"
    )
