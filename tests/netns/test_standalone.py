# SPDX-License-Identifier: Apache-2.0
"""`evener-dpdk` by itself, beside a bridge that was made by hand.

h1 10.0.0.1 (client) ---+
h2 10.0.0.2 (backend) --+-- br0 --- tapdpdk     all of it in one namespace for the bridge, one a host
h3 10.0.0.3 (backend) --+
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evener.errors import EvenerError
from evener.instance import Instance
from evener.lab import leftovers, namespaces, topology
from tests.support.bpf import needs_namespaces
from tests.support.dpdk import needs_dpdk
from tests.support.running import environment, wait_until

pytestmark = [pytest.mark.netns, needs_namespaces, needs_dpdk]

COMMAND = Path(sys.executable).with_name("evener-dpdk")
EAL = ("-l", "0", "--vdev=net_tap0,iface=tapdpdk")
VIP = "10.0.0.10"


@dataclass
class Home:
    """The namespace that the user works in, and the hosts beside it."""

    name: str

    def host(self, number: int) -> str:
        return f"{self.name}-h{number}"

    def ip(self, words: str, where: str = "") -> str:
        return namespaces.run(where or self.name, ["ip", *words.split()]).stdout

    def links(self) -> set[str]:
        return set(re.findall(r"^([\w.-]+)", self.ip("-br link"), re.M))


@pytest.fixture
def home() -> Iterator[Home]:
    """A bridge and three hosts, as a newcomer makes them: no offload is switched off."""
    home = Home(f"evener-{topology.unique_name('hand')}")
    made = [home.name, *map(home.host, (1, 2, 3))]
    try:
        for name in made:
            namespaces.create(name)
        home.ip("link add br0 type bridge")
        home.ip("link set br0 up")
        for number in (1, 2, 3):
            host = home.host(number)
            home.ip(f"link add h{number} type veth peer name eth0 netns {host}")
            home.ip(f"link set h{number} master br0 up")
            home.ip(f"link set eth0 address de:ad:be:ef:00:0{number} up", host)
            home.ip(f"addr add 10.0.0.{number}/24 dev eth0", host)
        yield home
    finally:
        for name in made:
            namespaces.delete(name)


class Started:
    """evener-dpdk, running; what it says goes to a file."""

    def __init__(self, home: Home, log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = namespaces.popen(
                home.name, [COMMAND, *arguments], stdout=output, stderr=output, env=environment(),
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ready(self) -> str:
        """Wait for it; the name of its own namespace."""
        wait_until(
            lambda: "evener: ready." in self.said or self.process.poll() is not None, "ready", 30
        )
        found = re.search(r"ip netns exec (evener-dpdk\S*) ", self.said)
        assert found, self.said
        return found[1]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def started(home: Home, folder: Path, *arguments: str) -> Iterator[Started]:
    running = Started(home, folder / "said", *arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGTERM)


def serve(home: Home, number: int) -> subprocess.Popen[bytes]:
    """nc that says who it is to everybody who comes."""
    command = ["nc", "-lk", "8080"]
    process = namespaces.popen(
        home.host(number), command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_until(lambda: ":8080" in namespaces.run(home.host(number), ["ss", "-tlnH"]).stdout, "nc")
    return process


def served_by(home: Home, servers: dict[int, subprocess.Popen[bytes]], port: int) -> int:
    """Which backend got a line from h1."""
    message = f"hello from port {port}\n"
    command = ["nc", "-N", "-w5", "-p", str(port), VIP, "8080"]
    done = namespaces.run(home.host(1), command, stdin=message, timeout=15, check=False)
    assert done.returncode == 0, done.stderr
    for number, server in servers.items():
        assert server.stdout is not None
        if select.select([server.stdout], [], [], 0.3)[0]:
            assert server.stdout.readline().decode() == message
            return number
    pytest.fail("nobody got the line")


def test_as_a_newcomer_would(home: Home, tmp_path: Path) -> None:
    with started(home, tmp_path, *EAL) as running:
        own = running.ready()
        # Held open, so that no other namespace gets its number.
        kept = (namespaces.DIRECTORY / own).open("rb")
        home.ip("link set tapdpdk master br0")
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])
        servers = {number: serve(home, number) for number in (2, 3)}
        try:
            served = set()
            for port in range(40_000, 40_032):
                served.add(served_by(home, servers, port))
                if len(served) == 2:
                    break
            assert served == {2, 3}
        finally:
            for server in servers.values():
                server.kill()
                server.wait()
        shown = namespaces.run(own, [COMMAND.with_name("evener"), "show", "flows"]).stdout
        assert "10.0.0.1:40000" in shown
        assert running.process.poll() is None, running.said
        assert running.end() == 0
    for words in ("packet received on eth0", "client 10.0.0.1:40000", "sent to backend 10.0.0."):
        assert words in running.said
    assert "Traceback" not in running.said
    with kept:
        number = os.fstat(kept.fileno()).st_ino
        # Another test may have a namespace of the same name by now.
        assert own not in namespaces.names() or namespaces.inode(own) != number
        assert list(Path("/run/evener").rglob(f"net-{number}*")) == []
    assert home.links() == {"lo", "br0", "h1", "h2", "h3"}


def test_a_device_that_is_joined_late(home: Home, tmp_path: Path) -> None:
    """The daemon's own ARP requests went nowhere, and it gave up on them."""
    with started(home, tmp_path, "--quiet", *EAL) as running:
        own = running.ready()
        command = ["ip", "neigh", "show", "dev", "eth0"]
        wait_until(lambda: namespaces.run(own, command).stdout.count("FAILED") == 2, "failures")
        home.ip("link set tapdpdk master br0")
        wait_until(lambda: namespaces.run(own, command).stdout.count(" lladdr ") == 2, "answers", 5)


def test_a_tap_of_the_users_own_stays_and_is_not_told_of(home: Home, tmp_path: Path) -> None:
    home.ip("tuntap add tapdpdk mode tap multi_queue")
    home.ip("link set tapdpdk master br0 up")
    with started(home, tmp_path, "--quiet", *EAL) as running:
        running.ready()
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])
        assert running.end(signal.SIGTERM) == 0
    assert "packet received" not in running.said
    assert "master br0" in home.ip("link show tapdpdk")


def test_an_interface_that_is_no_tap_is_refused(home: Home, tmp_path: Path) -> None:
    home.ip("tuntap add tapdpdk mode tap")  # one queue
    with started(home, tmp_path, *EAL) as running:
        assert running.process.wait(20) == 5
    assert "no TAP device with several queues" in running.said
    assert "tapdpdk" in home.links()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("-l", "0"), 2, "no device is named"),
        ((*EAL, "extra"), 2, "'extra' is no option of DPDK's"),
        ((*EAL, "--address=10.0.0.10/24", "--address=10.0.0.11/24"), 2, "more addresses than dev"),
        ((*EAL, "-m", "99999999"), 4, "too little memory"),
        (("--vdev=net_tap0,iface=sixteen_letters_",), 5, "at most 15 characters"),
        ((*EAL, "--vdev=net_af_packet0,iface=no0"), 7, "no interface no0 for net_af_packet0"),
        (("--vdev=net_tap0,iface=tapdpdk,odd=1",), 7, "does not take tapdpdk for net_tap0"),
    ],
)
def test_exit_codes_of_what_cannot_start(
    home: Home, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    with started(home, tmp_path, *arguments) as running:
        assert running.process.wait(20) == code, running.said
    assert says in running.said
    assert home.links() == {"lo", "br0", "h1", "h2", "h3"}


def test_a_configuration_without_devices(home: Home, tmp_path: Path) -> None:
    (file := tmp_path / "evener.toml").write_text(
        """
        [datapath]
        driver = "xdp"
        interfaces = ["eth0"]
        [pool.web]
        backends = ["10.0.0.2:8080"]
        [service.web]
        listen = "10.0.0.20:8080/tcp"
        pool = "web"
        [service.more]
        listen = "10.0.0.21:8080/tcp"
        pool = "web"
        """
    )
    with started(
        home, tmp_path, *EAL, "--config", str(file), "--address", "10.0.0.20/24"
    ) as running:
        own = running.ready()
        home.ip("link set tapdpdk master br0")
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", "10.0.0.20"])
        copy = Path(f"/run/evener/{own}.toml")
        namespaces.run(own, [COMMAND.with_name("evener"), "apply", copy])
    assert "evener: no --address is 10.0.0.21, which a service listens on" in running.said
    assert "no --address is 10.0.0.20" not in running.said


def test_an_interface_that_another_one_has_is_left_alone(home: Home, tmp_path: Path) -> None:
    with started(home, tmp_path, *EAL) as running:
        worker = worker_of(running.ready())
        home.ip("link set tapdpdk master br0")
        before = home.ip("link show tapdpdk")
        (other := tmp_path / "other").mkdir()
        with started(home, other, *EAL) as second:
            assert second.process.wait(20) == 5
        assert f"tapdpdk is in use by another worker, process {worker} " in second.said
        assert home.ip("link show tapdpdk") == before
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])
    assert "tapdpdk" not in home.links()


def test_of_two_that_start_at_once_one_has_the_interface(home: Home, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        started(home, tmp_path / "one", *EAL) as one,
        started(home, tmp_path / "other", *EAL) as other,
    ):
        both = (one, other)
        wait_until(lambda: any(each.process.poll() is not None for each in both), "an end", 30)
        (late,) = [each for each in both if each.process.poll() is not None]
        assert late.process.returncode == 5
        assert "tapdpdk is in use by another worker, process " in late.said
        (other if late is one else one).ready()
        home.ip("link set tapdpdk master br0")
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])


def test_a_start_waits_for_an_end(home: Home, tmp_path: Path) -> None:
    """Which takes its time, and the interface away."""
    (tmp_path / "next").mkdir()
    with started(home, tmp_path, *EAL) as ending:
        worker = worker_of(ending.ready())
        os.kill(worker, signal.SIGSTOP)  # to be killed, three seconds later
        ending.process.send_signal(signal.SIGINT)
        with started(home, tmp_path / "next", *EAL) as running:
            running.ready()
            assert ending.process.wait(20) == 0
            home.ip("link set tapdpdk master br0")
            namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])


def test_a_worker_that_is_killed_keeps_its_place_in_the_bridge(home: Home, tmp_path: Path) -> None:
    with started(home, tmp_path, *EAL) as running:
        own = running.ready()
        home.ip("link set tapdpdk master br0")
        namespaces.run(home.host(1), ["ping", "-c1", "-W3", VIP])
        subprocess.run(["kill", "-9", str(worker_of(own))], check=True)
        answered = ["ping", "-c1", "-W1", VIP]
        wait_until(
            lambda: namespaces.run(home.host(1), answered, check=False).returncode == 0,
            "a ping through the next worker", 30,
        )  # fmt: skip
        assert "master br0" in home.ip("link show tapdpdk")


def worker_of(namespace: str) -> int:
    (worker,) = leftovers.workers(Instance.of(namespaces.inode(namespace)))
    return worker


def test_what_a_killed_one_has_left_is_taken_away_by_the_next(home: Home, tmp_path: Path) -> None:
    with started(home, tmp_path, *EAL) as running:
        own = running.ready()
        note = json.loads(Path(f"/run/evener/{own}.json").read_text())
        daemon = os.pidfd_open(note["processes"][0]["pid"])
        worker = os.pidfd_open(worker_of(own))
        running.process.kill()
        running.process.wait()
    (tmp_path / "said").unlink()
    with started(home, tmp_path, *EAL) as running:
        running.ready()
        for left in (daemon, worker):
            assert select.select([left], [], [], 10)[0], "a process of the killed one still runs"
            os.close(left)
        assert running.end() == 0
    assert home.links() == {"lo", "br0", "h1", "h2", "h3"}


def note_of(pid: int) -> tuple[str, dict[str, Any]] | None:
    """What evener-dpdk has written down, and its name, unless it is cleaned up already."""
    for path in Path("/run/evener").glob("evener-dpdk*.json"):
        with contextlib.suppress(FileNotFoundError):
            note = json.loads(path.read_text())
            if [process["pid"] for process in note["owner"]] == [pid]:
                return path.stem, note
    return None


@pytest.mark.parametrize(
    "step", ["namespaces.bind", "tap.make", "namespaces.create", "namespaces.popen"]
)
def test_wherever_one_is_killed_the_next_can_clean_up(
    home: Home, tmp_path: Path, step: str
) -> None:
    """Killed when it has just made something, and had no time to write down more than that it would."""
    code = f"""if True:
        import os
        from evener.cli import dpdk
        from evener.lab import standalone
        made = standalone.{step}
        def killed(*words, **named):
            made(*words, **named)
            os.kill(os.getpid(), 9)
        standalone.{step} = killed
        dpdk.main()
    """
    process = namespaces.popen(
        home.name, [sys.executable, "-c", code, *EAL], env=environment(), start_new_session=True
    )
    assert process.wait(20) == -9
    note = note_of(process.pid)  # none: another test's has cleaned up already
    kept, daemons = [], []
    if note and step in ("namespaces.create", "namespaces.popen"):
        with contextlib.suppress(FileNotFoundError):  # held open: nobody else gets its number
            kept.append((namespaces.DIRECTORY / note[0]).open("rb"))
    if note and step == "namespaces.popen":
        instance = Instance.of(note[1]["inode"])
        wait_until(
            lambda: leftovers.daemons(instance) != [] or not note_of(process.pid), "its daemon"
        )
        with contextlib.suppress(ProcessLookupError):
            daemons = [os.pidfd_open(pid) for pid in leftovers.daemons(instance)]
    if not note_of(process.pid):
        kept.clear()  # may be another test's
    with started(home, tmp_path, *EAL) as running:
        running.ready()
        for daemon in daemons:
            assert select.select([daemon], [], [], 10)[0], "the daemon of the killed one still runs"
            os.close(daemon)
        assert not note_of(process.pid)
        for file in kept:
            with file:
                number = os.fstat(file.fileno()).st_ino
                assert number not in map(number_of, namespaces.names())
        assert running.end() == 0
    assert home.links() == {"lo", "br0", "h1", "h2", "h3"}


def number_of(namespace: str) -> int | None:
    """None for one that is going."""
    try:
        return namespaces.inode(namespace)
    except (OSError, EvenerError):
        return None
