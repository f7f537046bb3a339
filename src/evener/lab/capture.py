# SPDX-License-Identifier: Apache-2.0
"""Write what passes an interface of a namespace to a pcap file.

On the lab's bridge (`Capture(lab.switch, "br0", path)`) every frame of the segment is seen once:
the socket makes the bridge promiscuous, and a promiscuous bridge shows itself each frame that it
forwards, those sent with XDP_TX included.

The file is a classic pcap (draft-ietf-opsawg-pcap), Ethernet, nanoseconds or microseconds.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evener.errors import EvenerError
from evener.lab import namespaces
from evener.pcap import SNAPSHOT_BYTES, Record, Writer

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_AUXDATA = 1, 6, 8
_PACKET_MR_PROMISC = 1
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6

_ANCILLARY = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(
    20
)  # struct timespec, struct tpacket_auxdata


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """What a capture got: frames and bytes in the file, and frames that found the socket's buffer
    full.
    """

    frames: int
    size_bytes: int
    drops: int


class Capture:
    """A running capture; use it as a context manager, or `start` and `stop`.

    Frames sent after `start` has returned and before `stop` is called are in the file, as long as
    `drops` is 0.

    :param interface: its name in `namespace`
    :param path: the pcap file, overwritten
    :param nanoseconds: resolution of the time stamps in the file, else microseconds
    :param buffer_bytes: how much the kernel may hold for us, its own overhead (about 800 bytes a
        frame) included
    """

    def __init__(
        self,
        namespace: str,
        interface: str,
        path: Path,
        *,
        nanoseconds: bool = True,
        buffer_bytes: int = 64 << 20,
    ) -> None:
        self.path = path
        self._namespace = namespace
        self._interface = interface
        self._nanoseconds = nanoseconds
        self._buffer_bytes = buffer_bytes
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._quiet_s = 0.0
        self._limit_s = 0.0
        self._frames = 0
        self._size_bytes = 0

    def start(self) -> Self:
        """Begin; returns once frames are being received. EvenerError when there is no such
        interface.
        """
        if self._thread is not None:
            raise EvenerError("the capture runs already", str(self.path))
        self._socket = namespaces.in_namespace(self._namespace, self._open)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            file = Writer(self.path, self._nanoseconds)
        except EvenerError:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, args=(file,), name="capture", daemon=True)
        self._thread.start()
        return self

    def stop(self, quiet_s: float = 0.05, limit_s: float = 2.0) -> CaptureSummary:
        """End, and close the file.

        A frame that was sent is not received yet: each veth on its way hands it to a queue that a
        soft interrupt empties, which a busy CPU may leave to a kernel thread. So we go on until
        nothing came for `quiet_s` seconds, on a segment that never gets quiet for `limit_s` at
        most.
        """
        if self._thread is None:
            raise EvenerError("the capture does not run", str(self.path))
        self._quiet_s, self._limit_s = quiet_s, limit_s
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._thread = None
        _, drops = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._close()
        if self._failure is not None:
            raise self._failure
        return CaptureSummary(self._frames, self._size_bytes, drops)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self.stop()

    def _open(self) -> socket.socket:
        """In the namespace: a socket that receives from the interface and from no other."""
        try:
            index = socket.if_nametoindex(self._interface)
        except OSError:
            raise EvenerError(f"no interface '{self._interface}'", self._namespace) from None
        # Protocol 0: without it frames of all interfaces would come in until bind names ours.
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            receiver.setsockopt(
                socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._buffer_bytes // 2
            )  # the kernel doubles
            receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            receiver.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            membership = struct.pack("=iHH8x", index, _PACKET_MR_PROMISC, 0)
            receiver.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            receiver.bind((self._interface, _ETH_P_ALL))
        except BaseException:
            receiver.close()
            raise
        return receiver

    def _close(self) -> None:
        self._socket.close()
        os.close(self._stop)

    def _run(self, file: Writer) -> None:
        try:
            with file:
                self._copy(file)
        except BaseException as error:
            self._failure = error

    def _copy(self, file: Writer) -> None:
        """Write frames until told to stop, then until it is quiet."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        buffer = bytearray(SNAPSHOT_BYTES)
        while self._stop not in (ready := dict(poll.poll())):
            if self._socket.fileno() in ready:
                self._drain(file, buffer, time.monotonic() + 1.0)
                file.flush()  # whoever looks at the file meanwhile sees all that has come
        poll.unregister(self._stop)
        end = time.monotonic() + self._limit_s
        self._drain(file, buffer, end)
        while poll.poll(self._quiet_s * 1000) and time.monotonic() < end:
            self._drain(file, buffer, end)

    def _drain(self, file: Writer, buffer: bytearray, end: float) -> None:
        """Write what the socket holds, until it is empty or (monotonic) time is up."""
        while time.monotonic() < end:
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into(
                    [buffer], _ANCILLARY, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError as error:
                if (
                    error.errno == errno.ENETDOWN
                ):  # told once when the interface goes down; it may come back
                    continue
                raise
            time_ns, tag = _read_ancillary(ancillary)
            frame = bytes(memoryview(buffer)[:size])
            file.write(Record.whole(time_ns, frame[:12] + tag + frame[12:] if tag else frame))
            self._frames += 1
            self._size_bytes += size + len(tag)


def _read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, bytes]:
    """Time of arrival (ns since 1970) and the VLAN tag, which the kernel has taken out of the frame."""
    time_ns = 0
    tag = b""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            time_ns = seconds * 10**9 + nanoseconds
        elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
            if status & _TP_STATUS_VLAN_VALID:
                tag = struct.pack(
                    "!HH", tpid if status & _TP_STATUS_VLAN_TPID_VALID else 0x8100, tci
                )
    return time_ns, tag
