# SPDX-License-Identifier: Apache-2.0
"""What outlives a daemon, and its namespace: pins in bpffs, files in /run/evener, DPDK's worker; and what
would keep a namespace alive: those who live in it.

All of the former is named after the namespace's number, which the kernel gives to another one later.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from evener.errors import EvenerError
from evener.instance import Instance
from evener.lab import namespaces, state
from evener.process import ancestry

if TYPE_CHECKING:
    from collections.abc import Sequence


def forget(namespace: str) -> None:
    """Remove all of it; EvenerError if a worker will not end."""
    instance = Instance.of(namespaces.inode(namespace))
    end_workers(instance)
    shutil.rmtree(instance.pins, ignore_errors=True)
    tables = [instance.tables.with_name(instance.tables.name + end) for end in ("", ".new", ".old")]
    held = instance.port("*")  # of workers that were killed
    for path in (instance.socket, instance.lock, *tables, *held.parent.glob(held.name)):
        path.unlink(missing_ok=True)


def inhabitants(names: Sequence[str]) -> list[state.Process]:
    """The processes that live in these namespaces, whoever started them, as `ip netns pids` finds them.

    Not those that only have a thread there, DPDK's workers, which end after their daemon, and this process
    and those it descends from: `evener lab down` may be typed in the lab itself.
    """
    homes = [(namespaces.DIRECTORY / name).stat() for name in names]
    spared = set(ancestry())
    for home in homes:
        spared.update(workers(Instance.of(home.st_ino)))
    found = []
    # Remembered first and looked at then: who has the number afterwards is told apart by the start.
    for process in state.identify([int(path.name) for path in Path("/proc").glob("[0-9]*")]):
        try:
            lives = Path(f"/proc/{process['pid']}/ns/net").stat()
        except OSError:  # it has just ended
            continue
        if process["pid"] not in spared and any(os.path.samestat(lives, home) for home in homes):
            found.append(process)
    return found


def workers(instance: Instance) -> list[int]:
    """The pids of DPDK workers that have this instance's tables open, by their command lines.

    A worker goes on without its daemon, so it may be nobody's child.
    """
    tables = os.fsencode(f"--tables={instance.tables}")
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if tables in words:
            found.append(int(path.parent.name))
    return found


def daemons(instance: Instance) -> list[int]:
    """The pids of those that hold this instance's lock: one, or none."""
    try:
        lock = instance.lock.stat()
    except FileNotFoundError:
        return []
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            # What is opened only to try the lock holds none.
            if os.path.samestat(path.stat(), lock) and "FLOCK" in _about(path).read_text():
                found.add(int(path.parts[2]))
        except OSError:  # it has just ended, or closed it
            continue
    return sorted(found)


def _about(descriptor: Path) -> Path:
    return descriptor.parents[1] / "fdinfo" / descriptor.name


def end_workers(instance: Instance, grace_s: float = 2.0) -> None:
    """End them: asked first, after `grace_s` seconds forced; EvenerError if one stays."""
    if left := state.end_processes(state.identify(workers(instance)), grace_s):
        raise EvenerError(f"{left} DPDK workers do not end", instance.name, "kill -9 them")
