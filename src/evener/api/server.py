# SPDX-License-Identifier: Apache-2.0
"""The control socket: commands go to the daemon, queries to `observe`.

JSON over HTTP on a Unix socket that only its owner and group may use. Every answer has a version; an
error has what is so, where, and what to do, and the exit code that a command is to end with.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from evener import __version__
from evener.datapath.base import Reader
from evener.datapath.native import Core
from evener.errors import ConfigError, EvenerError
from evener.model import Config
from evener.observe import counters, explain, flows, trace
from evener.observe.query import EVENT_FILTERS, Query
from evener.observe.snapshot import Snapshot
from evener.tables.compile import Ids

log = logging.getLogger("evener")

VERSION: Final = 1
BODY_MAX: Final = 16 << 20
TRACE_EVERY_S: Final = 0.02
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control(Protocol):
    """What the interface needs of the daemon."""

    config: Config
    ids: Ids

    @property
    def datapath(self) -> Reader: ...

    def status(self) -> dict[str, Any]: ...

    async def apply(self, text: str, source: str) -> tuple[int, list[str]]: ...

    async def reload(self) -> tuple[int, list[str]]: ...

    async def differences(self, text: str, source: str) -> tuple[list[str], list[str]]: ...


def snapshot_of(control: Control) -> Snapshot:
    """The daemon as observers see it."""
    return Snapshot(control.config, control.ids, control.datapath)


async def status(control: Control) -> dict[str, Any]:
    """What the daemon says of itself, how many flows there are, counted as `show flows` lists them, and what
    its driver and its lanes count."""
    told, snapshot = control.status(), snapshot_of(control)
    now = await asyncio.to_thread(flows.count, snapshot)
    counted = counters.frames(snapshot.reader.frames())
    return {
        **told,
        "flows": {**told["flows"], "now": now},
        "lanes": counters.lanes(snapshot.reader.lanes()),
        "frames": counted,
    }


def _json(payload: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response({"version": VERSION, **payload}, status=status)


def _error(error: EvenerError) -> web.Response:
    found: dict[str, Any] = {
        "what": error.what,
        "where": error.where,
        "do": error.do,
        "exit_code": error.exit_code,
    }
    if isinstance(error, ConfigError):
        found["source"] = error.source
        found["problems"] = [
            {
                "line": p.line,
                "path": p.path,
                "message": p.message,
                "allowed": p.allowed,
                "kind": p.kind.value,
                "column": p.column,
            }
            for p in error.problems
        ]
    return _json({"error": found}, status=422 if isinstance(error, ConfigError) else 409)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EvenerError as error:
        return _error(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _json({"error": {"what": error.reason, "where": request.path, "do": "",
                                "exit_code": 1}}, error.status)  # fmt: skip


async def _body(request: web.Request, *names: str) -> list[str]:
    """String fields of the request's JSON object; 400 if they are not there."""
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise web.HTTPBadRequest(reason=f"the body is no JSON: {error}") from error
    if not isinstance(body, dict) or not all(isinstance(body.get(n), str) for n in names):
        raise web.HTTPBadRequest(reason=f"the body needs the strings {', '.join(names)}")
    return [body[name] for name in names]


class Api:
    """The routes over one daemon."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._tracing = 0
        self.app = web.Application(middlewares=[_errors], client_max_size=BODY_MAX)
        self.app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/services", self._rows(counters.services)),
                web.get("/v1/backends", self._rows(counters.backends)),
                web.get("/v1/counters", self._rows(counters.counters)),
                web.get("/v1/reasons", self._rows(counters.reasons)),
                web.get("/v1/flows", self._flows),
                web.post("/v1/apply", self._apply),
                web.post("/v1/reload", self._reload),
                web.post("/v1/diff", self._diff),
                web.post("/v1/explain", self._explain),
                web.get("/v1/trace", self._trace),
            ]
        )

    def _snapshot(self) -> Snapshot:
        return snapshot_of(self._control)

    async def _status(self, _: web.Request) -> web.Response:
        return _json({"evener": __version__, **await status(self._control)})

    def _rows(self, read: Callable[[Snapshot], list[dict[str, Any]]]) -> Handler:
        async def handler(_: web.Request) -> web.StreamResponse:
            return _json({"rows": await asyncio.to_thread(read, self._snapshot())})

        return handler

    async def _flows(self, request: web.Request) -> web.Response:
        filters = dict(request.query)
        try:
            limit = int(filters.pop("limit", "0"))
        except ValueError as error:
            raise web.HTTPBadRequest(reason="limit is a whole number; 0: all") from error
        rows = await asyncio.to_thread(flows.flows, self._snapshot(), filters, limit)
        return _json({"rows": rows})

    async def _apply(self, request: web.Request) -> web.Response:
        generation, changes = await self._control.apply(*await _body(request, "text", "source"))
        return _json({"generation": generation, "changes": changes})

    async def _reload(self, _: web.Request) -> web.Response:
        generation, changes = await self._control.reload()
        return _json({"generation": generation, "changes": changes})

    async def _diff(self, request: web.Request) -> web.Response:
        changes, refused = await self._control.differences(*await _body(request, "text", "source"))
        return _json({"changes": changes, "refused": refused})

    async def _explain(self, request: web.Request) -> web.Response:
        client, listen = await _body(request, "client", "listen")
        return _json(
            {
                "plan": await asyncio.to_thread(
                    explain.explain, self._snapshot(), Core, client, listen
                )
            }
        )

    async def _trace(self, request: web.Request) -> web.StreamResponse:
        """Events as they happen, one line each, until the client goes."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        settings = self._control.datapath.tables.settings[0]
        query = Query.parse(dict(request.query), self._snapshot(), EVENT_FILTERS)
        follower = trace.Follower(self._control.datapath, query)
        self._tracing += 1
        settings["trace"] = 1
        try:
            await response.prepare(request)
            await response.write(b'{"version": 1, "trace": "begin"}\n')
            while not _gone(request):
                await response.write(self._new_events(follower))
                await asyncio.sleep(TRACE_EVERY_S)
        except ConnectionError:
            pass
        finally:
            self._tracing -= 1
            if not self._tracing:
                settings["trace"] = 0
        return response

    def _new_events(self, follower: trace.Follower) -> bytes:
        snapshot = self._snapshot()
        events, lost = follower.read()
        lines = [json.dumps(trace.event_json(event, cpu, snapshot)) for event, cpu in events]
        if lost:
            lines.append(json.dumps({"lost": lost}))
        return "".join(f"{line}\n" for line in lines).encode()


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _remove(socket: Path) -> None:
    """A daemon that was killed leaves its socket; whoever holds the instance's lock may remove it."""
    socket.unlink(missing_ok=True)


async def serve(api: Api, socket: Path) -> web.AppRunner:
    """Listen on the Unix socket, mode 0660. The caller cleans the runner up and removes the socket."""
    runner = web.AppRunner(api.app, handle_signals=False, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    _remove(socket)
    before = os.umask(0o117)  # from the first moment on nobody else may connect
    try:
        await web.UnixSite(runner, str(socket)).start()
    finally:
        os.umask(before)
    return runner
