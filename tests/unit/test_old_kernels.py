# SPDX-License-Identifier: Apache-2.0
"""What Linux 6.1 wants of the program and newer kernels do not: found here without a 6.1.

The whole check is `make vm-test`; these two rules are those that changes to the core break unawares.
"""

from __future__ import annotations

import pytest

from evener.datapath.xdp import OBJECT
from tests.support.bpf_elf import Elf

STACK = 512  # bytes, for a chain of calls
FRAME = 32  # Linux 6.1 rounds each frame up to it; newer kernels with a JIT to 16


@pytest.fixture(scope="module")
def elf() -> Elf:
    return Elf(OBJECT)


def test_no_loop_closes_by_falling_through(elf: Elf) -> None:
    bad = {name: found for name, one in elf.functions.items() if (found := one.closing_falls())}
    assert not bad, f"Linux 6.1 takes these for endless loops: {bad} (function, instruction)"


def test_every_chain_of_calls_has_room(elf: Elf) -> None:
    def deepest(name: str) -> tuple[int, tuple[str, ...]]:
        one = elf.functions[name]
        below, chain = max(map(deepest, one.calls), default=(0, ()))
        return below + -(-max(one.stack(), 1) // FRAME) * FRAME, (name, *chain)

    size, chain = deepest("lb_xdp")
    frames = ", ".join(f"{name} {elf.functions[name].stack()}" for name in chain)
    assert len(chain) > 3, "the calls were not found"
    assert size <= STACK, f"{size} bytes of stack on Linux 6.1: {frames}"
