# SPDX-License-Identifier: Apache-2.0
"""The C core as a shared library (drivers/native), called through cffi.

Used by the simulator, by explain, by the tests, and by the daemon, which sweeps a running datapath's
flows with the very functions that the datapath uses.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from evener._generated import layout
from evener.errors import MachineError
from evener.tables.memory import Tables

LIBRARY: Final = Path(__file__).parents[1] / "_native" / "liblb.so"
FRAME_OFFSET: Final = 2  # the IP header of a frame at 2 modulo 4 is aligned
FRAME_MAX: Final = 65_535
_POINTERS: Final = {
    "settings": "settings",
    "copies": "copies",
    "endpoints": "endpoints",
    "service_records": "services",
    "backend_records": "backends",
    "snat_records": "snats",
    "neighbour_records": "neighbours",
    "routes": "routes",
    "slots": "slots",
    "flows": "flows",
    "ports": "ports",
    "locks": "locks",
    "service_counters": "service_counters",
    "backend_counters": "backend_counters",
    "reason_counters": "reason_counters",
    "wanted": "wanted",
    "learned": "learned",
    "event_heads": "event_heads",
    "events": "events",
}
SWEEPING: Final = threading.Lock()
"""Held by whichever thread of this process ends flows. Whoever ends the claims of killed processes must not
take this process's own for theirs."""


@cache
def _library() -> tuple[Any, Any]:
    """cffi's ffi and the opened library."""
    from evener._generated._native import ffi

    try:
        return ffi, ffi.dlopen(str(LIBRARY))
    except OSError as error:
        raise MachineError(
            "the native library is not there", str(error), "build it with `make build`"
        ) from error


def maglev(
    slots: npt.NDArray[np.uint16],
    *,
    ids: npt.NDArray[np.uint16],
    offsets: npt.NDArray[np.uint32],
    skips: npt.NDArray[np.uint32],
    weights: npt.NDArray[np.uint32],
) -> None:
    """Fill a Maglev table in place (drivers/native/maglev.h); all columns of the same length."""
    ffi, lib = _library()
    count = len(ids)
    following, due = np.zeros(count, np.uint32), np.zeros(count, np.uint64)

    def pointer(kind: str, array: npt.NDArray[Any]) -> Any:
        return ffi.cast(kind, array.ctypes.data)

    lib.lb_native_maglev(
        pointer("unsigned short *", slots),
        len(slots),
        pointer("unsigned short *", ids),
        pointer("unsigned int *", offsets),
        pointer("unsigned int *", skips),
        pointer("unsigned int *", weights),
        int(weights.max()),
        pointer("unsigned int *", following),
        pointer("unsigned long long *", due),
        count,
    )


def csum_update(check: int, old: int, new: int) -> int:
    """The 16-bit checksum after one 32-bit word of its data changed (RFC 1624 equation 3)."""
    return int(_library()[1].lb_native_csum_update(check, old, new))


def flow_next(flags: int, direction: int, tcp: int) -> int:
    """The flow's flags after a packet (core/flow.h)."""
    return int(_library()[1].lb_native_flow_next(flags, direction, tcp))


def flow_state(flags: int) -> int:
    """layout.STATE_* for a flow's flags."""
    return int(_library()[1].lb_native_flow_state(flags))


def fence() -> None:
    """A full memory barrier: no store of before is seen after a load of afterwards."""
    _library()[1].lb_native_fence()


class Core:
    """The core over some tables. Not for two threads at once: it owns one frame buffer.

    `cpu` is whose counters and event ring it writes.
    """

    def __init__(self, tables: Tables, cpu: int = 0) -> None:
        self._ffi, self._lib = _library()
        self.tables = tables
        sizes = tables.sizes
        env = self._ffi.new("struct lb_env *")
        env.cpu, env.cpus = cpu, sizes.cpus
        for name in ("index_groups", "services", "backends", "snats", "neighbours", "tables"):
            setattr(env, name, getattr(sizes, name))
        env.flow_groups = sizes.flow_groups
        env.port_lines = sizes.port_tables * layout.PORT_LINES
        for field, name in _POINTERS.items():
            setattr(env, field, self._ffi.cast("void *", tables.raw(name).ctypes.data))
        self._lib.lb_native_ready(env)
        self._env = env
        self._view = np.zeros((), layout.VIEW)
        self._plan = np.zeros((), layout.PLAN)
        self._room = np.zeros(FRAME_MAX + FRAME_OFFSET, np.uint8)

    def _pointer(self, kind: str, array: npt.NDArray[Any], offset: int = 0) -> Any:
        return self._ffi.cast(kind, array.ctypes.data + offset)

    def _load(self, frame: bytes) -> Any:
        if len(frame) > FRAME_MAX:
            raise ValueError(f"a frame has at most {FRAME_MAX} bytes, not {len(frame)}")
        self._room[FRAME_OFFSET : FRAME_OFFSET + len(frame)] = np.frombuffer(frame, np.uint8)
        return self._pointer("unsigned char *", self._room, FRAME_OFFSET)

    def packet(
        self, frame: bytes, ifindex: int, now: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], bytes]:
        """One frame through the whole pipeline: view, plan (scalars of layout.VIEW and PLAN), and the
        frame as it is afterwards. now: seconds of the datapath, any integer (taken modulo 2^16)."""
        data = self._load(frame)
        view = self._pointer("void *", self._view)
        plan = self._pointer("void *", self._plan)
        self._lib.lb_native_packet(self._env, data, len(frame), ifindex, now & 0xFFFF, view, plan)
        out = self._room[FRAME_OFFSET : FRAME_OFFSET + len(frame)].tobytes()
        return self._view.copy(), self._plan.copy(), out

    def decide(self, view: npt.NDArray[Any], now: int) -> npt.NDArray[Any]:
        """The plan for a view; flows are opened as for a packet, nothing is counted."""
        self._view[...] = view
        self._lib.lb_native_decide(
            self._env,
            self._pointer("void *", self._view),
            now & 0xFFFF,
            self._pointer("void *", self._plan),
        )
        return self._plan.copy()

    def sweep(
        self,
        first: int,
        count: int,
        now: int,
        backends: npt.NDArray[np.uint8] | None = None,
        services: npt.NDArray[np.uint8] | None = None,
    ) -> int:
        """Free flows that are over in `count` groups from `first`; how many. backends, services: one
        byte for each id; flows of those that are not 0 are freed too. Safe beside a running datapath, and
        from any thread."""
        masks = [
            self._ffi.NULL if mask is None else self._pointer("unsigned char *", mask)
            for mask in (backends, services)
        ]
        with SWEEPING:
            return int(self._lib.lb_native_sweep(self._env, first, count, now & 0xFFFF, *masks))

    def doubt_claims(self, now: int) -> int:
        """Mark every claimed record; how many there are. See `claims.end_abandoned`."""
        return int(self._lib.lb_native_doubt_claims(self._env, now & 0xFFFF))

    def end_claims(self) -> int:
        """Free the records whose mark is still there, and their ports; how many."""
        return int(self._lib.lb_native_end_claims(self._env))

    def hash(self, word: int) -> int:
        """The keyed 64-bit hash (core/hash.h)."""
        return int(self._lib.lb_native_hash(self._env, word))
