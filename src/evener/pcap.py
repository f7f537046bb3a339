# SPDX-License-Identifier: Apache-2.0
"""Classic pcap files of Ethernet frames (draft-ietf-opsawg-pcap), read and written one by one.

Micro- and nanoseconds, both byte orders. What else a file may be is told by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from evener.errors import EvenerError

_MAGIC_US, _MAGIC_NS = 0xA1B2C3D4, 0xA1B23C4D
_ETHERNET: Final = 1
_FRAME_MAX: Final = 1 << 20
SNAPSHOT_BYTES: Final = 1 << 18
"""The longest frame that a file of ours says it holds: GRO and GSO make them longer than any MTU."""
_OTHERS: Final = (
    (b"\x0a\x0d\x0d\x0a", "a pcapng file", "convert it: editcap -F pcap IN OUT"),
    (b"\x1f\x8b", "a compressed file", "unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "a compressed file", "unpack it with unzstd"),
)
_LINKS: Final = {
    0: "BSD loopback", 12: "raw IP", 101: "raw IP", 105: "802.11", 113: "Linux cooked, from `-i any`",
    127: "802.11 with radiotap", 276: "Linux cooked, from `-i any`",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """A frame as captured, its length on the wire in bytes, and when: ns since 1970."""

    time_ns: int
    frame: bytes
    wire_bytes: int

    @classmethod
    def whole(cls, time_ns: int, frame: bytes) -> Record:
        """Of a frame that was captured to its end."""
        return cls(time_ns, frame, len(frame))


class Reader:
    """A capture file; iterate it as often as needed. EvenerError when it is something else.

    cut: set after an iteration if the file ends in the middle of a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False
        try:
            with path.open("rb") as file:
                head = file.read(24)
        except OSError as error:
            raise EvenerError(f"cannot be read: {error.strerror}", str(path)) from error
        self._order, self.nanoseconds = self._magic(head)
        link: int = struct.unpack_from(f"{self._order}I", head, 20)[0] & 0xFFFF
        if link != _ETHERNET:
            raise EvenerError(
                f"a capture of link type {link} ({_LINKS.get(link, 'not Ethernet')})", str(path),
                "capture Ethernet frames, on one interface: tcpdump -i eth1 -w FILE",
            )  # fmt: skip

    def _magic(self, head: bytes) -> tuple[str, bool]:
        for start, what, do in _OTHERS:
            if head.startswith(start):
                raise EvenerError(what, str(self.path), do)
        for order in "<>":
            number = struct.unpack_from(f"{order}I", head)[0] if len(head) == 24 else 0
            if number in (_MAGIC_US, _MAGIC_NS):
                return order, number == _MAGIC_NS
        raise EvenerError("not a pcap file", str(self.path), "make one with tcpdump -w FILE")

    def __iter__(self) -> Iterator[Record]:
        unit_ns = 1 if self.nanoseconds else 1000
        self.cut = False
        with self.path.open("rb") as file:
            file.seek(24)
            while head := file.read(16):
                if len(head) < 16:
                    self.cut = True
                    return
                seconds, fraction, size, wire = struct.unpack(f"{self._order}IIII", head)
                if size > _FRAME_MAX:
                    raise EvenerError(
                        f"a frame of {size} bytes: the file is damaged", str(self.path)
                    )
                frame = file.read(size)
                if len(frame) < size:
                    self.cut = True
                    return
                yield Record(seconds * 10**9 + fraction * unit_ns, frame, wire)


class Writer:
    """A new capture file, in this machine's byte order; a context manager.

    EvenerError: it cannot be written there.
    """

    def __init__(self, path: Path, nanoseconds: bool = True) -> None:
        self._unit_ns = 1 if nanoseconds else 1000
        magic = _MAGIC_NS if nanoseconds else _MAGIC_US
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise EvenerError(f"cannot be written: {error.strerror}", str(path)) from error
        self._file.write(struct.pack("=IHHiIII", magic, 2, 4, 0, 0, SNAPSHOT_BYTES, _ETHERNET))

    def write(self, record: Record) -> None:
        """Append a frame."""
        seconds, rest = divmod(record.time_ns, 10**9)
        sizes = (len(record.frame), record.wire_bytes)
        self._file.write(struct.pack("=IIII", seconds, rest // self._unit_ns, *sizes))
        self._file.write(record.frame)

    def flush(self) -> None:
        """Whoever looks at the file now sees all that was written."""
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
