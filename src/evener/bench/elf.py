# SPDX-License-Identifier: Apache-2.0
"""How long a program is before the kernel rewrites it: read from the object file's symbols."""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE, _FUNCTION = 2, 2
_INSTRUCTION = 8  # bytes


def functions(path: Path) -> dict[str, int]:
    """The functions of a BPF object (64-bit ELF, little-endian) with their lengths in instructions."""
    data = path.read_bytes()
    header = _HEADER.unpack_from(data)
    offset, size, count = header[5], header[10], header[11]
    sections = [_SECTION.unpack_from(data, offset + i * size) for i in range(count)]
    found = {}
    for section in sections:
        if section[1] != _SYMBOL_TABLE:
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, info, _, _, _, length = _SYMBOL.unpack_from(data, at)
            if info & 0xF == _FUNCTION:
                end = data.index(b"\0", names + name)
                found[data[names + name : end].decode()] = length // _INSTRUCTION
    return found
