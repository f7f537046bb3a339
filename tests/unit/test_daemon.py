# SPDX-License-Identifier: Apache-2.0
"""The daemon around its parts, on the simulator: one at a time, ends, and work that is never given up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from evener import config as configuration
from evener import daemon as whole
from evener.api import server
from evener.control.daemon import MISSING_MOST, Daemon, _backend_addresses
from evener.datapath.base import HopelessError
from evener.errors import ConfigError, DaemonError, DatapathError
from evener.instance import Instance
from evener.model import Config
from evener.tables.effective import Network, NextHop

TEXT = """
[datapath]
driver = "sim"
interfaces = []
flows = 1024
[pool.p]
backends = ["10.0.0.2:80"]
[service.s]
listen = "10.9.0.1:80/tcp"
pool = "p"
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    for module in ("evener.instance", "evener.daemon"):
        monkeypatch.setattr(f"{module}.RUN_FOLDER", tmp_path)
    yield Instance("test")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def daemon(instance: Instance) -> Daemon:
    return Daemon(configuration.loads(TEXT), Path("lab.toml"), instance)


class Nowhere:
    """In the place of the one who watches the network, and asks in it: there is none."""

    network = Network()
    interfaces: ClassVar[dict[str, int]] = {}

    async def start(self) -> None:
        """It has started."""

    async def stop(self) -> None:
        """It has ended."""

    async def resolve(self, addresses: object) -> None:
        """Nobody is asked."""


def network(last: int) -> Network:
    address = IPv4Address(f"10.0.0.{last}")
    return Network({address: NextHop(bytes([2, 0, 0, 0, 0, last]), bytes(6), 1)})


def test_one_at_a_time(instance: Instance) -> None:
    for _ in range(2):
        with (
            whole.only_one(instance),
            pytest.raises(DaemonError, match="already"),
            whole.only_one(instance),
        ):
            raise AssertionError("two daemons")


def test_the_configuration_is_told_of_by_its_whole_path(
    instance: Instance, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks lives in another folder."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "lab.toml").write_text(TEXT)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["evener run", "lab.toml"])
    told: list[str] = []

    async def run(daemon: Daemon, keep: bool, instance: Instance) -> None:
        told.append(daemon.status()["config"])

    monkeypatch.setattr(whole, "run", run)
    assert whole.main() == 0
    assert told == [str(folder / "lab.toml")]


def test_a_socket_that_cannot_be_had_ends_the_datapath_too(
    daemon: Daemon, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    monkeypatch.setattr(daemon, "start", lambda: asyncio.sleep(0))
    monkeypatch.setattr(daemon.datapath, "remove", lambda: ended.append(True))
    instance.socket.mkdir()
    with pytest.raises(OSError, match=r"test\.sock"):
        asyncio.run(whole.run(daemon, False, instance))
    instance.socket.rmdir()
    assert ended == [True]


def test_a_burst_of_changes_is_published_once(daemon: Daemon) -> None:
    async def work() -> int:
        for last in range(2, 50):
            daemon._watcher.network = network(last)
            daemon._network_changed(daemon._watcher.network)
        await asyncio.gather(*daemon._tasks)
        return daemon.datapath.tables.generation

    assert asyncio.run(work()) == 1
    tables = daemon.datapath.tables
    assert tables.neighbours["dst"][tables.active, 1].tolist() == [2, 0, 0, 0, 0, 49]


def test_a_failure_is_told_of_once_and_again_after_something_was_published(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if what was published in between was somebody's `apply`."""
    daemon._watcher = Nowhere()  # type: ignore[assignment]

    def grace() -> None:
        raise DatapathError("it stands still")

    async def change(last: int) -> int:
        daemon._watcher.network = network(last)
        daemon._network_changed(daemon._watcher.network)
        await asyncio.gather(*daemon._tasks)
        return caplog.text.count("the network's change could not be published: it stands still")

    async def work() -> list[int]:
        with monkeypatch.context() as still:
            still.setattr(daemon.datapath, "grace", grace)
            told = [await change(2), await change(3)]
        await daemon.apply(TEXT, "a test")
        daemon._network_changed(daemon._watcher.network)  # as it is tried again after a failure
        await asyncio.gather(*daemon._tasks)
        monkeypatch.setattr(daemon.datapath, "grace", grace)
        return [*told, await change(4)]

    assert asyncio.run(work()) == [1, 1, 2]


def test_backends_that_did_not_answer_are_asked_for_again(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leads to them may be there as late as that."""
    text = TEXT.replace('["10.0.0.2:80"]', '["10.0.0.2:80", "10.0.0.3:80"]')
    daemon = Daemon(configuration.loads(text), Path("lab.toml"), instance)
    monkeypatch.setattr("evener.control.daemon.MISSING_EVERY_S", 0.001)

    async def some() -> set[IPv4Address]:
        twice, asked = asyncio.Event(), list[set[IPv4Address]]()

        class Watcher(Nowhere):
            network = network(3)

            async def resolve(self, addresses: Iterable[IPv4Address]) -> None:
                if daemon._running:
                    asked.append({*addresses})
                    if len([a for a in asked if a]) == 2:
                        twice.set()

        daemon._watcher = Watcher()  # type: ignore[assignment]
        await daemon.start()
        await twice.wait()
        await daemon.stop(keep=False)
        return set[IPv4Address]().union(*asked)

    assert asyncio.run(asyncio.wait_for(some(), 10)) == {IPv4Address("10.0.0.2")}


def test_those_that_did_not_answer_take_turns(instance: Instance) -> None:
    """Many that are gone do not keep one from being asked for that has just come."""
    ports = [f"10.0.{n}.1:{port}" for n in range(3 * MISSING_MOST // 2) for port in (80, 81)]
    text = TEXT.replace('["10.0.0.2:80"]', json.dumps(ports))
    daemon = Daemon(configuration.loads(text), Path("lab.toml"), instance)
    asked: list[list[IPv4Address]] = []

    class Watcher(Nowhere):
        async def resolve(self, addresses: Iterable[IPv4Address]) -> None:
            asked.append([*addresses])

    daemon._watcher = Watcher()  # type: ignore[assignment]
    for _ in range(3):
        asyncio.run(daemon._resolve_missing())
    times = Counter(address for turn in asked for address in turn)
    assert dict.fromkeys(_backend_addresses(daemon.config), 2) == times
    assert [len(turn) for turn in asked] == [MISSING_MOST] * 3


def test_what_is_done_again_and_again_outlives_a_failure(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    async def some() -> None:
        third = asyncio.Event()

        async def work() -> None:
            calls.append(True)
            if len(calls) == 3:
                third.set()
            raise OSError("no luck")

        task = asyncio.create_task(daemon._every(0, work))
        await third.wait()
        task.cancel()

    asyncio.run(asyncio.wait_for(some(), 10))
    assert "no luck" in caplog.text


def test_flows_of_ids_that_nobody_knows_end_with_the_start(daemon: Daemon) -> None:
    """The daemon before removed a service and died before it had ended the service's flows."""
    flows = daemon.datapath.tables.flows
    ours = 1 << 48 | 0x0A, 1 | 1 << 32 | 0x0400 << 16
    for record, (client, binding) in enumerate(
        (ours, (9 << 48, ours[1]), (ours[0], ours[1] + 8), (ours[0] & 0xFFFF, ours[1]))
    ):
        flows[record] = client, binding | daemon.datapath.now() << 48
    daemon._strangers = True
    asyncio.run(daemon._publish(daemon.config))
    assert np.count_nonzero(flows["binding"]) == 4  # before the attachment, some may be missing
    daemon._running = True
    asyncio.run(daemon._publish(daemon.config))
    held = np.flatnonzero(flows["binding"] & np.uint64(0xFFFF)).tolist()
    assert held == [0, 3]  # the last is a port in quarantine, of a known backend


def test_a_datapath_without_hope_ends_the_daemon(
    daemon: Daemon, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tend() -> list[str]:
        raise HopelessError("the tables are gone")

    daemon._tend_datapath = tend
    daemon._watcher = Nowhere()  # type: ignore[assignment]
    ended = []
    monkeypatch.setattr(daemon.datapath, "remove", lambda: ended.append(True))
    with pytest.raises(HopelessError, match="the tables are gone"):
        asyncio.run(asyncio.wait_for(whole.run(daemon, False, instance), 10))
    assert ended == [True]


@pytest.mark.parametrize("adopted", [True, False])
def test_a_start_that_fails_ends_what_it_made_alone(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    ended = []
    for name in ("close", "remove"):
        monkeypatch.setattr(daemon.datapath, name, lambda name=name: ended.append(name))

    def attach(_: object) -> None:
        raise DatapathError("no")

    daemon.adopted, daemon._attach = adopted, attach
    daemon._watcher = Nowhere()  # type: ignore[assignment]
    with pytest.raises(DatapathError):
        asyncio.run(daemon.start())
    assert ended == ["close" if adopted else "remove"]


def test_flows_that_come_with_the_attachment_are_ended_if_nobody_knows_them(
    daemon: Daemon,
) -> None:
    """DPDK's new tables have their flows from the old ones as late as that."""
    flows = daemon.datapath.tables.flows

    def attach(_: object) -> None:
        flows[0] = 9 << 48, 1 | 1 << 32 | 0x0400 << 16 | daemon.datapath.now() << 48

    daemon._attach, daemon._strangers = attach, True
    daemon._watcher = Nowhere()  # type: ignore[assignment]

    async def work() -> None:
        await daemon.start()
        await daemon.stop(keep=True)

    asyncio.run(work())
    assert not (flows["binding"] & np.uint64(0xFFFF)).any()


def test_status_counts_the_flows_that_are_listed(daemon: Daemon) -> None:
    """A record whose time is over is there until it is swept, and no flow any more."""
    daemon.datapath.tables.flows[5] = 1 << 48 | 0x0A, 1 | 1 << 32 | 0x0400 << 16
    asyncio.run(daemon._publish(daemon.config))

    def now() -> int:
        found: int = asyncio.run(server.status(daemon))["flows"]["now"]
        return found

    daemon.datapath.tables.flows["binding"][5] |= np.uint64(daemon.datapath.now() << 48)
    assert now() == 1
    told = asyncio.run(server.status(daemon))["flows"]
    assert told == {"capacity": 1024, "records": len(daemon.datapath.tables.flows), "now": 1}
    long_ago = daemon.datapath.now() - 2_000 & 0xFFFF
    daemon.datapath.tables.flows["binding"][5] &= np.uint64(0xFFFF_FFFF_FFFF)
    daemon.datapath.tables.flows["binding"][5] |= np.uint64(long_ago << 48)
    assert now() == 0


def test_what_differs_and_cannot_change(daemon: Daemon) -> None:
    """`apply` refuses what `diff` says it would, and changes nothing."""
    text = TEXT.replace("flows = 1024", "flows = 5000")
    changes, (refusal,) = asyncio.run(daemon.differences(text, "a test"))
    assert changes == ["~ datapath.flows 1024 -> 5000"]
    with pytest.raises(DatapathError) as refused:
        asyncio.run(daemon.apply(text, "a test"))
    assert str(refused.value) == refusal
    assert "cannot change from 1024 to 5000 flows" in refusal
    assert asyncio.run(daemon.differences(TEXT, "a test")) == ([], [])


@pytest.mark.parametrize("what", ["apply", "differences"])
def test_a_large_file_is_understood_beside_the_event_loop(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    where, loads = [], configuration.loads

    def noted(text: str, source: str) -> Config:
        where.append(threading.current_thread())
        return loads(text, source)

    monkeypatch.setattr(configuration, "loads", noted)
    asyncio.run(getattr(daemon, what)(TEXT, "a test"))
    assert where
    assert threading.main_thread() not in where


def test_a_reload_that_was_refused_is_told_of_until_a_good_one(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemon.path = tmp_path_factory.mktemp("etc") / "lab.toml"
    daemon._watcher = Nowhere()  # type: ignore[assignment]
    before = daemon.status()["warnings"]
    for text, what, error in (
        (TEXT.replace("pool", "poool"), "\n  {}:6: ", ConfigError),
        (TEXT.replace("flows = 1024", "flows = 5000"), "cannot change from 1024", DatapathError),
    ):
        daemon.path.write_text(text)
        with pytest.raises(error):
            asyncio.run(daemon.reload())
        (told,) = [w for w in daemon.status()["warnings"] if w not in before]
        assert told.startswith("the file was read again and is not in force: ")
        assert what.format(daemon.path) in told
    asyncio.run(daemon._publish(daemon.config))  # of a change of the network
    assert len(daemon.status()["warnings"]) == len(before) + 1
    daemon.path.write_text(TEXT)
    asyncio.run(daemon.reload())
    assert daemon.status()["warnings"] == before


@pytest.mark.parametrize("in_force", [False, True])
@pytest.mark.parametrize("how", ["apply", "reload"])
def test_a_reload_that_was_refused_is_forgotten_when_something_else_is_in_force(
    daemon: Daemon,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    in_force: bool,
) -> None:
    """Also if that failed, as a datapath that stands still makes it fail before or after the change."""
    daemon.path = tmp_path_factory.mktemp("etc") / "lab.toml"
    daemon._watcher = Nowhere()  # type: ignore[assignment]
    before = daemon.status()["warnings"]
    daemon.path.write_text(TEXT.replace("pool", "poool"))
    with pytest.raises(ConfigError):
        asyncio.run(daemon.reload())
    (refused,) = [w for w in daemon.status()["warnings"] if w not in before]
    rounds = iter([None, DatapathError("it stands still")] if in_force else [DatapathError("no")])

    def grace() -> None:
        if error := next(rounds):
            raise error

    monkeypatch.setattr(daemon.datapath, "grace", grace)
    daemon.path.write_text(TEXT)
    with pytest.raises(DatapathError, match="is in force" if in_force else "nothing has changed"):
        asyncio.run(daemon.apply(TEXT, "a test") if how == "apply" else daemon.reload())
    told = [w for w in daemon.status()["warnings"] if w not in before]
    assert len(told) == (0 if in_force else 1)
    assert (refused in told) == (how == "apply" and not in_force)


def test_a_reload_that_fails_in_an_unforeseen_way_is_told_of(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    monkeypatch.setattr(whole, "notify", said.append)

    async def broken() -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(daemon, "reload", broken)

    async def work() -> None:
        running: set[asyncio.Task[None]] = set()
        whole._reload(daemon, running)
        await asyncio.gather(*running)
        await asyncio.sleep(0)
        assert not running

    asyncio.run(work())
    assert said == ["RELOADING=1", "READY=1"]
    assert "could not be read again: too deep" in caplog.text
