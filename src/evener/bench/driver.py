# SPDX-License-Identifier: Apache-2.0
"""The frame writer that runs in the kernel (bench/t1_driver.bpf.c), steered from here."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from evener.datapath import bpf
from evener.errors import DatapathError

OBJECT: Final = Path(__file__).parents[1] / "_native" / "t1_driver.bpf.o"
FRAME_BYTES: Final = 60
ENDS: Final = 1 << 20  # T1_ENDS: how many backends' frames can be scripted

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

_WORDS = ("flows", "next", "sent", "random", "order", "from_ends", "record", "serialised", "made")
_FRAME = ("eth0", "eth8", "type", "ip14", "ip22", "dst", "port", "seq", "tcp", "ip_sum", "tcp_sum")
_READY = ("addresses", "ports_and_checksums")
_STATE = np.dtype([(name, "<u8") for name in _WORDS + _FRAME + _READY])
_END = np.dtype([("src", "<u4"), ("dst", "<u4"), ("ports", "<u4"), ("reserved", "<u4")])
_SEQUENTIAL, _UNIFORM = 0, 1


class Run(NamedTuple):
    """One call of the kernel's loop."""

    packets: int
    ns: float  # CPU time for each packet, driver included
    action: int  # what the last packet came to (XdpAction)
    frame: bytes  # and what it looked like


class Driver:
    """Runs the program that was chosen with `aim` on frames of its own making.

    `client` and `backends` choose the frames, `run` sends them. Runs on the CPU of the calling
    thread, which should be pinned.
    """

    def __init__(self) -> None:
        with bpf.Object.open(OBJECT) as obj:
            obj.load()
            self._program = obj.program("t1_driver")
            self.empty = obj.program("t1_empty")
            self.reflect = obj.program("t1_reflect")
            self._targets = obj.map("targets")
            state = obj.map("driver")
            if state.value_size != _STATE.itemsize:
                raise DatapathError("the driver's state is laid out differently", str(OBJECT))
            self._state: Any = state.mmap()[: _STATE.itemsize].view(_STATE)
            self.ends: Any = obj.map("ends").mmap().view(_END)
        self._state["random"] = 0x853C49E6748FEA9B
        self._last = bytes(FRAME_BYTES)

    def aim(self, program: bpf.Program) -> None:
        """Every frame goes to this program from now on."""
        self._targets.update(struct.pack("<I", 0), struct.pack("<I", program.fd))

    def client(
        self,
        vip: tuple[IPv4Address, int],
        tcp: int,
        *,
        uniform: int = 0,
        first: int = 0,
        serialised: bool = False,
        record: bool = False,
    ) -> None:
        """Frames of clients to `vip` with these TCP flags: flow numbers uniform below `uniform`, or
        one after the other from `first`.

        serialised: a number is known only when the packet before is done. record (in order, from
        `first`): keep each output as what the backend would answer to it, in `ends`.
        """
        self._template(tcp, dst=_word(vip[0]), port=_port(vip[1]))
        self._set(
            order=_UNIFORM if uniform else _SEQUENTIAL,
            flows=uniform,
            next=first,
            sent=first,
            made=0,
            from_ends=0,
            record=record,
            serialised=serialised,
        )

    def backends(
        self, tcp: int, *, first: int = 0, end: int = ENDS, serialised: bool = False
    ) -> None:
        """Frames with the ends of `self.ends[first]` and on; after `end` from the beginning."""
        self._template(tcp)
        self._set(
            order=_SEQUENTIAL,
            flows=end,
            next=first,
            sent=first,
            made=0,
            from_ends=1,
            record=0,
            serialised=serialised,
        )

    def run(self, packets: int) -> Run:
        """Send the next frames. DatapathError if the driver itself failed."""
        before = time.thread_time_ns()
        result = self._program.test_run(self._last, packets)
        spent = time.thread_time_ns() - before
        if result.retval == bpf.XdpAction.ABORTED:
            raise DatapathError("the benchmark's driver could not call the program", str(OBJECT))
        self._last = result.data[:FRAME_BYTES]
        return Run(packets, spent / packets, result.retval, self._last)

    def keep_last(self, number: int) -> None:
        """Record the output of the last packet, flow `number`: the driver itself does that one late."""
        src, dst, sport, dport = struct.unpack_from("<IIHH", self._last, 26)
        self.ends[number] = (dst, src, dport | sport << 16, 0)

    def _set(self, **words: int) -> None:
        for name, value in words.items():
            self._state[name] = value

    def _template(self, tcp: int, dst: int = 0, port: int = 0) -> None:
        eth = bytes.fromhex("020000000001 020000000002 0800")
        length = FRAME_BYTES - 14
        ip = struct.pack("<BBHHHBB", 0x45, 0, _port(length), 0, _port(0x4000), 64, 6)
        segment = struct.pack("<IIBBHH", 0x01020304, 0x05060708, 0x50, tcp, _port(512), 0)
        pseudo = _port(6) + _port(length - 20)
        whole = eth + ip
        self._set(
            eth0=_number(whole, 0, 8),
            eth8=_number(whole, 8, 4),
            type=_number(whole, 12, 2),
            ip14=_number(whole, 14, 8),
            ip22=_number(whole, 22, 2),
            dst=dst,
            port=port,
            seq=_number(segment, 0, 8),
            tcp=_number(segment, 8, 4),
            ip_sum=sum(struct.unpack("<5H", ip)),
            tcp_sum=sum(struct.unpack("<7H", segment)) + pseudo,
        )


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def _word(address: IPv4Address) -> int:
    """As it lies in memory."""
    return int.from_bytes(address.packed, "little")


def _port(port: int) -> int:
    """16 bits in network order, as they lie in memory."""
    return (port & 0xFF) << 8 | port >> 8
