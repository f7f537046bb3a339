# SPDX-License-Identifier: Apache-2.0
"""What only the DPDK driver has: a worker of its own, and lanes.

h1, h4 (clients) ------+
h2, h3 (backends) -----+-- br0     capture here
lb 10.0.0.10 (VIP) ----+           the worker opens tapdpdk at the bridge, or wire0
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import pytest

from evener.errors import DatapathError, EvenerError
from evener.lab.capture import Capture
from evener.lab.device import DEFAULT, Device
from evener.lab.topology import BRIDGE
from evener.model import Driver
from tests.support.bpf import needs_namespaces
from tests.support.dpdk import needs_dpdk
from tests.support.packets import TCP, parse
from tests.support.pcap import read_pcap
from tests.support.running import DPDK_FORMS, VIP, Held, Running, result, running, wait_until
from tests.support.wire import BALANCER

pytestmark = [pytest.mark.netns, needs_namespaces, needs_dpdk, pytest.mark.timeout(300)]

PORT = 8080
ARP = b"\x08\x06"
PATIENT = ("--patience", "90")
"""A busy machine takes its time to start a worker, and TCP waits twice as long each time."""
BACKENDS = ", ".join(f'"10.0.0.2:{port}"' for port in range(9001, 9201))
MANY = f"""
[pool.many]
backends = [{BACKENDS}]
[service.many]
listen = "{VIP}:9000/tcp"
pool = "many"
"""


@pytest.fixture(params=DPDK_FORMS)
def system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(tmp_path, clients=2, form=request.param) as system:
        system.serve("h2", "h3")
        yield system


def kill_worker(system: Running) -> int:
    """kill -9; its number."""
    (worker,) = system.workers
    os.kill(worker, signal.SIGKILL)
    return worker


def another_worker(system: Running, dead: int) -> None:
    """Wait for one that is not the dead one, which may still be seen for a moment."""
    wait_until(lambda: bool(set(system.workers) - {dead}), "another worker")


def longest_silence_ns(path: Path) -> int:
    """The longest time in a capture in which no segment left the balancer."""
    packets = [(at, parse(frame)) for at, frame in read_pcap(path)]
    left = [at for at, p in packets if p.protocol == TCP and p.src == BALANCER]
    return max(after - before for before, after in pairwise(left))


def everybody_spoke(held: list[dict[str, int]], since: dict[int, int], times: int) -> bool:
    return all(row["messages"] > since[row["port"]] + times for row in held)


@pytest.mark.slow
def test_a_worker_that_is_killed_under_load_is_started_again(
    system: Running, tmp_path: Path
) -> None:
    """What was on its way is lost, as on a wire that is pulled; flows are not."""
    held = system.hold("h1", PORT, 100, "--every", "0.1", *PATIENT)
    kept = {row["client"] for row in system.rows("flows") if row["state"] == "ESTABLISHED"}
    assert len(kept) == 100
    path = tmp_path / "a.pcap"
    with Capture(system.lab.switch, BRIDGE, path, buffer_bytes=256 << 20):
        short = system.load("h4", "short", VIP, PORT, 2000, *PATIENT)
        time.sleep(0.3)  # some of them are under way
        dead = kill_worker(system)
        another_worker(system, dead)
        before = {row["port"]: row["messages"] for row in held.report()}
        wait_until(lambda: everybody_spoke(held.report(), before, 3), "connections to go on", 90)
        outcome = result(short, 150)
    flows = {row["client"] for row in system.rows("flows")}
    assert kept <= flows
    ends = held.stop()
    assert [row for row in ends if row["broken"]] == []
    assert (outcome["errors"], outcome["examples"]) == (0, [])
    assert outcome["connections"] == 2000
    again = sum(row["retransmitted"] for row in ends) + outcome["retransmitted"]
    print(f"nothing left the balancer for {longest_silence_ns(path) / 1e6:.0f} ms; "
          f"{again} segments sent again")  # fmt: skip


def test_three_workers_die(system: Running) -> None:
    """Counters go on from where they were, and there is never a second worker."""
    held = system.hold("h1", PORT, 20, "--every", "0.05", *PATIENT)
    seen = 0
    for _ in range(3):
        dead = kill_worker(system)
        another_worker(system, dead)
        assert len(system.workers) == 1
        before = {row["port"]: row["messages"] for row in held.report()}
        wait_until(lambda before=before: everybody_spoke(held.report(), before, 2), "speech", 90)
        now = sum(row["forward_packets"] for row in system.rows("services"))
        assert now > seen
        seen = now
    assert [row for row in held.stop() if row["broken"]] == []


def test_daemon_and_worker_die_together(system: Running) -> None:
    held = system.hold("h1", PORT, 20, "--every", "0.05", *PATIENT)
    kill_worker(system)
    system.kill()
    wait_until(lambda: system.workers == [], "the worker to be gone")
    system.start()
    before = {row["port"]: row["messages"] for row in held.report()}
    wait_until(lambda: everybody_spoke(held.report(), before, 2), "connections to go on", 90)
    assert [row for row in held.stop() if row["broken"]] == []


def spoken(system: Running, held: Held, what: str) -> None:
    before = {row["port"]: row["messages"] for row in held.report()}
    wait_until(lambda: everybody_spoke(held.report(), before, 2), what, 90)


def test_tables_that_must_grow(system: Running) -> None:
    """The worker from before goes on until the new one begins, and again if that one does not start."""
    held = system.hold("h1", PORT, 20, "--every", "0.05", *PATIENT)
    (first,) = system.workers
    system.kill()
    text = system.config.read_text() + MANY
    system.config.write_text(text.replace("--vdev=net_", "--vdev=net_no_"))
    with pytest.raises(EvenerError, match="before it was ready"):
        system.start()
    wait_until(lambda: system.workers not in ([], [first]), "the worker before, started again")
    spoken(system, held, "connections to go on with the worker of before")
    (again,) = system.workers
    system.config.write_text(text)
    system.start()
    assert again not in system.workers
    spoken(system, held, "connections to go on with a new worker over larger tables")
    assert system.api.status()["adopted"]
    assert [row for row in held.stop() if row["broken"]] == []


def test_the_daemon_ends_and_takes_its_worker_with_it(system: Running) -> None:
    assert system.daemon is not None
    assert len(system.workers) == 1
    system.daemon.terminate()
    assert system.daemon.wait(10) == 0
    assert system.workers == []


def test_the_address_answers_pings_while_the_worker_is_another(system: Running) -> None:
    system.lab.run("h1", ["ping", "-c1", "-W2", VIP])
    dead = kill_worker(system)
    another_worker(system, dead)
    system.lab.run("h1", ["ip", "neigh", "flush", "all"])
    wait_until(
        lambda: system.lab.run("h1", ["ping", "-c1", "-W1", VIP], check=False).returncode == 0,
        "an answer to ARP and ping",
    )


def answers(system: Running, path: Path) -> set[bytes]:
    """The MAC addresses that ARP requests of h1 for the VIP are answered with."""
    with Capture(system.lab.switch, BRIDGE, path):
        system.lab.run("h1", ["ip", "neigh", "flush", "all"])
        system.lab.run("h1", ["ping", "-c2", "-i0.2", "-W2", VIP], check=False)
    reply = ARP + bytes.fromhex("0001 0800 0604 0002")
    found = [frame[22:32] for _, frame in read_pcap(path) if frame[12:22] == reply]
    return {sender[:6] for sender in found if sender[6:] == IPv4Address(VIP).packed}


def test_nobody_answers_in_the_place_of_a_dead_worker(system: Running, tmp_path: Path) -> None:
    """Another MAC address in a client's table would lead it past the worker that is started next."""
    assert answers(system, tmp_path / "alive.pcap")
    system.kill()
    kill_worker(system)
    wait_until(lambda: system.workers == [], "the worker to be gone")
    assert answers(system, tmp_path / "dead.pcap") == set()


def test_a_packet_socket_has_only_copies(tmp_path: Path) -> None:
    """Where the interface of net_af_packet is in the namespace of the address, the kernel has the frames of
    the wire twice, and answers ARP requests twice: whose answer is later has the client. So the lab has the
    interface elsewhere. Told to answer on an interface for its own addresses only, the kernel leaves it.
    """
    device = Device("net_af_packet", "wire0", "lb", cable=True)
    with running(tmp_path, form=(Driver.DPDK, device)) as system:
        own = bytes.fromhex(system.lab.balancer.mac.replace(":", ""))
        both = answers(system, tmp_path / "both.pcap")
        assert own in both
        assert len(both) == 2
        system.lab.run("lb", ["sysctl", "-qw", "net.ipv4.conf.wire0.arp_ignore=1"])
        system.lab.run("lb", ["ip", "neigh", "flush", "all"])
        assert answers(system, tmp_path / "one.pcap") == {own}
        system.serve("h2", "h3")
        outcome = result(system.load("h1", "short", VIP, PORT, 100))
        assert (outcome["errors"], outcome["examples"]) == (0, [])


def test_a_worker_that_is_stopped(tmp_path: Path) -> None:
    """It is told of, a change is refused in time with a reason, and nothing of it is in force afterwards."""
    with running(tmp_path, form=(Driver.DPDK, DEFAULT)) as system:
        (worker,) = system.workers
        text, generation = system.config.read_text(), system.api.status()["generation"]
        os.kill(worker, signal.SIGSTOP)
        try:
            with pytest.raises(DatapathError, match="lanes stand still, and nothing has changed"):
                system.apply(text + MANY)
            wait_until(lambda: bool(system.api.status()["warnings"]), "a warning")
            (told,) = system.api.status()["warnings"]
            assert told.startswith(f"worker {worker} has not come round for ")
            assert f"`kill -CONT {worker}`" in told
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not system.api.status()["warnings"], "it to go on")
        assert system.workers == [worker]
        assert "many" not in {row["service"] for row in system.rows("services")}
        log = system.log.read_text()
        assert "applying a test failed: the DPDK worker's lanes stand still" in log
        assert f"worker {worker} comes round again" in log
        assert system.apply(text + MANY) > generation


FLOOD = f"""
import socket
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10_000):
    out.sendto(bytes(100), ("{VIP}", 9))
"""


def told(system: Running, text: str) -> None:
    """Wait for a warning that begins so, or for none if there is no text."""
    wait_until(
        lambda: (
            [w for w in system.api.status()["warnings"] if w.startswith(text)] != []
            if text
            else not system.api.status()["warnings"]
        ),
        text or "no warning",
        60,
    )


def missed(system: Running) -> int | None:
    rows = system.api.status()["frames"]
    found: int | None = next(row["frames"] for row in rows if row["counter"] == "imissed")
    return found


def test_what_becomes_of_the_interface(system: Running) -> None:
    """What found no room is counted where anybody counts, and a link that is down or gone is told of."""
    device = system.lab.device
    name = device.interface
    (worker,) = system.workers
    counts = device.name != "net_af_packet"
    wait_until(lambda: missed(system) == (0 if counts else None), "the first look")
    system.lab.run("h1", ["ping", "-c1", "-W2", VIP])
    os.kill(worker, signal.SIGSTOP)
    system.lab.run("h1", [sys.executable, "-c", FLOOD])
    if counts:
        wait_until(lambda: (missed(system) or 0) > 5_000, "what was lost")
    os.kill(worker, signal.SIGCONT)
    ip = ["ip", "-n", system.lab.switch, "link"]
    for state, text in (("down", f"interface {name} is down, so nothing"), ("up", "")):
        subprocess.run([*ip, "set", name, state], check=True)
        told(system, text)
    subprocess.run([*ip, "del", name], check=True)
    told(system, f"interface {name} is gone, so nothing is received: make it again")
    if device.name == "net_tap":
        os.kill(worker, signal.SIGTERM)
        told(system, f"interface {name} was gone and has been made anew, and is not in br0")
        subprocess.run([*ip, "set", name, "master", BRIDGE], check=True)
        wait_until(
            lambda: not any(name in w for w in system.api.status()["warnings"]), "all is well"
        )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two lanes want two CPUs")
def test_two_lanes(tmp_path: Path) -> None:
    """Forward and reply may come in on different lanes; a connection does not notice."""
    lcores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    with running(tmp_path, clients=2, form=(Driver.DPDK, DEFAULT), lcores=lcores) as system:
        system.serve("h2", "h3")
        started = [
            system.load(host, "short", VIP, PORT, 1000, "--first-port", 20_000)
            for host in ("h1", "h4")
        ]
        outcomes = [result(process) for process in started]
        examples = [example for outcome in outcomes for example in outcome["examples"]]
        assert (sum(outcome["errors"] for outcome in outcomes), examples) == (0, [])
        assert sum(outcome["connections"] for outcome in outcomes) == 2000
        assert system.drops() == {}
        first, second = system.api.status()["lanes"]
        assert f"{first['lcore']},{second['lcore']}" == lcores
        assert sum(system.reasons().values()) >= first["packets"] + second["packets"] > 10_000
        assert second["packets"] > 0
