# SPDX-License-Identifier: Apache-2.0
"""Maglev tables: as the paper's plain algorithm makes them, balanced, and little disturbed by changes.

NSDI 2016, section 5.3, has the figures for disruption: with 65537 slots and up to some hundred
backends, about as many slots change as must, and one or two in a hundred more.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evener.datapath.native import maglev as fill
from evener.tables.maglev import Candidate, build
from tests.reference import maglev_slow

SEED = bytes(range(32))
SIZE = 65_537


def backends(count: int, weight: int = 1) -> list[Candidate]:
    return [Candidate(n + 1, f"10.0.{n >> 8}.{n & 255}:80/6", weight) for n in range(count)]


def shares(slots: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(slots, minlength=count + 1)[1:]


def slow(candidates: list[Candidate], size: int) -> list[int]:
    ids = {c.identity: c.id for c in candidates}
    names = maglev_slow.build([(c.identity, c.weight) for c in candidates], size, SEED)
    return [ids[name] if name else 0 for name in names]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.sampled_from([2, 3, 13, 251, 1021]),
    st.randoms(),
)
def test_is_what_the_paper_says(weights, size, random):
    candidates = [Candidate(n + 1, f"b{n}", weight) for n, weight in enumerate(weights)]
    random.shuffle(candidates)
    assert build(candidates, size, SEED, fill).tolist() == slow(candidates, size)


def test_is_what_the_paper_says_at_full_size():
    candidates = [*backends(5), Candidate(9, "heavy", 3), Candidate(8, "resting", 0)]
    assert build(candidates, SIZE, SEED, fill).tolist() == slow(candidates, SIZE)


def test_nobody():
    assert not build([], SIZE, SEED, fill).any()
    assert not build(backends(3, weight=0), SIZE, SEED, fill).any()


def test_one_has_it_all():
    assert (build([*backends(1), Candidate(7, "resting", 0)], SIZE, SEED, fill) == 1).all()


@pytest.mark.parametrize("count", [2, 3, 10, 100, 650])
def test_everybody_has_the_same_share(count):
    """With at least 100 slots for each, the fullest has 1 or 2 in a hundred more than the emptiest."""
    share = shares(build(backends(count), SIZE, SEED, fill), count)
    assert share.sum() == SIZE
    assert share.max() - share.min() <= max(1, 0.02 * share.mean())


@pytest.mark.parametrize(
    "weights", [(1, 2), (1, 2, 3, 4), (65_535, 1), (100, 99, 1), (1000, 1000, 10)]
)
def test_shares_follow_weights(weights):
    candidates = [Candidate(n + 1, f"b{n}", weight) for n, weight in enumerate(weights)]
    share = shares(build(candidates, SIZE, SEED, fill), len(weights))
    wanted = np.array(weights) / sum(weights) * SIZE
    assert np.abs(share - wanted).max() <= 2
    assert share.sum() == SIZE


@pytest.mark.parametrize("count", [3, 10, 100])
def test_losing_one_disturbs_few_others(count):
    whole = build(backends(count), SIZE, SEED, fill)
    less = build(backends(count)[:-1], SIZE, SEED, fill)
    others = whole != count
    moved = (whole[others] != less[others]).mean()
    assert moved < 0.02 if count < 100 else moved < 0.03
    assert (less[~others] != count).all()


def test_a_little_weight_moves_little():
    light = backends(9, weight=10)
    heavy = [*light[:-1], Candidate(9, light[-1].identity, 11)]
    moved = build(light, SIZE, SEED, fill) != build(heavy, SIZE, SEED, fill)
    assert moved.mean() < 0.05  # a hundredth at least must


def test_order_and_ids_do_not_matter():
    one = build(backends(20), SIZE, SEED, fill)
    other = build(
        [Candidate(c.id + 100, c.identity, 1) for c in reversed(backends(20))], SIZE, SEED, fill
    )
    assert (other == one + 100).all()


def test_another_seed_is_another_table():
    same = build(backends(20), SIZE, SEED, fill) == build(backends(20), SIZE, bytes(32), fill)
    assert 0.03 < same.mean() < 0.07  # one in 20 by chance


def test_equal_weights_are_weight_one():
    assert (build(backends(7, 5), SIZE, SEED, fill) == build(backends(7), SIZE, SEED, fill)).all()
