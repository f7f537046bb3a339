# SPDX-License-Identifier: Apache-2.0
"""The DPDK driver's adapter: the shared file, the worker that runs over it, the kernel's side of its ports.

The worker (drivers/dpdk) is a process of its own. It goes on when the daemon is gone, and the next daemon
finds it and everything else in the file. A worker that ends is started again over the same file, so flows go
on. For each of its ports there is a TAP device, by which the kernel has the packets that are its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from evener.datapath import dpdk_counts, dpdk_eal
from evener.datapath.base import Attachment, FrameCount, HopelessError, Lane
from evener.datapath.claims import end_abandoned
from evener.datapath.dpdk_before import Before
from evener.datapath.dpdk_devices import check_free
from evener.datapath.dpdk_rounds import Rounds, advice
from evener.datapath.dpdk_share import (
    Share,
    check_room,
    clear,
    grown,
    holder,
    new_name,
    offsets,
    old_name,
    room,
    why_grown,
)
from evener.datapath.dpdk_worker import Worker
from evener.datapath.native import Core, fence
from evener.datapath.seed import new_seed
from evener.datapath.tap import Tap
from evener.errors import DatapathError, EvenerError, MachineError
from evener.model import Driver
from evener.tables.compile import Ids
from evener.tables.memory import Sizes, size_changes
from evener.tables.recover import ids_in_force

log = logging.getLogger("evener")

PROGRAM: Final = Path(__file__).parents[1] / "_native" / "evener-dpdk"
READY_S = 30.0  # huge pages are cleared before a worker is ready
GRACE_S = 5.0  # a command waits for twice as long
GRACE_KNOWN_S = 0.5  # when it is known that the lanes stand still
SETTLED_S = 1.0  # a worker that was ready for so long did not end at once
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0


class DpdkDatapath:
    """A datapath in another process. First `open`, then publish tables, then `attach` and `tend`."""

    driver = Driver.DPDK.value

    def __init__(
        self,
        share: Share,
        path: Path,
        interfaces: tuple[str, ...],
        eal: Sequence[str],
        old: Share | None = None,
    ) -> None:
        self.tables = share.tables
        self.attachments: tuple[Attachment, ...] = ()
        self.ids: Ids | None = None
        self.warnings: list[str] = []
        self.trouble = ""
        self._share = share
        self._old = old  # whose flows `share` is to go on with, when nobody changes them any more
        self._path = path
        self._interfaces = interfaces
        self._eal = tuple(eal)
        self._taps: dict[str, Tap] = {}
        self._worker: Worker | None = None
        self._ready = 0.0  # when the worker was seen to be ready; 0.0: not yet
        self._failures = 0  # one after the other, of workers that ended at once
        self._restarts = 0
        self._ending = ""  # how the last one ended, and what it said
        self._next = 0.0
        self._attached = False
        self._rounds = Rounds()
        self._turn = threading.RLock()  # who starts or ends a worker

    @classmethod
    def open(
        cls, sizes: Sizes, path: Path, interfaces: tuple[str, ...], eal: Sequence[str]
    ) -> DpdkDatapath:
        """Over the file that an earlier daemon left, or a new one; a worker that runs is left to run.

        sizes: the least that there is to be room for, as for XDP; cpus is set to the lanes that `eal` names.
        A new file has nothing but its seed and ids from the old one before `attach`. MachineError: the worker
        was not built, or there is too little memory. DatapathError: `eal` is wrong.
        """
        require()
        if clear(path):
            log.warning(
                "the daemon before was ended before its worker ran: the tables from before are back"
            )
        wanted = replace(sizes, cpus=dpdk_eal.lanes(eal))
        dpdk_eal.command("", eal, "", [(0, 0)] * len(interfaces))  # refuses what is not to be there
        found = Share.find(path)
        old, lost = found.share, found.unfit
        if old is not None and {"flow_groups", "port_tables"} & {*size_changes(old.sizes, wanted)}:
            old, lost = None, "its flow table has another size"
        worker = Worker.running(path)
        needed = grown(wanted, old.sizes) if old is not None else wanted
        if old is not None and needed == old.sizes:
            if worker is None:
                _check_room(0, path, eal, len(interfaces), 0)
            self = cls(old, path, interfaces, eal)
        else:
            _check_room(offsets(needed)[1], path, eal, len(interfaces), _returned(worker))
            self = cls(Share.make(new_name(path), needed), path, interfaces, eal, old)
        self._worker = worker
        self._take_over(old)
        if lost:
            self._warn(f"the flows of the daemon before this one were lost: {lost}")
        return self

    def _take_over(self, old: Share | None) -> None:
        """Ids and seed of what an earlier daemon left."""
        if old is not None:
            raw = {name: old.tables.raw(name) for name in ("services", "backends", "snats")}
            self.ids = ids_in_force(raw, old.tables.active, self._share.sizes)
        if self._old is not None:
            self._share.inherit(self._old)
            if self._worker is not None:
                self._warn(
                    f"the DPDK worker is started anew: {why_grown(self._old.sizes, self._share.sizes)}"
                )
        elif old is not None and self._worker is not None:
            self._compare_arguments(self._worker)
        self.tables.prepare(new_seed())
        self._end_abandoned()

    def _end_abandoned(self) -> None:
        """The daemon before, or a worker, may have been killed in the middle of something."""
        end_abandoned(Core(self.tables), self.now(), self.grace)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)

    @property
    def worker(self) -> int:
        """The number of the worker's process; 0 while there is none."""
        worker = self._worker
        return worker.pid if worker is not None else 0

    @property
    def adopted(self) -> bool:
        """Whether it goes on with the flows of an earlier daemon."""
        return self.ids is not None

    @property
    def ready(self) -> Worker | None:
        """The worker if there is one and packets are handled."""
        worker = self._worker
        return worker if worker is not None and self._ready and worker.alive() else None

    @property
    def head(self) -> Any:
        """One record of dpdk_share.HEAD: what is written there, the worker reads."""
        return self._share.head[0]

    @property
    def troubles(self) -> list[str]:
        """What is wrong now, as `tend` has seen it: sentences."""
        return [text for text in (self.trouble, self._rounds.warning) if text]

    def _compare_arguments(self, worker: Worker) -> None:
        runs = dpdk_eal.choices(worker.line())
        if runs != dpdk_eal.choices(self._command()):
            self._warn(
                f"worker {worker.pid} goes on with its arguments, {' '.join(runs)}: those of datapath.eal"
                " take effect when it is started again, for example after SIGTERM to it"
            )

    def _command(self) -> list[str]:
        taps = [self._taps.get(name) for name in self._interfaces]
        kernel = [(tap.ifindex, tap.fileno()) if tap else (0, 0) for tap in taps]
        return dpdk_eal.command(str(PROGRAM), self._eal, str(self._path), kernel)

    # ---- interfaces

    def attach(self, interfaces: Iterable[str]) -> None:
        """Have the TAPs of these ports, and a worker that runs over them; returns when it is ready.

        interfaces: those of the configuration, or without some that are gone. A port whose TAP was made anew
        gets it by a new start of the worker. InterfaceError: one of them is no TAP. DatapathError: others
        than those that the datapath was opened with, or the worker cannot be started; it says why.
        """
        names = tuple(interfaces)
        if strange := [name for name in names if name not in self._interfaces]:
            raise DatapathError(
                f"the driver dpdk cannot take the interface {strange[0]} while it runs",
                "datapath.interfaces",
                "restart the daemon",
            )
        with self._turn:
            for name in names:
                self._hold(name)
            first, self._attached = not self._attached, True
            worker = self._worker if self._worker is not None and self._worker.alive() else None
            unfit = worker is not None and not self._suits(worker)
            if self._is_new() or (first and unfit):
                self._replace(worker)
            else:
                if worker is not None and unfit:
                    log.warning("the DPDK worker is started anew, over the interfaces as they are")
                    worker.stop()
                    self._worker = worker = None
                if worker is None:
                    self._start()
                self._wait_ready()
            modes = dpdk_eal.port_modes(self._eal, len(self._interfaces))
            self.attachments = tuple(
                Attachment(name, self._taps[name].ifindex, mode)
                for name, mode in zip(self._interfaces, modes, strict=True)
                if name in names
            )

    def _hold(self, name: str) -> None:
        """Have a descriptor of the TAP as it is now."""
        held = self._taps.get(name)
        if held is not None and held.is_current():
            return
        tap = Tap.open(name)
        if self._worker is not None:
            tap.detach()  # the worker reads its own queue; this one is for the worker after it
        self._taps[name] = tap
        if held is not None:
            held.close()

    def _suits(self, worker: Worker) -> bool:
        """Whether a worker runs over the TAPs that there are. Of a port whose TAP is gone it may keep any."""
        runs = dpdk_eal.kernels(worker.line())
        held = [self._taps.get(name) for name in self._interfaces]
        return len(runs) == len(held) and all(
            tap is None or tap.ifindex == number for tap, number in zip(held, runs, strict=True)
        )

    # ---- what an earlier daemon left, and what takes its place

    def _is_new(self) -> bool:
        """Whether the file has not yet taken the place of the one that was there, if there was one."""
        return self._share.path != self._path

    def _replace(self, worker: Worker | None) -> None:
        """Start a worker in the place of one, and over the new file if there is one. When that fails, all
        is as it was before, the old file and a worker over it, and the error says why."""
        before = Before.of(worker, self._taps.values())
        try:
            if worker is not None:
                log.warning("the DPDK worker, pid %d, is replaced by another", worker.pid)
                _check_room(0, self._path, self._eal, len(self._interfaces), _returned(worker))
                check_free(self._eal, worker.pid)
                worker.stop()
                self._worker = None
            try:
                self._begin_anew()
            except EvenerError as error:
                does = "; ".join(filter(None, (error.do, self._go_back(before))))
                raise type(error)(error.what, error.where, does) from None
            except BaseException:
                self._go_back(before)
                raise
        finally:
            if before is not None:
                before.forget()
        old_name(self._path).unlink(missing_ok=True)
        self._old = None

    def _begin_anew(self) -> None:
        if self._is_new():
            if self._old is not None:
                self._share.copy_from(self._old)  # nobody changes it any more
            self._share.take_place(self._path)
        self._start()
        self._wait_ready()

    def _go_back(self, before: Before | None) -> str:
        """Have the old file and worker again; what handles packets now, nothing if none did before."""
        self._attached = False  # what runs over the old file is not to be tended over the new one
        try:
            if self._worker is not None:
                self._worker.stop()
        except DatapathError as error:  # it holds the devices
            return f"nothing handles packets now: {error}"
        finally:
            self._worker = None
            self._share.give_place_back()
        if before is None:
            return ""
        try:
            self._worker = before.start_again(self._path, READY_S)
        except EvenerError as error:
            text = f"nothing handles packets now: the worker from before cannot go on: {error}"
            log.error("%s", text)
            return text
        log.warning("the DPDK worker from before handles packets again, pid %d", self._worker.pid)
        return f"the worker from before, pid {self._worker.pid}, handles packets again"

    # ---- the worker

    def _start(self) -> None:
        if self._worker is not None:
            self._worker.release()
            self._worker = None
        check_free(self._eal)
        self._ready = 0.0
        self._share.head["ready"] = 0
        self._end_abandoned()
        for tap in self._taps.values():
            tap.attach()
        self._worker = Worker.start(self._command(), [t.fileno() for t in self._taps.values()])

    def _wait_ready(self) -> None:
        assert self._worker is not None
        try:
            self._worker.wait_ready(self._is_ready, READY_S)
        except EvenerError:
            self._worker = None
            raise

    def _is_ready(self) -> bool:
        if not self._ready and self._share.head["ready"][0]:
            self._ready = time.monotonic()
            self._tell("it runs again")
        return bool(self._ready)

    def tend(self) -> None:
        """See that a worker runs: to be called several times a second, from any thread. The worker's own
        failures are not raised: they are in the log and in `trouble`, and it is tried again, later each time.
        HopelessError: there is none, and the file that one would run over was taken away.
        """
        with self._turn:
            if not self._attached:
                return
            worker = self._worker
            if worker is None:
                if time.monotonic() >= self._next:
                    self._start_again()
            elif not worker.alive():
                self._ended(worker)
            elif not self._ready and self._is_ready():
                log.info("the DPDK worker is ready, pid %d", worker.pid)
            elif not self._ready and time.monotonic() - worker.started > READY_S:
                worker.stop()
            if self._ready and self._worker is not None:
                self._rounds.look(self._worker.pid, self._share.lanes, time.monotonic())
            else:
                self._rounds.forget()

    def _ended(self, worker: Worker) -> None:
        now = time.monotonic()
        self._failures = 0 if self._ready and now - self._ready > SETTLED_S else self._failures + 1
        wait_s = 0.0
        if self._failures > 1:
            wait_s = min(BACKOFF_FIRST_S * 2 ** min(self._failures - 1, 10), BACKOFF_MOST_S)
        self._next = now + wait_s
        self._restarts += 1
        times = "" if self._restarts == 1 else f" ({self._restarts} times by now)"
        said = worker.words() if worker.failed else ""
        self._ending = f"the DPDK worker {worker.end()}{times}" + (f": {said}" if said else "")
        again = f"it is tried again in {wait_s:.1f} s" if wait_s else "it is started again"
        self._tell(again)
        log.error("the DPDK worker, pid %d, %s: %s", worker.pid, worker.end(), again)
        self._worker = None
        worker.release()
        if not wait_s:
            self._start_again()

    def _tell(self, now: str) -> None:
        """Put what is wrong in `trouble`. now: what is so since the last worker ended, a sentence."""
        self.trouble = f"{self._ending}; {now}" if self._ending else ""

    def _start_again(self) -> None:
        if not self._path.exists():
            raise HopelessError(
                "the tables are gone, so no DPDK worker can be started any more",
                str(self._path),
                "start the daemon again; it makes new ones",
            )
        try:
            self._start()
        except EvenerError as error:
            self._failures += 1
            self._next = time.monotonic() + BACKOFF_MOST_S
            self.trouble = f"{error}; it is tried again in {BACKOFF_MOST_S:.1f} s"
            log.error("%s", self.trouble)
        else:
            self._tell("it is started again")

    # ---- what every datapath does

    def now(self) -> int:
        """Seconds of the clock that the worker reads."""
        return time.monotonic_ns() // int(self._share.head["second_ns"][0]) & 0xFFFF

    def frames(self) -> tuple[FrameCount, ...]:
        """What lanes and devices count; devices are looked at once a second."""
        drivers = dpdk_eal.port_modes(self._eal, len(self._interfaces))
        return dpdk_counts.counts(self.head, self._interfaces, drivers)

    def lanes(self) -> tuple[Lane, ...]:
        """Those of the worker, or of the one before. Each packet has one reason, in its lane's row."""
        packets = self._share.tables.reason_counters.sum(axis=1)
        of = zip(self._share.lanes["lcore"], packets, strict=False)
        return tuple(Lane(n, int(lcore), int(p)) for n, (lcore, p) in enumerate(of))[
            : self.head["lanes"]
        ]

    def grace(self) -> None:
        """Every lane has begun a new round since, or none runs: all older packets are done.

        What the file says counts, since a worker may run that `_start` has not come to write down yet.
        DatapathError: a lane does not come round, so the worker is stopped or hangs.
        """
        lanes = self._share.lanes
        fence()  # what was written before is seen before the rounds are read
        rounds = lanes["rounds"].copy()
        end = time.monotonic() + (GRACE_KNOWN_S if self._rounds.warning else GRACE_S)
        while ((lanes["running"] != 0) & (lanes["rounds"] == rounds)).any():
            worker = self._worker
            pid = worker.pid if worker is not None else holder(self._share.path)
            if not pid or (worker is not None and not worker.alive(0.0002)):
                return  # it was killed, and one that starts now sees what was written
            if time.monotonic() > end:
                raise DatapathError(
                    "the DPDK worker's lanes stand still", f"pid {pid}", advice(pid)
                )

    def close(self) -> None:
        """End this process's part; the worker goes on."""
        with self._turn:
            self._attached = False
            if self._worker is not None:
                self._worker.release()
                self._worker = None
            if self._is_new():
                self._share.path.unlink(missing_ok=True)
            self._let_go()

    def remove(self) -> None:
        """End the worker, then take the file away and give the TAPs back. What was there before and has not
        been replaced goes on."""
        if self._is_new():
            self.close()
            return
        with self._turn:
            self._attached = False
            try:
                if self._worker is not None:
                    self._worker.stop()
            finally:
                self._worker = None
                self._share.path.unlink(missing_ok=True)
                self._let_go()

    def _let_go(self) -> None:
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()
        self.attachments = ()


def require() -> None:
    """MachineError: the worker was not built."""
    if not PROGRAM.is_file():
        raise MachineError(
            "evener was built without the driver dpdk",
            str(PROGRAM),
            "install Debian's packages libdpdk-dev and pkgconf, then run `make build`",
        )


def _check_room(tables: int, path: Path, eal: Sequence[str], ports: int, returned: int) -> None:
    """MachineError if new tables and a worker's buffers do not fit. tables: bytes, 0 if they are there;
    returned: see `check_room`."""
    frames = dpdk_eal.own_memory_bytes(dpdk_eal.complete(eal, ports))
    check_room(tables, frames, room(path.parent), returned)


def _returned(worker: Worker | None) -> int:
    """Bytes that a worker gives back when it ends. The tables are not among them: their file stays."""
    if worker is None:
        return 0
    return dpdk_eal.own_memory_bytes(worker.line())
