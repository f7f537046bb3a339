# SPDX-License-Identifier: Apache-2.0
"""Claims that a killed process left behind are ended; those of the living are not."""

import threading

import numpy as np
import pytest

from evener._generated import layout
from evener.datapath.claims import end_abandoned
from evener.datapath.sim import Simulator
from tests.support import segment
from tests.support.machine import flow_rows

CLAIMED = np.uint64(layout.FLOW_CLAIMED << 40)
PORT = 34952


@pytest.fixture
def made() -> Simulator:
    """Two flows, established."""
    simulator, _ = segment.simulator()
    for port in (PORT, PORT + 1):
        segment.handshake(simulator, port)
    return simulator


def record_of(made: Simulator, port: int) -> int:
    """The record that holds a port."""
    found = made.tables.ports[:, port]
    return int(found[found != 0][0]) - 1


def claim(made: Simulator, record: int) -> None:
    """Somebody begins to end this flow."""
    flags = np.uint64(0xFF << 40)
    binding = made.tables.flows["binding"]
    binding[record] = binding[record] & ~flags | CLAIMED


def ports_held(made: Simulator) -> list[int]:
    return sorted(int(port) for port in np.nonzero(made.tables.ports)[1])


def no_grace() -> None:
    pytest.fail("there was nothing to wait for")


def test_without_claims_nobody_waits(made):
    before = made.tables.raw("flows").tobytes()
    assert end_abandoned(made.core, made.now(), no_grace) == 0
    assert made.tables.raw("flows").tobytes() == before


def test_a_claim_that_was_left_behind_is_ended_with_its_port(made):
    claim(made, record_of(made, PORT))
    other = made.tables.flows[record_of(made, PORT + 1)].copy()
    assert end_abandoned(made.core, made.now(), lambda: None) == 1
    assert ports_held(made) == [PORT + 1]
    assert made.tables.flows[record_of(made, PORT + 1)] == other
    assert len(flow_rows(made.tables, made.ids)) == 1
    assert end_abandoned(made.core, made.now(), no_grace) == 0


def test_a_claim_without_a_port_is_ended(made):
    """Killed before it had chosen one, or when it had just lost one to another flow."""
    first, second = np.flatnonzero(made.tables.flows["binding"] == 0)[:2]
    bindings = made.tables.flows["binding"]
    others = bindings[record_of(made, PORT)] & np.uint64((1 << 40) - 1)
    bindings[first], bindings[second] = CLAIMED, others | CLAIMED
    assert end_abandoned(made.core, made.now(), lambda: None) == 2
    assert ports_held(made) == [PORT, PORT + 1]
    assert len(flow_rows(made.tables, made.ids)) == 2


def test_whoever_is_still_busy_keeps_its_record(made):
    """It goes on while the daemon waits: one with the same claim as before, one finishes."""
    busy, done, dead = (record_of(made, PORT), record_of(made, PORT + 1), 7)
    bindings = made.tables.flows["binding"]
    finished = bindings[done].copy()
    made.tables.flows["binding"][dead] = CLAIMED
    claim(made, busy)
    claim(made, done)
    claimed = bindings[busy].copy()

    def grace() -> None:
        assert np.count_nonzero(bindings == CLAIMED) == 0, "marked before anybody waits"
        bindings[busy], bindings[done] = claimed, finished

    assert end_abandoned(made.core, made.now(), grace) == 1
    assert (bindings[busy], bindings[done]) == (claimed, finished)
    assert bindings[dead] & CLAIMED == 0
    assert ports_held(made) == [PORT, PORT + 1]


def test_a_daemon_that_is_killed_meanwhile_is_followed_by_another(made):
    claim(made, record_of(made, PORT))
    assert made.core.doubt_claims(made.now()) == 1
    assert end_abandoned(made.core, made.now() + 9, lambda: None) == 1
    assert ports_held(made) == [PORT + 1]


def test_no_sweep_takes_a_claim(made):
    """However old it is, and also if its backend was removed: its owner may only have been stopped."""
    record = record_of(made, PORT)
    claim(made, record)
    before = made.tables.flows[record].copy()
    backends = np.ones(made.tables.sizes.backends, np.uint8)
    for now in range(0, 1 << 16, 1021):
        made.core.sweep(0, made.tables.sizes.flow_groups, now, backends)
        assert made.tables.flows[record] == before
    assert ports_held(made) == [PORT]


def test_a_sweep_of_this_daemon_waits(made):
    """What another thread of ours has just claimed is not left behind."""
    swept = []
    sweep = threading.Thread(target=lambda: swept.append(made.core.sweep(0, 1, made.now())))

    def grace() -> None:
        sweep.start()
        sweep.join(0.05)
        assert sweep.is_alive()

    claim(made, record_of(made, PORT))
    assert end_abandoned(made.core, made.now(), grace) == 1
    sweep.join()
    assert swept == [0]
