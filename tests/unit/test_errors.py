# SPDX-License-Identifier: Apache-2.0
"""Errors say what is so, where, what to do; clocks only go forward."""

import pickle

import pytest

from evener import errors
from evener.clock import Clock, ManualClock, MonotonicClock


def test_text_leaves_out_what_is_not_known() -> None:
    assert str(errors.EvenerError("down")) == "down"
    assert str(errors.EvenerError("down", "eth1")) == "down (eth1)"
    assert str(errors.EvenerError("down", do="set it up")) == "down: set it up"
    assert str(errors.EvenerError("down", "eth1", "set it up")) == "down (eth1): set it up"


def test_every_class_has_its_own_exit_code() -> None:
    assert {code: cls.__name__ for code, cls in errors.by_exit_code().items()} == {
        1: "EvenerError",
        3: "ConfigError",
        4: "MachineError",
        5: "InterfaceError",
        6: "DaemonError",
        7: "DatapathError",
    }


def test_every_exit_code_is_in_the_tree() -> None:
    from evener.lab import stop  # has a refinement of its own

    with_code = {c for c in errors.EvenerError.__subclasses__() if "exit_code" in vars(c)}
    assert with_code < set(errors.by_exit_code().values())
    assert stop.StoppedError not in with_code


def test_problems_are_sorted_and_written_one_per_line() -> None:
    later = errors.ProblemKind.UNAVAILABLE
    error = errors.ConfigError(
        [
            errors.Problem(9, "service.web.mode", 'mode "dsr" is not here', "full-nat", later),
            errors.Problem(2, "", "not TOML", "TOML 1.0", column=7),
        ],
        "lb.toml",
    )
    assert str(error).splitlines() == [
        "2 problems in the configuration (lb.toml):",
        "  lb.toml:2:7: not TOML; allowed: TOML 1.0",
        '  lb.toml:9: service.web.mode: mode "dsr" is not here; available: full-nat',
    ]


def test_a_config_error_survives_the_way_to_another_process() -> None:
    error = errors.ConfigError([errors.Problem(1, "a", "b", "c")], "lb.toml")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.problems, copy.source, str(copy)) == (error.problems, "lb.toml", str(error))


def test_the_monotonic_clock_never_goes_back() -> None:
    clock: Clock = MonotonicClock()
    times = [clock.now() for _ in range(100)]
    assert times == sorted(times)


def test_the_manual_clock_moves_only_forward() -> None:
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert clock.now() == 6.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
