# SPDX-License-Identifier: Apache-2.0
"""Publication: the spare copy, then one word; never a byte of the copy that is in force."""

from typing import Any

import numpy as np
import pytest

from evener.datapath.native import maglev
from evener.model import Timeouts
from evener.tables.compile import Compiled, Ids, compile_tables
from evener.tables.effective import Network, merge
from evener.tables.memory import Sizes, Tables
from evener.tables.publish import publish
from tests.unit.test_tables_compile import SEED, config, pool, service

COPIED = ("endpoints", "services", "backends", "snats", "neighbours", "routes", "slots", "copies")
ONE = config(pool("p", (2, 80)), service("s", "p"))
TWO = config(pool("p", (2, 80), (3, 80)), service("s", "p"), service("t", "p", 81))


@pytest.fixture
def tables() -> Tables:
    made = Tables.allocate(Sizes.for_config(ONE, cpus=1))
    made.prepare((1, 2, 3, 4))
    return made


def compiled(tables: Tables, of: Any) -> Compiled:
    ids = Ids.empty(tables.sizes)
    return compile_tables(merge(of, Network()), ids, tables.sizes, SEED, maglev)


def copy_of(tables: Tables, copy: int) -> dict[str, bytes]:
    return {name: getattr(tables, name)[copy].tobytes() for name in COPIED}


def test_generations_count_and_copies_take_turns(tables):
    for number in range(1, 6):
        assert publish(tables, compiled(tables, ONE), lambda: None) == number
        assert tables.generation == number
        assert tables.active == number % 2


def test_everything_is_in_the_copy_in_force(tables):
    for of in (ONE, TWO, ONE, TWO):
        made = compiled(tables, of)
        publish(tables, made, lambda: None)
        for name in COPIED[:-1]:
            assert getattr(tables, name)[tables.active].tobytes() == getattr(made, name).tobytes()
        header = tables.copies[tables.active]
        for name in ("index_mask", "index_seed", "routes"):
            assert header[name] == made.header[name]


def test_the_order(tables):
    """Grace before the spare copy is touched, since the last publication may still be read; the flip
    when all is written; grace after it."""
    publish(tables, compiled(tables, ONE), lambda: None)
    before = copy_of(tables, tables.active), copy_of(tables, 1 - tables.active)
    made = compiled(tables, TWO)
    moments = []

    def grace() -> None:
        moments.append((tables.active, copy_of(tables, 0), copy_of(tables, 1)))

    publish(tables, made, grace)
    first, second = moments
    assert first == (1, before[1], before[0])
    assert second[0] == 0
    assert second[2] == before[0], "what was in force is not touched"
    assert second[1]["services"] == made.services.tobytes()


def test_only_what_differs_is_written(tables):
    """Whole rows of the spare copy that are right already stay unwritten: their pages stay clean."""
    publish(tables, compiled(tables, ONE), lambda: None)
    publish(tables, compiled(tables, ONE), lambda: None)
    spare = 1 - tables.active
    before = copy_of(tables, spare)
    publish(tables, compiled(tables, ONE), lambda: None)
    after = copy_of(tables, spare)
    assert {name for name in COPIED if before[name] != after[name]} == {"copies"}


def test_timeouts_are_in_force_at_once(tables):
    of = config(*ONE.pools, *ONE.services)
    publish(tables, compiled(tables, of), lambda: None)
    record = tables.settings[0]
    names = ("syn_s", "established_s", "fin_s", "closed_s")
    assert [int(record[name]) for name in names] == [30, 900, 300, 60]
    patient = type(of)(of.datapath, of.pools, of.services, Timeouts(1, 2, 3, 4))
    publish(tables, compiled(tables, patient), lambda: None)
    assert [int(record[name]) for name in names] == [1, 2, 3, 4]


def test_nothing_else_is_touched(tables):
    publish(tables, compiled(tables, ONE), lambda: None)
    tables.flows["binding"] = 7
    tables.reason_counters[:] = 9
    seed = tables.seed
    publish(tables, compiled(tables, TWO), lambda: None)
    assert (tables.flows["binding"] == 7).all()
    assert (tables.reason_counters == 9).all()
    assert tables.seed == seed
    assert not np.any(tables.ports)


def test_a_publication_that_was_cut_short_does_no_harm(tables):
    """The daemon was killed while it wrote the spare copy: the next one begins anew."""
    publish(tables, compiled(tables, ONE), lambda: None)
    in_force = copy_of(tables, tables.active)
    spare = 1 - tables.active
    for name in COPIED:
        tables_bytes = getattr(tables, name)[spare : spare + 1].view(np.uint8)
        tables_bytes[...] = 0xA5
    assert copy_of(tables, tables.active) == in_force
    made = compiled(tables, TWO)
    assert publish(tables, made, lambda: None) == 2
    for name in COPIED[:-1]:
        assert getattr(tables, name)[tables.active].tobytes() == getattr(made, name).tobytes()
