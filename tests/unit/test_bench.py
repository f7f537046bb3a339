# SPDX-License-Identifier: Apache-2.0
"""The benchmark works and measures what it says. Never how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evener.bench import elf, measure, t5_wire
from evener.datapath import xdp
from evener.errors import DatapathError
from tests.support import fake_worker
from tests.support.bpf import needs_bpf
from tests.support.dpdk_worker import build
from tests.support.running import wait_until

WORDS = "import sys\nsys.stderr.write('many words\\n' * 100_000)\nsys.stderr.flush()\n"
"""The beginning of a program that says more than a pipe holds."""
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
REASONS = {"forward": "FORWARD", "reply": "REPLY", "new": "FORWARD_NEW"}


@needs_bpf
def test_quick_bench_measures_what_its_cases_are_called() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "evener.bench", "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode in (0, 1), run.stderr
    report = json.loads(run.stdout)
    assert (report["version"], report["tier"]) == (1, "T1")
    assert {figure["name"] for figure in report["figures"]} >= {"bytes per flow", "instructions"}
    cases = {case["name"]: case for case in report["cases"]}
    assert {"empty program", "reflector", "new, fresh table", "new, aged table"} <= set(cases)
    assert {"forward 1", "forward 1k", "reply 1k", "forward 1k, serialised"} <= set(cases)
    for name, case in cases.items():
        expected = REASONS.get(name.split()[0].rstrip(","))
        if expected is None:
            assert case["met"] == {}, name
        else:
            assert case["met"][expected] >= 0.999 * case["packets"], (name, case["met"])
            assert sum(case["met"].values()) == case["packets"], name
    assert report["records_used_before"] > 0.99


@needs_bpf
@pytest.mark.netns
def test_quick_bench_of_the_dpdk_form() -> None:
    build("evener-dpdk")
    run = subprocess.run(
        [sys.executable, "-m", "evener.bench", "--tier", "T5", "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode in (0, 1), run.stderr
    report = json.loads(run.stdout)
    assert (report["version"], report["tier"]) == (1, "T5")
    names = [row["name"] for row in report["rows"]]
    for name in ("forward 1k", "reply 1k", "forward 20k", "reply 20k", "instructions, forward"):
        assert name in names
    assert all(row["value"] > 0 for row in report["rows"])
    if len(os.sched_getaffinity(0)) > 1:
        assert any(name.startswith("forward 100, share") for name in names)


def test_comparison_takes_turns_and_subtracts() -> None:
    calls = []

    def taking(name: str, ns: float) -> float:
        calls.append(name)
        return ns

    found = measure.compare(
        lambda: taking("A", 50.0), lambda: taking("B", 20.0), pairs=3, warm_up=2, cpu=0
    )
    assert calls == ["A", "B"] * 5
    assert (found.net.median, found.best, found.null.relative) == (30.0, 30.0, 0.0)


def test_doubts_name_a_null_target_that_varies() -> None:
    quiet = measure.Spread.of([20.0, 20.1, 20.2])
    noisy = measure.Spread.of([20.0, 22.0, 30.0])
    common = {"net": quiet, "gross": quiet, "best": 0.0, "pairs": 3}
    assert measure.Comparison(null=quiet, steal=0.0, **common).doubts() == []
    assert len(measure.Comparison(null=noisy, steal=0.02, **common).doubts()) == 2


def test_lengths_of_functions_are_read_from_the_object() -> None:
    if not Path(xdp.OBJECT).exists():
        pytest.skip("the XDP program is not built")
    lengths = elf.functions(xdp.OBJECT)
    assert lengths["lb_xdp"] > 100
    assert lengths["lb_clock"] < 20


def program(path: Path, body: str) -> None:
    path.write_text(f"#!{sys.executable}\n{WORDS}{body}")
    path.chmod(0o755)


def test_a_worker_that_says_much_does_not_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t5_wire, "PROGRAMS", tmp_path)
    program(tmp_path / "evener-dpdk", Path(fake_worker.__file__).read_text())
    with t5_wire._worker("evener-none", tmp_path, 10, 0):
        pass
    program(tmp_path / "evener-dpdk", "sys.exit('no such device')")
    with (
        pytest.raises(DatapathError, match=r"(?s)ended .*evener-dpdk.*many words\nno such device$"),
        t5_wire._worker("evener-none", tmp_path, 10, 0),
    ):
        raise AssertionError("it is not ready")


def test_macswap_that_says_much_does_not_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testpmd, started = tmp_path / "testpmd", []
    monkeypatch.setattr(t5_wire, "testpmd", lambda: str(testpmd))

    def popen(_: str, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, **more))
        return started[0]

    def no_packet() -> None:
        wait_until(
            lambda: os.waitid(os.P_PID, started[0].pid, ENDED) is not None,
            "the end of its words",
        )
        raise DatapathError("no packet came back", "the wire of the bench")

    monkeypatch.setattr(t5_wire.namespaces, "popen", popen)
    program(testpmd, "sys.exit('no such device')")
    with (
        pytest.raises(DatapathError, match=r"(?s)of the bench ended .*no such device$"),
        t5_wire._macswap("evener-none", 0),
    ):
        no_packet()
