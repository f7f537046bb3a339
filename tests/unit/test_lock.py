# SPDX-License-Identifier: Apache-2.0
"""Files that one process has locked."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from evener.lock import locked


def test_one_has_it_and_only_its_owner_can_open_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with locked(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(BlockingIOError), locked(path):
            raise AssertionError("two have it")
    assert not path.exists()
    with locked(path):
        assert path.exists()


def test_one_that_its_owner_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while the one before ended, locked when its name was gone already."""
    path, flock, removed = tmp_path / "x.lock", fcntl.flock, []

    def late(handle: object, how: int) -> None:
        if not removed:
            path.unlink()
            removed.append(True)
        flock(handle, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path), pytest.raises(BlockingIOError), locked(path):
        raise AssertionError("two have it")
    assert removed
