# SPDX-License-Identifier: Apache-2.0
"""The configuration changes while connections talk.

h1, h4 (clients) ---------+
h2, h3, h5 (backends) ----+-- br0
lb 10.0.0.10 (VIP) -------+
"""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evener.errors import ConfigError
from evener.lab import namespaces, topology
from evener.lab.namespaces import Offload
from evener.lab.topology import BRIDGE
from evener.model import Driver
from tests.support.bpf import needs_namespaces
from tests.support.running import (
    FORMS,
    VIP,
    XDP,
    Form,
    Held,
    Running,
    configuration,
    result,
    running,
    wait_until,
)

pytestmark = [pytest.mark.netns, needs_namespaces]

PORT = 8080
ALL = ("h2", "h3", "h5")


@pytest.fixture
def form() -> Form:
    """How the balancer is joined to the segment, where a test does not say otherwise."""
    return XDP


@pytest.fixture
def system(tmp_path: Path, form: Form) -> Iterator[Running]:
    with running(tmp_path, {PORT: ALL}, clients=2, backends=3, form=form) as system:
        system.serve(*ALL)
        yield system


def text(system: Running, backends: tuple[str, ...], **options: Any) -> str:
    return configuration(system.lab, {PORT: backends}, **options)


def everybody_speaks(held: Held, but: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Wait until every connection has been answered again, those of some backends left out."""
    before = {row["port"]: row["messages"] for row in held.report()}

    def spoken() -> bool:
        rows = [row for row in held.report() if row["backend"] not in but]
        return all(row["broken"] or row["messages"] > before[row["port"]] + 1 for row in rows)

    wait_until(spoken, "everybody to speak", 20)
    return held.report()


def broken(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["broken"]]


@pytest.mark.parametrize("form", FORMS)
def test_a_backend_leaves_and_comes_back_under_load(system: Running) -> None:
    held = system.hold("h1", PORT, 150, "--every", "0.3")
    assert {row["backend"] for row in held.first} == set(ALL)
    many = 4000 if system.lab.driver is Driver.XDP else 1500
    short = system.load("h4", "short", VIP, PORT, many, "--at-once", "4")
    first = system.api.status()["generation"]

    assert system.apply(text(system, ("h2", "h3"))) > first
    rows = everybody_speaks(held, but=("h5",))
    assert broken([row for row in rows if row["backend"] != "h5"]) == []
    assert all(row["state"] != "gone" for row in system.rows("backends"))
    wait_until(
        lambda: not [r for r in system.rows("flows") if r["backend"].startswith(end(system))],
        "the flows of the removed backend to end",
    )

    system.apply(text(system, ALL))
    rows = everybody_speaks(held, but=("h5",))
    assert broken([row for row in rows if row["backend"] != "h5"]) == []
    fresh = system.hold("h1", PORT, 60)
    assert {row["backend"] for row in fresh.stop()} == set(ALL)
    assert broken([row for row in held.stop() if row["backend"] != "h5"]) == []
    # The short connections may have been on h5 just then, and nowhere else.
    assert result(short)["errors"] <= 4


def end(system: Running) -> str:
    return str(system.lab.host("h5").address)


@pytest.mark.parametrize("form", FORMS)
def test_twenty_changes_break_nothing(system: Running) -> None:
    """h5 comes and goes, weights change; what h2 and h3 serve is never touched."""
    system.apply(text(system, ("h2", "h3")))
    held = system.hold("h1", PORT, 100, "--every", "0.2")
    for turn in range(20):
        backends = ALL if turn % 2 else ("h2", "h3")
        system.apply(text(system, backends, weights={"h2": 1 + turn % 5, "h3": 2}))
    assert broken(everybody_speaks(held)) == []
    rows = held.stop()
    assert broken(rows) == []
    assert {row["backend"] for row in rows} == {"h2", "h3"}


def test_weights_move_new_connections_only(system: Running) -> None:
    held = system.hold("h1", PORT, 40)
    system.apply(text(system, ALL, weights={"h2": 0, "h3": 8, "h5": 2}))
    new = system.hold("h4", PORT, 200, "--every", "5")
    served = Counter(row["backend"] for row in new.stop())
    assert served["h2"] == 0
    assert served["h3"] > 2 * served["h5"] > 0
    rows = held.stop()
    assert broken(rows) == []
    assert {row["backend"] for row in rows} == set(ALL)


def test_sighup_reads_the_file_again(system: Running) -> None:
    assert system.daemon is not None
    before = system.api.status()["generation"]
    system.config.write_text(text(system, ("h2",)))
    os.kill(system.daemon.pid, signal.SIGHUP)
    wait_until(lambda: len(system.rows("backends")) == 1, "the new configuration")
    # Names are told a moment before the generation that they belong to.
    wait_until(lambda: system.api.status()["generation"] > before, "the new generation")
    rows = system.hold("h1", PORT, 10).stop()
    assert {row["backend"] for row in rows} == {"h2"}


def test_an_interface_that_was_made_anew(system: Running) -> None:
    """Its name is the same, its program is gone with the one before: a reload attaches again."""
    assert system.daemon is not None
    before = system.api.status()["interfaces"]
    namespaces.run(system.lab.switch, ["ip", "link", "del", system.lab.balancer.name])
    made_anew(system)
    assert system.api.reload()["generation"] > 1
    after = system.api.status()["interfaces"]
    assert [row["interface"] for row in after] == ["eth0"]
    assert after[0]["ifindex"] == host_ifindex(system) != before[0]["ifindex"]
    assert "prog/xdp" in system.lab.run("lb", ["ip", "-d", "link", "show", "eth0"]).stdout


def test_an_interface_that_goes_is_told_of_and_attached_when_it_comes_back(system: Running) -> None:
    def mode() -> str:
        (row,) = system.api.status()["interfaces"]
        return str(row["mode"])

    before = system.api.status()["interfaces"][0]["ifindex"]
    namespaces.run(system.lab.switch, ["ip", "link", "del", system.lab.balancer.name])
    wait_until(lambda: mode() == "gone", "the daemon to notice")
    made_anew(system)
    wait_until(lambda: mode() == "native", "the daemon to attach again")
    assert system.api.status()["interfaces"][0]["ifindex"] == host_ifindex(system) != before
    for words in ("interface eth0 is gone", "attached again to eth0 in native mode"):
        wait_until(lambda words=words: words in system.log.read_text(), words)  # type: ignore[misc]
    assert broken(system.hold("h1", PORT, 10).stop()) == []


def made_anew(system: Running) -> None:
    """The balancer's interface, as the lab had made it."""
    host, switch = system.lab.balancer, system.lab.switch
    for where, words in (
        (
            switch,
            f"link add {host.name} type veth peer eth0 address {host.mac} netns {host.namespace}",
        ),
        (switch, f"link set {host.name} master {BRIDGE} up"),
        (host.namespace, "link set eth0 up"),
        (host.namespace, f"address add {host.address}/24 dev eth0"),
    ):
        namespaces.run(where, ["ip", *words.split()])

    def finish() -> None:
        topology._attach_pass([socket.if_nametoindex(host.name)])
        for offload in (Offload.TX_CHECKSUM, Offload.GRO):
            namespaces.set_offload(host.name, offload, False)

    namespaces.in_namespace(switch, finish)


def host_ifindex(system: Running) -> int:
    return namespaces.in_namespace(
        system.lab.balancer.namespace, lambda: socket.if_nametoindex("eth0")
    )


def test_a_wrong_file_changes_nothing(system: Running) -> None:
    assert system.daemon is not None
    before = system.api.status()["generation"]
    system.config.write_text("[pool.web]\nbackends = 7\n")
    os.kill(system.daemon.pid, signal.SIGHUP)
    wait_until(lambda: "backends" in system.log.read_text(), "the daemon to complain")
    with pytest.raises(ConfigError):
        system.apply("[service.x]\n")
    assert system.api.status()["generation"] == before
    held = system.hold("h1", PORT, 20)
    assert broken(everybody_speaks(held)) == []
    held.stop()


def test_a_service_comes_and_goes(system: Running) -> None:
    with_two = configuration(system.lab, {PORT: ALL, 8090: ("h2",)})
    system.serve("h2", ports=(8090,))
    system.apply(with_two)
    assert system.hold("h1", 8090, 5).stop()[0]["backend"] == "h2"
    held = system.hold("h1", PORT, 30)
    gone = system.hold("h1", 8090, 5)
    system.apply(text(system, ALL))
    assert broken(everybody_speaks(held)) == []
    assert [row["service"] for row in system.rows("services")] == [f"s{PORT}"]
    held.stop()
    gone.stop()


def test_no_backend_at_all(system: Running) -> None:
    system.apply(text(system, ()))
    assert system.load("h1", "short", VIP, PORT, 1).poll() is None
    wait_until(lambda: system.drops().get("NO_BACKEND", 0) > 0, "a refusal")
    system.apply(text(system, ALL))
    assert broken(system.hold("h4", PORT, 10).stop()) == []
