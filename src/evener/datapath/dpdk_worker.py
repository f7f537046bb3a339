# SPDX-License-Identifier: Apache-2.0
"""The DPDK worker as a process: start it, hear what it says, see it end, end it.

It is a child of the daemon that started it; the daemon after that one finds it by its lock on the shared
file. Both watch it by a pidfd, which names this very process for as long as it is open.
"""

from __future__ import annotations

import collections
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from evener.datapath.dpdk_share import holder
from evener.errors import DatapathError, MachineError
from evener.process import ending

log = logging.getLogger("evener")

TERM_S = 3.0
KILL_S = 2.0
LOCK_S = 1.0  # for which a process may be gone and its lock not yet
_NAME = "evener-dpdk: "
_LOADER_FAILED = 127  # exit code of the dynamic loader (ld.so) without a library, and of shells
_USUAL = ("EAL: Detected ", "EAL: Selected IOVA mode ", "EAL: FATAL: ")  # the last are said twice
_REMEDIES = {
    "Cannot get hugepage information": "no huge pages are free: leave out what asks for them, or see "
    "section 8 of lesson 2",
}
"""For words of DPDK that do not tell what to do."""


class Worker:
    """A process that runs over a shared file."""

    def __init__(self, pid: int, pidfd: int, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self._pidfd = pidfd
        self._process = process
        self._guard = threading.RLock()  # a number that is closed may be another file's at once
        self._lines: collections.deque[str] = collections.deque(maxlen=20)
        self._reader: threading.Thread | None = None
        if process is not None and process.stderr is not None:
            self._reader = threading.Thread(
                target=self._read, args=(process.stderr,), name="worker's words", daemon=True
            )
            self._reader.start()

    @classmethod
    def start(
        cls, command: Sequence[str], descriptors: Iterable[int], program: str | None = None
    ) -> Worker:
        """Start it; what it writes goes to the log, line by line. MachineError: it is not there.

        program: the file that is run, if it is not the command's first word.
        """
        try:
            process = subprocess.Popen(
                command,
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the EAL writes its hundred lines of usage there
                stderr=subprocess.PIPE,
                pass_fds=tuple(descriptors),
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is the daemon's
                restore_signals=False,  # SIGPIPE stays ignored: it outlives who reads its words
            )
        except OSError as error:
            raise MachineError(
                f"the DPDK worker cannot be started: {error.strerror}",
                command[0],
                "build it with `make build`",
            ) from None
        return cls(process.pid, os.pidfd_open(process.pid), process)

    @classmethod
    def running(cls, path: Path) -> Worker | None:
        """The one that holds the shared file's lock, whoever started it. DatapathError: the one that took it
        has ended, and another process has it from that one."""
        end = time.monotonic() + LOCK_S
        while pid := holder(path):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                if time.monotonic() > end:
                    raise DatapathError(
                        f"process {pid}, which took the lock of the tables, has ended, and its lock has not",
                        str(path),
                        f"end what has the file open from it: `fuser {path}` tells which process that is",
                    ) from None
                time.sleep(0.001)
                continue
            if holder(path) == pid:  # else the number is another's by now
                return cls(pid, pidfd, None)
            os.close(pidfd)
        return None

    def _read(self, words: IO[bytes]) -> None:
        with words:
            for raw in words:
                line = raw.decode(errors="replace").rstrip()
                if line:
                    self._lines.append(line)
                    log.info("%s%s", "" if line.startswith(_NAME) else _NAME, line)

    @property
    def adopted(self) -> bool:
        """Whether another daemon started it."""
        return self._process is None

    def line(self) -> list[str]:
        """Its command line."""
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(text) for text in raw.split(b"\0")[:-1]]

    def alive(self, wait_s: float = 0.0) -> bool:
        """Whether it runs, when `wait_s` seconds have passed; at once when it ends before."""
        with self._guard:
            if self._pidfd < 0:
                return False
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return not poll.poll(wait_s * 1000)

    def wait_ready(self, is_ready: Callable[[], bool], patience_s: float) -> None:
        """Returns when it is ready. MachineError, DatapathError: it ended before, or was ended since it took
        too long; it is watched no longer."""
        end = time.monotonic() + patience_s
        while not is_ready():
            if not self.alive(0.005) and not is_ready():
                failure = self.failure()
                self.release()
                raise failure
            if time.monotonic() > end:
                self.stop()
                raise DatapathError(
                    f"the DPDK worker was not ready after {patience_s:.0f} seconds",
                    "datapath.eal",
                    self.words() or "it said nothing",
                )

    def end(self) -> str:
        """How it ended, as half a sentence. It must have."""
        if self._process is None:
            return "ended"
        return ending(self._process.wait())

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, with an error. It must have ended."""
        return self._process is not None and self._process.wait() > 0

    def words(self) -> str:
        """What it last said of itself, or else the last lines that it wrote. It must have ended."""
        if self._reader is not None:
            self._reader.join(1.0)
        own = [line.removeprefix(_NAME) for line in self._lines if line.startswith(_NAME)]
        # Arguments are read twice, and so are their errors said.
        others = [
            line for line in dict.fromkeys(self._lines) if not line.startswith((_NAME, *_USUAL))
        ]
        if own and "lines above" not in own[-1]:
            return own[-1]
        remedies = [remedy for sign, remedy in _REMEDIES.items() if sign in "\n".join(others)]
        return "; ".join([*others[-3:], *own[-1:], *remedies])

    def failure(self) -> DatapathError | MachineError:
        """Why it ended before it was ready, in its own words."""
        if self._process is not None and self._process.wait() == _LOADER_FAILED:
            return MachineError(
                "DPDK's shared libraries are not on this machine",
                self.words(),
                "install Debian's package libdpdk-dev, then run `make build`",
            )
        return DatapathError(
            f"the DPDK worker {self.end()} before it was ready", "datapath.eal", self.words()
        )

    def stop(self) -> None:
        """End it in order, or else by force; returns when it is gone."""
        for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
            if self.alive():
                signal.pidfd_send_signal(self._pidfd, number)
                if self.alive(patience_s) and number == signal.SIGTERM:
                    log.warning("worker %d does not end: it is killed", self.pid)
        if self.alive():
            raise DatapathError(
                f"worker {self.pid} cannot be ended",
                f"/proc/{self.pid}/stack",
                "look there at what it waits for in the kernel",
            )
        self.release()

    def release(self) -> None:
        """Watch it no longer."""
        if self._process is not None:
            if not self.alive():
                self._process.wait()
            else:
                self._process.returncode = 0  # it goes on by itself: no child to wait for
        with self._guard:
            descriptor, self._pidfd = self._pidfd, -1
            if descriptor >= 0:
                os.close(descriptor)
