# SPDX-License-Identifier: Apache-2.0
"""The simulator: the C core over tables in this process, fed with frames by hand. No privileges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from evener.clock import Clock, ManualClock
from evener.datapath.base import Attachment, FrameCount, Lane
from evener.datapath.native import Core, maglev
from evener.model import Config, Driver
from evener.tables.compile import Ids, compile_tables
from evener.tables.effective import Network, merge
from evener.tables.memory import Sizes, Tables
from evener.tables.publish import publish

SEED = (0x5EED_0001, 0x5EED_0002, 0x5EED_0003, 0x5EED_0004)
"""The simulator's seed is no secret, so that a replay gives the same frames every time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame. view and plan: scalars of layout.VIEW and layout.PLAN. frame: as it
    leaves (verdict forward) or as it came."""

    view: npt.NDArray[Any]
    plan: npt.NDArray[Any]
    frame: bytes


class Simulator:
    """A datapath in memory; also a `base.Datapath`, so that all that reads one reads this."""

    driver = Driver.SIM.value

    def __init__(
        self,
        sizes: Sizes,
        clock: Clock | None = None,
        seed: tuple[int, int, int, int] = SEED,
        ifindex: int = 1,
    ) -> None:
        self.tables = Tables.allocate(sizes)
        self.tables.prepare(seed)
        self.attachments = (Attachment("sim0", ifindex, "simulated"),)
        self.core = Core(self.tables)
        self.ids = Ids.empty(sizes)
        self._clock = clock or ManualClock()
        self._ifindex = ifindex

    @classmethod
    def of(
        cls, config: Config, network: Network, clock: Clock | None = None,
        seed: tuple[int, int, int, int] = SEED,
    ) -> Simulator:  # fmt: skip
        """A simulator of the right size with this configuration in force."""
        simulator = cls(Sizes.for_config(config, cpus=1), clock, seed)
        simulator.configure(config, network)
        return simulator

    def configure(self, config: Config, network: Network) -> int:
        """Put a configuration in force; the new generation."""
        compiled = compile_tables(
            merge(config, network), self.ids, self.tables.sizes, self.tables.seed, maglev
        )
        self.ids = compiled.ids
        return publish(self.tables, compiled, self.grace)

    def send(self, frame: bytes, ifindex: int | None = None) -> Outcome:
        """One frame in; its outcome."""
        view, plan, out = self.core.packet(
            frame, self._ifindex if ifindex is None else ifindex, self.now()
        )
        return Outcome(view, plan, out)

    def now(self) -> int:
        return int(self._clock.now()) & 0xFFFF

    def frames(self) -> tuple[FrameCount, ...]:
        return ()

    def lanes(self) -> tuple[Lane, ...]:
        return ()

    def grace(self) -> None:
        """Nobody else runs packets here."""

    def close(self) -> None:
        """Nothing is held."""

    def remove(self) -> None:
        """Nothing is held."""
