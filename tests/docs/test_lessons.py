# SPDX-License-Identifier: Apache-2.0
"""Every lesson of docs/tutorial is carried out, and shows what it says (tests/support/lesson.py)."""

import os
import sys
from pathlib import Path

import pytest

from evener.datapath.probe import probe
from evener.lab import topology
from tests.support import lesson
from tests.support.dpdk import needs_dpdk

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "docs/tutorial").glob("[0-9]*.md"))


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.skipif(not probe().lab, reason="; ".join(probe().problems()))
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[needs_dpdk] if "dpdk" in p.stem else []) for p in LESSONS],
    ids=[page.stem for page in LESSONS],
)
def test_lesson(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
    if request.config.getoption("--rewrite-lessons"):
        rewrite(page, tmp_path, environment)
        return
    run = lesson.Lesson(page, topology.unique_name(), tmp_path, environment)
    try:
        run.run()
    finally:
        topology.down(run.name)
    if run.differences:
        pytest.fail("\n".join(run.differences), pytrace=False)


def rewrite(page: Path, folder: Path, environment: dict[str, str]) -> None:
    for _ in range(10):
        run = lesson.Lesson(page, topology.unique_name(), folder, environment)
        try:
            run.run(rewriting=True)
        except lesson.OtherBackendError:
            continue
        finally:
            topology.down(run.name)
        page.write_text(run.rewritten())
        return
    pytest.fail("ten labs in a row chose h3")


def test_there_are_lessons() -> None:
    assert LESSONS


def test_shapes() -> None:
    assert lesson.shape("tcp  10.0.0.1:34952   59  web/h2") == lesson.shape(
        "tcp 10.0.0.1:1 7 web/h3"
    )
    assert lesson.shape("hash 1976cbed89df5d08") == lesson.shape("hash 00000000000000ff")
    assert lesson.shape("FORWARD") != lesson.shape("FORWARD_NEW")
    assert lesson.kept(["a 1", "...", "c"], ["a 2", "b", "b", "c"]) == ["a 2", "...", "c"]
    assert lesson.kept(["a", "c"], ["a", "b", "c"]) is None


def test_exchange() -> None:
    text = "evener lab exec h2 -- nc; web/h3 10.0.0.2:8080 10.0.0.20 de:ad:be:ef:00:03"
    swapped = "evener lab exec h3 -- nc; web/h2 10.0.0.3:8080 10.0.0.20 de:ad:be:ef:00:02"
    assert lesson.exchanged(text) == swapped


def test_segments_that_are_not_there_twice() -> None:
    twice = [
        "IP 10.0.0.1.1 > 10.0.0.10.8080: Flags [S], seq 5",
        "IP 10.0.0.10.1 > 10.0.0.2.8080: Flags [S], seq 5",
    ]
    once = ["IP 10.0.0.1.1 > 10.0.0.10.8080: Flags [.], ack 6"]
    assert lesson.odd_segments(twice) == []
    assert lesson.odd_segments([*twice, *once]) == once
