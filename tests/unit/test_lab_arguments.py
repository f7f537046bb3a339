# SPDX-License-Identifier: Apache-2.0
"""What `evener dpdk` makes of DPDK's arguments and of a configuration."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from evener import config
from evener.errors import ConfigError
from evener.lab import arguments

HOME = Path("/run/evener/home.netns")
TAP = ("-l", "0", "--vdev=net_tap0,iface=tapdpdk")
FILE = """\
[datapath]
driver = "dpdk"
interfaces = ["front"]
flows = 20_000
eal = ["-l", "1", "--vdev=net_null0"]

[pool."a.b"]
scheduler = "maglev"
backends = ["10.0.0.2:80", { address = "10.0.0.3:80", weight = 2, name = "h3" }]

[service.web]
listen = "10.0.0.10:80/tcp"
pool = "a.b"

[timeouts]
closed = "90s"
"""


@pytest.mark.parametrize(
    ("eal", "taps"),
    [
        (TAP, ["tapdpdk"]),
        (("--vdev", "net_tap0,iface=a", "--vdev=net_tap1,mac=fixed,iface=b"), ["a", "b"]),
        (("--vdev=net_tap0", "--vdev=net_af_xdp0,iface=wire0", "-a", "00:04.0"), []),
        (("-l", "0", "--", "--vdev=net_tap0,iface=not_of_eal"), []),
    ],
)
def test_interfaces_of_taps(eal: tuple[str, ...], taps: list[str]) -> None:
    assert arguments.taps(eal) == taps


def test_devices() -> None:
    eal = ("-l", "0", "--vdev=net_null0", "--vdev", "net_ring0", "-a", "00:04.0", "--allow=00:05.0")
    assert arguments.devices(eal) == ["net_null0", "net_ring0", "00:04.0", "00:05.0"]


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        (TAP, (*TAP, "--", f"--netns={HOME}", "--idle-us=50")),
        ((*TAP, "--", "--idle-us=0"), (*TAP, "--", "--idle-us=0", f"--netns={HOME}")),
        ((*TAP, "--", "--netns=/x"), (*TAP, "--", "--netns=/x", "--idle-us=50")),
        (("-a", "00:04.0"), ("-a", "00:04.0", "--", f"--netns={HOME}")),
    ],
)
def test_arguments_of_the_worker(given: tuple[str, ...], whole: tuple[str, ...]) -> None:
    assert arguments.worker(given, HOME) == whole


def test_the_scenario() -> None:
    wanted = arguments.configuration(None, TAP, HOME, "")
    read = config.loads(wanted.text)
    assert read.datapath.interfaces == wanted.interfaces == ("eth0",)
    assert read.datapath.eal == wanted.eal == arguments.worker(TAP, HOME)
    assert [service.listen for service in read.services] == ["10.0.0.10:8080/tcp"]
    assert [str(b.address) for b in read.pools[0].backends] == ["10.0.0.2", "10.0.0.3"]


def test_an_interface_for_each_device() -> None:
    wanted = arguments.configuration(None, (*TAP, "--vdev=net_null0"), HOME, "")
    assert wanted.interfaces == ("eth0", "eth1")


def test_a_file_keeps_what_it_says() -> None:
    said, wanted = config.loads(FILE), arguments.configuration(FILE, (), HOME, "a.toml")
    read = config.loads(wanted.text)
    assert (read.pools, read.services, read.timeouts) == (said.pools, said.services, said.timeouts)
    assert read.datapath.flows == 20_000
    assert read.datapath.interfaces == ("front",)
    assert read.datapath.eal == arguments.worker(said.datapath.eal, HOME)


def test_arguments_replace_those_of_the_file() -> None:
    assert arguments.configuration(FILE, TAP, HOME, "a.toml").eal == arguments.worker(TAP, HOME)


WITHOUT = FILE[FILE.index("[pool") :]


@pytest.mark.parametrize(
    "datapath",
    ["", 'driver = "xdp"\ninterfaces = ["eth7"]\n', 'driver = "sim"\n', 'driver = "dpdk"\n'],
)
def test_devices_are_filled_in(datapath: str) -> None:
    """Into a file that names none, or those of another driver."""
    text = f"[datapath]\nflows = 20_000\n{datapath}{WITHOUT}" if datapath else WITHOUT
    wanted = arguments.configuration(text, (*TAP, "--vdev=net_null0"), HOME, "a.toml")
    read = config.loads(wanted.text)
    assert (read.pools, read.services) == (config.loads(FILE).pools, config.loads(FILE).services)
    assert read.datapath.driver == "dpdk"
    assert read.datapath.interfaces == wanted.interfaces == ("eth0", "eth1")
    assert read.datapath.eal == wanted.eal
    assert not datapath or read.datapath.flows == 20_000
    with pytest.raises(arguments.CommandLineError, match="no device is named"):
        arguments.configuration(text, (), HOME, "a.toml")


def test_refusals() -> None:
    with pytest.raises(arguments.CommandLineError, match="no device is named"):
        arguments.configuration(None, ("-l", "0"), HOME, "")
    with pytest.raises(arguments.CommandLineError, match="'extra' is no option of DPDK's"):
        arguments.configuration(None, (*TAP, "extra"), HOME, "")
    with pytest.raises(ConfigError, match=r"a\.toml"):
        arguments.configuration("[pool.x]\nbackends = 3\n", TAP, HOME, "a.toml")
    with pytest.raises(ConfigError, match=r"1 problem .*\n  a\.toml:2: datapath\.driver: "):
        arguments.configuration(f'[datapath]\ndriver = "dpkd"\n{WITHOUT}', TAP, HOME, "a.toml")


def test_services_without_an_address() -> None:
    more = WITHOUT + '[service.more]\nlisten = "10.0.0.11:80/tcp"\npool = "a.b"\n'
    wanted = arguments.configuration(more, TAP, HOME, "a.toml")
    here, there = IPv4Interface("10.0.0.10/24"), IPv4Interface("10.0.0.11/24")
    assert arguments.unanswered(wanted, [here]) == ["10.0.0.11"]
    assert arguments.unanswered(wanted, [there]) == ["10.0.0.10"]
    two = arguments.configuration(more, (*TAP, "--vdev=net_null0"), HOME, "a.toml")
    assert arguments.unanswered(two, [here, there]) == []
