# SPDX-License-Identifier: Apache-2.0
"""Talks to the daemon over its control socket. Standard library only: commands start quickly.

Every method returns the answer's JSON, or raises the error that the daemon had: a ConfigError with
all its problems, a DaemonError if there is no daemon to ask.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from evener.errors import (
    ConfigError,
    DaemonError,
    EvenerError,
    Problem,
    ProblemKind,
    by_exit_code,
)
from evener.instance import Instance

VERSION: Final = 1
Answer = dict[str, Any]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # http.client lets go of self.sock when the answer is to be the last; a stream needs it.
        self.stream = self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One daemon, by its socket; without one, that of the calling thread's network namespace.

    Each request has a connection of its own, so a client may be used by several threads.
    timeout_s: how long the daemon may take to answer.
    """

    def __init__(self, path: Path | None = None, timeout_s: float = 10.0) -> None:
        self.path = path or Instance.here().socket
        self._timeout_s = timeout_s
        self._streams: list[_Connection] = []
        self._closed = False

    def status(self) -> Answer:
        """What the daemon is and does."""
        return self.get("/v1/status")

    def rows(self, what: str, **filters: str | int) -> list[Answer]:
        """The rows of services, backends, flows, counters or reasons."""
        return list(self.get(f"/v1/{what}", filters)["rows"])

    def reasons(self) -> list[Answer]:
        """Every reason with the packets that had it."""
        return self.rows("reasons")

    def apply(self, text: str, source: str) -> Answer:
        """Put a configuration in force; source is what errors call it."""
        return self.post("/v1/apply", {"text": text, "source": source})

    def diff(self, text: str, source: str) -> Answer:
        """What applying a configuration would change, and why it would be refused, if it would."""
        return self.post("/v1/diff", {"text": text, "source": source})

    def reload(self) -> Answer:
        """Apply the file that the daemon was started with."""
        return self.post("/v1/reload", {})

    def explain(self, client: str, listen: str) -> Answer:
        """The plan for a SYN from client to listen: observe.explain's dict."""
        return dict(self.post("/v1/explain", {"client": client, "listen": listen})["plan"])

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> Answer:
        """A query, with its parameters; the whole answer."""
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A command, with its JSON body; the whole answer."""
        return self._request("POST", path, json.dumps(body))

    def trace(self, **filters: str) -> Iterator[Answer]:
        """Lines as they come: {"trace": "begin"} when events are being written, events
        (observe.trace.event_json), {"lost": N}. Ends when this client is closed; DaemonError if the
        daemon ends first."""
        connection, response = self._open("GET", f"/v1/trace?{urlencode(filters)}", None)
        self._streams.append(connection)
        try:
            connection.stream.settimeout(None)
            while line := self._line(response):
                yield json.loads(line)
            if not self._closed:
                raise DaemonError("the daemon ended the trace", str(self.path), "is it running?")
        finally:
            self._streams.remove(connection)
            response.close()
            connection.close()

    def close(self) -> None:
        """End every `trace` of this client, also from another thread."""
        self._closed = True
        for connection in list(self._streams):
            with contextlib.suppress(OSError):
                connection.stream.shutdown(socket.SHUT_RDWR)

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.readline()
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            if self._closed:
                return b""
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, body: str | None = None) -> Answer:
        connection, response = self._open(method, path, body)
        try:
            return self._decode(response)
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: str | None
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        """A request that was sent and whose answer has begun; an error answer is raised."""
        connection = _Connection(self.path, self._timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(self._decode(response), response.status, self.path)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _decode(self, response: http.client.HTTPResponse) -> Answer:
        try:
            answer = json.loads(response.read())
            version = answer["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise DaemonError(
                f"what answers is not evener: {response.status} {response.reason}", str(self.path)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        if version != VERSION:
            raise DaemonError(
                f"the daemon speaks version {version} of the interface, this command {VERSION}",
                str(self.path), "use the command that belongs to the daemon, or restart it",
            )  # fmt: skip
        return dict(answer)

    def _unreachable(self, error: Exception) -> DaemonError:
        where = str(self.path)
        if isinstance(error, FileNotFoundError | ConnectionRefusedError) or _unread(error):
            return DaemonError(
                "the daemon is not running in this network namespace", where,
                "start it with `evener run CONFIG`",
            )  # fmt: skip
        if isinstance(error, PermissionError):
            return DaemonError(
                "this user may not talk to the daemon", where,
                "use sudo, or join the group that the socket belongs to",
            )  # fmt: skip
        if isinstance(error, TimeoutError):
            return DaemonError(
                f"the daemon did not answer within {self._timeout_s:g} s", where, "see its log"
            )
        return DaemonError(f"the daemon broke off the connection: {error}", where, "see its log")


def _unread(error: Exception) -> bool:
    """Whether the other end went before it had read anything, as one that is killed at this moment does."""
    gone = isinstance(error, ConnectionResetError | BrokenPipeError)
    return gone and not isinstance(error, http.client.RemoteDisconnected)


def _error(answer: Answer, status: int, path: Path) -> EvenerError:
    """The error that an answer describes, as the class that has its exit code."""
    told = answer.get("error")
    if not isinstance(told, dict):
        return DaemonError(f"the daemon answered {status} without saying why", str(path))
    if "problems" in told:
        problems = [Problem(**{**p, "kind": ProblemKind(p["kind"])}) for p in told["problems"]]
        return ConfigError(problems, told.get("source") or told.get("where", ""))
    kinds = by_exit_code()
    kinds.pop(ConfigError.exit_code)  # it is made of problems
    kind = kinds.get(told.get("exit_code", 0), EvenerError)
    return kind(told.get("what", ""), told.get("where", ""), told.get("do", ""))
