# SPDX-License-Identifier: Apache-2.0
"""The XDP driver's adapter: load, adopt what is pinned, attach, exchange the program, let go.

All maps and links are pinned below the instance's folder. A daemon that starts adopts the maps that
fit (flows, counters and the secret seed go on) and exchanges the program of the links in one step,
after the tables behind the new program are complete: no packet finds half a datapath. New maps take
the place of pinned ones no sooner: a daemon that dies before leaves the ids that the flows refer to.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from evener._generated import layout
from evener.datapath import bpf
from evener.datapath.base import Attachment, FrameCount, Lane
from evener.datapath.claims import end_abandoned
from evener.datapath.grace import grace
from evener.datapath.native import Core
from evener.datapath.seed import Seed, new_seed
from evener.errors import DatapathError, InterfaceError
from evener.model import Driver
from evener.tables.compile import Ids
from evener.tables.memory import Sizes, Tables, layout_digest, no_smaller, shapes
from evener.tables.recover import ids_in_force

OBJECT: Final = Path(__file__).parents[1] / "_native" / "lb_xdp.bpf.o"
_FLOW_TABLES: Final = frozenset({"flows", "ports", "locks"})
_COUNTERS: Final = frozenset({"service_counters", "backend_counters", "reason_counters"})
_CLOCK_FRAME: Final = bytes(64)
_MMAPABLE: Final = 1 << 10  # BPF_F_MMAPABLE
_FIRST_SIZE: Final = 0x6C620001  # LB_SIZE_CPUS in drivers/xdp/env_bpf.h; the others follow it


@dataclass(slots=True)
class Adopted:
    """What an earlier daemon left: maps that fit, its seed, its ids; empty when there is nothing.
    sizes: with room for what it left and for what is wanted now."""

    sizes: Sizes
    maps: dict[str, bpf.Map] = field(default_factory=dict)
    seed: Seed | None = None
    ids: Ids | None = None
    lost_flows: bool = False


class XdpDatapath:
    """A loaded datapath. First `open`, then publish tables, then `attach`."""

    driver = Driver.XDP.value

    def __init__(self, obj: bpf.Object, tables: Tables, pins: Path, adopted: Adopted) -> None:
        self.tables = tables
        self.adopted = adopted
        self.attachments: tuple[Attachment, ...] = ()
        self._pins = pins
        self._program = obj.program("lb_xdp")
        self._clock = obj.program("lb_clock")
        self._links: dict[int, bpf.Link] = {}
        self._unpinned = {n: obj.map(n) for n in shapes(tables.sizes) if n not in adopted.maps}

    @classmethod
    def open(cls, sizes: Sizes, pins: Path) -> XdpDatapath:
        """Load the program over new or adopted maps; nothing is attached and no packet sees it yet.

        sizes: the least that there is to be room for. With flows to go on with, no table becomes smaller
        than theirs: `tables.sizes` says how large they are.
        Raises MachineError or DatapathError when the kernel refuses.
        """
        bpf.ensure_bpffs()
        adopted = _adopt(pins, sizes)
        sizes = adopted.sizes
        with load(sizes, adopted.maps) as obj:
            tables = Tables(sizes, {name: obj.map(name).mmap() for name in shapes(sizes)})
            tables.prepare(adopted.seed or new_seed())
            datapath = cls(obj, tables, pins, adopted)
        if adopted.maps:
            end_abandoned(Core(tables), datapath.now(), datapath.grace)
        return datapath

    def _pin(self) -> None:
        """Pin the maps that are new. The settings go first and come last: without them nothing is
        adopted, so a daemon that dies in between loses flows and never sends them elsewhere."""
        names = sorted(self._unpinned, key=lambda name: name == "settings")
        if "settings" in self._unpinned:
            bpf.unpin(self._pins / "settings")
        for name in names:
            bpf.unpin(self._pins / name)
            self._unpinned.pop(name).pin(self._pins / name)

    def attach(self, interfaces: Iterable[str]) -> None:
        """Be on exactly these interfaces: those that the datapath is on already meet the new program
        from one packet to the next; those that are not named any more are let go.

        Raises InterfaceError when one does not exist, has another program, or cannot run this one;
        interfaces that were attached before the call stay attached.
        """
        wanted = {name: interface_index(name) for name in interfaces}
        self._pin()
        added: list[int] = []
        try:
            for ifindex in wanted.values():
                added.extend([ifindex] if self._attach_one(ifindex) else [])
        except Exception:
            for ifindex in added:
                self._let_go(ifindex)
            raise
        for path in self._pins.glob("link_*"):
            ifindex = int(path.name.removeprefix("link_"))
            if ifindex not in wanted.values():
                self._let_go(ifindex)
        self.attachments = tuple(
            Attachment(name, ifindex, self._links[ifindex].mode().value)
            for name, ifindex in wanted.items()
        )

    def _attach_one(self, ifindex: int) -> bool:
        """Whether the interface was not attached before."""
        path = self._pins / f"link_{ifindex}"
        link = self._links.get(ifindex)
        if (
            link is not None and link.ifindex != ifindex
        ):  # that interface is gone, its number used again
            self._let_go(ifindex)
            link = None
        link = link or _pinned_link(path, ifindex)
        known = link is not None
        if link is None:
            link = bpf.attach_xdp(self._program, ifindex)
            link.pin(path)
        else:
            link.update_program(self._program)
        self._links[ifindex] = link
        return not known

    def _let_go(self, ifindex: int) -> None:
        bpf.unpin(self._pins / f"link_{ifindex}")
        link = self._links.pop(ifindex, None)
        if link is not None:
            link.close()

    def now(self) -> int:
        """The seconds that the program reads, from the program itself."""
        return self._clock.test_run(_CLOCK_FRAME).retval & 0xFFFF

    def frames(self) -> tuple[FrameCount, ...]:
        """None: what XDP's devices lose, the kernel counts (`ip -s link`)."""
        return ()

    def lanes(self) -> tuple[Lane, ...]:
        """None: a packet is handled on the CPU that has received it."""
        return ()

    def grace(self) -> None:
        """One RCU grace period: every program that was running has returned."""
        grace()

    def close(self) -> None:
        """End this process's part; maps and links stay pinned and packets go on."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def remove(self) -> None:
        """Take everything away: links first, then maps."""
        for ifindex in list(self._links):
            self._let_go(ifindex)
        if self._pins.is_dir():
            for path in self._pins.iterdir():
                bpf.unpin(path)
            self._pins.rmdir()
            with contextlib.suppress(OSError):
                self._pins.parent.rmdir()


def load(sizes: Sizes, pinned: dict[str, bpf.Map] | None = None) -> bpf.Object:
    """The production object, sized and loaded, over the maps in `pinned` and new ones.

    A table is the one value of an array map, so that its address stands in the instructions
    (drivers/xdp/env_bpf.h). From Linux 6.0 on a value may be as large as a flow table.
    """
    obj = bpf.Object.open(OBJECT)
    for name, table in shapes(sizes).items():
        there = (pinned or {}).get(name)
        obj.use_value(name, there or _new_map(name, table.nbytes))
    numbers = (
        sizes.cpus,
        sizes.index_groups,
        sizes.services,
        sizes.backends,
        sizes.neighbours,
        sizes.tables * layout.SLOT_LINES,
        sizes.flow_groups,
        sizes.port_tables * layout.PORT_LINES,
        (1 << 32) // bpf.hz(),
    )
    for placeholder, number in enumerate(numbers, _FIRST_SIZE):
        obj.set_immediate(placeholder, number)
    return obj.load()


def _new_map(name: str, nbytes: int) -> bpf.Map:
    return bpf.Map.create(name[:15], value_size=nbytes, max_entries=1, flags=_MMAPABLE)


def interface_index(name: str) -> int:
    """The interface's number in this namespace; InterfaceError if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        there = ", ".join(sorted(n for _, n in socket.if_nameindex())) or "none"
        raise InterfaceError(
            f"there is no interface {name} in this network namespace",
            f"there are: {there}",
            "name one of them in datapath.interfaces, or create it",
        ) from None


def _pinned_link(path: Path, ifindex: int) -> bpf.Link | None:
    """The link of an earlier daemon, if it still is on this very interface."""
    if not path.exists():
        return None
    link = bpf.Link.open_pinned(path)
    if link.ifindex == ifindex:
        return link
    link.close()
    bpf.unpin(path)
    return None


def _adopt(pins: Path, sizes: Sizes) -> Adopted:
    """What of the pinned maps a new program can go on with.

    Configuration tables are taken all or none, since the settings name the copy in force in all of
    them. Flow tables, and each table of counters, are taken by themselves; the seed goes with the
    flows that it placed. If records are laid out differently, nothing is taken.
    """
    if not (pins / "settings").exists():
        return Adopted(sizes)
    old = _pinned_maps(pins)
    if not _same_layout(old["settings"]):
        return Adopted(sizes, lost_flows=True)
    wanted, sizes = sizes, _no_smaller(sizes, old)
    fits = {
        name
        for name, table in shapes(sizes).items()
        if name in old and (old[name].value_size, old[name].max_entries) == (table.nbytes, 1)
    }
    configuration = set(shapes(sizes)) - _FLOW_TABLES - _COUNTERS
    kept = fits & _COUNTERS
    for group in (configuration, _FLOW_TABLES):
        kept |= group if group <= fits else set()
    settings = old["settings"].mmap().view(layout.SETTINGS)[0]
    # A daemon that died while it made larger tables may have left gaps.
    flows = kept >= _FLOW_TABLES and {"services", "backends", "snats"} <= old.keys()
    return Adopted(
        sizes if flows else wanted,
        maps={name: old[name] for name in kept} if flows else {},
        seed=tuple(int(word) for word in settings["seed"]) if flows else None,  # type: ignore[arg-type]
        ids=_old_ids(old, int(settings["active"]) & 1, sizes) if flows else None,
        lost_flows=not flows,
    )


def _no_smaller(sizes: Sizes, old: dict[str, bpf.Map]) -> Sizes:
    """Room for every id that was given out."""
    copies, tables = layout.COPIES, shapes(sizes)
    there = {
        "index_groups": ("endpoints", copies),
        "services": ("services", copies),
        "backends": ("backends", copies),
        "snats": ("snats", copies),
        "neighbours": ("neighbours", copies),
        "tables": ("slots", copies * layout.SLOT_LINES),
    }
    return no_smaller(
        sizes,
        {
            size: old[name].value_size // tables[name].dtype.itemsize // each
            for size, (name, each) in there.items()
            if name in old
        },
    )


def _pinned_maps(pins: Path) -> dict[str, bpf.Map]:
    found = {}
    for path in pins.iterdir():
        with contextlib.suppress(DatapathError):
            found[path.name] = bpf.Map.open_pinned(path)
    return found


def _old_ids(old: dict[str, bpf.Map], copy: int, sizes: Sizes) -> Ids:
    tables = shapes(sizes)
    names = ("services", "backends", "snats")
    return ids_in_force({n: old[n].mmap().view(tables[n].dtype) for n in names}, copy, sizes)


def _same_layout(settings: bpf.Map) -> bool:
    if settings.value_size != layout.SETTINGS.itemsize:
        return False
    return int(settings.mmap().view(layout.SETTINGS)["layout"][0]) == layout_digest()
