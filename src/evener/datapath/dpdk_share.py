# SPDX-License-Identifier: Apache-2.0
"""The file that the daemon and the DPDK worker share: a head (drivers/dpdk/share.h), then the tables.

The daemon makes it, whole, under another name and moves it to its place. It outlives both: flows, ids and the
secret seed are in the tables, and a daemon or a worker that starts goes on with them.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from evener.errors import MachineError
from evener.tables.memory import (
    Array,
    Sizes,
    Tables,
    layout_digest,
    no_smaller,
    shapes,
    size_changes,
)

MAGIC: Final = b"evener-1"
VERSION: Final = 1
LANES: Final = 64
DEVICES: Final = 16
PAGE: Final = 4096
SECOND_NS: Final = 1_000_000_000

LANE: Final = np.dtype(
    [
        ("rounds", "<u8"), ("running", "<u4"), ("lcore", "<u4"), ("tx_full", "<u8"),
        ("to_kernel", "<u8"), ("from_kernel", "<u8"), ("kernel_full", "<u8"), ("too_long", "<u8"),
        ("in_pieces", "<u8"),
    ]
)  # fmt: skip
"""struct lb_lane."""
DEVICE: Final = np.dtype(
    [("imissed", "<u8"), ("ierrors", "<u8"), ("oerrors", "<u8"), ("rx_nombuf", "<u8")]
)
"""struct lb_device."""
KERNEL: Final = np.dtype(
    [("ifindex", "<u4"), ("worker", "<u4"), ("seen", "<u8"), ("missed", "<u8")]
)
"""struct lb_kernel_count."""
HEAD: Final = np.dtype(
    [
        ("magic", "S8"), ("version", "<u4"), ("layout", "<u4"), ("bytes", "<u8"), ("second_ns", "<u8"),
        ("sizes", "<u4", 9), ("worker", "<u4"), ("ready", "<u4"), ("lanes", "<u4"), ("offset", "<u8", 19),
        ("home", "u1", 16), ("reserved", "u1", 264), ("lane", LANE, LANES),
        ("device", DEVICE, DEVICES), ("link", "<u4", DEVICES), ("kernel", KERNEL, DEVICES),
    ]
)  # fmt: skip
"""struct lb_share."""
LINK_DOWN: Final = 1
"""LB_LINK_DOWN."""
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h; Linux 5.14
FIRST: Final = -(-HEAD.itemsize // PAGE) * PAGE
LANE_COUNTERS: Final = (
    "tx_full", "kernel_full", "too_long", "in_pieces", "to_kernel", "from_kernel",
)  # fmt: skip
_COUNTERS: Final = ("service_counters", "backend_counters", "reason_counters")


def offsets(sizes: Sizes) -> tuple[dict[str, int], int]:
    """Where each table begins, and how long the whole file is."""
    found, at = {}, FIRST
    for name, table in shapes(sizes).items():
        found[name] = at
        at += -(-table.nbytes // PAGE) * PAGE
    return found, at


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier daemon left: its file, or why that cannot be gone on with."""

    share: Share | None = None
    unfit: str = ""


class Share:
    """A mapped file; the mapping stays for as long as anybody has a view of it. `head` is one record of HEAD:
    what is written there, the worker reads."""

    def __init__(self, path: Path, descriptor: int, sizes: Sizes) -> None:
        self.path = path
        self.sizes = sizes
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        where, _ = offsets(sizes)
        view = memoryview(memory)
        self.head: Any = np.frombuffer(view[: HEAD.itemsize], HEAD)[0:1]
        self.tables = Tables(sizes, {n: view[at:] for n, at in where.items()})

    @classmethod
    def make(cls, path: Path, sizes: Sizes) -> Share:
        """A new file of empty tables. MachineError: there is no room for it."""
        where, length = offsets(sizes)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Not by writing to it later: a page that there is no room for would be SIGBUS then.
            os.posix_fallocate(descriptor, 0, length)
            share = cls(path, descriptor, sizes)
        except OSError as error:
            path.unlink()
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise too_little(length, 0, room(path.parent)) from None
        finally:
            os.close(descriptor)
        head = share.head
        head["version"], head["layout"] = VERSION, layout_digest()
        head["bytes"], head["second_ns"] = length, SECOND_NS
        head["sizes"] = astuple(sizes)
        head["offset"] = list(where.values())
        head["home"] = list(home())
        head["magic"] = MAGIC
        return share

    @classmethod
    def find(cls, path: Path) -> Found:
        """The file at `path` if its records are laid out as ours are."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return Found()
        try:
            raw = os.pread(descriptor, HEAD.itemsize, 0)
            unfit, sizes = _read_head(raw, os.fstat(descriptor).st_size)
            return Found(cls(path, descriptor, sizes) if sizes is not None else None, unfit)
        finally:
            os.close(descriptor)

    def take_place(self, path: Path) -> None:
        """Have the name `path`. What has it keeps another name, for `give_place_back`."""
        old_name(path).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.link(path, old_name(path))
        self.path.rename(path)
        self.path = path

    def give_place_back(self) -> None:
        """The opposite of `take_place`; nothing happens if there was nothing before."""
        if old_name(self.path).exists():
            unfinished = new_name(self.path)
            os.link(self.path, unfinished)
            old_name(self.path).rename(self.path)
            self.path = unfinished

    def inherit(self, old: Share) -> None:
        """Take the seed and the generation of another file, over which a worker may run: for the tables that
        are published before `copy_from`."""
        self.tables.settings["seed"] = old.tables.settings["seed"]
        self.tables.copies["generation"][self.tables.active] = old.tables.generation

    def copy_from(self, old: Share) -> None:
        """Go on with the flows, learned next hops and counters of another file, over which no worker runs
        any more."""
        for name in ("flows", "ports", "learned"):
            self.tables.raw(name)[:] = old.tables.raw(name)
        for name in _COUNTERS:
            mine, theirs = getattr(self.tables, name), getattr(old.tables, name)
            rows, columns = (min(a, b) for a, b in zip(mine.shape, theirs.shape, strict=True))
            mine[:rows, :columns] = theirs[:rows, :columns]
        for name in LANE_COUNTERS:
            self.lanes[name] = old.lanes[name]
        for name in ("device", "kernel"):
            self.head[name] = old.head[name]

    @property
    def lanes(self) -> Array:
        """All lanes there is room for, records of LANE."""
        lanes: Array = self.head["lane"][0]
        return lanes


def new_name(path: Path) -> Path:
    """Of the file that is to have the name `path`, until it is complete."""
    return path.with_name(f"{path.name}.new")


def old_name(path: Path) -> Path:
    """Of the file that had the name `path`, until a worker runs over the one that has it now."""
    return path.with_name(f"{path.name}.old")


def clear(path: Path) -> bool:
    """Take away what a daemon that did not come to its end left beside the file at `path`. If no worker ever
    ran over that one, the file before it has its name again: its flows are the newest. Whether it has."""
    old = old_name(path)
    back = old.exists() and not holder(path) and not _was_used(path)
    if back:
        old.rename(path)
    for left in (new_name(path), old):
        left.unlink(missing_ok=True)
    return back


def _was_used(path: Path) -> bool:
    """Whether a lane ever ran over the file at `path`: rounds are counted on by each worker, and no new file
    takes over those of another. (The mark `ready` goes when a worker ends.) True if it cannot be told."""
    head = _head(path)
    return head is None or bool(head["lane"]["rounds"].any())


def ready_mark(path: Path) -> Array | None:
    """The field `ready` of the file at `path`, to be read and written, whatever the tables are like. None:
    its head is another version's, or there is none."""
    head = _head(path)
    return None if head is None else head["ready"]


def _head(path: Path) -> Array | None:
    """One record of HEAD, mapped; None if it cannot be read."""
    try:
        with path.open("r+b") as file:
            head = np.frombuffer(mmap.mmap(file.fileno(), HEAD.itemsize), HEAD)
    except (FileNotFoundError, ValueError):  # ValueError: it is cut off
        return None
    return head if head["magic"][0] == MAGIC and head["version"][0] == VERSION else None


def _read_head(raw: bytes, length: int) -> tuple[str, Sizes | None]:
    """Why it is not ours, or its sizes. Nothing in it is believed that is not checked."""
    if len(raw) < HEAD.itemsize:
        return "it is cut off", None
    head = np.frombuffer(raw, HEAD)[0]
    if head["magic"] != MAGIC or head["version"] != VERSION or head["layout"] != layout_digest():
        return "its tables have another layout", None
    if head["home"].tobytes() != home():
        return "they are of another network namespace, which is gone", None
    sizes = Sizes(*(int(number) for number in head["sizes"]))
    sensible = all(0 < number <= 1 << 28 for number in astuple(sizes)) and sizes.cpus <= LANES
    where, whole = offsets(sizes) if sensible else ({}, 0)
    if (
        not sensible
        or (whole, whole) != (int(head["bytes"]), length)
        or list(where.values()) != head["offset"].tolist()
        or not head["second_ns"]
    ):
        return "it is damaged", None
    return "", sizes


def home() -> bytes:
    """16 bytes that are this network namespace's and, since the machine was started, no other's: the number
    that names the file is used again."""
    cookie = bytes(8)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked,
        contextlib.suppress(
            OSError
        ),  # an older kernel: only a new start of the machine is told apart
    ):
        cookie = asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")
    return cookie + bytes.fromhex(boot)[:8]


def grown(wanted: Sizes, old: Sizes) -> Sizes:
    """Sizes with room for what is wanted and for the ids and lanes that there are."""
    there = {field.name: getattr(old, field.name) for field in fields(Sizes)}
    return replace(no_smaller(wanted, there), cpus=max(wanted.cpus, old.cpus))


def why_grown(old: Sizes, new: Sizes) -> str:
    """What those sizes had no room for: half a sentence."""
    if size_changes(old, new) == ["cpus"]:
        return f"datapath.eal names {new.cpus} lcores, and its tables had room for {old.cpus}"
    return "its tables were too small"


def holder(path: Path) -> int:
    """The process that has the lock (flock) of the file at `path`; 0 if nobody has.

    The kernel tells in /proc/locks whose lock it is: "1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF".
    (To try to take it would tell, too, but a worker that wants it in that moment would be refused.)
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == file:
            return int(words[4])
    return 0


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that can be had: of memory, and in the file system of the shared file, which is mounted on
    `mount`."""

    memory: int
    disk: int
    mount: Path


def room(folder: Path) -> Room:
    """What is free on this machine now."""
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(s.split()[1]) << 10 for s in meminfo if s.startswith("MemAvailable:"))
    status = os.statvfs(folder)
    mount = next(path for path in (folder, *folder.parents) if path.is_mount())
    return Room(available, status.f_bavail * status.f_frsize, mount)


def check_room(tables: int, frames: int, free: Room, returned: int = 0) -> None:
    """MachineError if the tables and the worker's buffers do not fit; all in bytes.

    returned: buffers of another worker, which ends when the tables are there and before this one begins.
    """
    if tables + max(0, frames - returned) > free.memory or tables > free.disk:
        raise too_little(tables, frames, free, returned)


def too_little(tables: int, frames: int, free: Room, returned: int = 0) -> MachineError:
    """The one sentence about it."""
    kept = f" and DPDK's buffers {_mb(frames)}" if frames else ""
    kept += f", {_mb(returned)} of which the worker has that is to end" if kept and returned else ""
    larger = ""
    if free.disk < tables <= free.memory:
        larger = (
            f", or enlarge that file system: a tmpfs with `mount -o remount,size=90% {free.mount}`"
        )
    return MachineError(
        f"too little memory: the tables take {_mb(tables)}{kept}, "
        f"{_mb(free.memory)} are free, and {_mb(free.disk)} in the file system of {free.mount}",
        "datapath.flows",
        "lower it" + (", or -m in datapath.eal" if frames else "") + larger,
    )


def _mb(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
