# SPDX-License-Identifier: Apache-2.0
"""The project's pages: their headings, links, and the commands that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from evener.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.S | re.M)
_INDENTED = re.compile(r"(?<=\n\n)((?: {4}[^\n]*\n)+)")
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_PROMPT = re.compile(r"^(?:\w+)?[$#] ")
_SYNOPSIS = re.compile(r"[|\[\]]|\.\.\.")


def name(path: Path) -> str:
    """A page's path as people write it."""
    return str(path.relative_to(ROOT))


@cache
def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return _INDENTED.sub("\n", _FENCE.sub("", path.read_text()))


@cache
def anchors(path: Path) -> frozenset[str]:
    """The fragments by which a page's headings are reached, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", prose(path), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found)
    return frozenset(kept)


def links(path: Path) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(prose(path))


def quoted(path: Path) -> list[str]:
    """What a page's prose quotes as code."""
    return re.findall(r"`([^`\n]+)`", prose(path))


def command_lines(path: Path) -> Iterator[str]:
    """Every command of a page: at a prompt, in indented blocks and `sh` ones, and quoted."""
    text = path.read_text()
    for language, body in _FENCE.findall(text):
        for line in body.splitlines():
            if prompt := _PROMPT.match(line):
                yield line[prompt.end() :]
            elif language == "sh":
                yield line
    for body in _INDENTED.findall(_FENCE.sub("", text)):
        yield from (line.strip() for line in body.splitlines())
    yield from quoted(path)


def make_targets(path: Path) -> set[str]:
    """The targets of make that a page names."""
    lines = (line.partition(" #")[0].removeprefix("sudo ") for line in command_lines(path))
    found = (re.split(r"\s+&&\s+", line) for line in lines)
    return {
        word
        for parts in found
        for part in parts
        if re.match(r"make [a-z]", part)
        for word in part.split()[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }


def evener_lines(path: Path) -> list[str]:
    """The evener commands of a page, not those that only show a form (`up|down`, `...`)."""
    found = []
    for line in command_lines(path):
        line = re.sub(r"^(?:sudo )?(?:\.venv/bin/)?", "", line)
        if re.match(r"evener [a-z-]", line) and not _SYNOPSIS.search(line):
            found.append(line)
    return found


def parse(words: list[str]) -> None:
    """Let click understand a command, as far as that goes without running it; UsageError if it is
    wrong. What `evener lab exec` is to run is understood, too, if it is evener."""
    context = cli.make_context("evener", words[1:])
    command: click.Command = cli
    while isinstance(command, click.Group):
        arguments = [*context._protected_args, *context.args]
        if not arguments or arguments[0].isupper():
            return
        label, child, rest = command.resolve_command(context, arguments)
        assert child is not None
        context = child.make_context(label, rest, parent=context)
        command = child
    inner = [word for word in context.params.get("cmd") or () if word != "--"]
    if inner[:1] == ["evener"]:
        parse(inner)


def understood(line: str) -> str:
    """What is wrong with an evener command; empty if nothing is."""
    try:
        parse(shlex.split(line.partition(" > ")[0], comments=True))
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):  # --help, or a group
        return ""
    except click.MissingParameter as error:
        mentioned = re.fullmatch(r"evener(?: [a-z]+)*(?: --json)?", line)  # by name only
        return "" if mentioned else error.format_message()
    except click.ClickException as error:
        return error.format_message()
    return ""
