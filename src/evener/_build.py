# SPDX-License-Identifier: Apache-2.0
"""Compiles the C parts: XDP programs for the kernel, the core as a shared library for this process.

    python -m evener._build      what has changed since the last time, into src/evener/_native/

Rules: a file is compiled again when its source, a header that it includes (the compiler lists
them), the command or the compiler has changed. The result is written beside its place and moved
there, so a reader never sees half a file, and two builds at once take turns. Only the standard
library is used: the wheel's build hook runs this file before anything is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NATIVE = Path("src/evener/_native")
"""Where the compiled files go, below the project's folder."""


class BuildError(Exception):
    """A compiler is missing or refused a file. str() is for the user."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A compiler: the variable that overrides it, its usual names, and Debian's package of it."""

    variable: str
    names: tuple[str, ...]
    package: str

    def find(self) -> str:
        """The full path; BuildError if there is none."""
        names = (os.environ[self.variable],) if os.environ.get(self.variable) else self.names
        for name in names:
            if path := shutil.which(name):
                return path
        raise BuildError(
            f"no {' or '.join(names)} on this machine: install Debian's package {self.package}"
            f" ('make setup' does), or name another compiler in ${self.variable}"
        )


CLANG = Tool("CLANG", ("clang", "clang-19", "clang-16", "clang-15", "clang-14"), "clang")
CC = Tool("CC", ("cc", "gcc", "clang"), "gcc")

# The driver contract names parameters that a given driver may not need.
_WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")
# The prefix map keeps this machine's paths out of the debug information.
_COMMON = ("-std=gnu11", "-O2", "-g", "-ffile-prefix-map={root}=.", *_WARNINGS, "-Icore")
# v3 has 32-bit arithmetic and atomics, and every kernel from 5.12 on runs it.
_BPF = ("-target", "bpf", "-mcpu=v3", *_COMMON, "-c")
_SHARED = (*_COMMON, "-fPIC", "-shared")


@dataclass(frozen=True, slots=True)
class Target:
    """One compiled file: `source` and `output` are below the project's folder, or absolute."""

    tool: Tool
    arguments: tuple[str, ...]
    source: Path
    output: Path


def bpf_target(source: Path, output: Path) -> Target:
    """An XDP program. The linux/ headers want asm/, which clang finds only for its own machine."""
    asm = f"-idirafter/usr/include/{platform.machine()}-linux-gnu"
    return Target(CLANG, (*_BPF, asm), source, output)


def targets(root: Path) -> list[Target]:
    """Everything there is to compile below `root`, in a stable order."""
    found = [
        bpf_target(source.relative_to(root), NATIVE / f"{source.stem}.o")
        for folder in ("drivers/xdp", "bench")
        for source in sorted((root / folder).glob("*.bpf.c"))
    ]
    native = Path("drivers/native/lb_native.c")
    if (root / native).is_file():
        found.append(Target(CC, _SHARED, native, NATIVE / "liblb.so"))
    return found


def build_all(root: Path, log: Callable[[str], object]) -> list[Path]:
    """Bring every target below `root` up to date; their paths. BuildError when one cannot be.

    `log` is called with one line for each file that is compiled, from any thread.
    """
    todo = targets(root)
    with _turn(root / NATIVE), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda target: build(target, root, log), todo))


def build(target: Target, root: Path, log: Callable[[str], object]) -> Path:
    """Bring one target up to date; its path."""
    output = root / target.output
    compiler = target.tool.find()
    command = [compiler, *(argument.format(root=root) for argument in target.arguments)]
    record = output.with_name(f".{output.name}.json")
    if not _is_current(output, record, command, root):
        log(f"compiling {target.source}")
        record.unlink(missing_ok=True)
        started = time.time_ns()
        headers = _compile(command, target.source, output, root)
        record.write_text(json.dumps(_record(command, headers, started)))
    return output


def _compile(command: list[str], source: Path, output: Path, root: Path) -> list[str]:
    """Run the compiler in `root`; the files that it read, as it names them."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        result, listing = Path(folder, "out"), Path(folder, "out.d")
        dependencies = ["-MMD", "-MF", str(listing), "-MT", "out"]
        run = subprocess.run(
            [*command, *dependencies, str(source), "-o", str(result)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode != 0:
            raise BuildError(f"{command[0]} refused {source}:\n{run.stdout.rstrip()}")
        headers = listing.read_text().partition(":")[2].replace("\\\n", " ").split()
        result.replace(output)
    return headers


def _record(command: list[str], headers: list[str], started: int) -> dict[str, object]:
    compiler = Path(command[0]).stat()
    return {
        "started": started,  # ns; what changes during the compilation is newer, so it counts
        "command": command,
        "compiler": [compiler.st_mtime_ns, compiler.st_size],
        "headers": headers,
    }


def _is_current(output: Path, record: Path, command: list[str], root: Path) -> bool:
    try:
        known = json.loads(record.read_text())
        headers, started = known["headers"], known["started"]
        return (
            output.is_file()
            and known == _record(command, headers, started)
            and all((root / header).stat().st_mtime_ns <= started for header in headers)
        )
    except (OSError, ValueError, KeyError):
        return False


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One build at a time, over processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The command line. 0: everything is current; 1: something could not be compiled."""
    root = Path(__file__).parents[2]
    if not (root / "drivers").is_dir():
        print("nothing to build: this evener is installed with its compiled files")
        return 0
    try:
        build_all(root, print)
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
