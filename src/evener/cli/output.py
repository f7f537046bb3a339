# SPDX-License-Identifier: Apache-2.0
"""Tables: aligned text, coloured on a terminal. Numbers stand to the right."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import click

# The words whose colours operators know from HAProxy's status page.
_STYLES: Final = {
    "usable": "green",
    "gone": "red",
    "forward": "green",
    "pass": "yellow",
    "drop": "red",
    "ESTABLISHED": "green",
    "OPENING": "yellow",
    "unresolved": "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; right: for numbers."""

    title: str
    right: bool = False


def columns(*titles: str) -> list[Column]:
    """Headings; those that end in # are of numbers."""
    return [Column(title.rstrip("#"), title.endswith("#")) for title in titles]


def cell(value: object) -> str:
    """A value as text; nothing is a dash."""
    return "-" if value is None or value == "" else str(value)


def table(heads: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of values under their headings."""
    texts = [[value if value == "" else cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _rich(heads, [[str(text) for text in row] for row in texts])
    else:
        click.echo("\n".join(plain(heads, [[str(text) for text in row] for row in texts])))


def plain(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of an aligned table."""
    titles = [head.title for head in heads]
    widths = [max(len(text) for text in column) for column in zip(titles, *rows, strict=True)]
    lines = []
    for row in (titles, *rows):
        cells = [
            text.rjust(width) if head.right else text.ljust(width)
            for text, width, head in zip(row, widths, heads, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _rich(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        made.add_column(head.title, justify="right" if head.right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
    Console(highlight=False).print(made)
