# SPDX-License-Identifier: Apache-2.0
"""Where shared tables lie: a tmpfs with transparent huge pages.

Each packet of many flows reads a line of its own. With pages of 4 KiB it needs a line of a page table,
too. And on a disk, which /run is on some machines, every counter would be written back again and again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from evener.datapath.libbpf import libc
from evener.process import ancestry

_OPTIONS = (b"mode=0700,huge=within_size", b"mode=0700")  # the second: a kernel without huge pages


def ensure(folder: Path) -> Path:
    """Make `folder`, and mount a tmpfs on it unless it has one; `folder`.

    It stays a plain folder where there are files in it already, where mounting is not allowed, and in a
    mount namespace of its own (`ip netns exec` makes one), whose mounts nobody else would see: the tables of
    one daemon have to be found by the next.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two would mount one over the other
        if not folder.is_mount() and not any(folder.iterdir()) and not _has_own_mounts():
            for options in _OPTIONS:
                if libc().mount(b"evener", os.fsencode(folder), b"tmpfs", 0, options) == 0:
                    break
    finally:
        os.close(descriptor)
    return folder


def _has_own_mounts() -> bool:
    """Whether a process that this one descends from is in another mount namespace. Those that may not be
    looked at, such as a container's first one, are taken to be in ours."""
    own = Path("/proc/self/ns/mnt").stat().st_ino
    try:
        return any(Path(f"/proc/{pid}/ns/mnt").stat().st_ino != own for pid in ancestry())
    except OSError:
        return False
