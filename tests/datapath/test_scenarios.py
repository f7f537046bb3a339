# SPDX-License-Identifier: Apache-2.0
"""Every scenario file on every driver."""

from pathlib import Path

import pytest

from tests.support import scenario
from tests.support.machine import Machine

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.scn"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, machine: Machine, request: pytest.FixtureRequest) -> None:
    told = scenario.read(path)
    actual = scenario.run(machine, told)
    if request.config.getoption("--rewrite-scenarios"):
        scenario.rewrite(path, told, actual)
        return
    difference = scenario.difference(path, told, actual)
    if difference:
        pytest.fail(difference, pytrace=False)


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 30
