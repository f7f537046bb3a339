# SPDX-License-Identifier: Apache-2.0
"""`evener lab up`: what a configuration must be like to reach the lab that it is to run in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from evener.errors import EvenerError
from evener.lab import balancer, play, topology
from evener.lab.device import DEVICES, Device
from evener.lab.topology import Lab
from evener.model import Driver

ELSEWHERE = Lab("elsewhere", topology.plan_hosts("elsewhere"), driver=Driver.DPDK)


@pytest.fixture(params=DEVICES.values(), ids=DEVICES)
def lab(request: pytest.FixtureRequest) -> Lab:
    device: Device = request.param
    return Lab("x", topology.plan_hosts("x"), driver=Driver.DPDK, device=device)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def put_right(error: EvenerError, config: Path, lab: Lab) -> None:
    """The lines of the remedy, in the place of what is there: then it will do."""
    _, _, lines = error.do.partition("\n")
    datapath = tomllib.loads(lines)["datapath"]
    assert datapath["interfaces"] == ["eth0"]
    assert "flows" not in datapath
    rest = config.read_text().partition("[pool")[2]
    config.write_text(f"{lines}\n[pool{rest}")
    for driver in (None, Driver.DPDK):
        assert play._driver(driver, config, lab) is Driver.DPDK


def test_without_a_file(lab: Lab) -> None:
    assert play._driver(None, None, lab) is Driver.XDP
    assert play._driver(Driver.DPDK, None, lab) is Driver.DPDK


def test_a_file_for_another_driver(tmp_path: Path, lab: Lab) -> None:
    config = write(tmp_path, balancer.configuration(lab, Driver.XDP))
    assert play._driver(None, config, lab) is Driver.XDP
    told = "is for the driver xdp, not dpdk .*: leave --driver out, or write there"
    with pytest.raises(EvenerError, match=told) as refused:
        play._driver(Driver.DPDK, config, lab)
    put_right(refused.value, config, lab)


def test_a_file_for_dpdk_alone(tmp_path: Path, lab: Lab) -> None:
    config = write(tmp_path, balancer.configuration(lab))
    assert play._driver(None, config, lab) is Driver.DPDK
    for other in ('"--netns", "', '"--netns=/var', '"--net='):  # the worker's other ways to have it
        config.write_text(config.read_text().replace('"--netns=', other))
        assert play._driver(Driver.DPDK, config, lab) is Driver.DPDK
        config.write_text(balancer.configuration(lab))
    with pytest.raises(EvenerError, match=r"mine\.toml\): leave --driver out$"):
        play._driver(Driver.XDP, config, lab)


@pytest.mark.parametrize("what", ["another lab's", "no namespace", "another device"])
def test_dpdk_that_does_not_reach_the_lab(tmp_path: Path, lab: Lab, what: str) -> None:
    text = {
        "another lab's": balancer.configuration(ELSEWHERE),
        "no namespace": re.sub(r'"--netns=[^"]*", ', "", balancer.configuration(lab)),
        "another device": balancer.configuration(lab).replace(lab.device.interface, "other0"),
    }[what]
    config = write(tmp_path, text)
    told = f"does not open {lab.device.interface} in the namespace evener-x-sw, .*mine"
    with pytest.raises(EvenerError, match=told) as refused:
        play._driver(None, config, lab)
    put_right(refused.value, config, lab)
