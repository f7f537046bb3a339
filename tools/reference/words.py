# SPDX-License-Identifier: Apache-2.0
"""What the pages say beyond the code. Each mapping is compared with the code when a page is written."""

from __future__ import annotations

VERDICTS = {
    "forward": "The packet left with new addresses, towards a backend or back to a client.",
    "pass": "The packet went on to the kernel of the balancer's host, unchanged, as if evener were not there.",
    "drop": "The packet ended here.",
}

REASONS = {
    "NONE": "Nothing: it must stay at 0.",
    "FORWARD": "Nothing.",
    "FORWARD_NEW": "Nothing: one for each new flow.",
    "REPLY": "Nothing.",
    "NOT_IPV4": "Nothing: ARP has to be passed. IPv6 is not balanced by this version.",
    "VLAN_TAGGED": "Untag the frames before they get here.",
    "NOT_TCP": "Nothing: ping and the like are the kernel's. UDP is not balanced by this version.",
    "NOT_OURS": "If a service was meant, compare the destination with `evener show services`.",
    "LOCAL": "Nothing: ports from 64512 up belong to connections of the balancer's host itself.",
    "MALFORMED": "A few are the Internet; many from one sender are a broken sender.",
    "NO_FLOW": "A few after a restart or a long silence; many: raise `timeouts.established`, or packets of a flow "
    "reach different balancers.",
    "FRAGMENT": "Something on the way cuts packets up: let senders discover the path's MTU.",
    "BAD_FLAGS": "Nothing: port scanners send these.",
    "TTL_EXPIRED": "Look for a routing loop; `traceroute` sends these, too.",
    "NO_REPLY_FLOW": "A backend answers later than the timeout, or has connections of its own to the SNAT address.",
    "NO_BACKEND": "Give the service's pool a backend with a weight above 0.",
    "BACKEND_GONE": "Nothing: clients of a backend that was removed have to connect anew.",
    "SERVICE_GONE": "Nothing: the service was removed while clients used it.",
    "FLOW_TABLE_FULL": "Raise `datapath.flows` (needs a restart), or shorten the timeouts.",
    "SNAT_EXHAUSTED": "Give the service more addresses: `snat`. A search looks at some of the ports and the next SYN's at "
    "others, so this begins when few are left, before there is none.",
    "FLOW_BUSY": "Single ones are retransmitted; more than that is worth a report.",
    "NEIGHBOUR_UNRESOLVED": "The first packets towards a silent host; if it goes on: does the backend answer ARP, is "
    "there a route?",
    "NOT_UNICAST": "Nothing, if they are few; many: somebody answers ARP for the VIP with a group's MAC address.",
}

FRAMES = {
    "tx_full": "A few: bursts beyond the device's queue. Many: the link is slower than what comes in, or it is down.",
    "kernel_full": "Is the TAP up? If it is: the kernel is slower than what it is given; `evener show reasons` says "
    "under `pass` what that is.",
    "too_long": "Lower the MTU of the kernel's interface to that of the device, and turn its segmentation offloads off.",
    "in_pieces": "Lower the device's MTU: frames of 2 KiB and more are not balanced.",
    "imissed": "The worker does not keep up: give it more lanes, or CPUs of its own, with `-l` in `datapath.eal`.",
    "ierrors": "Frames arrive damaged, or longer than a buffer: look at the cable, the switch and the MTU.",
    "oerrors": "Is the device up, and are its link and MTU as they should be?",
    "rx_nombuf": "Give more memory with `-m` in `datapath.eal`.",
    "to_kernel": "Nothing: ARP, ping and the like. `evener show reasons` says under `pass` what it is.",
    "from_kernel": "Nothing.",
}

ROUTES = {
    "GET /v1/status": "What the daemon is and does.",
    "GET /v1/services": "Services and their backends.",
    "GET /v1/backends": "Backends.",
    "GET /v1/counters": "What was counted, for each service and each of its backends.",
    "GET /v1/reasons": "Every reason and how many packets had it.",
    "GET /v1/flows": "Flows, with all four ends.\n\n"
    "Parameters: `client` (an address, ADDRESS:PORT or a prefix), `service`, `backend`, `state`, and `limit` (0 or none: "
    "all). What is given has to match.",
    "GET /v1/trace": "Packets as they come, until the client closes the connection.\n\n"
    "One JSON object on each line (`application/x-ndjson`). The first says that tracing has begun; "
    '`{"lost": N}` says that N packets came too fast. Parameters: `client`, `service`, `backend`, `reason`, `verdict`. '
    "The answer here is spread over lines for reading.",
    "POST /v1/apply": "Put a configuration in force: whole, or not at all.\n\n"
    "`source` is what errors call the text. `generation` numbers what was published.",
    "POST /v1/reload": "Apply the file that the daemon was started with, as it is now.",
    "POST /v1/diff": "What applying a configuration would change; nothing is changed.\n\n"
    "`refused`: for each change that a running daemon cannot make, why `POST /v1/apply` would refuse all of them.",
    "POST /v1/explain": "What would become of a client's first packet; nothing is sent.",
}

_ADDRESS = "address and port"
_COUNTED = {
    "flows_new": "flows that were opened",
    "forward_packets": "packets from clients that were sent to a backend",
    "reply_packets": "packets from backends that were sent to a client",
    "forward_bytes": "bytes of those from clients",
    "reply_bytes": "bytes of those from backends",
    "refused": "packets of this service or backend that were not sent on; `reasons` says why",
}
_NOW = {
    "flows_now": "flows that exist now, those in quarantine included",
    "flows_established": "of these, flows in the state ESTABLISHED",
}
_BACKEND_TEXT = "`POOL/BACKEND`"

FIELDS = {
    "services": (
        "`evener show services`, `GET /v1/services`: one row for each service, in the order of the file.",
        {
            "service": "name",
            "protocol": "`tcp`",
            "vip": "address and port that clients use",
            "pool": "name of its pool",
            "scheduler": "how backends are chosen",
            "mode": "how packets reach backends",
            "snat": "source addresses that backends see",
            **_NOW,
            **_COUNTED,
            "backends": "the backends of its pool, see below",
        },
    ),
    "backends of a service": (
        "The list `backends` in a row of services.",
        {
            "backend": "name",
            "address": _ADDRESS,
            "weight": "as configured",
            "flows_now": "this service's flows on it",
            "flows_established": "of these, flows in the state ESTABLISHED",
        },
    ),
    "backends": (
        (
            "`evener show backends`, `GET /v1/backends`: one row for each backend of each pool; then those that were removed "
            "and still have flows. A backend that stands in two pools shows the same numbers in both."
        ),
        {
            "pool": "name of its pool; null: it was removed",
            "backend": "name",
            "address": _ADDRESS,
            "protocol": "`tcp`",
            "state": "`usable`, or `gone`: removed from the configuration",
            "weight": "as configured",
            "share": "part of the Maglev table's slots that name it, 0 to 1: its share of new flows",
            "services": "names of the services that use it",
            "mac": "where its frames are sent; null: not resolved yet",
            "interface": "through which they leave",
            **_NOW,
            **_COUNTED,
        },
    ),
    "flows": (
        (
            "`evener show flows`, `GET /v1/flows`: one row for each flow. The client sees `vip` as its peer, the backend sees "
            "`snat`. Of a port in quarantine whose client has gone elsewhere only `snat` and `backend` are known."
        ),
        {
            "protocol": "`tcp`",
            "state": "`OPENING`, `ESTABLISHED`, `HALF_CLOSED` (one side has closed) or `CLOSED` (the port is in quarantine)",
            "left_s": "seconds of silence until it is forgotten",
            "client": _ADDRESS,
            "vip": _ADDRESS,
            "snat": _ADDRESS,
            "backend": _ADDRESS,
            "service": "name of the service",
            "pool": "name of the pool",
            "backend_name": _BACKEND_TEXT,
        },
    ),
    "counters": (
        "`evener show counters`, `GET /v1/counters`: a row for each service, followed by those of its backends.",
        {
            "kind": "`service` or `backend`",
            "protocol": "`tcp`",
            "service": "name of the service",
            "address": _ADDRESS,
            **_COUNTED,
            "backend": f"{_BACKEND_TEXT}; not in a service's own row",
        },
    ),
    "reasons": (
        "`evener show reasons`, `GET /v1/reasons`: all of them, see [Reasons](reasons.md).",
        {
            "reason": "name",
            "verdict": "`forward`, `pass` or `drop`",
            "packets": "how many packets had it",
            "sentence": "what it means",
        },
    ),
    "status": (
        "`evener show status`, `GET /v1/status`.",
        {
            "instance": "the daemon's name: that of its network namespace",
            "pid": "its process",
            "driver": "`xdp`, `dpdk` or `sim`",
            "worker": "the process that handles packets, with `dpdk`; 0 while there is none, `null` with other drivers",
            "generation": "number of the configuration in force",
            "uptime_s": "seconds since the daemon started",
            "config": "the file that it was started with",
            "interfaces": "where it is attached: `interface`, `ifindex`, and `mode` (`native`, `generic`, `simulated`, or a driver of DPDK's such as `net_tap`; "
            "`gone`: there is no such interface; `detached`: there is, and it could not be attached yet)",
            "flows": "`capacity` as configured, the table's `records`, of which a part must be free for all flows to find a place, "
            "and how many `evener show flows` would list `now`",
            "memory_bytes": "of all tables",
            "adopted": "whether it took over what a daemon before it had left in force",
            "warnings": "sentences for the operator",
            "lanes": "how packets are spread with `dpdk`, see below; empty with `xdp` and `sim`",
            "frames": "what the driver counts outside the core, see below; empty with `xdp` and `sim`",
        },
    ),
    "lanes of the status": (
        "The list `lanes` of the status: one row for each lane of the DPDK worker, which has a queue of each device.",
        {
            "lane": "its number, from 0",
            "lcore": "what it runs on: a CPU, or what `--lcores` in `datapath.eal` makes of one",
            "packets": "how many it has handled, with those of earlier workers; much more on one than on others: the "
            "device does not spread them",
        },
    ),
    "frames of the status": (
        (
            "The list `frames` of the status: one row for each counter of the driver. "
            "[Frames that have no reason](reasons.md#frames-that-have-no-reason) says what to do."
        ),
        {
            "counter": "name",
            "lost": "whether these frames are lost; others were only handed on",
            "frames": "how many, altogether; null: nobody counts them",
            "by": "how many of each `lane N` or, of what devices count, of each interface; null: nobody counts them there",
            "sentence": "what became of them",
        },
    ),
    "trace": (
        (
            "`evener trace --json`, `GET /v1/trace`: one object for each packet. First the packet as it came, then what was "
            "decided."
        ),
        {
            "time_ns": "CLOCK_MONOTONIC",
            "cpu": "which CPU handled it",
            "number": "its place among all traced packets of that CPU",
            "interface": "where it came in",
            "ifindex": "the same as a number",
            "length": "of the frame, bytes",
            "protocol": "`tcp`, `udp`, `icmp` or a number",
            "source": _ADDRESS,
            "destination": _ADDRESS,
            "source_mac": "of the frame",
            "destination_mac": "of the frame",
            "flags": "TCP flags as tcpdump writes them",
            "seq": "TCP sequence number",
            "ack": "TCP acknowledgement number",
            "ttl": "time to live as it came",
            "checksum_partial": "whether a SYN's checksum looks unfinished (transmit offload at the sender)",
            "verdict": "`forward`, `pass` or `drop`",
            "reason": "see [Reasons](reasons.md)",
            "sentence": "what the reason means",
            "direction": "`forward` (client to backend), `reply`, or null: not of a service",
            "mode": "of the service",
            "service": "name of the service",
            "listen": "its address, port and protocol",
            "backend": _BACKEND_TEXT,
            "backend_end": "the backend's address and port",
            "client": "the client's address and port",
            "hash": "of the client's and the service's ends, 16 hexadecimal digits",
            "slot": "place in the Maglev table; of a new flow only",
            "state": "of the flow, after this packet",
            "generation": "of the configuration by which it was decided",
            "out": "the packet as it left, see below; null: it did not",
        },
    ),
    "out": (
        "The object `out` of a traced packet. What is not here is as it came.",
        {
            "source": _ADDRESS,
            "destination": _ADDRESS,
            "ttl": "one less",
            "source_mac": "the balancer's; null while the next hop is not known",
            "destination_mac": "the next hop's; null while it is not known",
            "interface": "through which it left; null while the next hop is not known",
        },
    ),
    "explain": (
        (
            "`evener explain --json`, `POST /v1/explain`: an object like that of a traced packet without its first three "
            "fields, with these added."
        ),
        {
            "offline": "whether the simulator was asked instead of a daemon",
            "pool": "name of the service's pool",
            "known_flow": "whether the packet belongs to a flow that exists",
            "share": "part of the slots that name the backend, 0 to 1",
        },
    ),
}
