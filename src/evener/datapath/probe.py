# SPDX-License-Identifier: Apache-2.0
"""What can this host run? Each answer is tried, not guessed, and is a sentence for the operator.

Nothing is left behind: a map of eight bytes and a network namespace exist for a moment.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path

from evener.datapath.libbpf import ffi, lib, libc
from evener.datapath.objects import Map
from evener.errors import EvenerError, MachineError

MINIMUM_KERNEL = (6, 0)
"""Values of maps larger than 4 MB, which a flow table is; the rest is older (BPF atomics: 5.12)."""

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether it can be done, and the sentence that says so or says what to do."""

    ok: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine and this user can do. `jit` is about speed only."""

    linux: Answer
    kernel: Answer
    privileges: Answer
    libbpf: Answer
    bpf: Answer
    namespaces: Answer
    jit: Answer

    @property
    def xdp(self) -> bool:
        """Whether the XDP driver can run here."""
        return all((self.linux, self.kernel, self.libbpf, self.bpf))

    @property
    def lab(self) -> bool:
        """Whether the lab and the demo can run here."""
        return self.xdp and bool(self.namespaces)

    def problems(self) -> list[str]:
        """The sentences of all answers that are no, the causes before what follows from them."""
        answers = [getattr(self, field.name) for field in fields(self)]
        return [answer.sentence for answer in answers if not answer.ok]

    def require(self, *names: str) -> None:
        """MachineError with every sentence of these answers ("bpf", "namespaces") that are no."""
        answers: list[Answer] = [getattr(self, name) for name in names]
        missing = [answer.sentence for answer in answers if not answer.ok]
        if missing:
            raise MachineError("this machine cannot do it", platform.node(), "; ".join(missing))


def probe() -> Host:
    """Try everything; takes a few milliseconds."""
    linux = _linux()
    if not linux:
        no = Answer(False, "not tried, as this is not Linux")
        return Host(linux, no, no, no, no, no, no)
    return Host(linux, _kernel(), _privileges(), _libbpf(), _bpf(), _namespaces(), _jit())


def _linux() -> Answer:
    if sys.platform == "linux":
        return Answer(True, "this is Linux")
    return Answer(False, f"this is {sys.platform}: XDP and network namespaces are Linux's own")


def _kernel(release: str = "") -> Answer:
    release = release or platform.release()
    parts = release.split(".")
    digits = ["".join(c for c in part if c.isdigit()) for part in (*parts, "0")[:2]]
    version = tuple(int(digit or 0) for digit in digits)
    least = ".".join(map(str, MINIMUM_KERNEL))
    if version >= MINIMUM_KERNEL:
        return Answer(True, f"Linux {release} is new enough (at least {least})")
    return Answer(False, f"Linux {release} is too old: at least {least} is needed")


def _privileges() -> Answer:
    status = Path("/proc/self/status").read_text()
    held = next(int(s.split()[1], 16) for s in status.splitlines() if s.startswith("CapEff:"))
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if not missing:
        return Answer(True, "this user may load programs and change interfaces")
    who = "root in this container" if os.geteuid() == 0 else "this user"
    return Answer(False, f"{who} lacks {', '.join(missing)}: run it as root")


def _libbpf() -> Answer:
    try:
        lib()
    except MachineError as error:
        return Answer(False, str(error))
    return Answer(True, "libbpf is installed")


def _bpf() -> Answer:
    """An mmapable array, made and given back."""
    try:
        with Map.create("evener_probe", value_size=8, max_entries=1, flags=1 << 10) as attempt:
            attempt.mmap()
    except EvenerError as error:
        return Answer(False, str(error))
    return Answer(True, "BPF maps can be made and shared")


def _namespaces() -> Answer:
    """A network namespace belongs to a thread, so one of a thread is gone with it."""
    errors: list[int] = []

    def attempt() -> None:
        errors.append(ffi.errno if libc().unshare(_CLONE_NEWNET) != 0 else 0)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if errors == [0]:
        return Answer(True, "network namespaces can be made")
    reason = os.strerror(errors[0]) if errors else "no answer"
    return Answer(False, f"network namespaces cannot be made ({reason}): run it as root")


def _jit() -> Answer:
    try:
        on = Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip() != "0"
    except OSError:
        return Answer(True, "the kernel does not tell whether BPF is compiled (JIT)")
    if on:
        return Answer(True, "BPF programs are compiled to machine code (JIT)")
    return Answer(
        False, "BPF is interpreted, several times slower: sysctl net.core.bpf_jit_enable=1"
    )
