# SPDX-License-Identifier: Apache-2.0
"""Which line of a TOML file holds which key: tomllib tells positions for syntax errors only.

Run only when a file was found wrong, and only on text that tomllib has accepted: the scanner
follows structure (headers, dotted keys, arrays of tables, inline tables, lists over many lines) and
checks nothing. On text that is not TOML it returns something, and never raises.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""A place in the file's data: keys and positions in lists, ("pool", "web", "backends", 1)."""

_TOKEN: Final = re.compile(
    r"""
      (?P<skip> [ \t\r]+ | \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string> \"{3} (?: [^"\\] | \\. | "(?!"") )* "{3,5}   # two quotes may precede the end
                | '{3} .*? '{3,5}
                | " (?: [^"\\\n] | \\. )* "
                | ' [^'\n]* ' )
    | (?P<mark> [\[\]{},=.] )
    | (?P<bare> [^\s\[\]{},=.\#"']+ )
    """,
    re.VERBOSE | re.DOTALL,
)

# "" is the end of the file. No string token equals one of these: strings keep their quotes.
_AFTER_A_VALUE: Final = frozenset({",", "]", "}", "\n", ""})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def index(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table and list element first stands; () is line 1."""
    scanner = _Scanner(_tokens(text))
    # Nested deeper than the scanner can follow: what was found so far still helps.
    with contextlib.suppress(RecursionError):
        scanner.document()
    return scanner.lines


def find(lines: dict[Path, int], path: Path) -> int:
    """The line of path, or of the nearest thing around it: for a missing key, its table."""
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    line, position = 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            position += 1
            continue
        kind = match.lastgroup or "skip"
        if kind != "skip":
            tokens.append(_Token(kind, match[0], line))
        line += match[0].count("\n")
        position = match.end()
    tokens.append(_Token("end", "", line))
    return tokens


def _key(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    try:
        return str(tomllib.loads(f"key = {token.text}")["key"])
    except ValueError:
        return token.text


@dataclass(slots=True)
class _Scanner:
    """Recursive descent over tokens; the last token is "end" and is never passed."""

    tokens: list[_Token]
    at: int = 0
    lines: dict[Path, int] = field(default_factory=lambda: {(): 1})
    sizes: dict[Path, int] = field(default_factory=dict)  # of arrays of tables, [[...]]

    def _peek(self) -> _Token:
        return self.tokens[self.at]

    def _next(self) -> _Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def _accept(self, text: str) -> bool:
        token = self._peek()
        if token.kind in {"mark", "newline"} and token.text == text:
            self._next()
            return True
        return False

    def _skip_newlines(self) -> None:
        while self._accept("\n"):
            pass

    def document(self) -> None:
        """The whole file: headers, and assignments below them."""
        table: Path = ()
        while self._peek().kind != "end":
            start = self.at
            self._skip_newlines()
            if self._accept("["):
                table = self._header()
            elif self._peek().kind in {"bare", "string"}:
                self._assignment(table)
            if self.at == start:  # not TOML
                self._next()

    def _header(self) -> Path:
        line = self._peek().line
        array = self._accept("[")
        keys = self._dotted()
        path: Path = ()
        for position, key in enumerate(keys):
            path += (key,)
            self.lines.setdefault(path, line)
            if array and position == len(keys) - 1:
                self.sizes[path] = self.sizes.get(path, 0) + 1
            if path in self.sizes:
                path += (self.sizes[path] - 1,)
        self.lines[path] = line
        self._accept("]")
        self._accept("]")
        return path

    def _dotted(self) -> list[str]:
        keys: list[str] = []
        while self._peek().kind in {"bare", "string"}:
            keys.append(_key(self._next()))
            if not self._accept("."):
                break
        return keys

    def _assignment(self, table: Path) -> None:
        line = self._peek().line
        path = table
        for key in self._dotted():
            path += (key,)
            self.lines.setdefault(path, line)
        if self._accept("="):
            self._value(path)

    def _value(self, path: Path) -> None:
        if self._accept("["):
            self._list(path)
        elif self._accept("{"):
            self._inline(path)
        else:
            while self._peek().text not in _AFTER_A_VALUE:
                self._next()

    def _list(self, path: Path) -> None:
        position = 0
        while self._peek().kind != "end":
            self._skip_newlines()
            if self._accept("]"):
                return
            start = self.at
            self.lines.setdefault((*path, position), self._peek().line)
            self._value((*path, position))
            self._skip_newlines()
            self._accept(",")
            position += 1
            if self.at == start:
                self._next()

    def _inline(self, path: Path) -> None:
        while self._peek().kind != "end":
            self._skip_newlines()
            if self._accept("}"):
                return
            start = self.at
            self._assignment(path)
            self._accept(",")
            if self.at == start:
                self._next()
