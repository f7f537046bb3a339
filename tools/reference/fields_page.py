# SPDX-License-Identifier: Apache-2.0
"""fields.md: every field of the rows that readers get, as the code gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from evener.api import server
from evener.datapath.base import Lane
from evener.datapath.dpdk_counts import counts
from evener.datapath.dpdk_share import HEAD
from evener.datapath.native import Core
from evener.observe import counters, explain, flows, trace
from evener.observe.snapshot import Snapshot
from reference import sample, text, words

INTRODUCTION = """
What `--json` prints and the [control socket](api.md) answers. Every CPU counts for itself and a row is their sum, read
without stopping anyone, so the numbers of one row may be a few packets apart. Counters begin at 0 with the tables and count
on over reloads and restarts of the daemon. Bytes are of whole frames as they came in. `null` is what is not known.
"""

Rows = Callable[[Snapshot], list[dict[str, Any]]]


def write() -> str:
    """The page."""
    daemon = sample.Sample()
    follower = trace.Follower(daemon.simulator)
    daemon.connect()
    snapshot = Snapshot(daemon.config, daemon.ids, daemon.simulator)
    event, cpu = follower.read()[0][0]
    event_row = trace.event_json(event, cpu, snapshot)
    plan = explain.explain(snapshot, Core, "10.0.0.1:34953", "10.0.0.10:8080/tcp")
    services = counters.services(snapshot)
    tables = {
        "services": services[0],
        "backends of a service": services[0]["backends"][0],
        "backends": counters.backends(snapshot)[0],
        "flows": flows.flows(snapshot)[0],
        "counters": {**counters.counters(snapshot)[0], **counters.counters(snapshot)[1]},
        "reasons": counters.reasons(snapshot)[0],
        "status": asyncio.run(server.status(daemon)),
        "lanes of the status": counters.lanes([Lane(0, 0, 0)])[0],
        "frames of the status": counters.frames(counts(np.zeros(1, HEAD)[0], ["dpdk0"]))[0],
        "trace": event_row,
        "out": event_row["out"],
        "explain": {key: value for key, value in plan.items() if key not in event_row},
    }
    text.same_keys("tables of fields", tables, words.FIELDS)
    parts = [INTRODUCTION]
    for name, row in tables.items():
        introduction, of = words.FIELDS[name]
        text.same_keys(f"fields of {name}", row, of)
        rows = [[text.code(field), of[field]] for field in row]
        parts += [f"## {name}", introduction, text.table(["field", "meaning"], rows)]
    return text.page("Fields", *parts)
