# SPDX-License-Identifier: Apache-2.0
"""Machines for the datapath suite: one of each driver and worker, used again and again."""

from collections.abc import Iterator

import pytest

from tests.conftest import DATAPATHS
from tests.support.bpf import needs_bpf, needs_namespaces
from tests.support.dpdk_machine import DpdkMachine
from tests.support.machine import Machine, SimMachine

MARKS = {"xdp": [needs_bpf], "dpdk": [needs_namespaces], "dpdk-asan": [needs_namespaces]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "driver" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--datapath") or DATAPATHS
        drivers = [pytest.param(name, marks=MARKS.get(name, [])) for name in wanted]
        metafunc.parametrize("driver", drivers, scope="session")


@pytest.fixture(scope="session")
def machines() -> Iterator[dict[str, Machine]]:
    made: dict[str, Machine] = {}
    yield made
    for machine in made.values():
        machine.close()


def make(driver: str) -> Machine:
    if driver == "sim":
        return SimMachine()
    if driver == "xdp":
        from tests.support.xdp_machine import XdpMachine  # needs libbpf

        return XdpMachine()
    return DpdkMachine(program=f"evener-{driver}")


@pytest.fixture
def machine(driver: str, machines: dict[str, Machine]) -> Machine:
    """A machine of the driver at hand, as new."""
    if driver not in machines:
        machines[driver] = make(driver)
    machines[driver].reset()
    return machines[driver]
