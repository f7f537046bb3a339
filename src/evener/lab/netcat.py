# SPDX-License-Identifier: Apache-2.0
"""Real `nc` on the lab's hosts: `nc -l 8080` on the backends, `nc 10.0.0.10 8080` on the client.

`nc -l` serves one connection and ends when its client has closed, so it is started anew for each.
What is said in both directions is known here, and compared byte by byte where it arrives.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evener.errors import EvenerError, MachineError
from evener.lab.exchange import Exchange, answer, enough, message

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from evener.lab.topology import Host, Lab

_STEP_S = 5.0  # each thing that is waited for takes less than a millisecond
_TICK_S = 0.02
_LISTEN = "0A"


class Netcat:
    """One `nc` with both ends of its conversation in our hands."""

    def __init__(self, lab: Lab, host: Host, arguments: list[str]) -> None:
        self.host = host
        self._process = lab.popen(
            host.name,
            ["nc", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self.stdout = self._process.stdin, self._process.stdout
        self.received = b""
        self._complaint: str | None = None

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def say(self, data: bytes) -> None:
        """Hand it something to send; less than a pipe holds."""
        try:
            os.write(self._stdin.fileno(), data)
        except BrokenPipeError:
            raise EvenerError("nc ended early", self.host.name, self.close()) from None

    def hang_up(self) -> None:
        """End of what we say."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._process.stdin = None  # communicate() would flush it

    def hear(self) -> None:
        """Take what it has received; only when its stdout is readable."""
        self.received += os.read(self.stdout.fileno(), 1 << 16)

    def close(self) -> str:
        """End it, if it has not ended; what it complained about."""
        if self._complaint is None:
            if self._process.poll() is None:
                self._process.kill()
            self.hang_up()
            rest, errors = self._process.communicate()
            self.received += rest
            self._complaint = errors.decode(errors="replace").strip()
        return self._complaint


class Conversation:
    """The backends' servers and the client that talks to them.

    :param check: called every few milliseconds of waiting; may raise to end the demo
    """

    def __init__(self, lab: Lab, port: int, check: Callable[[], None]) -> None:
        if not shutil.which("nc"):
            raise MachineError("there is no nc", "", "apt-get install netcat-openbsd")
        self._lab, self._port, self._check = lab, str(port), check
        self._servers: dict[str, Netcat] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._servers.values():
            server.close()

    def hold(self, begun: Callable[[int], None]) -> list[Exchange]:
        """Connection after connection until it is enough; `begun` is told each number."""
        exchanges: list[Exchange] = []
        while not enough(exchanges, len(self._lab.backends)):
            self._listen()
            begun(len(exchanges) + 1)
            exchanges.append(self._connect(len(exchanges) + 1))
        return exchanges

    def _listen(self) -> None:
        """A waiting `nc -l` on every backend."""
        for host in self._lab.backends:
            if host.name in self._servers:
                if self._servers[host.name].exit_code is None:
                    continue
                self._servers.pop(host.name).close()
            self._servers[host.name] = Netcat(self._lab, host, ["-l", self._port])
        for server in self._servers.values():
            self._wait(partial(_listens, server.pid), f"nc -l on {server.host.name} to listen")

    def _connect(self, number: int) -> Exchange:
        said = message(number)
        caller = Netcat(
            self._lab, self._lab.clients[0], ["-N", str(self._lab.balancer.address), self._port]
        )
        backend, replied, problem = "", b"", ""
        try:
            caller.say(said)
            self._wait(lambda: self._heard(caller, len(said)), "the message to arrive")
            server = max(self._servers.values(), key=lambda one: len(one.received))
            backend = server.host.name
            replied = answer(number, backend)
            server.say(replied)
            self._wait(lambda: self._heard_by(caller, len(replied)), "the answer to arrive")
            caller.hang_up()
            self._wait(lambda: caller.exit_code is not None, "the client's nc to end")
            self._wait(lambda: server.exit_code is not None, "the backend's nc to end")
        except EvenerError as error:
            problem = str(error)
        complaint = caller.close()
        heard = b""
        if backend:
            complaint = complaint or self._servers[backend].close()
            heard = self._servers[backend].received
        return Exchange(
            number, said, replied, backend, heard == said, caller.received == replied != b"",
            problem or complaint,
        )  # fmt: skip

    def _heard(self, caller: Netcat, size: int) -> bool:
        """Whether a backend has received that many bytes; waits a moment for some."""
        if caller.exit_code is not None:
            raise EvenerError("the client's nc ended before it was heard", "", caller.close())
        readable, _, _ = select.select(
            [server.stdout for server in self._servers.values()], [], [], _TICK_S
        )
        for server in self._servers.values():
            if server.stdout in readable:
                server.hear()
        return any(len(server.received) >= size for server in self._servers.values())

    def _heard_by(self, caller: Netcat, size: int) -> bool:
        if select.select([caller.stdout], [], [], _TICK_S)[0]:
            caller.hear()
        return len(caller.received) >= size

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _STEP_S
        while not done():
            self._check()
            if time.monotonic() > end:
                raise EvenerError(f"waited {_STEP_S:.0f} seconds in vain for {what}")
            time.sleep(0.001)


def _listens(pid: int) -> bool:
    """Whether anything listens for TCP in the network namespace of a process."""
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[3] == _LISTEN for line in lines[1:])
