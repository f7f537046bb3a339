# SPDX-License-Identifier: Apache-2.0
"""exit-codes.md: the codes and the errors that have them."""

from __future__ import annotations

from collections.abc import Iterator

from evener.cli.exits import EXIT_CODES
from evener.errors import EvenerError
from reference import text

INTRODUCTION = """
Every command ends with one of these. A failure prints what is so, where, and what to do, on standard error; the code
tells a script which kind of failure it was. `evener lab exec` ends with the code of the command that it ran.
"""


def write() -> str:
    """The page."""
    found = {error.exit_code: error.__name__ for error in errors(EvenerError)}
    if missing := found.keys() - dict(EXIT_CODES).keys():
        raise SystemExit(f"exit codes {sorted(missing)} are not in evener.cli.exits")
    rows = [
        [code, meaning, text.code(found[code]) if code in found else ""]
        for code, meaning in EXIT_CODES
    ]
    heads = ["code", "meaning", "error in `evener.errors`"]
    return text.page("Exit codes", INTRODUCTION, text.table(heads, rows))


def errors(base: type[EvenerError]) -> Iterator[type[EvenerError]]:
    """The classes that have an exit code of their own."""
    if "exit_code" in vars(base):
        yield base
    for child in base.__subclasses__():
        yield from errors(child)
