# SPDX-License-Identifier: Apache-2.0
"""What the DPDK driver counts besides reasons, as rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evener.datapath import dpdk_counts
from evener.datapath.dpdk_share import DEVICE, HEAD, LANE, LANE_COUNTERS, Share
from evener.observe import counters
from evener.tables.memory import Sizes

SIZES = Sizes(
    cpus=2, index_groups=64, services=64, backends=256, snats=256, neighbours=64, tables=4,
    flow_groups=64, port_tables=4,
)  # fmt: skip


def rows(head: Any, *interfaces: str) -> dict[str, dict[str, Any]]:
    """By their names, as the status has them."""
    found = counters.frames(dpdk_counts.counts(head, interfaces))
    return {row.pop("counter"): row for row in found}


def test_every_counter_has_a_sentence() -> None:
    assert set(LANE_COUNTERS) == {*dpdk_counts.LOST_BY_LANES, *dpdk_counts.SENT_ON_BY_LANES}
    assert set(LANE.names or ()) == {"rounds", "running", "lcore", *LANE_COUNTERS}
    assert set(DEVICE.names or ()) == {*dpdk_counts.LOST_BY_DEVICES}


def test_a_row_for_each() -> None:
    head = np.zeros(1, HEAD)[0]
    head["lanes"] = 2
    head["lane"]["tx_full"][:2] = 3, 1 << 40
    head["device"]["imissed"][:3] = 5, 0, 7  # the third is no port's
    found = rows(head, "tap0", "tap1")
    assert list(found) == list(dpdk_counts.SENTENCES)
    assert found["tx_full"] == {
        "lost": True,
        "frames": 3 + (1 << 40),
        "by": {"lane 0": 3, "lane 1": 1 << 40},
        "sentence": dpdk_counts.SENTENCES["tx_full"],
    }
    assert found["imissed"]["by"] == {"tap0": 5, "tap1": 0}
    assert (found["to_kernel"]["lost"], found["to_kernel"]["frames"]) == (False, 0)


def test_a_lane_that_is_gone_is_still_counted() -> None:
    head = np.zeros(1, HEAD)[0]
    head["lanes"] = 1
    head["lane"]["kernel_full"][3] = 2
    assert rows(head)["kernel_full"]["by"] == {"lane 0": 0, "lane 3": 2}


def test_they_go_on_in_another_file(tmp_path: Path) -> None:
    old, new = (Share.make(tmp_path / name, SIZES) for name in ("old", "new"))
    for number, name in enumerate(LANE_COUNTERS):
        old.lanes[name][1] = number + 1
    old.lanes["running"][1] = 1
    old.head["device"]["ierrors"][0, 2] = 9
    old.head["kernel"]["ifindex"][0, 1] = 5
    old.head["kernel"]["missed"][0, 1] = 11
    new.copy_from(old)
    interfaces = ("a", "b", "c")
    old.head["lanes"] = new.head["lanes"] = 2
    assert rows(new.head[0], *interfaces) == rows(old.head[0], *interfaces)
    assert new.head["kernel"].tolist() == old.head["kernel"].tolist()
    assert not new.lanes["running"].any()
