# SPDX-License-Identifier: Apache-2.0
"""The lab itself: is it built as drawn, and does it leave nothing behind?

h1 10.0.0.1 --+
h2 10.0.0.2 --+-- br0
h3 10.0.0.3 --+
lb 10.0.0.10 -+
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from evener import instance
from evener.errors import EvenerError
from evener.lab import namespaces, state, topology
from evener.lab.device import DEVICES, Device
from evener.lab.namespaces import Offload
from evener.lab.topology import Lab
from evener.model import Driver

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = topology.unique_name()
    yield topology.up(name)
    topology.down(name)


@pytest.fixture
def name() -> Iterator[str]:
    name = topology.unique_name()
    yield name
    topology.down(name)


def traces_of(name: str) -> list[str]:
    """All that reminds of a lab: its namespaces and its files."""
    files = [path.name for path in state.DIRECTORY.glob("*") if name in path.name]
    return [namespace for namespace in namespaces.names() if name in namespace] + files


def test_every_host_reaches_every_other(lab: Lab) -> None:
    for source in lab.hosts:
        for target in lab.hosts:
            lab.run(source.name, ["ping", "-c1", "-W2", str(target.address)])


def test_hosts_have_the_macs_of_the_plan(lab: Lab) -> None:
    for host in lab.hosts:
        link = json.loads(lab.run(host.name, ["ip", "-j", "link", "show", "eth0"]).stdout)
        assert link[0]["address"] == host.mac


def test_hosts_speak_no_ipv6(lab: Lab) -> None:
    assert lab.run("h1", ["ip", "-6", "addr"]).stdout == ""


def test_checksum_offload_is_off_at_both_ends(lab: Lab) -> None:
    for host in lab.hosts:
        for namespace, interface in ((host.namespace, "eth0"), (lab.switch, host.name)):
            features = namespaces.run(namespace, ["ethtool", "-k", interface]).stdout
            assert "\ntx-checksumming: off" in features
            assert re.search(r"\n\s*tx-checksum-ip-generic: off", features)


def test_offloads_can_be_switched_and_read(name: str) -> None:
    lab = topology.up(name)

    def on_and_off() -> list[bool]:
        seen = []
        for on in (True, False):
            namespaces.set_offload("eth0", Offload.TX_CHECKSUM, on)
            seen.append(namespaces.offload("eth0", Offload.TX_CHECKSUM))
        return seen

    assert namespaces.in_namespace(lab.host("h1").namespace, on_and_off) == [True, False]
    with pytest.raises(EvenerError, match="No such device"):
        namespaces.offload("nonesuch0", Offload.GRO)


def test_every_port_has_an_xdp_program_and_no_gro(lab: Lab) -> None:
    ports = json.loads(namespaces.run(lab.switch, ["ip", "-j", "link"]).stdout)
    programs = {port["ifname"]: port["xdp"]["prog"]["name"] for port in ports if "xdp" in port}
    assert programs == {host.name: "lab_pass" for host in lab.hosts}
    for port in programs:
        features = namespaces.run(lab.switch, ["ethtool", "-k", port]).stdout
        assert "\ngeneric-receive-offload: off" in features


def test_connections_use_cubic_at_both_ends(lab: Lab) -> None:
    h1, h2 = lab.host("h1"), lab.host("h2")
    with (
        namespaces.in_namespace(
            h2.namespace, lambda: socket.create_server((str(h2.address), 8080))
        ) as server,
        namespaces.in_namespace(
            h1.namespace, lambda: socket.create_connection((str(h2.address), 8080), timeout=5)
        ) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            for end in (client, accepted):
                used = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                assert used.rstrip(b"\0") == b"cubic"


def test_two_labs_do_not_know_of_each_other(lab: Lab, name: str) -> None:
    other = topology.up(name, clients=2, backends=3)
    names = [known.name for known in topology.list_labs()]
    assert lab.name in names
    assert name in names
    assert [host.name for host in other.clients] == ["h1", "h4"]
    assert [host.name for host in other.backends] == ["h2", "h3", "h5"]
    other.run("h4", ["ping", "-c1", "-W2", str(other.host("h5").address)])
    h2 = other.host("h2")
    server = namespaces.in_namespace(
        h2.namespace, lambda: socket.create_server((str(h2.address), 8080))
    )
    with server:
        knock = ["nc", "-z", "-w2", str(h2.address), "8080"]
        assert other.run("h1", knock, check=False).returncode == 0
        assert lab.run("h1", knock, check=False).returncode != 0
    topology.down(name)
    lab.run("h1", ["ping", "-c1", "-W2", "10.0.0.2"])


def test_a_lab_can_be_found_again(name: str) -> None:
    with pytest.raises(EvenerError, match=f"evener lab up --name {name}$"):
        topology.get(name)
    built = topology.up(name)
    assert topology.get(name) == built
    assert (state.DIRECTORY / f"lab-{name}.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(EvenerError, match="is there already"):
        topology.up(name)
    assert topology.get(name) == built


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_a_lab_is_found_again_with_its_device(device: Device, name: str) -> None:
    built = topology.up(name, driver=Driver.DPDK, device=device)
    assert topology.get(name) == built
    assert namespaces.in_namespace(
        built.device_namespace, partial(socket.if_nametoindex, device.interface)
    )


def test_a_device_is_for_dpdk(name: str) -> None:
    with pytest.raises(EvenerError, match="the device net_af_xdp is for the driver dpdk, not xdp"):
        topology.up(name, device=DEVICES["net_af_xdp"])
    assert traces_of(name) == []


def test_down_leaves_nothing(name: str) -> None:
    links = os.listdir("/sys/class/net")  # noqa: PTH208 - of the namespace that we live in
    lab = topology.up(name)
    assert os.listdir("/sys/class/net") == links  # noqa: PTH208
    obedient = lab.popen("h2", ["sleep", "1000"])
    stubborn = lab.popen(
        "h3", ["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()  # the trap is set
    assert topology.down(name)
    assert obedient.wait(1) == -15
    assert stubborn.wait(1) == -9
    stubborn.stdout.close()
    assert traces_of(name) == []
    assert not topology.down(name)


def test_down_ends_what_lives_in_the_lab(name: str) -> None:
    """Whoever started it, children of theirs too, and nobody else."""
    lab = topology.up(name)
    mine = namespaces.popen(lab.host("h2").namespace, ["sleep", "1000"])
    stubborn = namespaces.popen(
        lab.switch,
        ["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1; done"],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    child = int(stubborn.stdout.readline())
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        assert topology.down(name)
        assert mine.wait(1) == -15
        assert stubborn.wait(1) == -9
        assert not Path(f"/proc/{child}/ns/net").exists()
        assert stranger.poll() is None
        stranger.kill()
    stubborn.stdout.close()
    assert traces_of(name) == []


def test_down_spares_who_asks_for_it(name: str) -> None:
    """A shell in the lab, in which it is typed."""
    lab = topology.up(name)
    code = f"from evener.lab import topology; topology.down({name!r})"
    shell = ["sh", "-c", f'{sys.executable} -c "{code}"; echo still there']
    assert namespaces.run(lab.host("lb").namespace, shell).stdout == "still there\n"
    assert traces_of(name) == []


def test_down_spares_a_stranger_with_the_same_pid(name: str) -> None:
    topology.up(name)
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        path = state.DIRECTORY / f"lab-{name}.json"
        content = json.loads(path.read_text())
        content["processes"] = [{"pid": stranger.pid, "started": 1}]
        path.write_text(json.dumps(content))
        topology.down(name)
        assert stranger.poll() is None
        stranger.kill()


def test_down_removes_what_a_balancer_has_pinned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = topology.up(name)
    monkeypatch.setattr(instance, "PIN_FOLDER", tmp_path)
    pins = tmp_path / f"net-{namespaces.inode(lab.balancer.namespace)}"
    (pins / "maps").mkdir(parents=True)
    topology.down(name)
    assert not pins.exists()


@pytest.mark.parametrize("step", ["quieten", "_attach_pass", "_build_host"])
def test_failure_on_the_way_leaves_nothing(
    name: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., object] = getattr(topology, step)
    calls = 0

    def fail_later(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if step == "_attach_pass" or calls == 3:
            raise RuntimeError("the machine is on fire")
        return real(*arguments)

    monkeypatch.setattr(topology, step, fail_later)
    with pytest.raises(RuntimeError, match="on fire"):
        topology.up(name)
    assert traces_of(name) == []


def test_remains_of_a_killed_building_are_found_and_removed(name: str) -> None:
    namespaces.create(f"evener-{name}-sw")
    namespaces.create(f"evener-{name}-h1")
    assert not topology.get(name).ready
    with pytest.raises(EvenerError, match=f"evener lab down --name {name}$"):
        topology.up(name)
    assert topology.down(name)
    assert traces_of(name) == []


def test_down_of_a_lab_spares_one_whose_name_begins_alike(name: str) -> None:
    longer = f"{name}-h1"
    try:
        topology.up(longer)
        topology.down(name)
        topology.get(longer).run("h1", ["ping", "-c1", "-W2", "10.0.0.3"])
    finally:
        topology.down(longer)


@pytest.mark.parametrize("bad", ["", "Lab", "a b", "../x", "-a", "a" * 33])
def test_bad_names_are_refused(bad: str) -> None:
    for action in (topology.up, topology.down, topology.get):
        with pytest.raises(EvenerError, match="cannot name a lab"):
            action(bad)


def test_a_typo_makes_no_namespace() -> None:
    before = namespaces.names()
    with pytest.raises(EvenerError, match="no network namespace of this name"):
        namespaces.in_namespace("evener-typo", lambda: None)
    assert "evener-typo" not in set(namespaces.names()) - set(before)


def test_the_caller_stays_where_it_is(lab: Lab) -> None:
    home = Path("/proc/self/ns/net").stat().st_ino
    where = Path("/proc/thread-self/ns/net").stat
    namespace = lab.host("h1").namespace
    there = namespaces.in_namespace(namespace, lambda: where().st_ino)
    assert there == namespaces.inode(namespace)
    assert where().st_ino == home
    seen = lab.run("h1", ["stat", "-L", "-c", "%i", "/proc/self/ns/net"]).stdout
    assert int(seen) == there


def test_a_command_sees_the_mounts_of_the_caller(lab: Lab) -> None:
    mounts = lab.run("h1", ["readlink", "/proc/self/ns/mnt"]).stdout.strip()
    assert mounts == os.readlink("/proc/self/ns/mnt")  # noqa: PTH115


def test_an_exception_inside_comes_out(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError):
        namespaces.in_namespace(lab.switch, lambda: 1 // 0)
