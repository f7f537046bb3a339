# SPDX-License-Identifier: Apache-2.0
"""The seam of the datapath suite: one machine for each driver, fed with frames one at a time.

A new driver needs an adapter here that fills `Machine`, and a line in `tests/datapath/conftest.py`.

Time. Every machine's own clock stands at second 0, and time passes by making all flows older: what
the core looks at is only the difference between now and a flow's stamp, modulo 2^16, so the two are
the same to it. (The one place that uses `now` by itself is the start of a port search, which then
is the same on all drivers, whose clocks could never be made to agree.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.clock import ManualClock
from evener.datapath.native import Core, flow_state, maglev
from evener.datapath.sim import SEED, Outcome, Simulator
from evener.model import Config, Datapath, Driver, endpoint
from evener.tables.compile import Ids, compile_tables
from evener.tables.effective import Network, merge
from evener.tables.memory import Sizes, Tables, shapes
from evener.tables.publish import publish

SIZES = Sizes.for_config(Config(Datapath(Driver.SIM, (), flows=1024)), cpus=1)
"""Enough for every configuration of the suite, so that machines can be used again."""
IFINDEX = 1
"""Frames come in here: the loopback, where BPF_PROG_TEST_RUN says that its packets come from."""
STATES = ("OPENING", "ESTABLISHED", "HALF_CLOSED", "CLOSED")


class Machine(Protocol):
    """A datapath under test."""

    tables: Tables
    ids: Ids

    def configure(self, config: Config, network: Network) -> int:
        """Put a configuration in force; the new generation."""
        ...

    def send(self, frame: bytes) -> Outcome:
        """One frame in; what became of it."""
        ...

    def events(self, count: int) -> npt.NDArray[Any]:
        """What was traced of the last `count` packets that were not asked for before."""
        ...

    def age(self, seconds: int) -> None:
        """Let time pass."""
        ...

    def sweep(self) -> int:
        """Free what is over and what belonged to removed backends and services; how many flows."""
        ...

    def reset(self) -> None:
        """As new: no configuration, no flows, counters at zero."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class TableMachine:
    """What all machines do alike, on the tables alone."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._prepare()

    def _prepare(self) -> None:
        self.tables.prepare(SEED)
        self.tables.settings["trace"] = 1
        self.ids = Ids.empty(self.tables.sizes)
        self._seen = [0] * self.tables.sizes.cpus

    def configure(self, config: Config, network: Network) -> int:
        """Compile and publish, as the daemon does."""
        compiled = compile_tables(
            merge(config, network), self.ids, self.tables.sizes, self.tables.seed, maglev
        )
        self.ids = compiled.ids
        return publish(self.tables, compiled, self.grace)

    def grace(self) -> None:
        """No packet is under way between two calls of `send`."""

    def events(self, count: int) -> npt.NDArray[Any]:
        """What was traced of the last `count` packets (layout.EVENT), in their order; no more than
        one ring holds. Whichever CPU a packet was handled on."""
        found = []
        for cpu, head in enumerate(self.tables.event_heads["count"].tolist()):
            numbers = np.arange(self._seen[cpu], head) % self.tables.events.shape[1]
            found.append(self.tables.events[cpu, numbers])
            self._seen[cpu] = head
        events = np.concatenate(found)
        assert len(events) == count
        return events[np.argsort(events["time_ns"], kind="stable")]

    def age(self, seconds: int) -> None:
        """Stamp all flows earlier; see the top of this file."""
        age_flows(self.tables, seconds)

    def sweep(self) -> int:
        """As the daemon does it: afterwards retired ids may be given out again."""
        sizes = self.tables.sizes
        backends = np.zeros(sizes.backends, np.uint8)
        backends[list(self.ids.backends.retired.values())] = 1
        services = np.zeros(sizes.services, np.uint8)
        services[list(self.ids.services.retired.values())] = 1
        freed = Core(self.tables).sweep(0, sizes.flow_groups, 0, backends, services)
        self.ids.backends.forget()
        self.ids.services.forget()
        return freed

    def reset(self) -> None:
        """Zero all memory and prepare it anew."""
        zero(self.tables)
        self._prepare()

    def close(self) -> None:
        """Nothing is held."""


class SimMachine(TableMachine):
    """The simulator, driven through the same door as the others."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        self._simulator = Simulator(sizes, ManualClock(0), ifindex=IFINDEX)
        super().__init__(self._simulator.tables)

    def send(self, frame: bytes) -> Outcome:
        """One frame in; what became of it."""
        return self._simulator.send(frame)


def zero(tables: Tables) -> None:
    """All bytes of all tables."""
    for name in shapes(tables.sizes):
        tables.raw(name).view(np.uint8)[...] = 0


def age_flows(tables: Tables, seconds: int) -> None:
    """Take `seconds` off the stamps of all flows, in 16 bits that wrap; freed records have none."""
    binding = tables.flows["binding"]
    claimed = np.uint64(layout.FLOW_CLAIMED) << np.uint64(40)
    used = (binding & np.uint64(0xFFFF)).astype(bool) | (binding & claimed).astype(bool)
    older = binding - (np.uint64(seconds & 0xFFFF) << np.uint64(48))  # wraps in the top 16 bits
    tables.flows["binding"] = np.where(used, older, binding)


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One flow with its four ends as `address:port`; client and vip are - when it is only kept to
    hold its port. age in seconds, flags as in core/flow.h."""

    state: str
    client: str
    vip: str
    snat: str
    backend: str
    age: int
    flags: int

    def __str__(self) -> str:
        age = f" age={self.age}" if self.age else ""
        return f"{self.state} {self.client} > {self.vip} | {self.snat} > {self.backend}{age}"


def flow_rows(tables: Tables, ids: Ids, now: int = 0) -> list[FlowRow]:
    """Every flow there is, sorted by its four ends."""
    flows = tables.flows[(tables.flows["binding"] & np.uint64(0xFFFF)) != 0]
    return sorted((_row(flow, ids, now) for flow in flows), key=_by_ends)


def _by_ends(row: FlowRow) -> tuple[str, ...]:
    return row.client, row.vip, row.snat, row.backend


def _row(flow: Any, ids: Ids, now: int) -> FlowRow:
    client, binding = int(flow["client"]), int(flow["binding"])
    services = {number: key for key, number in {**ids.services.retired, **ids.services.ids}.items()}
    backends = {number: key for key, number in {**ids.backends.retired, **ids.backends.ids}.items()}
    snats = {number: key for key, number in {**ids.snats.retired, **ids.snats.ids}.items()}
    service = services.get(client >> 48)
    backend = backends[binding & 0xFFFF]
    flags = binding >> 40 & 0xFF
    return FlowRow(
        state="CLAIMED" if flags & layout.FLOW_CLAIMED else STATES[flow_state(flags)],
        client=f"{_address(client)}:{_swap16(client >> 32)}" if service else "-",
        vip=endpoint(service[0], service[1]) if service else "-",
        snat=endpoint(snats[binding >> 32 & 0xFF], _swap16(binding >> 16)),
        backend=endpoint(backend[0], backend[1]),
        age=(now - (binding >> 48)) & 0xFFFF,
        flags=flags,
    )


def _address(word: int) -> str:
    return ".".join(str(byte) for byte in (word & 0xFFFF_FFFF).to_bytes(4, "little"))


def _swap16(word: int) -> int:
    return int.from_bytes((word & 0xFFFF).to_bytes(2, "little"), "big")
