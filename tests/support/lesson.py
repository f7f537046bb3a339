# SPDX-License-Identifier: Apache-2.0
"""Lessons that are run: a page's blocks of commands are carried out, and what the page shows is
compared with what came of them.

A block that begins with ```console holds commands, each behind a prompt that names the terminal in
which it is typed (`h1$ evener lab exec h1 -- nc 10.0.0.10 8080`), and what they print. A command that
does not end by itself (RUNNING) stays in its terminal. Other blocks are looked at when a comment
before them says how:

    <!-- type h1 -->       its lines are typed into what runs in terminal h1
    <!-- appears h1 -->    its lines appear in terminal h1, after those that were looked at before
    <!-- twice bridge -->  the same, of a capture: each segment is there twice (order may vary)
    <!-- end h1 -->        no block: Ctrl-C in terminal h1
    <!-- kill h1 -->       no block: what runs in terminal h1 has ended by now

Shown and real output are compared by shape: numbers, and spaces that align them, may differ; a line
`...` stands for any lines. A process's number in a command is the one that was shown before. Which
backend a client gets differs from lab to lab, since the hash is seeded with a secret; the page shows
h2, and where it is h3, the page is read with the two exchanged. `--rewrite-lessons` writes what
happened into the page, whole, to be reviewed as a diff.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROMPT = re.compile(r"^(\w+)\$ (.*)$")
BLOCK = re.compile(r"(?:^<!-- (type|appears|twice) (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.S | re.M)
SIGNAL = re.compile(r"^<!-- (end|kill) (\w+) -->$", re.M)
RUNNING = re.compile(r"(\bnc\b(?!.*-\w*z)|tcpdump|evener trace(?!.*--count)|evener run)")
CHOSEN = re.compile(r"\bbackend web/(h[23]) at\b")
PROCESS = re.compile(r"\b(?:process|worker) (\d+)\b")
WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the page. verb: console, type, appears, twice, end, kill; others are not run.

    start, stop: where its lines are in the page's text.
    """

    verb: str
    terminal: str
    lines: tuple[str, ...]
    start: int
    stop: int


def read(text: str) -> list[Block]:
    """The blocks of a page that are run, in order."""
    found = []
    for match in BLOCK.finditer(text):
        verb = match[1] or (match[3] if match[3] == "console" else "")
        if verb:
            lines = tuple(match[4].splitlines())
            found.append(Block(verb, match[2] or "", lines, *match.span(4)))
    found += [Block(m[1], m[2], (), *m.span()) for m in SIGNAL.finditer(text)]
    return sorted(found, key=lambda block: block.start)


def commands(text: str) -> list[str]:
    """Every command of a page, without the terminal's name."""
    return [m[2] for b in read(text) for line in b.lines if (m := PROMPT.match(line))]


def exchanged(text: str) -> str:
    """The text with h2 and h3 exchanged."""
    pairs = {"h2": "h3", "10.0.0.2": "10.0.0.3", "ef:00:02": "ef:00:03"}
    both = {**pairs, **{new: old for old, new in pairs.items()}}
    words = "|".join(re.escape(word) for word in both)
    return re.sub(rf"(?<![\w.])({words})(?!\w)|(?<=:)({words})(?!\w)", lambda m: both[m[0]], text)


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{16}\b|\bh[23]\b", "N", line)
    line = re.sub(r"\b\d+(?:[.,:]\d+)*\b", "N", line)
    return " ".join(line.split())


def kept(shown: list[str], real: list[str]) -> list[str] | None:
    """What is real in the form of what is shown: `...` where that has it, for any lines. None if it
    does not fit."""
    if not shown:
        return None if real else []
    if shown[0].strip() == "...":
        rests = (kept(shown[1:], real[at:]) for at in range(len(real) + 1))
        rest = next((found for found in rests if found is not None), None)
        return None if rest is None else [shown[0], *rest]
    if not real or shape(shown[0]) != shape(real[0]):
        return None
    rest = kept(shown[1:], real[1:])
    return None if rest is None else [real[0], *rest]


class Terminal:
    """What a person sees of a running program, and can type into it."""

    def __init__(self, command: str, environment: Mapping[str, str], folder: Path) -> None:
        ours, theirs = os.openpty()  # a terminal, so that programs do not hold lines back
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
            env=dict(environment), cwd=folder,
        )  # fmt: skip
        os.close(theirs)
        self._lines: list[str] = []
        self._looked = 0
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, handle: int) -> None:
        with open(handle, errors="replace", closefd=True) as output, contextlib.suppress(OSError):
            for line in output:  # EIO is how a pseudo-terminal ends
                self._lines.append(line.rstrip("\r\n"))

    def begun(self) -> None:
        """Wait until the shell, and `evener lab exec`, are what they were to run, or have spoken."""
        name = Path(f"/proc/{self._process.pid}/comm")
        with contextlib.suppress(FileNotFoundError):
            ours = ("bash", "evener")
            wait_for(lambda: bool(self._lines) or name.read_text().strip() not in ours)

    def type(self, line: str) -> None:
        """A line and Enter."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the lesson may want it
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def news(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """The lines since the last look, as soon as they are enough."""
        wait_for(lambda: enough(self._lines[self._looked :]))
        time.sleep(0.1)  # what is too much comes right behind
        lines = self._lines[self._looked :]
        self._looked += len(lines)
        return lines

    def ended(self) -> bool:
        """Whether the program is over, and all it said was read."""
        return self._process.poll() is not None and not self._reader.is_alive()

    def end(self) -> None:
        """Ctrl-C, and no patience with what ignores it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(3)


def wait_for(condition: Callable[[], bool]) -> bool:
    """Until it is so, or too late; whether it is."""
    end = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@dataclass
class Lesson:
    """A page being carried out in a lab of the given name, in the given folder."""

    page: Path
    name: str
    folder: Path
    environment: Mapping[str, str]
    differences: list[str] = field(default_factory=list)
    swap: bool = False

    def __post_init__(self) -> None:
        self._terminals: dict[str, Terminal] = {}
        self._processes: dict[str, str] = {}
        self._rewriting = False
        self._text = self.page.read_text()
        self._real: list[tuple[Block, list[str]]] = []

    def run(self, rewriting: bool = False) -> None:
        """Until something differs; `differences` says where the page is wrong. rewriting: all of it,
        and OtherBackendError when this lab cannot be what the page shows."""
        self._rewriting = rewriting
        try:
            for block in read(self._text):
                getattr(self, f"_{block.verb}")(block)
                if self.differences and not rewriting:
                    return
        finally:
            for terminal in self._terminals.values():
                terminal.end()

    def rewritten(self) -> str:
        """The page with what happened."""
        text = self._text
        for block, lines in sorted(self._real, key=lambda item: -item[0].start):
            text = text[: block.start] + "".join(f"{line}\n" for line in lines) + text[block.stop :]
        return text

    def _here(self, text: str) -> str:
        """A line of the page, as it is to be read in this lab."""
        return exchanged(text) if self.swap else text

    def _lab(self, command: str) -> str:
        """A command of the page for the lab of this run."""
        command = re.sub(
            r"\bevener lab (up|exec|down)\b", rf"evener lab \1 --name {self.name}", command
        )
        return command.replace("lab-lab.toml", f"lab-{self.name}.toml")

    def _page(self, line: str) -> str:
        """A line of this lab as the page says it."""
        line = line.replace(f"lab-{self.name}.toml", "lab-lab.toml")
        line = line.replace(f"/evener-{self.name}-", "/evener-lab-")
        return line.replace(f" --name {self.name}", "").replace(f"lab {self.name} ", "lab lab ")

    def _console(self, block: Block) -> None:
        said: list[str] = []
        for terminal, command, shown in _commands(block):
            for number, real in self._processes.items():
                command = command.replace(number, real)
            said.append(f"{terminal}$ {command}")
            lines = self._do(terminal, self._lab(self._here(command)), shown)
            if "show flows" in command:
                shown, lines = _sorted(shown), _sorted(lines)
            said += self._judge(command, shown, lines)
            self._processes.update(zip(_processes(shown), _processes(lines), strict=False))
            self.swap = self.swap or _backend(lines) == "h3"
            if self.swap and self._rewriting:
                raise OtherBackendError
        self._real.append((block, said))

    def _do(self, terminal: str, command: str, shown: list[str]) -> list[str]:
        if RUNNING.search(command):
            if terminal in self._terminals:
                self._terminals[terminal].end()
            self._terminals[terminal] = Terminal(command, self.environment, self.folder)
            self._terminals[terminal].begun()
            lines = self._terminals[terminal].news(lambda new: len(new) >= len(shown))
        else:
            done = subprocess.run(
                ["bash", "-c", command], env=dict(self.environment), cwd=self.folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                timeout=3 * WAIT_S, check=False,
            )  # fmt: skip
            lines = done.stdout.splitlines()
        return [self._page(line) for line in lines]

    def _type(self, block: Block) -> None:
        for line in block.lines:
            self._at(block).type(self._here(line))

    def _appears(self, block: Block) -> None:
        shown = list(block.lines)
        lines = self._at(block).news(lambda new: kept(shown, new) is not None)
        self._real.append((block, self._judge(f"terminal {block.terminal}", shown, lines)))

    def _twice(self, block: Block) -> None:
        terminal = self._at(block)
        lines = terminal.news(lambda new: len(new) >= len(block.lines) and not odd_segments(new))
        if odd := odd_segments(lines):
            self.differences += ["not twice:", *odd]
        self._real.append((block, lines))

    def _end(self, block: Block) -> None:
        self._at(block).end()

    def _kill(self, block: Block) -> None:
        if not wait_for(self._at(block).ended):
            self.differences.append(f"{block.terminal} still runs")

    def _at(self, block: Block) -> Terminal:
        """The terminal that a block names; what runs in it may be on the exchanged host."""
        return self._terminals[block.terminal]

    def _judge(self, what: str, shown: list[str], real: list[str]) -> list[str]:
        """What the page should show; a difference is noted."""
        found = kept(shown, real)
        if found is None:
            self.differences += [f"{what}: the page says", *shown, "and what came is", *real]
        return real if found is None else found


def _sorted(lines: list[str]) -> list[str]:
    """Lines of flows, which come in the order of the flow table, in that of their clients."""
    return [*lines[:1], *sorted(lines[1:], key=lambda line: line.split()[3:4])]


def _commands(block: Block) -> Iterator[tuple[str, str, list[str]]]:
    """(terminal, command, what it shows) of a console block."""
    terminal, command, shown = "", "", list[str]()
    for line in block.lines:
        if match := PROMPT.match(line):
            if terminal:
                yield terminal, command, shown
            terminal, command, shown = match[1], match[2], []
        else:
            shown.append(line)
    if terminal:
        yield terminal, command, shown


class OtherBackendError(Exception):
    """The lab's hash chose h3."""


def _processes(lines: list[str]) -> list[str]:
    return PROCESS.findall("\n".join(lines))


def _backend(lines: list[str]) -> str:
    """The backend that lines say was chosen, if any."""
    found = CHOSEN.search("\n".join(lines))
    return found[1] if found else ""


def odd_segments(lines: list[str]) -> list[str]:
    """Lines of tcpdump -S whose segment is not there twice, before and after the balancer."""
    counts: dict[str, list[str]] = {}
    for line in lines:
        if " Flags " in line:
            segment = line.partition(" Flags ")[2]
            counts.setdefault(segment, []).append(line)
    return [line for same in counts.values() if len(same) % 2 for line in same]
