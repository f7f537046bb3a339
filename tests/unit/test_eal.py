# SPDX-License-Identifier: Apache-2.0
"""One reading of the EAL's command line, for whoever reads it: each row is one way to write it.

That DPDK itself reads them so is tested where there is a worker (tests/datapath/test_dpdk_worker.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evener import eal
from evener.config import loads
from evener.datapath import dpdk_eal
from evener.errors import ConfigError
from evener.lab import arguments
from tests.support.bpf import ROOT

CARD, DEVICE = "0000:01:00.0", "net_tap0,iface=x"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], []),
        (["--vdev=a=b"], [("vdev", "a=b")]),
        (["--vdev", "a=b"], [("vdev", "a=b")]),
        (["--vde=a"], [("vdev", "a")]),
        (["--vd", "a"], [("vdev", "a")]),
        (["--v=a"], [("v", "a")]),  # vdev, vfio-intr, ...: DPDK refuses it
        (["-a" + CARD], [("allow", CARD)]),
        (["-a", CARD], [("allow", CARD)]),
        (["-w", CARD, "-w" + CARD], [("allow", CARD), ("allow", CARD)]),
        (["--allow", CARD, "--al=" + CARD], [("allow", CARD), ("allow", CARD)]),
        (["-b" + CARD, "--block", CARD], [("block", CARD), ("block", CARD)]),
        (["-l0-1", "-l", "2"], [("l", "0-1"), ("l", "2")]),
        (["--vers"], [("vers", "")]),  # there is -v alone
        (["-vl", "0"], [("v", ""), ("l", "0")]),
        (["-vl0"], [("v", ""), ("l", "0")]),
        (["--no-huge", "--trace", "x"], [("no-huge", ""), ("trace", "x")]),
        (["--huge-unlink", "always", "-m1"], [("huge-unlink", ""), ("", "always"), ("m", "1")]),
        (["--huge-unlink=never"], [("huge-unlink", "never")]),
        (["--nonsense", "-m", "1"], [("nonsense", ""), ("m", "1")]),
        # what an option takes for its value is no option
        (["-l", "--vdev=a"], [("l", "--vdev=a")]),
        (["--file-prefix", "-m", "5"], [("file-prefix", "-m"), ("", "5")]),
        (["-d", "-a", CARD], [("d", "-a"), ("", CARD)]),
        # an end too early
        (["-l"], [("l", "")]),
        (["--vdev"], [("vdev", "")]),
        # neither are other words, and what is the worker's
        (["x", "-", "-m", "5", "y"], [("", "x"), ("m", "5"), ("", "y")]),
        (["-m", "5", "--", "--vdev=a", "--", "-a", CARD], [("m", "5")]),
    ],
)
def test_options(words: list[str], options: list[tuple[str, str]]) -> None:
    assert list(eal.options(words)) == options


@pytest.mark.parametrize(
    ("words", "found", "card"),
    [
        (["-a" + CARD], [CARD], True),
        (["-a", CARD], [CARD], True),
        (["-w" + CARD], [CARD], True),
        (["--allow=" + CARD], [CARD], True),
        (["--allow", CARD], [CARD], True),
        (["--vdev=" + DEVICE], [DEVICE], False),
        (["--vdev", DEVICE], [DEVICE], False),
        (["--vde", DEVICE], [DEVICE], False),
        (["--vdev", DEVICE, "-l0", "-a" + CARD], [DEVICE, CARD], True),
        (["--log-level", "--vdev=" + DEVICE], [], False),
        (["--log-level", "-a", "-m", "64"], [], False),
        (["--vdev"], [""], False),  # DPDK refuses it, with the words for it
        (["-b" + CARD], [], False),
        (["-l", "0", "--", "--vdev=" + DEVICE, "-a" + CARD], [], False),
    ],
)
def test_all_who_read_it_find_the_same_devices(
    words: list[str], found: list[str], card: bool
) -> None:
    assert eal.devices(words) == found
    text = f"[datapath]\ndriver = 'dpdk'\ninterfaces = ['tap0']\neal = {words}\n"
    if found:
        assert loads(text).datapath.eal == tuple(words)
    else:
        with pytest.raises(ConfigError, match="names no device that packets come from"):
            loads(text)
    assert arguments.taps(words) == ["x"] * (DEVICE in found)
    behind = eal.split(arguments.worker(words, Path("/x")))[1]
    assert ("--idle-us=50" in behind) is not card  # a card is polled without end
    assert ("--no-pci" in dpdk_eal.complete(words, 1)) is not (card or "-b" + CARD in words)
    modes = ("net_tap",) if DEVICE in found else ("dpdk",)
    assert dpdk_eal.port_modes(words, 1) == modes


@pytest.mark.parametrize(
    ("own", "netns"),
    [
        ([], None),
        (["--netns=/x"], "/x"),
        (["--netns", "/x"], "/x"),
        (["--net=/x"], "/x"),
        (["--idle-us", "5", "--n", "/x"], "/x"),
        (["--netns=/y", "--netn=/x"], "/x"),
        (["--netns", "--idle-us=1"], "--idle-us=1"),
        (["--idle-us", "--netns=/x"], None),
        (["--netns=/x", "--", "--netns=/y"], "/x"),
    ],
)
def test_all_who_read_it_find_the_same_namespace(own: list[str], netns: str | None) -> None:
    """As the worker does: see tests/datapath/test_dpdk_worker.py."""
    words = ["--vdev=" + DEVICE, "--", *own]
    assert eal.own_value(words, "netns") == netns
    assert dpdk_eal.namespace(["evener-dpdk", *words]) == (netns or "")
    behind = eal.split(arguments.worker(words, Path("/home")))[1]
    assert ("--netns=/home" in behind) is (netns is None)


def test_the_options_of_the_worker() -> None:
    source = (ROOT / "drivers/dpdk/main.c").read_text()
    assert re.findall(r'\{"([a-z-]+)", required_argument', source) == [*eal._OWN]
    assert '", no_argument' not in source


@pytest.mark.parametrize(
    ("device", "interface"),
    [
        (DEVICE, "x"),
        ("net_tap0,mac=fixed,iface=x,remote=y", "x"),
        ("net_tap0", ""),
        ("net_tap0,iface=", ""),
        ("net_tap0,iface=x%d", ""),
        ("net_vhost0,iface=/run/x.sock,queues=1", ""),
        ("net_virtio_user0,path=/x,ifacename=y", ""),
        (CARD, ""),
    ],
)
def test_all_who_read_it_find_the_same_interface(device: str, interface: str) -> None:
    assert eal.interface_of(device) == interface
    assert dpdk_eal.wires(["--vdev", device], 1)[0].interface == interface
    tap = device.startswith("net_tap") and interface
    assert arguments.taps(["--vdev", device]) == ([interface] if tap else [])


def test_the_last_one_counts() -> None:
    words = ["-l0", "--lcores", "1,2", "-m64", "--", "-m", "1"]
    assert eal.value(words, "l", "lcores") == "1,2"
    assert (eal.value(words, "m"), eal.value(words, "c")) == ("64", None)
    assert (eal.has(words, "c", "m"), eal.has(words, "c", "n")) == (True, False)
    assert dpdk_eal.lanes(words) == 2
