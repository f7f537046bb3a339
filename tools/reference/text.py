# SPDX-License-Identifier: Apache-2.0
"""Markdown, as far as the pages need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MARK = "<!-- Written by tools/gen_docs.py; do not edit: `make generate`. -->"


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join([f"# {title}", MARK, *(part.strip("\n") for part in parts)]) + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def block(text: str, language: str = "") -> str:
    """A code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def code(value: object) -> str:
    """Code in a line."""
    return f"`{value}`"


def anchor(heading: str) -> str:
    """The fragment by which a heading is reached, as GitHub makes it."""
    kept = (c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return "".join(kept)


def same_keys(what: str, in_code: Iterable[str], in_words: Mapping[str, object]) -> None:
    """SystemExit when something of the code has no words, or words have lost what they are about."""
    keys = set(in_code)
    if missing := sorted(keys - in_words.keys()):
        raise SystemExit(f"{what}: {', '.join(missing)} not described in tools/reference/words.py")
    if left := sorted(in_words.keys() - keys):
        raise SystemExit(f"{what}: tools/reference/words.py describes {', '.join(left)}: gone")
