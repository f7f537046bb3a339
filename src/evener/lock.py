# SPDX-License-Identifier: Apache-2.0
"""Files that one process has locked (flock(2)) for as long as it lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO


def locked(path: Path) -> TextIO:
    """The file at `path`, locked; BlockingIOError: somebody else has it.

    Only its owner can open it: whoever can open a file can lock it, also one that he may only read. Whoever
    ends removes it, so what was opened may have no name any more when the lock is had: then a third process
    would lock a file of its own.
    """
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
