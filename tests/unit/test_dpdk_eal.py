# SPDX-License-Identifier: Apache-2.0
"""The worker's command line: what is added to the configuration's arguments, and what is read from them."""

from __future__ import annotations

import re

import pytest

from evener.datapath import dpdk_eal as eal
from evener.datapath.dpdk_share import LANES
from evener.errors import DatapathError
from tests.support.bpf import ROOT

VDEV = "--vdev=net_null0"
SAFE = ["-l", "0", "--no-huge", "-m", "96", "--no-pci", "--no-telemetry", "--no-shconf"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([VDEV], [*SAFE, VDEV]),
        (["-l0", VDEV], [*SAFE[2:], "-l0", VDEV]),
        (["--lcores=0", VDEV], [*SAFE[2:], "--lcores=0", VDEV]),
        (["-m", "512", VDEV], [*SAFE[:3], *SAFE[5:], "-m", "512", VDEV]),
        (["--no-huge", VDEV], [*SAFE[:2], *SAFE[3:], "--no-huge", VDEV]),
        (["--in-memory", VDEV], [*SAFE[:2], *SAFE[5:], "--in-memory", VDEV]),
        (["--socket-mem=64", VDEV], [*SAFE[:2], *SAFE[5:], "--socket-mem=64", VDEV]),
        (["-a", "4.0"], [*SAFE[:5], *SAFE[6:], "-a", "4.0"]),
        (["-a4.0"], [*SAFE[:5], *SAFE[6:], "-a4.0"]),
        (["--log-level", "-m", VDEV], [*SAFE, "--log-level", "-m", VDEV]),
        (["--no-hu", "--lc=0", VDEV], [*SAFE[3:], "--no-hu", "--lc=0", VDEV]),
        (["-v", VDEV], [*SAFE, "-v", VDEV]),
        (["--file-prefix=x", VDEV], [*SAFE[:6], "--file-prefix=x", VDEV]),
        (["--no-pci", "--no-shconf", VDEV], [*SAFE[:5], SAFE[6], "--no-pci", "--no-shconf", VDEV]),
        ([VDEV, "--", "-m", "1", "-l", "5"], [*SAFE, VDEV]),
    ],
)
def test_what_is_left_open_is_safe(given: list[str], expected: list[str]) -> None:
    assert eal.complete(given, ports=1) == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["-h", VDEV], "with -h DPDK"),
        ([VDEV, "--he"], "with --help DPDK"),
        (["-l0", "--proc-type", "secondary"], "--proc-type=secondary"),
    ],
)
def test_what_the_worker_could_never_run_with(given: list[str], named: str) -> None:
    with pytest.raises(DatapathError, match=rf"{named}.*\(datapath\.eal\): leave"):
        eal.complete(given, ports=1)
    assert eal.complete(["--proc-type=auto", "--", "-h"], ports=1)[-1] == "--proc-type=auto"


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ([], 1),
        (["-l", "3"], 1),
        (["-l", "0,2-4"], 4),
        (["-l4-2"], 3),
        (["-l", "0-1,1"], 2),
        (["-c", "0xf0f"], 8),
        (["-cff"], 8),
        (["--lcores=(0-2)@1,5@(6,7),9"], 5),
        (["--lcores", "1@8-9,2"], 2),
        (["-l", "0", "--", "-l", "0-7"], 1),
        (["-l", "0-63"], 64),
    ],
)
def test_lanes(given: list[str], count: int) -> None:
    assert eal.lanes(given) == count


@pytest.mark.parametrize("given", [["-l"], ["-l", "a"], ["-c", "zz"], ["-l", "0--1"], ["-l", "0,"]])
def test_lcores_that_cannot_be_read(given: list[str]) -> None:
    with pytest.raises(
        DatapathError, match=r"does not name lcores \(datapath.eal\): such as -l 0,2-3"
    ):
        eal.lanes(given)


@pytest.mark.parametrize(("given", "many"), [(["-l", "0-64"], "many"), (["-c", "0"], "few")])
def test_too_many_lcores(given: list[str], many: str) -> None:
    with pytest.raises(DatapathError, match=f"lcores are too {many} .*: name 1 to 64 with -l"):
        eal.lanes(given)


def test_a_huge_range_is_not_counted_out() -> None:
    with pytest.raises(DatapathError):
        eal.lanes(["-l", "0-99999999999999"])


def test_memory_grows_with_lanes_and_ports() -> None:
    assert eal.memory_mib(1, 1) == 96
    assert eal.memory_mib(8, 4) > eal.memory_mib(8, 2) > eal.memory_mib(4, 2) > 96
    assert eal.memory_mib(1, 2, af_xdp=2) == eal.memory_mib(1, 1) == 96
    assert eal.memory_mib(2, 4, af_xdp=4) > eal.memory_mib(2, 4, af_xdp=2) > eal.memory_mib(2, 4)
    many = ["-l0,1", *(f"--vdev=net_af_xdp{n},iface=x{n}" for n in range(4)), "-a", "4.0"]
    mib = eal.memory_mib(2, 5, af_xdp=4)
    assert eal.own_memory_bytes(eal.complete(many, 5)) == mib << 20
    assert eal.own_memory_bytes(eal.complete([VDEV], 1)) == 96 << 20
    assert eal.own_memory_bytes(eal.complete(["-m", "256", VDEV], 1)) == 256 << 20
    assert eal.own_memory_bytes(eal.complete(["--in-memory", VDEV], 1)) == 0


def test_there_are_as_many_frames_as_the_worker_makes() -> None:
    """The numbers of drivers/dpdk/ports.c."""
    source = (ROOT / "drivers/dpdk/ports.c").read_text()

    def number(name: str, text: str = source) -> int:
        found = re.search(rf"\b{name} = (\d+)", text)
        assert found, name
        return int(found[1])

    burst = number("LB_BURST", (ROOT / "core/burst.h").read_text())
    assert number("RX_DESCRIPTORS") + number("TX_DESCRIPTORS") + burst == eal.DESCRIPTORS
    assert number("AF_XDP_BUFFERS") + burst == eal.AF_XDP_DESCRIPTORS
    assert number("CACHE") == eal.CACHE
    assert number("POOL_LEAST") == eal.FRAMES_LEAST
    assert eal.LANES_MAX == LANES


@pytest.mark.parametrize(
    ("given", "ports", "modes"),
    [
        (["--vdev=net_tap0,iface=x"], 1, ("net_tap",)),
        (
            ["--vdev", "net_af_packet12,iface=x", "--vdev=net_ring0"],
            2,
            ("net_af_packet", "net_ring"),
        ),
        (["--vdev=net_tap_left"], 1, ("net_tap_left",)),
        (["--vdev=net_tap0"], 2, ("dpdk", "dpdk")),
        (["-a", "4.0"], 1, ("dpdk",)),
        (["-a", "4.0", "--", "--vdev=net_tap0"], 1, ("dpdk",)),
    ],
)
def test_modes(given: list[str], ports: int, modes: tuple[str, ...]) -> None:
    assert eal.port_modes(given, ports) == modes


def test_the_whole_command_and_what_of_it_was_chosen() -> None:
    given = [VDEV, "--", "--idle-us=5"]
    line = eal.command("/evener-dpdk", given, "/run/x.tables", [(7, 9), (8, 10)])
    assert line == [
        "/evener-dpdk", *SAFE, VDEV, "--", "--tables=/run/x.tables", "--kernel=7:9", "--kernel=8:10",
        "--idle-us=5",
    ]  # fmt: skip
    other = eal.command("/other", given, "/run/y.tables", [(1, 2), (3, 4)])
    assert eal.kernels(line) == [7, 8]
    assert eal.again(line, [3, 4]) == [
        {"--kernel=7:9": "--kernel=7:3", "--kernel=8:10": "--kernel=8:4"}.get(word, word)
        for word in line
    ]
    assert eal.choices(line) == eal.choices(other) == [*SAFE, VDEV, "--", "--idle-us=5"]


@pytest.mark.parametrize("ours", ["--tables=/x", "--tab=/x", "--kernel", "--k=1:2"])
def test_what_the_daemon_says_itself(ours: str) -> None:
    with pytest.raises(DatapathError, match=r"--(tables|kernel) is the daemon's to say"):
        eal.command("/evener-dpdk", [VDEV, "--", ours], "/run/x.tables", [(7, 9)])


def test_the_interfaces_of_devices() -> None:
    two = ["--vdev=net_tap0,iface=tap1", "--vdev", "net_null0,size=64"]
    assert eal.wires(two, 2) == (("net_tap", "tap1"), ("net_null", ""))
    assert eal.wires([*two, "-a", "4.0"], 3) == (("dpdk", ""),) * 3
    assert eal.namespace(["evener-dpdk", *two, "--", "--netns=/run/netns/x"]) == "/run/netns/x"
    assert eal.namespace(["evener-dpdk", *two, "--", "--idle-us=1"]) == ""
