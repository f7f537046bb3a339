# SPDX-License-Identifier: Apache-2.0
"""A connection on which nobody says anything for two minutes; see conftest.py for how it waits.

h1 (client), h2 and h3 (backends), lb 10.0.0.10 (VIP), on one bridge.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.netns.conftest import Idle
from tests.support.bpf import needs_namespaces

pytestmark = [pytest.mark.netns, needs_namespaces]

SILENCE_S = 120


@pytest.mark.slow
@pytest.mark.timeout(SILENCE_S + 60)
def test_an_idle_connection_speaks_again_after_two_minutes(idle: Idle) -> None:
    time.sleep(max(0.0, idle.since + SILENCE_S - time.monotonic()))
    rows = [row for row in idle.system.rows("flows") if row["state"] == "ESTABLISHED"]
    assert len(rows) == 1
    for size in (10, 5000):
        message = os.urandom(size)
        idle.connection.sendall(message)
        heard = b""
        while len(heard) < size and (part := idle.connection.recv(size)):
            heard += part
        assert heard == message
    assert idle.system.drops() == {}
