# SPDX-License-Identifier: Apache-2.0
"""The drivers by name: how the daemon opens each. A new one is an adapter in `datapath`, and a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from evener.clock import MonotonicClock
from evener.datapath.base import Datapath
from evener.instance import Instance
from evener.model import Config, Driver
from evener.tables.compile import Ids
from evener.tables.memory import Sizes


class Opened(Protocol):
    """A driver that was opened: its datapath, and what it took over."""

    datapath: Datapath
    ids: Ids
    adopted: bool
    warning: str

    def attach(self, interfaces: tuple[str, ...]) -> None:
        """Be on exactly these interfaces. Asks the kernel: not for the event loop's thread."""
        ...

    @property
    def tend(self) -> Callable[[], list[str]] | None:
        """What has to be done several times a second, in any thread; it returns what is wrong, sentences for
        the status. None: there is nothing to do."""
        ...

    @property
    def worker(self) -> Callable[[], int] | None:
        """The number of the process that handles packets, 0 while there is none. None: no process does."""
        ...


class OpenedXdp:
    """XDP: maps and links are pinned, so there may be something to take over."""

    tend = None
    worker = None

    def __init__(self, config: Config, instance: Instance) -> None:
        from evener.datapath import bpf
        from evener.datapath.probe import probe
        from evener.datapath.xdp import XdpDatapath

        probe().require("linux", "kernel", "privileges", "libbpf", "bpf")
        self._check(config.datapath.interfaces)
        sizes = Sizes.for_config(config, bpf.possible_cpus())
        datapath = XdpDatapath.open(sizes, instance.pins)
        sizes = datapath.tables.sizes
        adopted = datapath.adopted
        self.datapath: Datapath = datapath
        self.ids = adopted.ids or Ids.empty(sizes)
        self.adopted = bool(adopted.maps)
        self.warning = (
            "the flows of the daemon before this one were lost: its tables have another size or layout"
            if adopted.lost_flows
            else ""
        )
        self._attach = datapath.attach

    @staticmethod
    def _check(interfaces: tuple[str, ...]) -> None:
        from evener.control.offload import refuse_offload
        from evener.datapath.xdp import interface_index

        for interface in interfaces:
            interface_index(interface)
            refuse_offload(interface)

    def attach(self, interfaces: tuple[str, ...]) -> None:
        """InterfaceError: one of them will not do, and what is attached stays as it was."""
        self._check(interfaces)
        self._attach(interfaces)


class OpenedDpdk:
    """DPDK: a process of its own, over a file of tables; both may be there already."""

    def __init__(self, config: Config, instance: Instance) -> None:
        from evener.control.devices import Devices
        from evener.datapath import hugefs
        from evener.datapath.dpdk import DpdkDatapath
        from evener.datapath.probe import probe

        probe().require("linux", "privileges")
        hugefs.ensure(instance.tables.parent)
        wanted = config.datapath
        self._dpdk = DpdkDatapath.open(
            Sizes.for_config(config, cpus=1), instance.tables, wanted.interfaces, wanted.eal
        )
        self._devices = Devices(len(wanted.interfaces))
        self.datapath: Datapath = self._dpdk
        self.ids = self._dpdk.ids or Ids.empty(self._dpdk.tables.sizes)
        self.adopted = self._dpdk.adopted
        self.warning = "; ".join(self._dpdk.warnings)

    def attach(self, interfaces: tuple[str, ...]) -> None:
        """Have the TAPs, and a worker that runs over them."""
        self._dpdk.attach(interfaces)

    def tend(self) -> list[str]:
        """See that the worker runs, and how its devices are."""
        self._dpdk.tend()
        self._devices.look(self._dpdk.ready, self._dpdk.head, time.monotonic())
        return self._dpdk.troubles + self._devices.warnings

    def worker(self) -> int:
        """Its process."""
        return self._dpdk.worker


class OpenedSim:
    """The simulator: nothing reaches it but what is sent through it."""

    tend = None
    worker = None

    def __init__(self, config: Config, instance: Instance) -> None:
        from evener.datapath.sim import Simulator

        simulator = Simulator(Sizes.for_config(config, cpus=1), MonotonicClock())
        self.datapath: Datapath = simulator
        self.ids = simulator.ids
        self.adopted = False
        self.warning = "driver sim: no packet of this machine is handled"

    def attach(self, interfaces: tuple[str, ...]) -> None:
        """There is nothing to attach to."""


DRIVERS: dict[Driver, Callable[[Config, Instance], Opened]] = {
    Driver.XDP: OpenedXdp,
    Driver.DPDK: OpenedDpdk,
    Driver.SIM: OpenedSim,
}
