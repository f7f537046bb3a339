# SPDX-License-Identifier: Apache-2.0
"""api.md: the routes of the control socket, each with an answer that the server really gave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient, TestServer

from evener.api.server import Api
from reference import sample, text, words

INTRODUCTION = """
The daemon listens on a Unix socket, `/run/evener/net-INODE.sock` (INODE: the inode number of its network namespace,
`stat -Lc %i /proc/self/ns/net`), which only root and the socket's group may use. It speaks HTTP/1.1 with JSON; the
`evener` command uses nothing else.

    curl --unix-socket /run/evener/net-$(stat -Lc %i /proc/self/ns/net).sock http://localhost/v1/status

Every answer has `"version": 1`. Fields may be added within a version; none changes its meaning or goes. What the fields
mean is in [Fields](fields.md).
"""

ERRORS = """
## Errors

An error has status 400 (the request cannot be understood), 404, 405, 409 (it cannot be done) or 422 (the configuration
has mistakes), and says what is so, where, what to do, and the [exit code](exit-codes.md) that a command ends with. Of a
configuration all mistakes are listed:
"""

BODIES: dict[str, dict[str, str]] = {
    "/v1/apply": {"text": sample.CHANGED, "source": "/etc/evener.toml"},
    "/v1/diff": {"text": sample.CHANGED, "source": "/etc/evener.toml"},
    "/v1/explain": {"client": "10.0.0.1:34953", "listen": "10.0.0.10:8080/tcp"},
    "/v1/reload": {},
}
WRONG = {"text": 'pool = 1\n[datapath]\ndrivr = "sim"\n', "source": "/etc/evener.toml"}


def write() -> str:
    """The page."""
    answers, error = asyncio.run(_ask())
    text.same_keys("routes", answers, words.ROUTES)
    parts = [INTRODUCTION, _contents()]
    for route, words_of in words.ROUTES.items():
        path = route.split()[1]
        parts += [f"## {route}", words_of]
        if BODIES.get(path):
            body = {k: v if len(v) < 60 else "..." for k, v in BODIES[path].items()}
            parts += ["Body:", text.block(json.dumps(body), "json"), "Answer:"]
        parts.append(text.block(answers[route], "json"))
    return text.page("Control socket", *parts, ERRORS, text.block(error, "json"))


def _contents() -> str:
    rows = [
        [f"[{route}](#{text.anchor(route)})", w.split("\n")[0]] for route, w in words.ROUTES.items()
    ]
    return text.table(["route", ""], rows)


async def _ask() -> tuple[dict[str, str], str]:
    """Every route's answer; and that to a wrong configuration."""
    daemon = sample.Sample()
    api = Api(daemon)
    answers: dict[str, str] = {}
    async with TestClient(TestServer(api.app)) as client:
        trace = await client.get("/v1/trace")
        begin = await trace.content.readline()
        daemon.connect()
        event = await trace.content.readline()
        trace.close()
        answers["GET /v1/trace"] = f"{begin.decode()}{_short(_event(json.loads(event)))}"
        routes = {
            f"{route.method} {route.resource.canonical if route.resource else ''}"
            for route in api.app.router.routes()
            if route.method != "HEAD"
        }
        # Those that change something come last.
        for name in sorted(
            routes - answers.keys(), key=lambda name: (name.endswith("apply"), name)
        ):
            answers[name] = _short(await _answer(client, name))
        error = _short(await _answer(client, "POST /v1/apply", WRONG))
    return answers, error


async def _answer(
    client: TestClient[Any, Any], route: str, body: dict[str, str] | None = None
) -> dict[str, Any]:
    method, path = route.split()
    given = BODIES.get(path) if body is None else body
    response: aiohttp.ClientResponse = await client.request(method, path, json=given)
    answer: dict[str, Any] = await response.json()
    return answer


def _event(event: dict[str, Any]) -> dict[str, Any]:
    """The clock stands for everyone."""
    return {**event, "time_ns": 1_000_000_000_000}


def _short(answer: dict[str, Any]) -> str:
    """JSON of which lists of rows are shown with their first row."""
    rows = answer.get("rows")
    if isinstance(rows, list) and len(rows) > 1:
        answer = {**answer, "rows": [rows[0], "..."]}
    return json.dumps(answer, indent=2).replace('"..."', "...")
