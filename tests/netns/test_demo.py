# SPDX-License-Identifier: Apache-2.0
"""`evener demo` and `evener lab` as an operator runs them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from evener.datapath import dpdk
from evener.errors import MachineError
from evener.lab import demo, namespaces, topology
from evener.lab.device import DEVICES
from evener.model import Driver
from tests.support.bpf import needs_namespaces
from tests.support.dpdk import needs_dpdk
from tests.support.pcap import read_pcap
from tests.support.running import environment, wait_until
from tests.support.wire import missing

EVENER = Path(sys.executable).with_name("evener")


def run(command: Sequence[str | Path], cwd: Path | None = None) -> CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=40, check=False, cwd=cwd, env=environment()
    )


def evener(*arguments: object, cwd: Path | None = None) -> CompletedProcess[str]:
    return run([EVENER, *map(str, arguments)], cwd)


DRIVERS = pytest.mark.parametrize("driver", ["xdp", pytest.param("dpdk", marks=needs_dpdk)])
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--driver", "xdp"), id="xdp"),
        *(
            pytest.param(("--driver", "dpdk", "--device", name), id=name, marks=needs_dpdk)
            for name in DEVICES
        ),
    ],
)


@pytest.mark.netns
@needs_namespaces
@OPTIONS
def test_the_demo_passes(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = evener("demo", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "FAIL" not in done.stdout
    for words in (
        "packet received on eth0", "client 10.0.0.1:", "hash ",
        "source address 10.0.0.1 -> 10.0.0.10", "destination address 10.0.0.10 -> 10.0.0.2",
        "destination address 10.0.0.10 -> 10.0.0.3", "from backend 10.0.0.2:8080",
        "sent to client 10.0.0.1:", "PASS  both backends served",
    ):  # fmt: skip
        assert words in done.stdout
    path = tmp_path / "evener-demo.pcap"
    came, lost, unasked = missing(path)
    assert came > 30
    assert (lost, unasked) == (0, 0)
    read = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True)
    assert "10.0.0.10.8080 > 10.0.0.1." in read.stdout


@pytest.mark.netns
@needs_namespaces
@DRIVERS
def test_the_report_as_json(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "there.pcap"
    done = evener("demo", "--driver", driver, "--json", "--pcap", path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["version"] == 1
    assert report["ok"]
    assert (report["driver"], report["simulated"]) == (driver, False)
    assert {row["backend"] for row in report["connections"]} == {"h2", "h3"}
    assert len({row["client_port"] for row in report["connections"]}) == len(report["connections"])
    assert all(check["ok"] for check in report["checks"])
    assert report["pcap"] == str(path)
    assert len(read_pcap(path)) >= report["segments"]
    assert list(tmp_path.iterdir()) == [path]


def demo_of(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """The lab and the temporary folder of a running demo."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
            words = (entry.parent / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if int(fields[1]) == process.pid and "evener.daemon" in words:
            namespace = (entry.parent / "ns/net").stat().st_ino
            for name in namespaces.names():
                if namespaces.inode(name) == namespace:
                    return name.removesuffix("-lb"), str(Path(words[-2]).parent)
    return "", ""


def workers_of(lab: str) -> list[str]:
    """The command lines of DPDK workers that have something to do with a lab's namespaces."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "--tables=" in words and f"/{lab}-" in words:
            found.append(words)
    return found


@pytest.mark.netns
@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["daemon", "talking"])
@DRIVERS
def test_a_demo_that_is_stopped_leaves_nothing(
    tmp_path: Path, number: signal.Signals, moment: str, driver: str
) -> None:
    """On a terminal of its own, where Ctrl-C reaches every process of the foreground."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [EVENER, "demo", "--driver", driver], stdin=follower, stdout=follower, stderr=follower, cwd=tmp_path,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    found: list[tuple[str, str]] = []

    def running() -> bool:
        lab = demo_of(process)
        if lab[0]:
            found.append(lab)
        return bool(lab[0])

    wait_until(running, "the daemon of the demo", 15)
    if moment == "talking":
        os.read(leader, 1)  # the first words of the narration
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)  # the impatient press it twice
    output = b""
    try:
        while part := os.read(leader, 1 << 16):
            output += part
    except OSError:  # the terminal is gone with its last process
        pass
    os.close(leader)
    assert process.wait(10) == 128 + number, output[-2000:]
    assert b"Traceback" not in output
    lab, folder = found[0]
    assert [name for name in namespaces.names() if name.startswith(f"{lab}-")] == []
    assert not Path(folder).exists()
    assert workers_of(lab) == []
    assert [p for p in Path("/run/evener").glob("*") if lab.removeprefix("evener-") in p.name] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.netns
@needs_namespaces
def test_a_second_demo_at_once(tmp_path: Path) -> None:
    for _ in range(2):
        done = evener("demo", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        print(json.loads(done.stdout)["seconds"], "seconds")


def test_the_simulated_demo(tmp_path: Path) -> None:
    done = evener("demo", "--driver", "sim", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "simulated" in done.stdout
    assert missing(tmp_path / "evener-demo.pcap")[1:] == (0, 0)
    assert "packet received on sim0" in done.stdout


def test_without_the_worker_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dpdk, "PROGRAM", tmp_path / "evener-dpdk")
    with pytest.raises(MachineError, match="libdpdk-dev"):
        demo.run(Driver.DPDK, tmp_path / "a.pcap", print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only who has privileges can drop them")
def test_without_privileges_the_simulator_does_it(tmp_path: Path) -> None:
    command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", EVENER, "demo"]
    done = run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "cannot run here" in done.stdout.splitlines()[0]
    assert "evener demo (simulated): PASS" in done.stdout
    done = run([*command, "--driver", "xdp"], cwd=tmp_path)
    assert done.returncode == 4
    assert "run it as root" in done.stderr


@pytest.fixture
def name() -> Iterator[str]:
    name = topology.unique_name()
    yield name
    topology.down(name)


@pytest.mark.netns
@needs_namespaces
@DRIVERS
def test_the_life_of_a_lab(name: str, driver: str) -> None:
    option = f"--name={name}"
    done = evener("lab", "up", option, "--driver", driver, "--backends", 3)
    assert done.returncode == 0, done.stderr
    assert f"evener lab exec --name {name} h1" in done.stdout

    listed = json.loads(evener("lab", "list", "--json").stdout)
    mine = next(row for row in listed["rows"] if row["name"] == name)
    assert [host["name"] for host in mine["hosts"]] == ["h1", "h2", "h3", "h4", "lb"]

    shown = evener("lab", "exec", option, "lb", "--", "evener", "show", "backends", "--json")
    assert [row["backend"] for row in json.loads(shown.stdout)["rows"]] == ["h2", "h3", "h4"]

    for host in ("h2", "h3", "h4"):
        topology.get(name).popen(host, ["nc", "-l", "8080"], stdin=subprocess.PIPE)
    talk = subprocess.run(
        [EVENER, "lab", "exec", option, "h1", "--", "nc", "-N", "-w5", "10.0.0.10", "8080"],
        input="hello", text=True, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert talk.returncode == 0, talk.stderr

    assert evener("lab", "exec", option, "h1", "--", "sh", "-c", "exit 7").returncode == 7
    assert evener("lab", "exec", option, "sw", "ip", "-br", "link", "show", "br0").returncode == 0
    wrong = evener("lab", "exec", option, "h9", "--", "true")
    assert wrong.returncode == 1
    assert "has no host 'h9'" in wrong.stderr
    again = evener("lab", "up", option)
    assert again.returncode == 1
    assert f"evener lab down --name {name}" in again.stderr

    done = evener("lab", "down", option)
    assert done.returncode == 0, done.stderr
    assert [namespace for namespace in namespaces.names() if name in namespace] == []
    assert [path for path in Path("/run/evener").glob("*") if name in path.name] == []
    assert evener("lab", "down", option).returncode == 1


@pytest.mark.netns
@needs_namespaces
def test_a_lab_with_a_wrong_file_is_not_built(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[pool.x]\nbackends = 3\n")
    done = evener("lab", "up", f"--name={name}", "--config", path)
    assert done.returncode == 3
    assert "pool.x.backends" in done.stderr
    path.write_text('[datapath]\ninterfaces = ["eth5"]\n')
    done = evener("lab", "up", f"--name={name}", "--config", path)
    assert done.returncode != 0
    assert "eth5" in done.stderr
    assert [namespace for namespace in namespaces.names() if name in namespace] == []
