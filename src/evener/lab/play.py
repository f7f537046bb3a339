# SPDX-License-Identifier: Apache-2.0
"""`evener lab up`: a lab that stays, with the daemon running in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evener.config import load
from evener.errors import EvenerError
from evener.lab import balancer, state, topology
from evener.lab.device import DEFAULT
from evener.model import Driver

if TYPE_CHECKING:
    from pathlib import Path

    from evener.lab.device import Device
    from evener.lab.topology import Lab


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

    Raises what `topology.up` raises, ConfigError for a bad file, MachineError without DPDK's worker,
    EvenerError with the daemon's words when it does not start; then nothing stays.
    """
    driver = _driver(driver, config)  # also the file's mistakes, before anything is built
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


def _driver(driver: Driver | None, config: Path | None) -> Driver:
    """For whom lb is to be wired; EvenerError when the file is for another one."""
    if config is None:
        return driver or Driver.XDP
    found = load(config).datapath.driver
    if driver not in (None, found):
        raise EvenerError(
            f"the configuration is for the driver {found}, not {driver}", str(config),
            "leave --driver out",
        )  # fmt: skip
    return found
