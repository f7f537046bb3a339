# SPDX-License-Identifier: Apache-2.0
"""The folder of shared tables: a file system of its own, once, however many ask for it at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evener.datapath import hugefs
from tests.support.bpf import needs_namespaces


def mounts(folder: Path) -> int:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(folder) for line in lines)


@needs_namespaces
@pytest.mark.skipif(hugefs._has_own_mounts(), reason="in a mount namespace of its own it never is")
def test_it_is_mounted_once(tmp_path):
    folder = tmp_path / "tables"
    threads = [threading.Thread(target=hugefs.ensure, args=(folder,)) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert mounts(folder) == 1
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "x").write_text("here")
        assert (hugefs.ensure(folder) / "x").read_text() == "here"
    finally:
        if mounts(folder):
            subprocess.run(["umount", folder], check=True)


@needs_namespaces
def test_not_where_nobody_else_would_see_it(tmp_path):
    folder = tmp_path / "tables"
    script = f"""
from pathlib import Path
from evener.datapath import hugefs
folder = hugefs.ensure(Path({str(folder)!r}))
assert folder.is_dir() and not folder.is_mount()
"""
    subprocess.run(["unshare", "--mount", sys.executable, "-c", script], check=True)


def test_what_is_there_is_never_hidden(tmp_path):
    (tmp_path / "x").write_text("here")
    assert (hugefs.ensure(tmp_path) / "x").read_text() == "here"
    assert mounts(tmp_path) == 0
