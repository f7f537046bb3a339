# SPDX-License-Identifier: Apache-2.0
"""The shared file: its layout is the worker's, what is written is found, what does not fit is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pytest

from evener import netns
from evener.datapath import dpdk_share
from evener.datapath.dpdk_share import DEVICE, FIRST, HEAD, KERNEL, LANE, PAGE, Room, Share
from evener.errors import MachineError
from evener.tables.memory import Sizes, layout_digest, shapes, total_bytes
from tests.support.bpf import ROOT, needs_namespaces

SIZES = Sizes(
    cpus=2, index_groups=64, services=64, backends=256, snats=256, neighbours=64, tables=4,
    flow_groups=64, port_tables=4,
)  # fmt: skip


RUN = Path("/run/x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.tables"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_head_is_the_workers(tmp_path: Path) -> None:
    lines = []
    structs = {"lb_share": HEAD, "lb_lane": LANE, "lb_device": DEVICE, "lb_kernel_count": KERNEL}
    for struct_name, dtype in structs.items():
        lines += [f"sizeof(struct {struct_name})"]
        lines += [f"__builtin_offsetof(struct {struct_name}, {name})" for name in dtype.names or ()]
    lines += [
        "LB_SHARE_VERSION",
        "LB_SHARE_LANES",
        "LB_SHARE_DEVICES",
        "LB_SHARE_PAGE",
        "LB_SHARE_TABLES",
        "LB_LINK_DOWN",
    ]
    lines += ["LB_SHARE_SIZES"]
    sizes = [{"tables": "maglev_tables"}.get(field.name, field.name) for field in fields(Sizes)]
    lines += [f"LB_SHARE_{name.upper()}" for name in sizes]
    lines += [f"LB_TABLE_{name.upper()}" for name in shapes(SIZES)]
    source = tmp_path / "head.c"
    body = "".join(f'printf("%llu\\n", (unsigned long long){line});\n' for line in lines)
    source.write_text(
        f'#include <stdio.h>\n#include "share.h"\nint main(void) {{ puts(LB_SHARE_MAGIC);\n{body}}}\n'
    )
    include = [f"-I{ROOT / folder}" for folder in ("core", "drivers/dpdk")]
    subprocess.run(["cc", *include, source, "-o", tmp_path / "head"], check=True)
    run = subprocess.run([tmp_path / "head"], capture_output=True, text=True, check=True)
    magic, *numbers = run.stdout.split()
    assert magic.encode() == dpdk_share.MAGIC
    expected = []
    for dtype in structs.values():
        assert dtype.fields is not None
        expected += [dtype.itemsize, *(entry[1] for entry in dtype.fields.values())]
    tables = len(shapes(SIZES))
    expected += [
        dpdk_share.VERSION,
        dpdk_share.LANES,
        dpdk_share.DEVICES,
        PAGE,
        tables,
        dpdk_share.LINK_DOWN,
        9,
        *range(9),
        *range(tables),
    ]
    assert list(map(int, numbers)) == expected


def test_a_round_trip(path: Path) -> None:
    made = Share.make(path, SIZES)
    for name in shapes(SIZES):
        made.tables.raw(name).view("u1")[-1] = 7  # the last byte of each: none lies over another
    made.head["ready"] = 1
    found = Share.find(path).share
    assert found is not None
    assert (found.sizes, found.head["ready"][0]) == (SIZES, 1)
    for name in shapes(SIZES):
        raw = found.tables.raw(name).view("u1").reshape(-1)
        assert (raw[-1], int(raw.sum())) == (7, 7), name
    assert path.stat().st_mode & 0o777 == 0o600
    assert (
        path.stat().st_blocks * 512 >= path.stat().st_size
    )  # no page is to be found later, or not


def test_every_table_is_in_pages_of_its_own(path: Path) -> None:
    head = Share.make(path, SIZES).head[0]
    where = head["offset"].tolist()
    ends = [at + t.nbytes for at, t in zip(where, shapes(SIZES).values(), strict=True)]
    assert where[0] == FIRST >= HEAD.itemsize
    assert all(at % PAGE == 0 for at in where)
    assert all(end <= following for end, following in zip(ends, where[1:], strict=False))
    assert head["bytes"] == path.stat().st_size >= max(ends)
    assert (head["layout"], tuple(head["sizes"])) == (layout_digest(), astuple(SIZES))


@needs_namespaces
def test_its_home_is_a_network_namespace() -> None:
    def elsewhere() -> bytes:
        if netns.libc.unshare(netns.CLONE_NEWNET) != 0:
            raise netns.os_error("unshare")
        return dpdk_share.home()

    homes = {dpdk_share.home(), netns.in_thread(elsewhere), netns.in_thread(elsewhere)}
    assert netns.in_thread(dpdk_share.home) in homes
    assert [len(home) for home in homes] == [16, 16, 16]


def test_there_is_none(path: Path) -> None:
    assert Share.find(path) == dpdk_share.Found()
    assert dpdk_share.holder(path) == 0


LAYOUT, DAMAGED = "its tables have another layout", "it is damaged"


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("magic", b"eveneR-1", LAYOUT),
        ("version", 2, LAYOUT),
        ("layout", 1, LAYOUT),
        ("home", 1, "they are of another network namespace, which is gone"),
        ("bytes", 8192, DAMAGED),
        ("second_ns", 0, DAMAGED),
        ("sizes", 0, DAMAGED),
        ("sizes", 65, DAMAGED),
        ("sizes", 0xFFFFFFFF, DAMAGED),
        ("offset", 8192, DAMAGED),
    ],
)
def test_what_does_not_fit(path: Path, field: str, value: object, why: str) -> None:
    Share.make(path, SIZES).head[field] = value
    assert Share.find(path) == dpdk_share.Found(unfit=why)


@pytest.mark.parametrize("length", [0, 100, 8192])
def test_a_file_that_is_cut_off(path: Path, length: int) -> None:
    Share.make(path, SIZES)
    os.truncate(path, length)
    assert Share.find(path).unfit in ("it is cut off", DAMAGED)


def test_who_holds_it(path: Path) -> None:
    Share.make(path, SIZES)
    lock = f"import fcntl; f = open({str(path)!r}); fcntl.flock(f, 2); print(flush=True); input()"
    command = ["python3", "-c", lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert dpdk_share.holder(path) == process.pid
        assert dpdk_share.holder(path) == process.pid  # asking took nothing away
        process.kill()
        process.wait()
    assert dpdk_share.holder(path) == 0
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_larger_tables_go_on_with_flows_counters_and_seed(path: Path) -> None:
    old = Share.make(path, SIZES)
    old.tables.prepare((1, 2, 3, 4))
    old.tables.flows[77] = 5, 6
    old.tables.ports[3, 9] = 78
    old.tables.learned["nexthop"]["ifindex"][5] = 4
    old.tables.service_counters["forward_packets"][1, 63] = 8
    old.tables.reason_counters[1, 2] = 9
    old.tables.copies["generation"][0] = 12
    new = Share.make(
        path.with_suffix(".new"), dpdk_share.grown(replace(SIZES, cpus=1, services=128), SIZES)
    )
    assert new.sizes == replace(SIZES, services=128)
    new.inherit(old)
    new.copy_from(old)
    new.take_place(path)
    again = Share.find(path).share
    assert again is not None
    tables = again.tables
    assert tables.flows[77].tolist() == (5, 6)
    assert tables.ports[3, 9] == 78
    assert tables.learned["nexthop"]["ifindex"][5] == 4
    assert (tables.service_counters["forward_packets"][1, 63], tables.reason_counters[1, 2]) == (
        8,
        9,
    )
    assert struct.unpack("<4Q", tables.seed) == (1, 2, 3, 4)
    assert tables.generation == 12
    assert np.count_nonzero(tables.services.view("u1")) == 0
    assert not list(path.parent.glob("*.new"))


def test_a_file_takes_a_place_and_gives_it_back(path: Path) -> None:
    old = Share.make(path, SIZES)
    old.head["worker"] = 1
    new = Share.make(dpdk_share.new_name(path), SIZES)
    new.head["worker"] = 2

    def there() -> dict[str, int]:
        found = {p.name: Share.find(p).share for p in path.parent.iterdir()}
        return {name: int(share.head["worker"][0]) for name, share in found.items() if share}

    new.take_place(path)
    assert (there(), new.path) == ({"x.tables": 2, "x.tables.old": 1}, path)
    new.give_place_back()
    assert there() == {"x.tables": 1, "x.tables.new": 2}
    assert new.path == dpdk_share.new_name(path)
    path.unlink()
    new.take_place(path)
    new.give_place_back()  # to nobody
    assert (there(), new.path) == ({"x.tables": 2}, path)


@pytest.mark.parametrize("ended", ["before", "between", "after", "used", "alone"])
def test_what_a_daemon_leaves_that_was_ended_while_names_change(path: Path, ended: str) -> None:
    """Of the names that there can be, the file with the newest flows stays; of the others nothing does."""
    old, new = dpdk_share.old_name(path), dpdk_share.new_name(path)
    Share.make(path, SIZES).head["worker"] = 1
    fresh = Share.make(new, SIZES)
    fresh.head["worker"] = 2
    if ended == "between":
        os.link(path, old)
    elif ended != "before":
        fresh.take_place(path)
        fresh.lanes["rounds"][1] = ended == "used"
    if ended == "alone":
        old.unlink()
    assert dpdk_share.clear(path) == (ended in ("between", "after"))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found = Share.find(path).share
    assert found is not None
    assert found.head["worker"][0] == (2 if ended in ("used", "alone") else 1)


def test_memory_that_is_too_little_is_one_sentence() -> None:
    dpdk_share.check_room(100, 100, Room(200, 100, RUN))
    with pytest.raises(MachineError) as caught:
        dpdk_share.check_room(4_000_000_000, 96 << 20, Room(3_000_000_000, 5_000_000_000, RUN))
    assert str(caught.value) == (
        "too little memory: the tables take 4,000.0 MB and DPDK's buffers 100.7 MB, 3,000.0 MB are free,"
        " and 5,000.0 MB in the file system of /run/x (datapath.flows): lower it, or -m in datapath.eal"
    )
    with pytest.raises(MachineError) as caught:
        dpdk_share.check_room(100_000_000, 0, Room(3_000_000_000, 50_000_000, RUN))
    assert str(caught.value).endswith(
        "50.0 MB in the file system of /run/x (datapath.flows): lower it, or enlarge that file system:"
        " a tmpfs with `mount -o remount,size=90% /run/x`"
    )


@pytest.mark.parametrize(
    ("tables", "frames", "returned", "fits"),
    [
        (100, 0, 0, True),
        (100, 1, 0, False),
        (100, 50, 50, True),  # the other worker's become this one's
        (100, 51, 50, False),
        (101, 0, 50, False),  # the tables are made while the other one runs
        (0, 150, 50, True),
        (0, 151, 50, False),
    ],
)
def test_memory_when_one_worker_follows_another(
    tables: int, frames: int, returned: int, fits: bool
) -> None:
    with contextlib.nullcontext() if fits else pytest.raises(MachineError, match="too little"):
        dpdk_share.check_room(tables, frames, Room(100, 1000, RUN), returned)


def test_a_file_system_that_is_full_after_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(MachineError, match="too little memory: the tables take"):
        Share.make(path, SIZES)
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_is_free_here() -> None:
    free = dpdk_share.room(Path("/proc/sys/net"))
    assert free.mount in (Path("/proc"), Path("/proc/sys"))
    free = dpdk_share.room(Path("/run"))
    assert free.memory > total_bytes(SIZES)
    assert free.disk >= 0
