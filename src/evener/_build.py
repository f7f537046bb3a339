# SPDX-License-Identifier: Apache-2.0
"""Compiles the C parts: XDP programs for the kernel, the core as a shared library for this process, and
the DPDK worker, where libdpdk is installed.

    python -m evener._build                     what has changed since last time, into src/evener/_native/
    python -m evener._build evener-dpdk-asan    only this: the worker under the address sanitizer

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
from dataclasses import dataclass, replace
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
# Frame pointers, so that a report names the callers.
_ASAN = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@dataclass(frozen=True, slots=True)
class Target:
    """One compiled file: `sources` and `output` are below the project's folder, or absolute."""

    tool: Tool
    arguments: tuple[str, ...]
    sources: tuple[Path, ...]
    output: Path
    libraries: tuple[str, ...] = ()


def bpf_target(source: Path, output: Path) -> Target:
    """An XDP program. The linux/ headers want asm/, which clang finds only for its own machine."""
    asm = f"-idirafter/usr/include/{platform.machine()}-linux-gnu"
    return Target(CLANG, (*_BPF, asm), (source,), output)


def dpdk_target(root: Path, asan: bool = False) -> Target | None:
    """The DPDK worker; None if it has no sources below `root`. BuildError: libdpdk is not installed."""
    main = Path("drivers/dpdk/main.c")
    name = "evener-dpdk-asan" if asan else "evener-dpdk"
    return _dpdk(root, main, name, _ASAN if asan else ()) if (root / main).is_file() else None


def _dpdk(root: Path, main: Path, name: str, more: tuple[str, ...] = ()) -> Target:
    """A program of `main` and the worker's parts but its own main.c.

    DPDK's headers are not free of warnings, so they count as the system's.
    """
    worker = Path("drivers/dpdk")
    parts = {path.relative_to(root) for path in (root / worker).glob("*.c")} - {worker / "main.c"}
    headers = [f.replace("-I", "-isystem", 1) for f in _pkg_config("--cflags", "libdpdk")]
    libraries = _pkg_config("--libs", "libdpdk")
    return Target(
        CC,
        (*_COMMON, "-D_GNU_SOURCE=", f"-I{worker}", *more, *headers),
        (main, *sorted(parts - {main})),
        NATIVE / name,
        libraries,
    )


def _pkg_config(what: str, library: str) -> tuple[str, ...]:
    tool = shutil.which("pkg-config")
    run = tool and subprocess.run([tool, what, library], capture_output=True, text=True)
    if not run or run.returncode != 0:
        raise BuildError(
            f"{library} is not installed: install Debian's packages {library}-dev and pkgconf"
        )
    return tuple(run.stdout.split())


def targets(root: Path, log: Callable[[str], object] = lambda _: None) -> list[Target]:
    """Everything there is to compile below `root`, in a stable order. `log` is told what is left out."""
    found = [
        bpf_target(source.relative_to(root), NATIVE / f"{source.stem}.o")
        for folder in ("drivers/xdp", "bench")
        for source in sorted((root / folder).glob("*.bpf.c"))
    ]
    native = Path("drivers/native/lb_native.c")
    if (root / native).is_file():
        found.append(Target(CC, _SHARED, (native,), NATIVE / "liblb.so"))
    count, ring = Path("bench/t5_count.c"), Path("bench/t5_ring.c")
    if (root / count).is_file():
        tests = ("-Icore/tests", "-Idrivers/native")
        found.append(Target(CC, (*_COMMON, *tests), (count,), NATIVE / count.stem))
    try:
        worker = dpdk_target(root)
    except BuildError as error:
        log(f"without the driver dpdk: {error}")
    else:
        found += [worker] if worker else []
        if (root / ring).is_file():
            bench = _dpdk(root, ring, ring.stem)
            found.append(replace(bench, libraries=(*bench.libraries, "-lrte_net_ring")))
    return found


def build_all(root: Path, log: Callable[[str], object]) -> list[Path]:
    """Bring every target below `root` up to date; their paths. BuildError when one cannot be.

    `log` is called with one line for each file that is compiled, from any thread.
    """
    todo = targets(root, log)
    with _turn(root / NATIVE), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda target: build(target, root, log), todo))


def build_named(names: list[str], root: Path, log: Callable[[str], object]) -> list[Path]:
    """Bring the targets of these names up to date, also those that are built on demand only; their paths.

    BuildError: there is none of that name, or it cannot be built.
    """
    asan = "evener-dpdk-asan"
    known = {t.output.name: t for t in targets(root)}
    if asan in names and (worker := dpdk_target(root, asan=True)):
        known[asan] = worker
    for name in names:
        if name not in known:
            raise BuildError(f"there is no {name}: there are {', '.join(sorted({*known, asan}))}")
    with _turn(root / NATIVE):
        return [build(known[name], root, log) for name in names]


def build(target: Target, root: Path, log: Callable[[str], object]) -> Path:
    """Bring one target up to date; its path."""
    output = root / target.output
    compiler = target.tool.find()
    arguments = (argument.format(root=root) for argument in target.arguments)
    command = [compiler, *arguments, *map(str, target.sources)]
    whole = [*command, *target.libraries]
    record = output.with_name(f".{output.name}.json")
    if not _is_current(output, record, whole, root):
        log(f"compiling {target.sources[0]}")
        record.unlink(missing_ok=True)
        started = time.time_ns()
        headers = _compile(command, target, output, root)
        record.write_text(json.dumps(_record(whole, headers, started)))
    return output


def _compile(command: list[str], target: Target, output: Path, root: Path) -> list[str]:
    """Run the compiler in `root`; the files that it read, as it names them."""

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise BuildError(f"{command[0]} refused {target.sources[0]}:\n{done.stdout.rstrip()}")
        return done.stdout

    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        result = Path(folder, "out")
        run(*target.libraries, "-o", str(result))
        # By itself, as -MF holds the listing of one source only; -w: it does not link.
        listing = run("-w", "-MM", "-MT", "out").replace("\\\n", " ")
        result.replace(output)
    return sorted({name for line in listing.splitlines() for name in line.split()[1:]})


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


def main(names: list[str]) -> int:
    """The command line. 0: everything is current; 1: something could not be compiled."""
    root = Path(__file__).parents[2]
    if not (root / "drivers").is_dir():
        print("nothing to build: this evener is installed with its compiled files")
        return 0
    try:
        if names:
            build_named(names, root, print)
        else:
            build_all(root, print)
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
