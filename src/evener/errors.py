# SPDX-License-Identifier: Apache-2.0
"""Every error that evener raises on purpose, as one tree.

An error says what is so, where, and what to do about it, so that it can be shown to an operator as
it is. Each class has an exit code of its own; the command line returns it. 0 is success, 2 is wrong
usage of the command line (click's own).

    EvenerError (1)
    |-- ConfigError (3)      the configuration file
    |-- MachineError (4)     this machine lacks something: root, BPF, a newer kernel, a tool
    |-- InterfaceError (5)   a network interface is absent or unsuitable
    |-- DaemonError (6)      the daemon cannot be reached or refused
    `-- DatapathError (7)    the datapath failed: load, attach, publish
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class EvenerError(Exception):
    """What is so, where, and what to do; str() is "what (where): do", empty parts left out."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        super().__init__(what, where, do)
        self.what = what
        self.where = where
        self.do = do

    def __str__(self) -> str:
        text = f"{self.what} ({self.where})" if self.where else self.what
        return f"{text}: {self.do}" if self.do else text


class ProblemKind(StrEnum):
    """Whether a value can never be right, or is understood but not available in this version."""

    WRONG = "wrong"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file.

    line and column count from 1; line 0 means the file as a whole (it could not be read), column 0
    means that only the line is known. path is the key as an operator writes it
    (`pool.web.backends[1].weight`), empty for a syntax error. allowed describes the values that
    would be right.
    """

    line: int
    path: str
    message: str
    allowed: str
    kind: ProblemKind = ProblemKind.WRONG
    column: int = 0

    def text(self, source: str) -> str:
        """One line: "FILE:LINE: KEY: what is wrong; allowed: what is right"."""
        place = [source, *(str(number) for number in (self.line, self.column) if number)]
        label = "available" if self.kind is ProblemKind.UNAVAILABLE else "allowed"
        parts = [":".join(place), self.path, self.message]
        return ": ".join(part for part in parts if part) + f"; {label}: {self.allowed}"


class ConfigError(EvenerError):
    """A configuration with at least one problem. Nothing of it is used.

    problems are sorted by line; source is the file's name as the caller gave it. str() has one line
    per problem.
    """

    exit_code = 3

    def __init__(self, problems: Iterable[Problem], source: str) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        self.source = source
        count = len(self.problems)
        what = f"{count} problem{'' if count == 1 else 's'} in the configuration"
        super().__init__(what, source, "".join(f"\n  {p.text(source)}" for p in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem], str]]:
        # A copy in another process would otherwise be constructed from (what, where, do).
        return type(self), (self.problems, self.source)

    def __str__(self) -> str:
        return f"{self.what} ({self.where}):{self.do}"


class MachineError(EvenerError):
    """This machine cannot do what was asked: no root, no BPF, an old kernel, a missing tool."""

    exit_code = 4


class InterfaceError(EvenerError):
    """A network interface is absent, down, or cannot carry the datapath."""

    exit_code = 5


class DaemonError(EvenerError):
    """The daemon cannot be reached, or refused the request."""

    exit_code = 6


class DatapathError(EvenerError):
    """The datapath failed: it could not be loaded, attached, read or given new tables."""

    exit_code = 7


def by_exit_code() -> dict[int, type[EvenerError]]:
    """The classes of the tree above. Others, which only refine one of them, share its code."""
    tree = (EvenerError, ConfigError, MachineError, InterfaceError, DaemonError, DatapathError)
    return {error.exit_code: error for error in tree}
