# SPDX-License-Identifier: Apache-2.0
"""Read a file, find everything that is wrong with it, or build the model."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from evener.config import checks, lines, problems, schema
from evener.errors import ConfigError, Problem
from evener.model import Backend, Config, Datapath, Pool, Service, Timeouts, endpoint

MAX_BYTES: Final = 16 << 20
"""Largest file; the largest allowed number of services and backends needs far less than 1 MiB."""


def load(path: str | os.PathLike[str]) -> Config:
    """The configuration in a file; ConfigError has every problem, or why it cannot be read."""
    source = os.fspath(path)
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        unreadable = Problem(0, "", f"cannot be read: {reason}", "a file that this user may read")
        raise ConfigError([unreadable], source) from None
    if len(data) > MAX_BYTES:
        large = Problem(0, "", "the file is too large", f"at most {MAX_BYTES >> 20} MiB")
        raise ConfigError([large], source)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(data[: error.start], data[error.start])], source) from None
    return loads(text, source)


def loads(text: str, source: str = "<text>") -> Config:
    """The configuration in a text; source is what errors call it. ConfigError has every problem."""
    text = text.replace("\r\n", "\n")
    try:
        text.encode()
        raw = tomllib.loads(text)
    except UnicodeEncodeError as error:
        before = text[: error.start].encode()
        raise ConfigError([_not_utf8(before, ord(text[error.start]))], source) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([problems.of_syntax(text, error)], source) from None
    found: list[checks.Located] = []
    file: schema.File | None = None
    try:
        file = schema.File.model_validate(raw)
    except ValidationError as error:
        found += problems.of_schema(raw, error)
    found += checks.check(raw)
    if found or file is None:
        raise ConfigError(_with_lines(text, found), source)
    return _build(file)


def _not_utf8(before: bytes, value: int) -> Problem:
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return Problem(line, "", f"not text: byte or code 0x{value:02x}", "UTF-8", column=column)


def _with_lines(text: str, found: list[checks.Located]) -> list[Problem]:
    where = lines.index(text)
    return [
        Problem(lines.find(where, path), checks.text_of(path), f.message, f.allowed, f.kind)
        for path, f in found
    ]


def _build(file: schema.File) -> Config:
    return Config(
        datapath=Datapath(
            driver=file.datapath.driver,
            interfaces=tuple(file.datapath.interfaces),
            flows=file.datapath.flows,
            eal=tuple(file.datapath.eal),
        ),
        pools=tuple(_pool(name, table) for name, table in file.pool.items()),
        services=tuple(_service(name, table) for name, table in file.service.items()),
        timeouts=Timeouts(**_plain(file.timeouts)),
    )


def _plain(table: schema.TimeoutsTable) -> dict[str, Any]:
    return {name: getattr(table, name) for name in type(table).model_fields}


def _pool(name: str, table: schema.PoolTable) -> Pool:
    backends = tuple(
        Backend(
            name=backend.name or endpoint(*backend.address),
            address=backend.address.address,
            port=backend.address.port,
            weight=backend.weight,
        )
        for backend in table.backends
    )
    return Pool(name, table.scheduler, backends)


def _service(name: str, table: schema.ServiceTable) -> Service:
    address, port, protocol = table.listen
    snat = tuple(table.snat) if table.snat is not None else (address,)
    return Service(name, address, port, protocol, table.pool, table.mode, snat)
