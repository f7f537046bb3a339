# SPDX-License-Identifier: Apache-2.0
"""The balancer by itself, beside a bridge that the user has made: what `evener dpdk` starts.

     the user's namespace                    a namespace of its own: evener-dpdk
     bridge --- TAP (net_tap's iface) ==== worker ==== TAP eth0, 10.0.0.10/24
                                              |
                                           daemon

The exception path has a namespace of its own so that the user's kernel and the balancer's address do
not answer each other's ARP, and so that nothing of the user's routes changes.

What is about to be made is first written down in /run/evener/NAME.json, so that the next start can clean
up after one that was killed, whenever that was.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evener.api.client import Client
from evener.datapath.dpdk_devices import check_free
from evener.datapath.dpdk_share import holder
from evener.datapath.tap import Tap
from evener.errors import EvenerError, MachineError
from evener.instance import RUN_FOLDER, Instance
from evener.lab import arguments, balancer, leftovers, namespaces, state, tap, topology
from evener.lock import locked
from evener.model import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "evener-dpdk"
ADDRESS = IPv4Interface("10.0.0.10/24")
_LOOK_S = 0.05
_TURN_S = 60.0
_END_S = 10.0
"""How long the daemon may take to end; DPDK gives its devices back meanwhile. And how long another start
may take to clean up after one that was killed."""


@dataclass(slots=True)
class Standalone:
    """A balancer that runs. namespace: its own; taps: those that were made for it;
    unanswered: VIPs that it has not for an address."""

    namespace: str
    config: Path
    client: Client
    process: subprocess.Popen[bytes]
    taps: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


@contextmanager
def running(
    eal: Sequence[str],
    text: str | None,
    source: str,
    addresses: Sequence[IPv4Interface],
    check: Callable[[], None],
) -> Iterator[Standalone]:
    """Make all of it, and take it away at the end.

    :param eal: DPDK's arguments, and behind "--" the worker's, to which this namespace is added
    :param text: a configuration; see arguments.configuration. Errors call it `source`. None for the scenario:
        10.0.0.10:8080, served by 10.0.0.2 and 10.0.0.3
    :param addresses: of the exception path's interfaces, in their order
    :param check: called while waiting; may raise

    Raises MachineError without the worker or root, ConfigError for a bad text, InterfaceError when another
    worker has an interface, EvenerError when the daemon does not start; then nothing stays.
    """
    balancer.require(Driver.DPDK)
    if os.geteuid() != 0:
        raise MachineError("packets are handled by root", NAME, "run it with sudo")
    with ExitStack() as stack:
        name, record = _claim(stack, check)
        home = RUN_FOLDER / f"{name}.netns"
        wanted = arguments.configuration(text, eal, home, source)
        if len(addresses) > len(wanted.interfaces):
            raise arguments.CommandLineError(
                f"there are more addresses than devices, {len(addresses)} and {len(wanted.interfaces)}",
                "--address",
                "give one for each device",
            )
        turn = _Turn()
        stack.callback(turn.release)
        turn.take(check)
        owner = state.identify([os.getpid()])
        note: dict[str, Any] = {"owner": owner, "home": str(home), "taps": [], "processes": []}
        stack.callback(_clean, name, record, note)
        _write(record, note)
        # A name for this namespace that outlives this process: a worker may be started again later, and
        # the next start looks for TAPs there.
        namespaces.bind(home)
        check_free(wanted.eal)
        for device in arguments.taps(wanted.eal):
            if tap.exists(device):
                Tap.open(device).close()  # says why if it will not do
                continue
            note["taps"].append(device)
            _write(record, note)
            tap.make(device)
        note["inode"] = None  # ours, whichever it will be
        _write(record, note)
        try:
            namespaces.create(name)
        except EvenerError:  # somebody else's, or none
            del note["inode"]
            raise
        note["inode"] = namespaces.inode(name)
        _write(record, note)
        namespaces.in_namespace(name, lambda: _exception_path(wanted.interfaces, addresses))
        config = RUN_FOLDER / f"{name}.toml"
        config.write_text(wanted.text)
        process = namespaces.popen(
            name, [sys.executable, "-m", "evener.daemon", config], start_new_session=True
        )
        note["processes"] = state.identify([process.pid])
        _write(record, note)
        stack.callback(_end, process)
        client = Client(namespaces.in_namespace(name, Instance.here).socket)
        balancer.wait_answer(client, process, check, name, lambda: "it has said why")
        turn.release()
        stack.callback(turn.take, lambda: None)
        unanswered = arguments.unanswered(wanted, addresses)
        yield Standalone(name, config, client, process, note["taps"], unanswered)


def _claim(stack: ExitStack, check: Callable[[], None]) -> tuple[str, Path]:
    """A name that nobody uses, locked for as long as the stack is; first, what those have left that were
    killed is removed, or has been removed by another start."""
    RUN_FOLDER.mkdir(mode=0o755, exist_ok=True)
    known = (path for path in RUN_FOLDER.glob(f"{NAME}*") if path.suffix in {".json", ".lock"})
    for record in sorted({path.with_suffix(".json") for path in known}):
        end = time.monotonic() + _END_S
        with ExitStack() as mine, contextlib.suppress(FileNotFoundError, ValueError):
            while not (locked := _lock(record.with_suffix(".lock"), mine)):
                if not _orphaned(record) or time.monotonic() > end:
                    break
                check()
                time.sleep(_LOOK_S)
            if locked:
                _unfinished(record).unlink(missing_ok=True)
                _clean(record.stem, record, json.loads(record.read_text()))
    for name in (NAME, f"{NAME}-{os.getpid()}"):
        record = RUN_FOLDER / f"{name}.json"
        taken = name in namespaces.names() or record.exists()
        if not taken and _lock(record.with_suffix(".lock"), stack):
            return name, record
    raise EvenerError("the names of the namespace are taken", NAME, f"ip netns del {NAME}")


class _Turn:
    """Starts and ends in one namespace take turns. Else two could find an interface free, and the one whose
    worker comes too late would remove it, or a start would count on a TAP that an end is about to remove."""

    def __init__(self) -> None:
        self._path = RUN_FOLDER / f"{Instance.here().name}.turn"
        self._mine = ExitStack()

    def take(self, check: Callable[[], None]) -> None:
        """Wait for it. check: called while waiting; may raise. EvenerError: somebody does not give it up."""
        began, told = time.monotonic(), False
        while not _lock(self._path, self._mine):
            check()
            waited = time.monotonic() - began
            if waited > _END_S and not told:
                told = True
                print(
                    f"evener: process {holder(self._path)} starts or ends here, too",
                    file=sys.stderr,
                )
            if waited > _TURN_S:
                raise EvenerError(
                    "another evener dpdk has been starting or ending here for a long time",
                    f"process {holder(self._path)}",
                    "look what it waits for, or end it",
                )
            time.sleep(_LOOK_S)

    def release(self) -> None:
        """Let the next one go on."""
        self._mine.close()


def _lock(path: Path, stack: ExitStack) -> bool:
    """Lock a file for as long as the stack is, which removes it; False if somebody else has it."""
    try:
        stack.enter_context(locked(path))
    except BlockingIOError:
        return False
    return True


def _orphaned(record: Path) -> bool:
    """Whether who wrote it is gone; whoever has locked it is cleaning up then."""
    owner: list[state.Process] = json.loads(record.read_text()).get("owner", [])
    return state.identify([process["pid"] for process in owner]) != owner


def _exception_path(interfaces: Sequence[str], addresses: Sequence[IPv4Interface]) -> None:
    """In the private namespace: the TAPs that carry addresses."""
    from pyroute2 import IPRoute

    topology.quieten()
    with IPRoute(ext_ack=True) as ip:
        ip.link("set", index=socket.if_nametoindex("lo"), state="up")
        for number, interface in enumerate(interfaces):
            index = tap.make(interface)
            if number < len(addresses):
                address = addresses[number]
                ip.link("set", index=index, address=topology.mac_of(address.ip))
                ip.addr(
                    "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
                )
            ip.link("set", index=index, state="up")


def _write(record: Path, note: dict[str, Any]) -> None:
    """By renaming a complete file into place."""
    _unfinished(record).write_text(json.dumps(note))
    _unfinished(record).replace(record)


def _unfinished(record: Path) -> Path:
    return record.with_suffix(".new")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)


def _clean(name: str, record: Path, note: dict[str, Any]) -> None:
    """Remove all that a note tells of; of a namespace only if it is still that one. The note stays for as
    long as TAPs do."""
    state.end_processes(note["processes"], 2.0)
    if "inode" in note and name in namespaces.names():
        if note["inode"] is None:  # killed while it was made: nothing has run there
            namespaces.delete(name)
        elif namespaces.inode(name) == note["inode"]:
            # One that was started just before the end is in no note.
            daemons = leftovers.daemons(Instance.of(note["inode"]))
            state.end_processes(state.identify(daemons), 2.0)
            leftovers.forget(name)
            namespaces.delete(name)
    if note["taps"]:
        try:
            namespaces.in_namespace(note["home"], lambda: _remove(note["taps"]))
        except (OSError, EvenerError):
            # Under `ip netns exec` the name was bound where only its own processes saw it.
            print(
                f"evener: {record} stays: the namespace of TAP {', '.join(note['taps'])} cannot be entered "
                "from here; delete the TAP there (ip link del), then that file",
                file=sys.stderr,
            )
            return
    namespaces.delete(note["home"])
    for path in (RUN_FOLDER / f"{name}.toml", record):
        path.unlink(missing_ok=True)


def _remove(taps: Sequence[str]) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for device in taps:
            if tap.exists(device):
                ip.link("del", index=socket.if_nametoindex(device))
