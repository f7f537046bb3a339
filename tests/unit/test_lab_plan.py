# SPDX-License-Identifier: Apache-2.0
"""Which hosts a lab has: the four of the scenario keep their places whatever else there is."""

from __future__ import annotations

import pytest

from evener.errors import EvenerError
from evener.lab.topology import MAX_BACKENDS, MAX_CLIENTS, Role, plan_hosts, unique_name

THE_SCENARIO = [
    ("h1", "10.0.0.1", "de:ad:be:ef:00:01", "client", "evener-x-h1"),
    ("h2", "10.0.0.2", "de:ad:be:ef:00:02", "backend", "evener-x-h2"),
    ("h3", "10.0.0.3", "de:ad:be:ef:00:03", "backend", "evener-x-h3"),
    ("lb", "10.0.0.10", "de:ad:be:ef:00:10", "balancer", "evener-x-lb"),
]


def rows(clients: int, backends: int) -> list[tuple[str, str, str, str, str]]:
    return [
        (host.name, str(host.address), host.mac, str(host.role), host.namespace)
        for host in plan_hosts("x", clients, backends)
    ]


def test_default_is_the_scenario() -> None:
    assert rows(1, 2) == THE_SCENARIO


@pytest.mark.parametrize(("clients", "backends"), [(2, 2), (1, 3), (5, 9), (50, 106)])
def test_more_hosts_do_not_move_the_four(clients: int, backends: int) -> None:
    assert set(THE_SCENARIO) <= set(rows(clients, backends))


def test_one_backend_leaves_h3_out() -> None:
    assert [row[0] for row in rows(2, 1)] == ["h1", "h4", "h2", "lb"]


def test_further_hosts_are_clients_then_backends() -> None:
    further = {row[0]: row[1:4] for row in rows(2, 4)}
    assert further["h4"] == ("10.0.0.101", "de:ad:be:ef:01:01", "client")
    assert further["h5"] == ("10.0.0.151", "de:ad:be:ef:01:51", "backend")
    assert further["h6"] == ("10.0.0.152", "de:ad:be:ef:01:52", "backend")


def test_largest_lab_has_no_two_hosts_alike() -> None:
    hosts = plan_hosts("x", MAX_CLIENTS, MAX_BACKENDS)
    assert len(hosts) == MAX_CLIENTS + MAX_BACKENDS + 1
    for what in ("name", "address", "mac", "namespace"):
        assert len({getattr(host, what) for host in hosts}) == len(hosts)
    assert sum(host.role is Role.CLIENT for host in hosts) == MAX_CLIENTS
    assert all(int(host.address) & 0xFF < 255 for host in hosts)


@pytest.mark.parametrize(
    ("clients", "backends"), [(0, 2), (1, 0), (MAX_CLIENTS + 1, 2), (1, MAX_BACKENDS + 1)]
)
def test_sizes_have_limits(clients: int, backends: int) -> None:
    with pytest.raises(EvenerError, match="a lab has 1 to"):
        plan_hosts("x", clients, backends)


def test_unique_names_differ() -> None:
    assert len({unique_name() for _ in range(100)}) == 100
