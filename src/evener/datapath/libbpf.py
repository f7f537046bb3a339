# SPDX-License-Identifier: Apache-2.0
"""The system's libbpf.so.1 through cffi: opened at first use, silent, its words kept for the error.

Only `evener.datapath` uses this; others want `evener.datapath.bpf`. libbpf's functions come without
their types, so each call stands in a small typed function of that module.
"""

from __future__ import annotations

import contextlib
import errno as errno_names
import functools
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from evener._generated._libbpf import ffi
from evener.errors import DatapathError, EvenerError, MachineError

__all__ = ["failure", "ffi", "lib", "libc", "options", "text", "rewriting"]

# linux/bpf.h
_PROG_XDP, _ATTACH_XDP = 6, 37
_LOAD_64, _PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 0x18, 1, 2
_WITH_REGISTER = 0x08  # set in arithmetic and jumps that take a register, not a number
_CALLS = frozenset({0x85, 0x95})  # call and exit

_WORDS_KEPT = 40  # lines; the cause is near the end of a verifier log, and libbpf repeats itself


class _Heard(threading.local):
    """What libbpf said in this thread since the last failure."""

    def __init__(self) -> None:
        self.lines: list[str] = []


_heard = _Heard()


@functools.cache
def libc() -> Any:
    """The C library of this process."""
    return ffi.dlopen(None)


@functools.cache
def lib() -> Any:
    """libbpf; MachineError where it is missing or older than 1.0."""
    try:
        library = ffi.dlopen("libbpf.so.1")
    except OSError:
        raise MachineError(
            "libbpf >= 1.0 is not installed", "libbpf.so.1", "install Debian's package libbpf1"
        ) from None
    library.libbpf_set_print(_on_print)
    library.libbpf_register_prog_handler(b"xdp", _PROG_XDP, _ATTACH_XDP, _handler)
    return library


def _hear(level: int, pattern: Any, arguments: Any) -> int:
    # The va_list is passed on as the pointer that it is on x86-64 and AArch64.
    if level <= 1:  # LIBBPF_WARN, LIBBPF_INFO
        line = ffi.new("char[]", 4096)
        libc().vsnprintf(line, 4096, pattern, arguments)
        _heard.lines.append(text(line).rstrip().removeprefix("libbpf: "))
        del _heard.lines[:-_WORDS_KEPT]
    return 0


# A callback dies with its object, and libbpf keeps no reference.
_on_print = ffi.callback("int(int, const char *, void *)", _hear)


class _Rewrite(threading.local):
    """What `rewriting` asks for in this thread."""

    maps: Collection[int] = ()
    immediates: Mapping[int, int] = MappingProxyType({})


_rewrite = _Rewrite()


@contextlib.contextmanager
def rewriting(maps: Collection[int], immediates: Mapping[int, int]) -> Iterator[None]:
    """XDP programs that are loaded in this block get the address of the value in the place of the
    address of these maps (descriptors; arrays of one entry, which is when the kernel allows it), and
    where they compute or compare with a number that is a key of `immediates`, its value."""
    _rewrite.maps, _rewrite.immediates = maps, immediates
    try:
        yield
    finally:
        _rewrite.maps, _rewrite.immediates = (), {}


def _prepare(program: Any, _options: Any, _cookie: int) -> int:
    """Called before the kernel sees a program; a map's address takes two words."""
    if not _rewrite.maps and not _rewrite.immediates:
        return 0
    words = ffi.cast("struct bpf_insn *", lib().bpf_program__insns(program))
    for i in range(lib().bpf_program__insn_cnt(program)):
        word, number = words[i], words[i].immediate
        if word.code == _LOAD_64 and word.registers >> 4 == _PSEUDO_MAP_FD:
            if number in _rewrite.maps:
                word.registers = word.registers & 0xF | _PSEUDO_MAP_VALUE << 4
                words[i + 1].immediate = 0  # offset in the value
        elif number in _rewrite.immediates and _takes_number(word.code):
            word.immediate = _rewrite.immediates[number]
    return 0


def _takes_number(code: int) -> bool:
    """Whether it is an arithmetic instruction or a jump (classes 4 to 7) whose operand is a number."""
    return bool(code & 4) and not code & _WITH_REGISTER and code not in _CALLS


_handler = ffi.new("struct libbpf_prog_handler_opts *")
_handler.sz = ffi.sizeof("struct libbpf_prog_handler_opts")
_on_prepare = ffi.callback("evener_prepare_load_t", _prepare)
_handler.prog_prepare_load_fn = _on_prepare


def text(value: Any) -> str:
    """A C string; "" for a null pointer."""
    return str(ffi.string(value).decode(errors="replace")) if value else ""


def options(name: str, **values: Any) -> Any:
    """An options struct of libbpf, which starts with its own size."""
    result = ffi.new(f"struct {name} *", values)
    result.sz = ffi.sizeof(f"struct {name}")
    return result


def forget() -> None:
    """Drop what libbpf said before: call it ahead of something that may fail."""
    _heard.lines.clear()


def failure(what: str, where: str = "", error: int = 0, do: str = "") -> EvenerError:
    """The error for a call that failed with errno `error` (a negative one is turned around).

    EPERM and EACCES without a verifier's words are the machine's fault, all else the datapath's.
    libbpf's own words of this thread are added when there are any.
    """
    error = abs(error) or ffi.errno
    name = errno_names.errorcode.get(error, str(error))
    words = "".join(f"\n  {line}" for line in _heard.lines)
    forget()
    if error == errno_names.EPERM:
        return MachineError(
            f"{what}: the kernel does not allow it (EPERM)",
            where,
            "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" + words,
        )
    return DatapathError(f"{what}: {os.strerror(error)} ({name})", where, do + words)
