# SPDX-License-Identifier: Apache-2.0
"""exit-codes.md: the codes and the errors that have them."""

from __future__ import annotations

from evener.cli.exits import EXIT_CODES
from evener.errors import by_exit_code
from reference import text

INTRODUCTION = """
Every command ends with one of these. A failure prints what is so, where, and what to do, on standard error; the code
tells a script which kind of failure it was. `evener lab exec` ends with the code of the command that it ran.
"""


def write() -> str:
    """The page."""
    found = {code: error.__name__ for code, error in by_exit_code().items()}
    if missing := found.keys() - dict(EXIT_CODES).keys():
        raise SystemExit(f"exit codes {sorted(missing)} are not in evener.cli.exits")
    rows = [
        [code, meaning, text.code(found[code]) if code in found else ""]
        for code, meaning in EXIT_CODES
    ]
    heads = ["code", "meaning", "error in `evener.errors`"]
    return text.page("Exit codes", INTRODUCTION, text.table(heads, rows))
