# SPDX-License-Identifier: Apache-2.0
"""A compiled BPF file, read without the kernel: its functions, their calls, stack and jumps.

Formats: ELF-64 (System V ABI), instructions of RFC 9669, .BTF.ext of the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SYMTAB, _NOBITS, _REL = 2, 8, 9  # ELF: sh_type
_FUNCTION = 2  # ELF: type of a symbol
_LD_IMM64, _CALL, _EXIT, _JUMP = 0x18, 0x85, 0x95, 0x05
_JUMPS = (5, 6)  # instruction classes JMP and JMP32
_MEMORY = (1, 2, 3)  # classes LDX, ST, STX
_MOVE, _ADD_IMM = 0xBF, 0x07  # 64 bits wide
_FRAME: Final = 10  # r10


@dataclass(frozen=True, slots=True)
class Instruction:
    """One slot of 8 bytes; LD_IMM64 takes two, the second of opcode 0."""

    opcode: int
    destination: int
    source: int
    offset: int
    immediate: int

    @property
    def is_jump(self) -> bool:
        """Whether it goes elsewhere than to the next: neither a call nor an exit."""
        return self.opcode & 7 in _JUMPS and self.opcode not in (_CALL, _EXIT)


@dataclass(slots=True)
class Function:
    """One function. calls: names of the functions of this file that it calls."""

    name: str
    section: str
    code: list[Instruction]
    calls: set[str] = field(default_factory=set)

    def stack(self) -> int:
        """Bytes of its frame that it names: the deepest offset from r10."""
        deepest, at = 0, [0] * 11
        known = {_FRAME}  # registers that are r10 plus `at`
        for one in self.code:
            if one.opcode & 7 in _MEMORY:
                base = one.source if one.opcode & 7 == 1 else one.destination
                if base in known:
                    deepest = min(deepest, at[base] + one.offset)
                if one.opcode & 7 == 1:
                    known.discard(one.destination)
            elif one.opcode == _MOVE and one.source in known:
                known.add(one.destination)
                at[one.destination] = at[one.source]
            elif one.opcode == _ADD_IMM and one.destination in known:
                at[one.destination] += one.immediate
                deepest = min(deepest, at[one.destination])
            elif one.opcode == _CALL:
                known &= set(range(6, 11))
            elif not one.is_jump:
                known.discard(one.destination)
        return -deepest

    def closing_falls(self) -> list[int]:
        """Instructions after which a loop closes by falling through, not by a jump.

        The search of Linux 6.1's check_cfg() (kernel/bpf/verifier.c): depth first, what falls through
        before what is jumped to.
        """
        fresh, open_, done = 0, 1, 2
        state, found = [fresh] * len(self.code), []
        path = [(0, self._next(0))]
        state[0] = open_
        while path:
            here, edges = path[-1]
            for there, jumped in edges:
                if state[there] == fresh:
                    state[there] = open_
                    path.append((there, self._next(there)))
                    break
                if state[there] == open_ and not jumped:
                    found.append(here)
            else:
                state[here] = done
                path.pop()
        return found

    def _next(self, here: int) -> Iterator[tuple[int, bool]]:
        """Where to go from there, and whether the verifier counts it as a jump."""
        one = self.code[here]
        if one.opcode == _EXIT:
            return
        if one.opcode == _LD_IMM64:
            yield here + 2, False
            return
        if one.opcode != _JUMP:
            yield here + 1, one.is_jump
        if one.is_jump:
            yield here + 1 + one.offset, True


class Elf:
    """`functions` by name; `lines`: of each source file, how many places of it .BTF.ext tells."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self._read_sections()
        self.functions = self._read_functions()
        self.lines = self._count_lines()

    def _read_sections(self) -> None:
        start, count, names = (
            *struct.unpack_from("<Q", self._data, 0x28),
            *struct.unpack_from("<2H", self._data, 0x3C),
        )
        self._headers = [
            struct.unpack_from("<IIQQQQIIQQ", self._data, start + 64 * i) for i in range(count)
        ]
        strings = self._content(names)
        self._names = [_text(strings, header[0]) for header in self._headers]

    def _content(self, section: int) -> bytes:
        header = self._headers[section]
        return b"" if header[1] == _NOBITS else self._data[header[4] : header[4] + header[5]]

    def _read_functions(self) -> dict[str, Function]:
        table = next(i for i, header in enumerate(self._headers) if header[1] == _SYMTAB)
        strings = self._content(self._headers[table][6])
        symbols = list(struct.iter_unpack("<IBBHQQ", self._content(table)))
        found, starts = {}, {}
        for name, info, _, section, value, size in symbols:
            if info & 15 == _FUNCTION:
                body = self._content(section)[value : value + size]
                function = Function(_text(strings, name), self._names[section], _decode(body))
                found[function.name] = function
                starts[section, value] = function
        for section, header in enumerate(self._headers):
            if header[1] != _REL:
                continue
            for place, info in struct.iter_unpack("<2Q", self._content(section)):
                name, kind = symbols[info >> 32][0], symbols[info >> 32][1] & 15
                caller = _holder(starts, header[7], place)
                if caller and kind == _FUNCTION:
                    caller.calls.add(_text(strings, name))
        return found

    def _count_lines(self) -> Counter[str]:
        types = self._content(self._names.index(".BTF"))
        strings = types[sum(struct.unpack_from("<I8xI", types, 4)) :]
        data = self._content(self._names.index(".BTF.ext"))
        (header,) = struct.unpack_from("<I", data, 4)
        begin, length = struct.unpack_from("<2I", data, 16)
        at, end, found = header + begin + 4, header + begin + length, Counter[str]()
        (record,) = struct.unpack_from("<I", data, header + begin)
        while at < end:
            (count,) = struct.unpack_from("<I", data, at + 4)
            for place in range(at + 8, at + 8 + count * record, record):
                found[_text(strings, *struct.unpack_from("<4xI", data, place))] += 1
            at += 8 + count * record
        return found


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def _decode(body: bytes) -> list[Instruction]:
    return [
        Instruction(opcode, registers & 15, registers >> 4, offset, immediate)
        for opcode, registers, offset, immediate in struct.iter_unpack("<BBhi", body)
    ]


def _holder(starts: dict[tuple[int, int], Function], section: int, place: int) -> Function | None:
    """The function that an instruction of a section belongs to."""
    for (where, start), function in starts.items():
        if where == section and start <= place < start + 8 * len(function.code):
            return function
    return None
