# SPDX-License-Identifier: Apache-2.0
"""Files that one process has locked (flock(2)) for as long as it lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have the file at `path` locked, and remove it at the end; BlockingIOError: somebody else has it.

    Only its owner can open it: whoever can open a file can lock it, also one that he may only read.
    """
    with _open(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open(path: Path) -> TextIO:
    """The file, locked. What was opened may have no name any more when the lock is had: then a third process
    would lock a file of its own."""
    while True:
        handle = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle.fileno()).st_nlink:
                return handle
        except BaseException:
            handle.close()
            raise
        handle.close()
