# SPDX-License-Identifier: Apache-2.0
"""Claims that somebody left behind: a daemon, or a datapath that is a process, killed in the middle.

Whoever creates or ends a flow first claims its record, and nobody takes it away (core/snat.h), as
its owner may just have been stopped and go on. So what a killed one leaves behind has to be told
from what somebody is busy with: all claims are marked, whoever lives writes over the mark, and
after a grace period the marked ones are nobody's.
"""

from __future__ import annotations

from collections.abc import Callable

from evener.datapath.native import SWEEPING, Core


def end_abandoned(core: Core, now: int, grace: Callable[[], None]) -> int:
    """End the claims that nobody owns any more, and give their ports back; how many.

    now: the datapath's seconds. grace: waits until every packet that began before the call is done,
    and is not called when there is no claim; where no datapath runs, it has nothing to wait for.
    Packets may go on all the while, and other threads may sweep; other processes must not.
    """
    with SWEEPING:
        if not core.doubt_claims(now):
            return 0
        grace()
        return core.end_claims()
