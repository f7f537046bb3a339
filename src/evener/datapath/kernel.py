# SPDX-License-Identifier: Apache-2.0
"""What the datapath needs of the kernel besides BPF: bpffs, a grace period, clocks, CPUs."""

from __future__ import annotations

import functools
import os
import platform
import time
from pathlib import Path

from evener.datapath.libbpf import ffi, lib, libc
from evener.errors import MachineError

BPFFS = Path("/sys/fs/bpf")

_BPF_FS_MAGIC = 0xCAFE4A11
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}  # system call numbers
_MEMBARRIER_QUERY = 0
_MEMBARRIER_GLOBAL = 1 << 0
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h


def is_bpffs(path: Path | str) -> bool:
    """Whether `path` lies in a BPF file system, where maps and links can be pinned."""
    answer = ffi.new("struct evener_statfs *")
    if libc().statfs(os.fsencode(path), answer) != 0:
        return False
    return bool(answer.type & 0xFFFFFFFF == _BPF_FS_MAGIC)


def ensure_bpffs(path: Path | str = BPFFS) -> Path:
    """Mount a BPF file system at `path` unless one is there; `path`. MachineError if that fails.

    In a mount namespace of its own (`ip netns exec` makes one) the mount, and with it every pin,
    is gone when the last process of that namespace ends: enter the network namespace alone.
    """
    folder = Path(path)
    if is_bpffs(folder):
        return folder
    if not folder.is_dir():
        raise MachineError(
            "there is no folder to mount the BPF file system on",
            str(folder),
            "the kernel needs CONFIG_BPF_SYSCALL and /sys has to be mounted",
        )
    if libc().mount(b"bpf", os.fsencode(folder), b"bpf", 0, b"mode=0700") != 0:
        raise MachineError(
            f"the BPF file system cannot be mounted: {os.strerror(ffi.errno)}",
            str(folder),
            f"run it as root, or mount it beforehand: mount -t bpf bpf {folder}",
        )
    return folder


def _membarrier(command: int) -> int:
    """The system call's result; -1 when it fails or its number is not known here."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None:
        return -1
    zero = ffi.cast("unsigned int", 0)
    return int(libc().syscall(number, ffi.cast("int", command), zero, ffi.cast("int", 0)))


def membarrier_supported() -> bool:
    """Whether `membarrier_global` works here: it does not on kernels that run with nohz_full."""
    commands = _membarrier(_MEMBARRIER_QUERY)
    return commands > 0 and bool(commands & _MEMBARRIER_GLOBAL)


def membarrier_global() -> None:
    """Wait for one RCU grace period: every XDP program that was running has returned afterwards.

    Takes milliseconds. MEMBARRIER_CMD_GLOBAL is synchronize_rcu() (kernel/sched/membarrier.c), and
    XDP programs run as RCU readers. MachineError where the kernel refuses.
    """
    if _membarrier(_MEMBARRIER_GLOBAL) != 0:
        raise MachineError(
            "the kernel offers no grace period through membarrier",
            f"Linux {platform.release()}",
            "boot without nohz_full",
        )


@functools.cache
def hz() -> int:
    """The kernel's tick rate (CONFIG_HZ, bpf_jiffies64): the coarse clock steps with it."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def possible_cpus() -> int:
    """CPUs that this machine could ever have: how many values a per-CPU map holds for each key."""
    return int(lib().libbpf_num_possible_cpus())
