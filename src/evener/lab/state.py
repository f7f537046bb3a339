# SPDX-License-Identifier: Apache-2.0
"""What is remembered about a lab between commands: /run/evener/lab-NAME.json, readable by its owner
only.

    {"name": "demo", "ready": true, "driver": "xdp", "device": "net_tap", "hosts": [...],
     "processes": [{"pid": 4711, "started": 123456}]}

A process is remembered with the time of its start (clock ticks since boot): the kernel uses pids
again, and a lab must never kill a stranger. Every change is made under a lock on the directory and
by renaming a complete file into place.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evener.errors import EvenerError
from evener.process import fields

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path("/run/evener")

Content = dict[str, Any]
Process = dict[str, int]


def names() -> list[str]:
    """The labs that a state is kept of."""
    return sorted(path.stem.removeprefix("lab-") for path in DIRECTORY.glob("lab-*.json"))


def read(name: str) -> Content | None:
    """What is remembered about a lab, None if nothing."""
    try:
        content: Content = json.loads(_path(name).read_text())
    except FileNotFoundError:
        return None
    return content


def begin(name: str, hosts: list[dict[str, str]], driver: str, device: str) -> None:
    """Remember a lab that is about to be built; EvenerError when there is one of this name."""
    with _locked():
        if _path(name).exists():
            raise EvenerError(
                f"lab '{name}' is there already", str(_path(name)), f"evener lab down --name {name}"
            )
        about = {"name": name, "ready": False, "driver": driver, "device": device}
        _write(name, {**about, "hosts": hosts, "processes": []})


def finish(name: str) -> None:
    """Remember that the building is complete."""
    with _locked():
        _write(name, {**_must_read(name), "ready": True})


def add_process(name: str, pid: int) -> None:
    """Remember a process that has to go with the lab; one that is gone already is left out."""
    new = identify([pid])
    if not new:
        return
    with _locked():
        content = _must_read(name)
        alive = [p for p in content["processes"] if _start_time(p["pid"]) == p["started"]]
        _write(name, {**content, "processes": [*alive, *new]})


def kill_processes(name: str, grace_s: float = 2.0) -> None:
    """End the remembered processes of a lab: asked first, after `grace_s` seconds forced."""
    content = read(name)
    if content is not None:
        must_end(name, content["processes"], grace_s)


def must_end(name: str, processes: list[Process], grace_s: float = 2.0) -> None:
    """End processes of a lab, as `end_processes` does; EvenerError if one stays."""
    if left := end_processes(processes, grace_s):
        raise EvenerError(
            f"{left} processes of lab '{name}' do not end", "", f"evener lab down --name {name}"
        )


def identify(pids: list[int]) -> list[Process]:
    """Each process as it is remembered; those that are gone are left out."""
    found = ((pid, _start_time(pid)) for pid in pids)
    return [{"pid": pid, "started": started} for pid, started in found if started is not None]


def end_processes(processes: list[Process], grace_s: float) -> int:
    """End processes: asked first, after `grace_s` seconds forced; how many are still there."""
    with _handles(processes) as handles:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for handle in handles:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal_number)
            handles = _wait(handles, grace_s)
            if not handles:
                break
        return len(handles)


def remove(name: str) -> None:
    """Forget a lab."""
    for path in (config_file(name), log_file(name), _path(name)):
        path.unlink(missing_ok=True)


def config_file(name: str) -> Path:
    """Where a lab's daemon has its configuration, unless it was given one."""
    return DIRECTORY / f"lab-{name}.toml"


def log_file(name: str) -> Path:
    """Where a lab's daemon writes what it has to say."""
    return DIRECTORY / f"lab-{name}.log"


def _path(name: str) -> Path:
    return DIRECTORY / f"lab-{name}.json"


@contextmanager
def _locked() -> Iterator[None]:
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _must_read(name: str) -> Content:
    content = read(name)
    if content is None:
        raise EvenerError(f"no lab '{name}'", str(_path(name)), f"evener lab up --name {name}")
    return content


def _write(name: str, content: Content) -> None:
    new = _path(name).with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    with new.open("w") as file:
        json.dump(content, file, indent=1)
    new.replace(_path(name))


def _start_time(pid: int) -> int | None:
    """When a process started, None when it is gone."""
    told = fields(pid)
    return int(told[19]) if told else None


@contextmanager
def _handles(processes: list[Process]) -> Iterator[list[int]]:
    """Open pidfds of those processes that are still the ones remembered: a pidfd never turns into
    another process.
    """
    opened = []
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(process["pid"])
                opened.append((handle, process))
        yield [
            handle
            for handle, process in opened
            if _start_time(process["pid"]) == process["started"]
        ]
    finally:
        for handle, _ in opened:
            os.close(handle)


def _wait(handles: list[int], wait_s: float) -> list[int]:
    """Wait for processes to end; those that have not."""
    left = set(handles)
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    end = time.monotonic() + wait_s
    while left and (remaining := end - time.monotonic()) > 0:
        for handle, _ in poll.poll(remaining * 1000):
            poll.unregister(handle)
            left.discard(handle)
    return sorted(left)
