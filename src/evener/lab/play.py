# SPDX-License-Identifier: Apache-2.0
"""`evener lab up`: a lab that stays, with the daemon running in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evener.config import load
from evener.errors import MachineError
from evener.lab import balancer, state, topology
from evener.model import Driver

if TYPE_CHECKING:
    from pathlib import Path

    from evener.lab.topology import Lab


def up(
    name: str, driver: Driver, config: Path | None, clients: int, backends: int
) -> tuple[Lab, Path]:
    """Build it and wait until the daemon is ready; the lab, and the file the daemon runs with.

    Raises what `topology.up` raises, ConfigError for a bad file, EvenerError with the daemon's
    words when it does not start; then nothing stays.
    """
    if driver is not Driver.XDP:
        raise MachineError(f"a lab with the driver {driver} is not available in this version")
    if config is not None:
        load(config)  # its mistakes, before anything is built
    lab = topology.up(name, clients, backends)
    try:
        file = config.resolve() if config else state.config_file(name)
        if config is None:
            file.write_text(balancer.configuration(lab, driver))
        log = state.log_file(name)
        process = balancer.start(lab, file, log)
        balancer.wait_ready(lab, process, log)
    except BaseException:
        topology.down(name)
        raise
    return lab, file
