# SPDX-License-Identifier: Apache-2.0
"""Waiting until every XDP program that was running has returned: one RCU grace period.

XDP programs run as RCU readers. Two ways lead to synchronize_rcu(): membarrier, which kernels that run
with nohz_full refuse, and an update of a map of maps (maybe_wait_bpf_programs, kernel/bpf/syscall.c).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from evener.datapath.kernel import membarrier_global, membarrier_supported
from evener.datapath.objects import Map

_ARRAY_OF_MAPS = 12  # enum bpf_map_type


def by_map_update() -> Callable[[], None]:
    """The second way: a function that waits, and holds the two small maps that it needs."""
    inner = Map.create("grace_inner", value_size=4, max_entries=1)
    outer = Map.create(
        "grace", type=_ARRAY_OF_MAPS, value_size=4, max_entries=1, inner_map_fd=inner.fd
    )

    def wait() -> None:
        outer.update(bytes(4), inner.fd.to_bytes(4, "little"))

    return wait


@functools.cache
def _way() -> Callable[[], None]:
    return membarrier_global if membarrier_supported() else by_map_update()


def grace() -> None:
    """Wait for one grace period; some milliseconds, 15 on a machine at rest."""
    _way()()
