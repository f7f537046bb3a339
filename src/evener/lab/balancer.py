# SPDX-License-Identifier: Apache-2.0
"""The daemon on a lab's host lb: its configuration, its start, and when it is ready."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from evener.api.client import Client
from evener.errors import ConfigError, DaemonError, DatapathError, EvenerError, by_exit_code
from evener.instance import Instance
from evener.lab import namespaces, topology
from evener.model import Driver
from evener.process import ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from evener.lab.topology import Lab

PORT = 8080
POOL = SERVICE = "web"

READY_S = 20.0
"""How long a daemon may take to say that it is ready."""


def configuration(
    lab: Lab, driver: Driver | None = None, flows: int = 100_000, extra: str = ""
) -> str:
    """The configuration of the lab: one service on lb's address, served by all backends.

    :param driver: None for the one that the lab was wired for
    :param extra: TOML that is put at the end
    """
    backends = "".join(
        f'  {{ address = "{host.address}:{PORT}", name = "{host.name}" }},\n'
        for host in lab.backends
    )
    return f"""\
{datapath(lab, driver, flows)}
[pool.{POOL}]
scheduler = "maglev"
backends = [
{backends}]

[service.{SERVICE}]
listen = "{lab.balancer.address}:{PORT}/tcp"
pool = "{POOL}"
mode = "full-nat"
{extra}"""


def datapath(
    lab: Lab, driver: Driver | None = None, flows: int | None = 100_000, lcores: str = "0"
) -> str:
    """The part of the configuration that says where packets come in.

    :param flows: None for as many as there are by default
    :param lcores: the CPUs of DPDK's lanes, as EAL's -l has them
    """
    driver = driver or lab.driver
    text = f'''\
[datapath]
driver = "{driver}"
interfaces = ["{topology.INTERFACE}"]
'''
    if flows is not None:
        text += f"flows = {flows}\n"
    if driver is Driver.DPDK:
        text += f"eal = {json.dumps([*eal(lab, lcores)])}\n"
    return text


def eal(lab: Lab, lcores: str) -> tuple[str, ...]:
    """The arguments of DPDK, and behind "--" of the worker, for how the lab is wired.

    Idle lanes sleep between looks: hosts and balancer share the CPUs.
    """
    place: tuple[str, ...] = ()
    if lab.device_namespace != lab.balancer.namespace:
        place = (f"--netns={namespaces.DIRECTORY / lab.device_namespace}",)
    return ("-l", lcores, lab.device.argument, "--", *place, "--idle-us=50")


def require(driver: Driver) -> None:
    """MachineError when the worker of DPDK is wanted and was not built."""
    if driver is Driver.DPDK:
        from evener.datapath import dpdk

        dpdk.require()


def instance(lab: Lab) -> Instance:
    """Where the lab's daemon is to be found."""
    return namespaces.in_namespace(lab.balancer.namespace, Instance.here)


def client(lab: Lab, timeout_s: float = 10.0) -> Client:
    """A client of the lab's daemon."""
    return Client(instance(lab).socket, timeout_s)


def start(lab: Lab, config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the daemon; its output goes to `log`. It ends with the lab."""
    with log.open("ab") as output:
        return lab.popen(
            lab.balancer.name,
            [sys.executable, "-m", "evener.daemon", config],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_ready(
    lab: Lab,
    process: subprocess.Popen[bytes],
    log: Path,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the daemon answers; `check` is called every few milliseconds and may raise.

    Raises EvenerError with the daemon's own words when it ended instead.
    """
    wait_answer(client(lab), process, check, lab.name, lambda: words(log))


def ended(code: int, name: str, words: str = "") -> EvenerError:
    """The error of a daemon that ended by itself: of the kind that its exit code tells."""
    kinds = by_exit_code()
    kinds.pop(ConfigError.exit_code)  # it is made of problems
    return kinds.get(code, DatapathError)(f"the daemon {ending(code)}", name, words)


def wait_answer(
    asked: Client,
    process: subprocess.Popen[bytes],
    check: Callable[[], None],
    name: str,
    words: Callable[[], str],
) -> None:
    """As wait_ready, of a daemon that is not in a lab; `words` gives what it has said so far."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        check()
        if (code := process.poll()) is not None:
            raise ended(code, name, words())
        try:
            status = asked.status()
        except DaemonError:
            time.sleep(0.02)
            continue
        if status["generation"] > 0:
            return
    raise EvenerError(f"the daemon was not ready after {READY_S:.0f} seconds", name, words())


def words(log: Path) -> str:
    """The last lines of a daemon's log."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-12:])
