# SPDX-License-Identifier: Apache-2.0
"""What the daemon refuses: one clear sentence, its exit code, and nothing left behind.

h1, h2, h3, lb 10.0.0.10 on one bridge; the daemon is started by each test itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from evener.lab import balancer, namespaces, topology
from evener.lab.namespaces import Offload
from evener.lab.topology import Lab
from tests.support.bpf import needs_namespaces
from tests.support.configs import WRONG
from tests.support.running import Running, configuration, environment, running, wait_until

pytestmark = [pytest.mark.netns, needs_namespaces]

EVENER = Path(sys.executable).with_name("evener")


@pytest.fixture
def lab() -> Iterator[Lab]:
    name = topology.unique_name()
    yield topology.up(name)
    topology.down(name)


def run(lab: Lab, config: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """`evener run CONFIG` on lb, which is to end by itself."""
    return namespaces.in_namespace(
        lab.balancer.namespace,
        lambda: subprocess.run(
            [*before, EVENER, "run", config], capture_output=True, text=True, timeout=20,
            check=False, env=environment(),
        ),
    )  # fmt: skip


def write(lab: Lab, folder: Path, text: str = "") -> Path:
    path = folder / "lab.toml"
    path.write_text(text or configuration(lab, {8080: ("h2", "h3")}))
    return path


def left(lab: Lab) -> list[str]:
    """What a daemon on lb has left: pins, socket, an attached program."""
    instance = balancer.instance(lab)
    found = [str(path) for path in (instance.pins, instance.socket) if path.exists()]
    link = lab.run("lb", ["ip", "-d", "link", "show", "eth0"]).stdout
    return found + [line for line in link.splitlines() if "prog/xdp" in line]


def refusal(done: subprocess.CompletedProcess[str], code: int, *words: str) -> str:
    """Its message: on standard error, without a traceback."""
    message = done.stderr
    assert done.returncode == code, message
    assert "Traceback" not in message
    for word in words:
        assert word in message
    return message


def test_without_privileges(lab: Lab, tmp_path: Path) -> None:
    drop = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    refusal(run(lab, write(lab, tmp_path), *drop), 4, "CAP_NET_ADMIN", "run it as root")
    assert left(lab) == []


def test_an_interface_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    text = configuration(lab, {8080: ("h2",)}).replace('"eth0"', '"eth7"')
    refusal(run(lab, write(lab, tmp_path, text)), 5, "eth7")
    assert left(lab) == []


def test_an_interface_with_a_program_of_somebody_else(lab: Lab, tmp_path: Path) -> None:
    source, built = tmp_path / "x.bpf.c", tmp_path / "x.bpf.o"
    source.write_text('__attribute__((section("xdp"), used)) int x(void *c) { return 2; }')
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", built], check=True)
    lab.run("lb", ["ip", "link", "set", "dev", "eth0", "xdp", "obj", str(built), "sec", "xdp"])
    before = lab.run("lb", ["ip", "link", "show", "eth0"]).stdout
    refusal(run(lab, write(lab, tmp_path)), 5, "eth0", "XDP program")
    assert lab.run("lb", ["ip", "link", "show", "eth0"]).stdout == before
    assert not balancer.instance(lab).pins.exists()
    lab.run("lb", ["ip", "link", "set", "dev", "eth0", "xdp", "off"])


def test_checksums_that_nobody_finishes(lab: Lab, tmp_path: Path) -> None:
    switch = partial(namespaces.in_namespace, lab.switch)
    switch(lambda: namespaces.set_offload("lb", Offload.TX_CHECKSUM, True))
    message = refusal(run(lab, write(lab, tmp_path)), 5, "eth0", "checksum", "ethtool -K lb tx off")
    assert left(lab) == []
    # What it says helps.
    command = message.strip().rpartition(": ")[2]
    lab.run("lb", ["sh", "-c", command])
    assert not switch(lambda: namespaces.offload("lb", Offload.TX_CHECKSUM))


def test_a_second_daemon(tmp_path: Path) -> None:
    with running(tmp_path) as system:
        before = system.api.status()
        refusal(run(system.lab, system.config), 6, "already", "evener apply")
        assert system.api.status()["pid"] == before["pid"]
        assert system.api.status()["generation"] == before["generation"]
        system.serve("h2", "h3")
        assert not [row for row in system.hold("h1", 8080, 5).stop() if row["broken"]]


LOOP = """
[pool.w]
backends = ["10.0.0.10:80"]
[service.w]
listen = "10.0.0.10:80/tcp"
pool = "w"
"""

MISTAKES = {
    "nothing": ("", "interfaces"),
    "no toml": ("[pool.web\n", "lab.toml:1"),
    "many at once": (WRONG, "pool.web.backends"),
    "an unknown key": ("[datapath]\ninterfacs = ['eth0']\n", "interfacs"),
    "a port too large": ("[pool.w]\nbackends = ['10.0.0.2:70000']\n", "70000"),
    "a missing pool": ("[service.w]\nlisten = '10.0.0.10:80/tcp'\npool = 'x'\n", "no pool"),
    "a number for a string": ("[pool.w]\nscheduler = 7\nbackends = []\n", "scheduler"),
    "a loop": (
        LOOP,
        "loop",
    ),
    "what comes later": (LOOP.replace("tcp", "udp"), "not available"),
    "too few flows": ("[datapath]\ninterfaces = ['eth0']\nflows = 0\n", "flows"),
}


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """A lab on which nothing is ever started with success."""
    name = topology.unique_name()
    yield topology.up(name)
    topology.down(name)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file(bare: Lab, tmp_path: Path, mistake: str) -> None:
    text, word = MISTAKES[mistake]
    refusal(run(bare, write(bare, tmp_path, text or "\n")), 3, word)
    assert left(bare) == []


def test_a_file_that_is_not_there(bare: Lab, tmp_path: Path) -> None:
    refusal(run(bare, tmp_path / "nonesuch.toml"), 3, "nonesuch.toml")
    assert left(bare) == []


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("refusals")) as system:
        yield system


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_what_is_applied(system: Running, tmp_path: Path, mistake: str) -> None:
    text, word = MISTAKES[mistake]
    before = system.api.status()["generation"], system.rows("backends")
    path = tmp_path / "lab.toml"
    path.write_text(text or "\n")
    done = namespaces.run(
        system.lab.balancer.namespace, [EVENER, "apply", path], check=False, timeout=20
    )
    refusal(done, 3, word)
    assert (system.api.status()["generation"], system.rows("backends")) == before


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_a_daemon_that_is_asked_to_end_leaves_nothing(tmp_path: Path, number: str) -> None:
    with running(tmp_path) as system:
        assert system.daemon is not None
        assert left(system.lab) != []
        maps = maps_of(system.daemon.pid)
        assert maps
        system.lab.run("lb", ["kill", f"-{number}", str(system.daemon.pid)])
        assert system.daemon.wait(10) in (0, 128 + (15 if number == "TERM" else 2))
        assert left(system.lab) == []
        wait_until(lambda: not (maps & all_maps()), "the kernel to let go of the maps")
        assert "Traceback" not in system.log.read_text()


def maps_of(pid: int) -> set[int]:
    """The BPF maps that a process holds, by id."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = dict(line.split(":\t") for line in path.read_text().splitlines() if ":\t" in line)
        if "map_id" in lines:
            found.add(int(lines["map_id"]))
    return found


def all_maps() -> set[int]:
    done = subprocess.run(["bpftool", "-j", "map"], capture_output=True, text=True, check=True)
    import json

    return {row["id"] for row in json.loads(done.stdout)}


def test_the_namespace_of_the_caller_is_left_alone() -> None:
    """Nothing here may ever attach to an interface of the machine itself."""
    link = subprocess.run(["ip", "-d", "link"], capture_output=True, text=True, check=True).stdout
    assert "lb_xdp" not in link
    assert os.geteuid() == 0
