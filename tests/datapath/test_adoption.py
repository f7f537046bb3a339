# SPDX-License-Identifier: Apache-2.0
"""What a daemon that starts finds of the one before, wherever that one died. No interface is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evener import config as configuration
from evener._generated import layout
from evener.datapath import bpf
from evener.datapath.dpdk import PROGRAM, DpdkDatapath
from evener.datapath.dpdk_share import Share
from evener.datapath.dpdk_worker import Worker
from evener.datapath.native import maglev
from evener.datapath.xdp import XdpDatapath
from evener.errors import MachineError
from evener.model import Config
from evener.tables.compile import Ids, compile_tables
from evener.tables.effective import Network, merge
from evener.tables.memory import Sizes, Tables, shapes
from evener.tables.publish import publish
from tests.support.bpf import needs_bpf

pytestmark = needs_bpf


@pytest.fixture
def pins() -> Iterator[Path]:
    folder = bpf.ensure_bpffs() / "evener" / f"test-{os.getpid()}"
    yield folder
    for path in folder.glob("*"):
        path.unlink()
    if folder.exists():
        folder.rmdir()


def config(first: int, count: int) -> Config:
    backends = ", ".join(f'"10.0.{i // 250}.{1 + i % 250}:80"' for i in range(first, first + count))
    return configuration.loads(
        '[datapath]\ninterfaces = ["eth0"]\nflows = 1024\n'
        f"[pool.p]\nbackends = [{backends}]\n"
        '[service.s]\nlisten = "10.9.0.1:80/tcp"\npool = "p"\n'
    )


@contextmanager
def opened(pins: Path, of: Config) -> Iterator[XdpDatapath]:
    """A daemon's datapath; at the end the daemon is dead, what it pinned stays."""
    datapath = XdpDatapath.open(Sizes.for_config(of, bpf.possible_cpus()), pins)
    yield datapath
    datapath.close()


def put_in_force(datapath: XdpDatapath, of: Config) -> dict[str, int]:
    """Publish and pin; the ids of the backends."""
    sizes = datapath.tables.sizes
    ids = datapath.adopted.ids or Ids.empty(sizes)
    compiled = compile_tables(merge(of, Network()), ids, sizes, datapath.tables.seed, maglev)
    publish(datapath.tables, compiled, datapath.grace)
    datapath.attach([])
    return {str(address): number for (address, _, _), number in compiled.ids.backends.ids.items()}


def test_ids_outlive_a_death_before_larger_tables_are_in_force(pins: Path) -> None:
    """Flows refer to ids. The tables grow, and the daemon dies before it has published them: the next
    one has to find the ids that the flows were made with."""
    small, large = config(0, 3), config(2, 300)
    with opened(pins, small) as datapath:
        before = put_in_force(datapath, small)
        datapath.tables.flows["client"][7] = 7
    for _ in range(2):
        with opened(pins, large):
            pass
    with opened(pins, large) as datapath:
        assert datapath.tables.flows["client"][7] == 7
        after = put_in_force(datapath, large)
    assert after["10.0.0.3"] == before["10.0.0.3"] == 3
    with opened(pins, large) as datapath:
        assert put_in_force(datapath, large) == after


def test_nothing_is_pinned_before_it_is_in_force(pins: Path) -> None:
    with opened(pins, config(0, 3)):
        assert not pins.exists()


def test_a_trace_ends_with_its_daemon(pins: Path) -> None:
    with opened(pins, config(0, 3)) as datapath:
        put_in_force(datapath, config(0, 3))
        datapath.tables.settings["trace"] = 1
    with opened(pins, config(0, 3)) as datapath:
        assert datapath.adopted.maps
        assert datapath.tables.settings["trace"][0] == 0


def test_a_smaller_configuration_leaves_flows_where_they_are(pins: Path) -> None:
    """The ids of the backends that stay are beyond the tables that the new file alone would get."""
    large, small = config(0, 300), config(290, 10)
    with opened(pins, large) as datapath:
        before = put_in_force(datapath, large)
        datapath.tables.flows["client"][7] = 7
    with opened(pins, small) as datapath:
        assert Sizes.for_config(small, bpf.possible_cpus()).backends < max(before.values())
        assert datapath.tables.flows["client"][7] == 7
        assert datapath.adopted.maps.keys() == shapes(datapath.tables.sizes).keys()
        after = put_in_force(datapath, small)
    assert after == {address: before[address] for address in after}
    with opened(pins, config(280, 100)) as datapath:
        assert put_in_force(datapath, config(280, 100)).items() >= after.items()


RECORD, OTHER, PORT = 7, 8, 40000


def leave_behind(tables: Tables) -> None:
    """Two flows, and somebody was killed who had claimed the first and not yet given back its port."""
    for port, record in ((PORT, RECORD), (PORT + 1, OTHER)):
        word = port >> 8 | (port & 0xFF) << 8
        tables.flows["binding"][record] = 1 << 32 | word << 16 | 1
        tables.ports[(1 + 7) % tables.sizes.port_tables, port] = record + 1
    tables.flows["binding"][RECORD] |= np.uint64(layout.FLOW_CLAIMED << 40)


def check_ended(tables: Tables) -> None:
    assert tables.flows["binding"][RECORD] == layout.FLOW_RESET << 40  # freed
    assert tables.flows["binding"][OTHER] & np.uint64(0xFFFF)
    assert list(tables.ports[tables.ports != 0]) == [OTHER + 1]


def test_what_a_killed_daemon_was_about_to_end_is_ended(pins: Path) -> None:
    with opened(pins, config(0, 3)) as datapath:
        put_in_force(datapath, config(0, 3))
        leave_behind(datapath.tables)
    with opened(pins, config(0, 3)) as datapath:
        check_ended(datapath.tables)


# ---------------------------------------------------------------------------------------- DPDK

needs_worker = pytest.mark.skipif(not PROGRAM.is_file(), reason="built without the driver dpdk")
EAL = ("--vdev=net_null0",)


def ended_at_start(datapath: DpdkDatapath, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is so when a worker is about to be started, while nobody runs over the tables."""

    def start(*_: object) -> Worker:
        check_ended(datapath.tables)
        raise MachineError("no worker in this test", "here", "none is needed")

    monkeypatch.setattr(Worker, "start", start)
    with pytest.raises(MachineError, match="no worker in this test"):
        datapath.attach([])


@needs_worker
@pytest.mark.parametrize("backends", [3, 300])  # in the file that is there, and in a larger one
def test_what_a_killed_dpdk_daemon_was_about_to_end_is_ended(
    tmp_path: Path, backends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sizes = tmp_path / "tables", Sizes.for_config(config(0, 3), cpus=1)
    left = Share.make(path, sizes)
    left.tables.prepare((1, 2, 3, 4))
    leave_behind(left.tables)
    datapath = DpdkDatapath.open(Sizes.for_config(config(0, backends), cpus=1), path, ("x",), EAL)
    assert (datapath.tables.sizes == sizes) is (backends == 3)
    if backends == 3:
        check_ended(datapath.tables)
    ended_at_start(datapath, monkeypatch)
    datapath.close()


@needs_worker
def test_what_a_killed_worker_was_about_to_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes.for_config(config(0, 3), cpus=1)
    datapath = DpdkDatapath.open(sizes, tmp_path / "tables", ("x",), EAL)
    leave_behind(datapath.tables)
    ended_at_start(datapath, monkeypatch)
    datapath.close()
