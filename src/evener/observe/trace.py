# SPDX-License-Identifier: Apache-2.0
"""Traced packets: each CPU's ring of events, read while it is written, and told as stories.

The datapath writes events only while settings.trace is not 0; whoever may write sets it. A record's
sequence is zeroed before it is filled and set to 1 + its number after, so a copy between two equal
sequences is whole (a sequence lock; stores stay in order on x86). What was overwritten before it
could be read is counted as lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.datapath.base import Reader
from evener.observe.query import EVENT_FILTERS, Query
from evener.observe.snapshot import Snapshot
from evener.observe.story import Story, describe, narrate

__all__ = ["EVENT_FILTERS", "Follower", "event_json", "narrate"]


def event_json(event: Any, cpu: int, snapshot: Snapshot) -> Story:
    """An event (scalar of layout.EVENT) as a dict: story.describe, and of the event itself
    time_ns (CLOCK_MONOTONIC), cpu and number (its place among all events of that CPU)."""
    return {
        "time_ns": int(event["time_ns"]),
        "cpu": cpu,
        "number": int(event["sequence"]) - 1,
        **describe(event["view"], event["plan"], snapshot),
    }


class Follower:
    """Reads what is traced from now on. Costs nothing between two reads.

    query: only events that match are returned; lost ones are counted whatever they were.
    """

    def __init__(self, reader: Reader, query: Query | None = None) -> None:
        self._reader = reader
        self._query = query
        self._next: list[int] = [int(count) for count in reader.tables.event_heads["count"]]

    def read(self) -> tuple[list[tuple[Any, int]], int]:
        """New events, each with its CPU, in the order of time; and how many were lost.

        Two reads may overlap in time by what one CPU had not finished writing.
        """
        found: list[tuple[Any, int]] = []
        lost = 0
        for cpu in range(len(self._next)):
            events, missed = self._read_cpu(cpu)
            if self._query is not None and len(events):
                events = events[self._query.of_events(events)]
            found += [(event, cpu) for event in events]
            lost += missed
        found.sort(key=lambda item: int(item[0]["time_ns"]))
        return found, lost

    def _read_cpu(self, cpu: int) -> tuple[npt.NDArray[Any], int]:
        tables = self._reader.tables
        first, count = self._next[cpu], int(tables.event_heads["count"][cpu])
        if count < first:  # the tables were made anew
            first = 0
        self._next[cpu] = count
        numbers = np.arange(max(first, count - layout.EVENTS), count, dtype=np.uint64)
        places = (numbers % np.uint64(layout.EVENTS)).astype(np.intp)
        ring = tables.events[cpu]
        before = ring["sequence"][places]
        events = ring[places]
        after = ring["sequence"][places]
        whole = (before == numbers + np.uint64(1)) & (before == after)
        return events[whole], count - first - int(whole.sum())
