# SPDX-License-Identifier: Apache-2.0
"""`evener lab up`: a lab that stays, with the daemon running in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evener.config import load
from evener.eal import devices, interface_of, own_value
from evener.errors import EvenerError
from evener.lab import balancer, namespaces, state, topology
from evener.lab.device import DEFAULT
from evener.lab.topology import Lab
from evener.model import Driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evener.lab.device import Device


def up(
    name: str,
    driver: Driver | None,
    config: Path | None,
    clients: int,
    backends: int,
    device: Device = DEFAULT,
) -> tuple[Lab, Path]:
    """Build it and wait until the daemon is ready; the lab, and the file the daemon runs with.

    :param driver: None for that of the file, or XDP
    :param device: what DPDK opens

    Raises what `topology.up` raises, ConfigError for a bad file, EvenerError for one with arguments of DPDK's
    that do not reach this lab, MachineError without DPDK's worker,
    EvenerError with the daemon's words when it does not start; then nothing stays.
    """
    # Also the file's mistakes, before anything is built.
    plan = topology.plan_hosts(name, clients, backends)
    driver = _driver(driver, config, Lab(name, plan, driver=Driver.DPDK, device=device))
    balancer.require(driver)
    lab = topology.up(name, clients, backends, driver, device)
    try:
        file = config.resolve() if config else state.config_file(name)
        if config is None:
            file.write_text(balancer.configuration(lab))
        log = state.log_file(name)
        process = balancer.start(lab, file, log)
        balancer.wait_ready(lab, process, log)
    except BaseException:
        topology.down(name)
        raise
    return lab, file


def _driver(driver: Driver | None, config: Path | None, with_dpdk: Lab) -> Driver:
    """For whom lb is to be wired; EvenerError when the file is for another one, or DPDK in it for another
    lab.

    :param with_dpdk: the lab as it would be with DPDK
    """
    if config is None:
        return driver or Driver.XDP
    wanted = load(config).datapath
    if driver not in (None, wanted.driver):
        raise EvenerError(
            f"the configuration is for the driver {wanted.driver}, not {driver}",
            str(config),
            "leave --driver out"
            + (f", or write there{_right(with_dpdk)}" if driver is Driver.DPDK else ""),
        )
    if wanted.driver is Driver.DPDK and not _joined(wanted.eal, with_dpdk):
        raise EvenerError(
            f"with its datapath.eal the worker does not open {with_dpdk.device.interface} in the "
            f"namespace {with_dpdk.device_namespace}, so nothing would reach the balancer",
            str(config),
            f"write there{_right(with_dpdk)}",
        )
    return wanted.driver


def _joined(eal: Sequence[str], lab: Lab) -> bool:
    """Whether DPDK's arguments name the interface that joins lb to the bridge, and where it is."""
    opened = [interface_of(device) for device in devices(eal)]
    place = own_value(eal, "netns")
    return (
        lab.device.interface in opened
        and place is not None
        and Path(place).resolve() == namespaces.DIRECTORY / lab.device_namespace
    )


def _right(lab: Lab) -> str:
    """The lines of a configuration that are right for this lab."""
    lines = balancer.datapath(lab, flows=None).splitlines()
    return "".join(f"\n  {line}" for line in lines)
