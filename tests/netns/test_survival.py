# SPDX-License-Identifier: Apache-2.0
"""The daemon dies under load; packets, connections and counters do not notice.

h1, h4 (clients) ------+
h2, h3 (backends) -----+-- br0     capture here: every segment that came must leave
lb 10.0.0.10 (VIP) ----+
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener.errors import DaemonError
from evener.lab import balancer
from evener.lab.capture import Capture
from evener.lab.topology import BRIDGE
from tests.support.bpf import needs_namespaces
from tests.support.running import FORMS, VIP, Running, result, running, wait_until
from tests.support.wire import missing

pytestmark = [pytest.mark.netns, needs_namespaces]

PORT = 8080
MANY = 3000


@pytest.fixture(params=FORMS)
def system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(tmp_path, clients=2, form=request.param) as system:
        system.serve("h2", "h3")
        yield system


def total(system: Running, name: str) -> int:
    return sum(row[name] for row in system.rows("services"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_and_restarted_under_load(system: Running, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Capture(system.lab.switch, BRIDGE, path, buffer_bytes=256 << 20) as capture:
        held = system.hold("h1", PORT, 100, "--every", "0.1")
        kept = {row["client"] for row in system.rows("flows")}
        before = {name: total(system, name) for name in ("forward_packets", "reply_packets")}
        generation = system.api.status()["generation"]
        short = system.load("h4", "short", VIP, PORT, MANY)  # some seconds of new connections
        time.sleep(0.3)
        system.kill()
        with pytest.raises(DaemonError):
            system.api.status()
        without = {row["port"]: row["messages"] for row in held.report()}
        fresh = system.hold("h4", PORT, 30)  # connections that begin while there is no daemon
        wait_until(
            lambda: all(r["messages"] > without[r["port"]] + 3 for r in held.report()),
            "connections to go on without a daemon",
        )
        system.start()
        outcome = result(short, 150)
        with_new = {row["port"]: row["messages"] for row in held.report()}
        wait_until(
            lambda: all(r["messages"] > with_new[r["port"]] + 3 for r in held.report()),
            "connections to go on with the new daemon",
        )
        flows = {row["client"] for row in system.rows("flows")}
        after = {name: total(system, name) for name in before}
        ends = [*held.stop(), *fresh.stop()]
        summary = capture.stop()
    assert [row for row in ends if row["broken"]] == []
    assert (outcome["errors"], outcome["examples"]) == (0, [])
    assert outcome["connections"] == MANY
    assert summary.drops == 0
    came, lost, unasked = missing(path)
    assert (lost, unasked) == (0, 0)
    print(f"{came} segments, 0 lost; {outcome['connections']} new connections")
    assert kept <= flows
    assert all(after[name] > before[name] for name in before)
    assert after["forward_packets"] + after["reply_packets"] <= came
    assert system.api.status()["generation"] > generation
    assert system.drops() == {}


def test_counters_and_flows_after_three_deaths(system: Running) -> None:
    held = system.hold("h1", PORT, 20, "--every", "0.05")
    seen = total(system, "forward_packets")
    for _ in range(3):
        system.kill()
        system.start()
        now = total(system, "forward_packets")
        assert now > seen
        seen = now
        established = [r for r in system.rows("flows") if r["state"] == "ESTABLISHED"]
        assert len(established) == 20
    assert [row for row in held.stop() if row["broken"]] == []
    assert system.drops() == {}


def test_a_killed_daemon_leaves_a_socket_that_does_not_confuse(system: Running) -> None:
    """The command says that nobody listens; the next daemon takes the place."""
    system.kill()
    with pytest.raises(DaemonError):
        system.api.status()
    system.start()
    assert system.api.status()["adopted"]


def test_a_changed_configuration_is_adopted_at_restart(system: Running) -> None:
    """h3 is gone from the file when the next daemon starts: h2's connections go on."""
    held = system.hold("h1", PORT, 40)
    assert {row["backend"] for row in held.first} == {"h2", "h3"}
    system.kill()
    kept = [line for line in system.config.read_text().splitlines() if '"h3"' not in line]
    system.config.write_text("\n".join(kept))
    system.start()
    before = {row["port"]: row["messages"] for row in held.report()}
    wait_until(
        lambda: all(
            r["messages"] > before[r["port"]] + 1 for r in held.report() if r["backend"] == "h2"
        ),
        "the connections of h2 to go on",
    )
    assert [r for r in held.stop() if r["broken"] and r["backend"] == "h2"] == []
    assert {row["backend"] for row in system.hold("h4", PORT, 10).stop()} == {"h2"}


def test_ended_with_keep_connections_go_on(system: Running) -> None:
    """SIGTERM with `run --keep` leaves program and tables in force; the next daemon adopts them."""
    system.kill()
    evener = str(Path(sys.executable).with_name("evener"))
    with system.log.open("ab") as log:
        keeper = system.lab.popen(
            "lb", [evener, "run", "--keep", system.config], stdout=log, stderr=log
        )
    balancer.wait_ready(system.lab, keeper, system.log)
    held = system.hold("h1", PORT, 20, "--every", "0.05")
    keeper.terminate()
    assert keeper.wait(10) == 0
    with pytest.raises(DaemonError):
        system.api.status()
    without = {row["port"]: row["messages"] for row in held.report()}
    fresh = system.hold("h4", PORT, 10)
    wait_until(
        lambda: all(r["messages"] > without[r["port"]] + 3 for r in held.report()),
        "connections to go on without a daemon",
    )
    system.start()
    assert system.api.status()["adopted"]
    flows = [row for row in system.rows("flows") if row["state"] == "ESTABLISHED"]
    assert len(flows) == 30
    assert [row for row in (*held.stop(), *fresh.stop()) if row["broken"]] == []
    assert system.drops() == {}
