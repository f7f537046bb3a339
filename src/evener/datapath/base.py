# SPDX-License-Identifier: Apache-2.0
"""The seam between the control plane and whatever runs packets: a reading and a writing half.

Observers get a `Reader` only. Both halves work on the same flat tables whatever the driver; a driver
supplies the memory, its clock, a grace period, and a way to attach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from evener.errors import DatapathError
from evener.tables.memory import Tables


class HopelessError(DatapathError):
    """The datapath cannot handle packets ever again: the daemon has to end."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface that the datapath is on; mode as the driver calls it: native, generic, ..."""

    interface: str
    ifindex: int
    mode: str


@dataclass(frozen=True, slots=True)
class FrameCount:
    """Frames that a driver counts outside the core, which has a reason for each packet.

    lost: whether they are; else they went on. by: how many, of each lane or interface; None where nobody
    counts them.
    """

    name: str
    lost: bool
    sentence: str
    by: dict[str, int | None]


@dataclass(frozen=True, slots=True)
class Lane:
    """One of the threads that a driver handles packets on. lcore: DPDK's name for what it runs on; packets:
    how many it has handled."""

    number: int
    lcore: int
    packets: int


@runtime_checkable
class Reader(Protocol):
    """What observers may do: look."""

    @property
    def driver(self) -> str: ...

    @property
    def tables(self) -> Tables: ...

    @property
    def attachments(self) -> tuple[Attachment, ...]: ...

    def now(self) -> int:
        """The datapath's own seconds, 16 bits that wrap: what flows are stamped with."""
        ...

    def frames(self) -> tuple[FrameCount, ...]:
        """What the driver counts besides reasons; empty if it counts nothing."""
        ...

    def lanes(self) -> tuple[Lane, ...]:
        """Those that there are; empty if the kernel chooses where packets are handled."""
        ...


@runtime_checkable
class Datapath(Reader, Protocol):
    """What the daemon may do besides."""

    def grace(self) -> None:
        """Wait until every packet that began before the call is done."""
        ...

    def close(self) -> None:
        """Let go of the datapath; where the driver can, packets go on being handled."""
        ...

    def remove(self) -> None:
        """Take the datapath away: nothing of it stays."""
        ...
