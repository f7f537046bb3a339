# SPDX-License-Identifier: Apache-2.0
"""Publishing: the configuration is in force whole, or not at all.

The copy that is not in force is written, in any order, since nobody reads it; then one store makes it
the one in force. A packet reads that word once and keeps to its copy, so before the old copy is
written again every packet that may still read it must be done: the grace period.
"""

from __future__ import annotations

from collections.abc import Callable

from evener.tables.compile import Compiled
from evener.tables.memory import Array, Tables


def publish(tables: Tables, compiled: Compiled, grace: Callable[[], None]) -> int:
    """Put the compiled tables in force; the new generation's number.

    grace: waits until packets that began before the call are done; called once before the spare
    copy is written (it may still be read after the last publication) and once after the flip.
    """
    grace()
    spare = 1 - tables.active
    generation = tables.generation + 1
    for name in ("endpoints", "services", "backends", "snats", "neighbours", "routes", "slots"):
        _replace(getattr(tables, name)[spare], getattr(compiled, name))
    header = compiled.header.copy()
    header["generation"] = generation
    tables.copies[spare] = header
    settings = tables.settings[0]
    # Read by packets at any time and each right by itself: not part of the switched copies.
    for name, seconds in zip(
        ("syn_s", "established_s", "fin_s", "closed_s"), compiled.timeouts, strict=True
    ):
        settings[name] = seconds
    settings["stamp_s"] = max(1, min(16, compiled.timeouts[1] // 50))
    settings["active"] = spare
    grace()
    return generation


def _replace(old: Array, new: Array) -> None:
    """Write `new` where it differs: most of a publication is what was there before."""
    was, is_ = old.reshape(len(old), -1).view("u1"), new.reshape(len(new), -1).view("u1")
    changed = (was != is_).any(axis=1)
    old[changed] = new[changed]
