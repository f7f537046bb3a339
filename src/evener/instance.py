# SPDX-License-Identifier: Apache-2.0
"""Where a running evener is to be found: one instance for each network namespace.

The namespace's inode number names it, so that a command that runs in the same namespace finds its
daemon without being told. Inode numbers are used again; whoever adopts something checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUN_FOLDER: Final = Path("/run/evener")
PIN_FOLDER: Final = Path("/sys/fs/bpf/evener")
TABLES_FOLDER: Final = RUN_FOLDER / "tables"


@dataclass(frozen=True, slots=True)
class Instance:
    """A name and the paths that follow from it."""

    name: str

    @classmethod
    def here(cls) -> Instance:
        """The instance of the calling thread's network namespace."""
        return cls.of(Path("/proc/thread-self/ns/net").stat().st_ino)

    @classmethod
    def of(cls, namespace: int) -> Instance:
        """The instance of the network namespace with this inode number."""
        return cls(f"net-{namespace}")

    @property
    def socket(self) -> Path:
        """The control socket."""
        return RUN_FOLDER / f"{self.name}.sock"

    @property
    def lock(self) -> Path:
        """Locked by the daemon for as long as it lives."""
        return RUN_FOLDER / f"{self.name}.lock"

    def port(self, interface: str) -> Path:
        """Locked by the worker of the driver dpdk that has this interface open (drivers/dpdk/devices.c)."""
        return RUN_FOLDER / f"{self.name}.port.{interface}"

    @property
    def tables(self) -> Path:
        """The file that the driver dpdk shares with its worker."""
        return TABLES_FOLDER / self.name

    @property
    def pins(self) -> Path:
        """The folder of its maps and links in bpffs."""
        return PIN_FOLDER / self.name
