# SPDX-License-Identifier: Apache-2.0
"""BPF for Python on the system's libbpf: the one module to import for it.

    with bpf.Object.open(path) as obj:
        obj.set_max_entries("lb_flows", 1 << 20)
        obj.set_constant("lb_services", 16)
        obj.load()
        flows = obj.map("lb_flows").mmap()          # numpy, the kernel's own memory
        link = bpf.attach_xdp(obj.program("lb_xdp"), ifindex)

Rules: Map, Program and Link own a descriptor each and outlive the Object that they came from. What
is pinned outlives the process. Interfaces are numbers in the network namespace of the calling
thread. Importing this is cheap and needs no libbpf; the first use does, and says so when it is
missing. Errors are those of `evener.errors`, with the kernel's and libbpf's own words in them.

Parts: `objects` (files, maps, programs), `link` (programs on interfaces), `kernel` (bpffs, grace
period, clocks), `libbpf` (the library itself).
"""

from evener.datapath.kernel import (
    BPFFS,
    ensure_bpffs,
    hz,
    is_bpffs,
    membarrier_global,
    membarrier_supported,
    possible_cpus,
)
from evener.datapath.link import (
    Attachment,
    Link,
    XdpAction,
    XdpFlags,
    XdpMode,
    attach_netlink,
    attach_xdp,
    detach_netlink,
    query,
)
from evener.datapath.objects import (
    Map,
    Object,
    Program,
    ProgramInfo,
    RunResult,
    VerifierError,
    unpin,
    xdp_context,
)

__all__ = [
    "BPFFS",
    "Attachment",
    "Link",
    "Map",
    "Object",
    "Program",
    "ProgramInfo",
    "RunResult",
    "VerifierError",
    "XdpAction",
    "XdpFlags",
    "XdpMode",
    "attach_netlink",
    "attach_xdp",
    "detach_netlink",
    "ensure_bpffs",
    "hz",
    "is_bpffs",
    "membarrier_global",
    "membarrier_supported",
    "possible_cpus",
    "query",
    "unpin",
    "xdp_context",
]
