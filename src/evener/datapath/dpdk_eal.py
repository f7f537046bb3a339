# SPDX-License-Identifier: Apache-2.0
"""The worker's command line: what the configuration says, and safe values for what it leaves open.

Pure: lists of strings in, lists of strings and numbers out. DPDK by itself takes every CPU, needs huge pages,
and takes every network card that it knows away from the kernel. Here it takes what is named and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import dropwhile
from typing import Final, NamedTuple

from evener.eal import devices, has, interface_of, options, own_options, own_value, split, value
from evener.errors import DatapathError

LANES_MAX: Final = 64  # LB_SHARE_LANES in drivers/dpdk/share.h

# How drivers/dpdk/ports.c sizes its buffers; a test compares the numbers.
DESCRIPTORS: Final = 2 * 1024 + 32
AF_XDP_DESCRIPTORS: Final = 3 * 2048 + 32
CACHE: Final = 256
FRAMES_LEAST: Final = 16_384
_FRAME_BYTES: Final = 2_560  # room for 2 KiB, its headroom, its mbuf, and what the pool adds
_REST_MIB: Final = 36  # rings and DPDK's own

_KERNEL: Final = "--kernel="
_HUGE: Final = (
    "huge-dir", "huge-unlink", "socket-mem", "socket-limit", "in-memory", "legacy-mem",
    "single-file-segments", "match-allocations",
)  # fmt: skip
_SHARED: Final = ("proc-type", "file-prefix", "base-virtaddr")
_ENDS: Final = ("h", "help")  # DPDK answers them and ends


def complete(eal: Sequence[str], ports: int) -> list[str]:
    """The EAL's arguments with what they leave open; without "--" and what is behind it.

    DatapathError: the lcores cannot be read, or are too many; or the worker could never run with an argument.
    """
    given, _ = split(eal)
    _refuse(given)
    af_xdp = sum(device.startswith("net_af_xdp") for device in devices(given))
    added: list[str] = []
    if not has(given, "l", "c", "lcores"):
        added += ["-l", "0"]
    if not has(given, *_HUGE):
        added += [] if has(given, "no-huge") else ["--no-huge"]
        added += [] if has(given, "m") else ["-m", str(memory_mib(lanes(given), ports, af_xdp))]
    if not has(given, "allow", "block", "no-pci"):
        added += ["--no-pci"]
    if not has(given, *_SHARED, "telemetry", "no-telemetry"):
        added += ["--no-telemetry"]
    if not has(given, *_SHARED, "no-shconf"):
        added += ["--no-shconf"]
    return added + given


def _refuse(given: Sequence[str]) -> None:
    if asked := [option.name for option in options(given) if option.name in _ENDS]:
        raise DatapathError(
            f"with {_dashed(asked[0])} DPDK only tells of itself",
            "datapath.eal",
            "leave it out; `dpdk-testpmd -h` prints all arguments",
        )
    kind = value(given, "proc-type")
    if kind not in (None, "auto", "primary"):
        raise DatapathError(
            f"the worker cannot share the devices of another DPDK process (--proc-type={kind})",
            "datapath.eal",
            "leave --proc-type out",
        )


def _dashed(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name}"


def lanes(eal: Sequence[str]) -> int:
    """How many lcores the EAL's arguments name: so many lanes the worker has at most.

    DatapathError: it cannot be read, or there are more than LANES_MAX.
    """
    listed, mask = value(eal, "l", "lcores"), value(eal, "c")
    try:
        count = 1
        if listed is not None:
            count = len(_numbers(listed))
        elif mask is not None:
            count = int(mask, 16).bit_count()
    except ValueError:
        raise DatapathError(
            f"{listed or mask!r} does not name lcores", "datapath.eal", "such as -l 0,2-3"
        ) from None
    if not 1 <= count <= LANES_MAX:
        raise DatapathError(
            f"{count} lcores are too {'many' if count else 'few'}",
            "datapath.eal",
            f"name 1 to {LANES_MAX} with -l",
        )
    return count


def _numbers(text: str) -> set[int]:
    """lcores by the EAL's grammar: 0,2-4 or (0-2)@1,5@(6,7); what is behind @ are CPUs."""
    bare = re.sub(r"@(\([\d,-]+\)|\d+(-\d+)?)", "", "".join(text.split()))
    found: set[int] = set()
    for part in re.sub(r"[()]", "", bare).split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None:
            raise ValueError(text)
        first, last = sorted((int(match[1]), int(match[2] or match[1])))
        found.update(range(first, last + 1))
    return found


def memory_mib(lane_count: int, ports: int, af_xdp: int = 0) -> int:
    """MiB for DPDK's memory when it is not from huge pages: the worker's frames, and some.

    af_xdp: how many of the ports are net_af_xdp.
    """
    of_ports = af_xdp * AF_XDP_DESCRIPTORS + max(0, ports - af_xdp) * DESCRIPTORS
    frames = max(FRAMES_LEAST, lane_count * (of_ports + CACHE))
    # Half as much again, since what is free lies in pieces: with 64 MiB the least pool of 40 finds no place.
    return _REST_MIB + (frames * _FRAME_BYTES * 3 // 2 >> 20)


def own_memory_bytes(completed: Sequence[str]) -> int:
    """What a worker with these arguments takes of the machine's free memory; huge pages are taken already."""
    if not has(completed, "no-huge"):
        return 0
    text = value(completed, "m") or "0"
    return int(text) << 20 if text.isdecimal() else 0


def port_modes(eal: Sequence[str], ports: int) -> tuple[str, ...]:
    """DPDK's name for each port's driver (net_tap, net_af_packet), where the arguments tell; else dpdk."""
    virtual = [option.value for option in options(eal) if option.name == "vdev"]
    if len(virtual) != ports:
        return ("dpdk",) * ports
    return tuple(re.sub(r"[\d_]*(,.*)?$", "", device) or "dpdk" for device in virtual)


class Wire(NamedTuple):
    """What the device of a port opens. driver: as `port_modes` has it; interface: one of the kernel's, "" if
    the arguments name none."""

    driver: str
    interface: str


def wires(eal: Sequence[str], ports: int) -> tuple[Wire, ...]:
    """Of each port."""
    drivers = port_modes(eal, ports)
    named = [interface_of(o.value) for o in options(eal) if o.name == "vdev"]
    if len(named) != ports:
        named = [""] * ports
    return tuple(map(Wire, drivers, named))


def namespace(line: Sequence[str]) -> str:
    """The path of the network namespace in which a worker makes its devices; "": that of the daemon."""
    return own_value(line, "netns") or ""


def command(
    program: str, eal: Sequence[str], tables: str, kernel: Sequence[tuple[int, int]]
) -> list[str]:
    """The worker's whole command line. kernel: number and descriptor of each port's TAP."""
    _, own = split(eal)
    if ours := [o.name for o in own_options(eal) if o.name in ("tables", "kernel")]:
        raise DatapathError(
            f"--{ours[0]} is the daemon's to say", "datapath.eal", 'leave it out behind "--"'
        )
    taps = [f"{_KERNEL}{ifindex}:{descriptor}" for ifindex, descriptor in kernel]
    return [program, *complete(eal, len(kernel)), "--", f"--tables={tables}", *taps, *own]


def kernels(line: Sequence[str]) -> list[int]:
    """The numbers of the TAPs that a worker was started with, by its command line."""
    return [
        int(text[len(_KERNEL) :].partition(":")[0]) for text in line if text.startswith(_KERNEL)
    ]


def again(line: Sequence[str], descriptors: Sequence[int]) -> list[str]:
    """A worker's command line with other descriptors of the same TAPs."""
    following = iter(descriptors)
    return [
        f"{text.partition(':')[0]}:{next(following)}" if text.startswith(_KERNEL) else text
        for text in line
    ]


def choices(line: Sequence[str]) -> list[str]:
    """Of a worker's command line, what the configuration decides; to compare two."""
    words = dropwhile(lambda text: not text.startswith("-"), line)
    return [text for text in words if not text.startswith(("--tables=", _KERNEL))]
