# SPDX-License-Identifier: Apache-2.0
"""Things of the whole session. A test that only waits costs no time if the waiting is begun at once
and looked at in the end: that is what the fixture `idle` is for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evener.datapath.probe import probe
from evener.lab import namespaces
from tests.support.running import VIP, Running, running


@dataclass
class Idle:
    """A connection that has been silent since it was opened, and when that was."""

    system: Running
    connection: socket.socket
    backend: str
    since: float


@pytest.fixture(scope="session")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    with running(tmp_path_factory.mktemp("idle")) as system:
        system.serve("h2", "h3")
        with namespaces.in_namespace(
            system.lab.host("h1").namespace,
            lambda: socket.create_connection((VIP, 8080), timeout=5),
        ) as connection:
            backend = connection.recv(100).decode().strip()
            yield Idle(system, connection, backend, time.monotonic())


@pytest.fixture(scope="session", autouse=True)
def _begin_early(request: pytest.FixtureRequest) -> None:
    wanted = any("idle" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if wanted and probe().lab:
        request.getfixturevalue("idle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits comes last."""
    items.sort(key=lambda item: "idle" in getattr(item, "fixturenames", ()))
