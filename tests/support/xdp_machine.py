# SPDX-License-Identifier: Apache-2.0
"""The XDP driver as a machine of the datapath suite: the production program, loaded and mapped by the
production code, but attached to nothing: BPF_PROG_TEST_RUN hands it one frame at a time.

The kernel says what became of the frame; why is read from the ring that `evener trace` reads.

The program's clock is jiffies times a constant that is set before loading. A tick rate beyond 2^32
makes that constant 0, so the program's clock stands still and time is what `age` makes of it.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from evener._generated.reasons import Verdict
from evener.datapath import bpf, xdp
from evener.datapath.sim import Outcome
from evener.tables.memory import Sizes, Tables, shapes
from tests.support.machine import IFINDEX, SIZES, TableMachine

_NEVER_TICKS = 1 << 33
_TEST_RUN_MIN = 14  # bytes: the kernel refuses less than an Ethernet header


class XdpMachine(TableMachine):
    """See the top of this file."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        sizes = replace(sizes, cpus=bpf.possible_cpus())
        with (
            mock.patch.object(bpf, "hz", return_value=_NEVER_TICKS),
            xdp.load(sizes) as obj,
        ):
            tables = Tables(sizes, {name: obj.map(name).mmap() for name in shapes(sizes)})
            self.program = obj.program("lb_xdp")
        super().__init__(tables)

    def send(self, frame: bytes) -> Outcome:
        """One frame in; what became of it. ValueError for a frame that the kernel cannot make."""
        if len(frame) < _TEST_RUN_MIN:
            raise ValueError(f"BPF_PROG_TEST_RUN takes {_TEST_RUN_MIN} bytes or more")
        result = self.program.test_run(frame)
        event = self.events(1)[0]
        outcome = Outcome(event["view"].copy(), event["plan"].copy(), result.data)
        plan = outcome.plan
        action = expected_action(int(plan["verdict"]), int(plan["nexthop"]["ifindex"]))
        assert result.retval == action, f"{bpf.XdpAction(result.retval)!r} for {plan}"
        return outcome

    def close(self) -> None:
        """Unload the program; the maps go with their last view."""
        self.program.close()


def expected_action(verdict: int, ifindex: int) -> int:
    """What the program must tell the kernel to do for a plan."""
    if verdict == Verdict.FORWARD:
        return bpf.XdpAction.TX if ifindex == IFINDEX else bpf.XdpAction.REDIRECT
    return bpf.XdpAction.PASS if verdict == Verdict.PASS else bpf.XdpAction.DROP
