# SPDX-License-Identifier: Apache-2.0
"""What `evener dpdk` writes down, and what it makes of the notes of others."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evener.api.client import Client
from evener.cli import dpdk
from evener.errors import EvenerError
from evener.lab import balancer, standalone, state
from evener.lab.stop import StoppedError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(standalone, "RUN_FOLDER", tmp_path)
    monkeypatch.setattr(standalone.namespaces, "DIRECTORY", tmp_path / "netns")
    return tmp_path


def gone() -> list[state.Process]:
    """A process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        found = state.identify([process.pid])
        process.kill()
    return found


def write(folder: Path, **note: Any) -> Path:
    record = folder / "evener-dpdk.json"
    home = str(folder / "evener-dpdk.netns")
    whole = {"owner": gone(), "home": home, "taps": [], "processes": [], **note}
    standalone._write(record, whole)
    return record


def claim() -> str:
    with ExitStack() as stack:
        return standalone._claim(stack, lambda: None)[0]


def test_a_note_is_whole_or_not_there(folder: Path) -> None:
    record = write(folder)
    assert json.loads(record.read_text())["taps"] == []
    assert list(folder.iterdir()) == [record]


def test_what_was_never_written_to_its_end_goes(folder: Path) -> None:
    (folder / "evener-dpdk-4711.lock").touch()
    (folder / "evener-dpdk-4711.new").write_text('{"ta')
    assert claim() == "evener-dpdk"
    assert list(folder.iterdir()) == []


def test_a_note_stays_while_its_namespace_cannot_be_entered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write(folder, taps=["tapdpdk"])
    (folder / "evener-dpdk.netns").touch()  # as a bind in another mount namespace is seen
    for _ in range(2):
        assert claim() == f"evener-dpdk-{os.getpid()}"
        said = capsys.readouterr().err
        assert f"evener: {record} stays: the namespace of TAP tapdpdk cannot be entered" in said
        assert said.count("\n") == 1
    assert json.loads(record.read_text())["taps"] == ["tapdpdk"]
    record.unlink()
    assert claim() == "evener-dpdk"


def test_another_start_that_is_cleaning_up_is_waited_for(folder: Path) -> None:
    record = write(folder)
    lock = (folder / "evener-dpdk.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def clean() -> None:
        time.sleep(0.3)
        record.unlink()
        (folder / "evener-dpdk.lock").unlink()
        lock.close()

    other = threading.Thread(target=clean)
    other.start()
    claim()
    assert not record.exists()
    other.join()


def test_starts_in_one_namespace_take_turns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the one before is ready or gone; a signal ends the wait, and so does time."""
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise StoppedError(signal.SIGINT)

    first, second = standalone._Turn(), standalone._Turn()
    first.take(check)
    with pytest.raises(StoppedError):
        second.take(check)
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    monkeypatch.setattr(standalone, "_END_S", 0.0)
    monkeypatch.setattr(standalone, "_TURN_S", 0.1)
    says = f"process {os.getpid()}"
    with pytest.raises(EvenerError, match=rf"starting or ending here .* \({says}\): look"):
        second.take(lambda: None)
    assert capsys.readouterr().err == f"evener: {says} starts or ends here, too\n"
    first.release()
    second.take(lambda: None)
    second.release()
    assert list(folder.iterdir()) == []


def test_one_that_runs_is_not_waited_for(folder: Path) -> None:
    write(folder, owner=state.identify([os.getpid()]))
    with (folder / "evener-dpdk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        assert claim() == f"evener-dpdk-{os.getpid()}"
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("code", "ended", "ours"),
    [
        (-9, "was killed \\(SIGKILL\\)", 7),
        (1, "ended with exit code 1", 1),
        (4, "ended with exit code 4", 4),
    ],
)
def test_how_a_daemon_ended(code: int, ended: str, ours: int) -> None:
    process: Any = SimpleNamespace(poll=lambda: code)
    with pytest.raises(EvenerError, match=f"^the daemon {ended} \\(x\\): no luck$") as starting:
        balancer.wait_answer(Client(), process, lambda: None, "x", lambda: "no luck")
    running: Any = SimpleNamespace(process=process, namespace="x")
    with pytest.raises(EvenerError, match=f"^the daemon {ended} \\(x\\)$") as later:
        dpdk._check(running)
    assert starting.value.exit_code == later.value.exit_code == ours
