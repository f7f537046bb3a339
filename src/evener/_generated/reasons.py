# SPDX-License-Identifier: Apache-2.0
# Written by tools/gen.py; do not edit.

"""Why packets are forwarded, passed or dropped (core/reasons.h)."""

from __future__ import annotations

from enum import IntEnum


class Verdict(IntEnum):
    PASS = 0
    DROP = 1
    FORWARD = 2


class Reason(IntEnum):
    NONE = 0
    FORWARD = 1
    FORWARD_NEW = 2
    REPLY = 3
    NOT_IPV4 = 4
    VLAN_TAGGED = 5
    NOT_TCP = 6
    NOT_OURS = 7
    LOCAL = 8
    MALFORMED = 9
    NO_FLOW = 10
    FRAGMENT = 11
    BAD_FLAGS = 12
    TTL_EXPIRED = 13
    NO_REPLY_FLOW = 14
    NO_BACKEND = 15
    BACKEND_GONE = 16
    SERVICE_GONE = 17
    FLOW_TABLE_FULL = 18
    SNAT_EXHAUSTED = 19
    FLOW_BUSY = 20
    NEIGHBOUR_UNRESOLVED = 21
    NOT_UNICAST = 22


VERDICTS: dict[Reason, Verdict] = {
    Reason.NONE: Verdict.PASS,
    Reason.FORWARD: Verdict.FORWARD,
    Reason.FORWARD_NEW: Verdict.FORWARD,
    Reason.REPLY: Verdict.FORWARD,
    Reason.NOT_IPV4: Verdict.PASS,
    Reason.VLAN_TAGGED: Verdict.PASS,
    Reason.NOT_TCP: Verdict.PASS,
    Reason.NOT_OURS: Verdict.PASS,
    Reason.LOCAL: Verdict.PASS,
    Reason.MALFORMED: Verdict.PASS,
    Reason.NO_FLOW: Verdict.PASS,
    Reason.FRAGMENT: Verdict.DROP,
    Reason.BAD_FLAGS: Verdict.DROP,
    Reason.TTL_EXPIRED: Verdict.DROP,
    Reason.NO_REPLY_FLOW: Verdict.DROP,
    Reason.NO_BACKEND: Verdict.DROP,
    Reason.BACKEND_GONE: Verdict.DROP,
    Reason.SERVICE_GONE: Verdict.DROP,
    Reason.FLOW_TABLE_FULL: Verdict.DROP,
    Reason.SNAT_EXHAUSTED: Verdict.DROP,
    Reason.FLOW_BUSY: Verdict.DROP,
    Reason.NEIGHBOUR_UNRESOLVED: Verdict.DROP,
    Reason.NOT_UNICAST: Verdict.PASS,
}

SENTENCES: dict[Reason, str] = {
    Reason.NONE: "no decision was taken",
    Reason.FORWARD: "client to backend, on a flow that is known",
    Reason.FORWARD_NEW: "client to backend, first packet of a new flow",
    Reason.REPLY: "backend to client, on a flow that is known",
    Reason.NOT_IPV4: "neither IPv4 nor anything else that is balanced (ARP, IPv6, ...)",
    Reason.VLAN_TAGGED: "the frame carries a VLAN tag; tagged frames are not balanced",
    Reason.NOT_TCP: "IPv4, but not TCP (ICMP, UDP, ...)",
    Reason.NOT_OURS: "TCP, but neither to a service nor from a backend to a SNAT address",
    Reason.LOCAL: "from a backend to a port that is reserved for the balancer's own connections",
    Reason.MALFORMED: "a header is cut short or contradicts itself; the kernel counts it too",
    Reason.NO_FLOW: "to a service, not a SYN, and no flow is known: the kernel answers with a reset",
    Reason.FRAGMENT: "a TCP fragment to a VIP or SNAT address: only the first would carry ports",
    Reason.BAD_FLAGS: "a SYN that is also a FIN or a RST",
    Reason.TTL_EXPIRED: "the time to live would reach zero here",
    Reason.NO_REPLY_FLOW: "from a backend to a SNAT address, but no flow holds that port",
    Reason.NO_BACKEND: "the service has no usable backend",
    Reason.BACKEND_GONE: "the flow's backend was removed from the configuration",
    Reason.SERVICE_GONE: "the flow's service was removed from the configuration",
    Reason.FLOW_TABLE_FULL: "new flow refused: both groups of the flow table hold established flows only",
    Reason.SNAT_EXHAUSTED: "new flow refused: a bounded search found no free source port to the backend",
    Reason.FLOW_BUSY: "another CPU was creating or ending this flow for too long",
    Reason.NEIGHBOUR_UNRESOLVED: "the next hop's MAC address is not known yet; the kernel is asked for it",
    Reason.NOT_UNICAST: "TCP in a frame to a group of hosts (broadcast, multicast); the kernel discards it",
}
