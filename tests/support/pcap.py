# SPDX-License-Identifier: Apache-2.0
"""Classic pcap files of Ethernet frames (draft-ietf-opsawg-pcap), for tests."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LINKTYPE_ETHERNET = 1
_UNIT_NS = {
    0xA1B23C4D: 1,
    0xA1B2C3D4: 1000,
}  # by magic number: what the fraction of a second counts


def write_pcap(path: Path, frames: Iterable[tuple[int, bytes]]) -> None:
    """Write frames, each with its time in ns since 1970, with a resolution of nanoseconds."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, _LINKTYPE_ETHERNET))
        for time_ns, frame in frames:
            seconds, fraction = divmod(time_ns, 10**9)
            file.write(struct.pack("<IIII", seconds, fraction, len(frame), len(frame)) + frame)


def read_pcap(path: Path) -> list[tuple[int, bytes]]:
    """The frames of a file in either byte order and resolution, each with its time in ns.

    Raises ValueError for a file that is something else or is cut short.
    """
    data = path.read_bytes()
    if len(data) < 24:
        raise ValueError("not a pcap file")
    order = next((o for o in "<>" if struct.unpack_from(f"{o}I", data)[0] in _UNIT_NS), "")
    if not order or struct.unpack_from(f"{order}I", data, 20)[0] & 0xFFFF != _LINKTYPE_ETHERNET:
        raise ValueError("not a pcap file of Ethernet frames")
    unit_ns = _UNIT_NS[struct.unpack_from(f"{order}I", data)[0]]
    at, frames = 24, []
    while at < len(data):
        if at + 16 > len(data):
            raise ValueError("the file is cut short")
        seconds, fraction, size, _ = struct.unpack_from(f"{order}IIII", data, at)
        at += 16
        if at + size > len(data):
            raise ValueError("the file is cut short")
        frames.append((seconds * 10**9 + fraction * unit_ns, data[at : at + size]))
        at += size
    return frames
