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


KERNEL_COUNTS: Final = {"net_tap": "tx_dropped", "net_af_xdp": "rx_dropped"}
"""What the kernel counts of the interface of such a device, where the device itself has imissed 0."""
UNCOUNTED: Final = ("net_af_packet", "net_virtio_user")
"""Devices of whose full queues nobody knows."""


def note_missed(record: Any, worker: int, ifindex: int, counted: int) -> None:
    """Count on in a record of dpdk_share.KERNEL. counted: by the kernel, since it made the interface of that
    number. What it drops while nobody has the interface open found no queue, rather than a full one: a worker
    begins with what there is when it is first seen."""
    same = record["worker"] == worker and record["ifindex"] == ifindex
    if same and counted > record["seen"]:
        record["missed"] += counted - record["seen"]
    record["worker"], record["ifindex"], record["seen"] = worker, ifindex, counted


def counts(
    head: Any, interfaces: Sequence[str], drivers: Sequence[str] = ()
) -> tuple[FrameCount, ...]:
    """All of them, those that are lost first. head: one record of dpdk_share.HEAD; interfaces: those of the
    ports, in their order; drivers: those of their devices, where they are known. Lanes of an earlier worker,
    which had more, are there while they have counted."""
    lanes = {
        f"lane {number}": lane
        for number, lane in enumerate(head["lane"])
        if number < head["lanes"] or any(lane[n] for n in (*LOST_BY_LANES, *SENT_ON_BY_LANES))
    }
    devices = dict(zip(interfaces, head["device"], strict=False))
    groups = ((lanes, True, LOST_BY_LANES), (devices, True, LOST_BY_DEVICES),
              (lanes, False, SENT_ON_BY_LANES))  # fmt: skip
    found = {
        name: FrameCount(name, lost, sentence, {at: int(row[name]) for at, row in rows.items()})
        for rows, lost, sentences in groups
        for name, sentence in sentences.items()
    }
    missed = found["imissed"].by
    for interface, driver, record in zip(interfaces, drivers, head["kernel"], strict=False):
        missed[interface] = _missed(driver, missed[interface] or 0, record)
    return tuple(found.values())


def _missed(driver: str, counted: int, record: Any) -> int | None:
    """What was missed, with what the kernel knows; None if nobody does."""
    if driver in KERNEL_COUNTS:
        return max(counted, int(record["missed"])) if record["ifindex"] else counted or None
    return counted or None if driver in UNCOUNTED else counted
