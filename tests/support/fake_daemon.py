# SPDX-License-Identifier: Apache-2.0
"""A control socket that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

Answer = tuple[int, Any]


class FakeDaemon:
    """answers: "METHOD /path" (without query) -> status and JSON, or a list of lines to stream, or
    bytes to send as they are. asked: what came, as (METHOD, path with query, decoded body)."""

    def __init__(self, path: Path, answers: dict[str, Answer]) -> None:
        self.path = path
        self.asked: list[tuple[str, str, Any]] = []
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                daemon._answer(self, answers)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def _answer(self, handler: BaseHTTPRequestHandler, answers: dict[str, Answer]) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.asked.append((handler.command, handler.path, json.loads(body) if body else None))
        status, answer = answers[f"{handler.command} {handler.path.partition('?')[0]}"]
        handler.send_response(status)
        handler.send_header("Connection", "close")
        handler.end_headers()
        lines = answer if isinstance(answer, list) else [answer]
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            handler.wfile.write(data)
        handler.close_connection = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.path.unlink()
