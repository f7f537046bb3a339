# SPDX-License-Identifier: Apache-2.0
"""What the DPDK driver counts outside the core: its lanes by themselves, and its devices.

The core has a reason for each packet that it decides about. A frame that never comes so far, or that nobody
takes afterwards, has one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from evener.datapath.base import FrameCount

LOST_BY_LANES: Final = {
    "tx_full": "a device did not take them to send; if they were forwarded, reasons count them so",
    "kernel_full": "the kernel's interface did not take them",
    "too_long": "the kernel wanted to send them, and they fit into no buffer",
    "in_pieces": "they came in several buffers, and fit into no single one",
}
SENT_ON_BY_LANES: Final = {
    "to_kernel": "they went on to the kernel",
    "from_kernel": "the kernel sent them",
}
LOST_BY_DEVICES: Final = {
    "imissed": "they found the device's receive queue full",
    "ierrors": "the device could not receive them",
    "oerrors": "the device could not send them; tx_full may count the same ones",
    "rx_nombuf": "there was no buffer for them",
}
"""Counters of struct lb_lane and struct lb_device (drivers/dpdk/share.h) with a sentence each."""
SENTENCES: Final = {**LOST_BY_LANES, **LOST_BY_DEVICES, **SENT_ON_BY_LANES}


def counts(head: Any, interfaces: Sequence[str]) -> tuple[FrameCount, ...]:
    """All of them, those that are lost first. head: one record of dpdk_share.HEAD; interfaces: those of the
    ports, in their order. Lanes of an earlier worker, which had more, are there while they have counted."""
    lanes = {
        f"lane {number}": lane
        for number, lane in enumerate(head["lane"])
        if number < head["lanes"] or any(lane[n] for n in (*LOST_BY_LANES, *SENT_ON_BY_LANES))
    }
    devices = dict(zip(interfaces, head["device"], strict=False))
    groups = ((lanes, True, LOST_BY_LANES), (devices, True, LOST_BY_DEVICES),
              (lanes, False, SENT_ON_BY_LANES))  # fmt: skip
    return tuple(
        FrameCount(name, lost, sentence, {where: int(row[name]) for where, row in rows.items()})
        for rows, lost, sentences in groups
        for name, sentence in sentences.items()
    )
