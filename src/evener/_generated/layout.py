# SPDX-License-Identifier: Apache-2.0
# Written by tools/gen.py; do not edit.

"""Records of core/tables.h as NumPy dtypes, and the core's constants."""

from __future__ import annotations

from typing import Final

import numpy as np

BACKEND_GONE: Final = 2
BACKEND_NONE: Final = 0
BACKEND_USABLE: Final = 1
BURST: Final = 32
COPIES: Final = 2
DIRECTION_FORWARD: Final = 1
DIRECTION_NONE: Final = 0
DIRECTION_REPLY: Final = 2
ENDPOINT_BACKEND: Final = 2
ENDPOINT_NEIGHBOUR: Final = 4
ENDPOINT_NONE: Final = 0
ENDPOINT_SERVICE: Final = 1
ENDPOINT_SNAT: Final = 3
ETHERTYPE_IPV4: Final = 2048
ETHERTYPE_QINQ: Final = 34984
ETHERTYPE_VLAN: Final = 33024
ETH_BYTES: Final = 14
EVENTS: Final = 2048
FLOW_CLAIMED: Final = 1
FLOW_DOUBTED: Final = 33
FLOW_ESTABLISHED: Final = 4
FLOW_FIN_FORWARD: Final = 8
FLOW_FIN_REPLY: Final = 16
FLOW_LINES: Final = 4
FLOW_LIVE_FORWARD: Final = 64
FLOW_LIVE_REPLY: Final = 128
FLOW_REPLIED: Final = 2
FLOW_RESET: Final = 32
FLOW_WAYS: Final = 16
INDEX_WAYS: Final = 4
IPV4_FRAGMENT: Final = 16383
LEARNED_RECORDS: Final = 1024
LINE_WAYS: Final = 4
LOCKS: Final = 1024
LOCK_SPINS: Final = 256
MARGIN_S: Final = 2
MODE_FULL_NAT: Final = 1
MODE_NONE: Final = 0
OF_COPY_BACKENDS: Final = 2
OF_COPY_ENDPOINTS: Final = 0
OF_COPY_NEIGHBOURS: Final = 4
OF_COPY_ROUTES: Final = 5
OF_COPY_SERVICES: Final = 1
OF_COPY_SLOTS: Final = 6
OF_COPY_SNATS: Final = 3
OF_CPU_BACKENDS: Final = 1
OF_CPU_EVENTS: Final = 4
OF_CPU_EVENT_HEAD: Final = 3
OF_CPU_REASONS: Final = 2
OF_CPU_SERVICES: Final = 0
OPENING_S: Final = 3
PLAIN_BYTES: Final = 54
PLAIN_L4: Final = 34
PORT_FIRST: Final = 1024
PORT_LINES: Final = 4096
PORT_LOW_END: Final = 32768
PORT_OWNERS: Final = 16
PORT_STRETCH: Final = 512
PROTOCOL_TCP: Final = 6
RANK_CLOSED: Final = 3
RANK_DEAD: Final = 1
RANK_FREE: Final = 0
RANK_NEVER: Final = 5
RANK_OPENING: Final = 4
RANK_STALE_OPENING: Final = 2
REASON_COUNT: Final = 23
REASON_ROW: Final = 64
ROUTES: Final = 32
SLOTS: Final = 65537
SLOT_LINES: Final = 2049
SNATS: Final = 256
SNAT_MAX: Final = 16
STATE_CLOSED: Final = 3
STATE_ESTABLISHED: Final = 1
STATE_HALF_CLOSED: Final = 2
STATE_OPENING: Final = 0
TCP_ACK: Final = 16
TCP_FIN: Final = 1
TCP_RST: Final = 4
TCP_SYN: Final = 2
TCP_TELLING: Final = 7
TO_NOBODY: Final = 0
VERDICT_DROP: Final = 1
VERDICT_FORWARD: Final = 2
VERDICT_PASS: Final = 0
WANTED_RECORDS: Final = 64

ADDR = np.dtype(
    {
        "names": ["half"],
        "formats": [("<u8", (2,))],
        "offsets": [0],
        "itemsize": 16,
    }
)

SETTINGS = np.dtype(
    {
        "names": [
            "active",
            "flow_groups",
            "port_tables",
            "trace",
            "seed",
            "syn_s",
            "established_s",
            "fin_s",
            "closed_s",
            "local_first",
            "stamp_s",
            "layout",
            "reserved",
        ],
        "formats": [
            "<u4",
            "<u4",
            "<u4",
            "<u4",
            ("<u8", (4,)),
            "<u2",
            "<u2",
            "<u2",
            "<u2",
            "<u2",
            "<u2",
            "<u4",
            ("<u8", (8,)),
        ],
        "offsets": [0, 4, 8, 12, 16, 48, 50, 52, 54, 56, 58, 60, 64],
        "itemsize": 128,
    }
)

COPY = np.dtype(
    {
        "names": [
            "generation",
            "index_mask",
            "index_seed",
            "routes",
            "index_factor",
            "listening",
            "reserved",
        ],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<u8", ("<u8", (4,)), ("<u4", (2,))],
        "offsets": [0, 4, 8, 12, 16, 24, 56],
        "itemsize": 64,
    }
)

ENDPOINT = np.dtype(
    {
        "names": ["addr", "port", "protocol", "kind", "id", "reserved"],
        "formats": [ADDR, "<u2", "<u1", "<u1", "<u4", "<u8"],
        "offsets": [0, 16, 18, 19, 20, 24],
        "itemsize": 32,
    }
)

INDEX_GROUP = np.dtype(
    {
        "names": ["way"],
        "formats": [(ENDPOINT, (4,))],
        "offsets": [0],
        "itemsize": 128,
    }
)

NEXTHOP = np.dtype(
    {
        "names": ["dst", "src", "ifindex"],
        "formats": [("<u1", (6,)), ("<u1", (6,)), "<u4"],
        "offsets": [0, 6, 12],
        "itemsize": 16,
    }
)

SERVICE = np.dtype(
    {
        "names": [
            "addr",
            "salt",
            "port",
            "protocol",
            "mode",
            "table",
            "snat_count",
            "reserved0",
            "snat",
            "reserved",
        ],
        "formats": [
            ADDR,
            "<u8",
            "<u2",
            "<u1",
            "<u1",
            "<u2",
            "<u1",
            "<u1",
            ("<u1", (16,)),
            ("<u1", (16,)),
        ],
        "offsets": [0, 16, 24, 26, 27, 28, 30, 31, 32, 48],
        "itemsize": 64,
    }
)

BACKEND = np.dtype(
    {
        "names": ["addr", "nexthop", "port", "protocol", "state", "reserved"],
        "formats": [ADDR, NEXTHOP, "<u2", "<u1", "<u1", ("<u4", (7,))],
        "offsets": [0, 16, 32, 34, 35, 36],
        "itemsize": 64,
    }
)

SNAT = np.dtype(
    {
        "names": ["addr", "reserved"],
        "formats": [ADDR, ("<u8", (2,))],
        "offsets": [0, 16],
        "itemsize": 32,
    }
)

SLOT_LINE = np.dtype(
    {
        "names": ["backend"],
        "formats": [("<u2", (32,))],
        "offsets": [0],
        "itemsize": 64,
    }
)

ROUTE = np.dtype(
    {
        "names": ["addr", "mask", "nexthop", "reserved"],
        "formats": [ADDR, ADDR, NEXTHOP, ("<u8", (2,))],
        "offsets": [0, 16, 32, 48],
        "itemsize": 64,
    }
)

FLOW = np.dtype(
    {
        "names": ["client", "binding"],
        "formats": ["<u8", "<u8"],
        "offsets": [0, 8],
        "itemsize": 16,
    }
)

FLOW_GROUP = np.dtype(
    {
        "names": ["way"],
        "formats": [(FLOW, (16,))],
        "offsets": [0],
        "itemsize": 256,
    }
)

PORT_LINE = np.dtype(
    {
        "names": ["holder"],
        "formats": [("<u4", (16,))],
        "offsets": [0],
        "itemsize": 64,
    }
)

WANTED = np.dtype(
    {
        "names": ["addr"],
        "formats": [ADDR],
        "offsets": [0],
        "itemsize": 16,
    }
)

LEARNED = np.dtype(
    {
        "names": ["addr", "nexthop"],
        "formats": [ADDR, NEXTHOP],
        "offsets": [0, 16],
        "itemsize": 32,
    }
)

COUNTER = np.dtype(
    {
        "names": [
            "forward_packets",
            "forward_bytes",
            "reply_packets",
            "reply_bytes",
            "flows_new",
            "refused",
            "reserved",
        ],
        "formats": ["<u8", "<u8", "<u8", "<u8", "<u8", "<u8", ("<u8", (2,))],
        "offsets": [0, 8, 16, 24, 32, 40, 48],
        "itemsize": 64,
    }
)

VIEW = np.dtype(
    {
        "names": [
            "src",
            "dst",
            "sport",
            "dport",
            "protocol",
            "tcp_flags",
            "ttl",
            "reason",
            "l4",
            "length",
            "ifindex",
            "eth_dst",
            "eth_src",
            "seq",
            "ack",
            "fragment",
            "checksum_partial",
            "reserved",
        ],
        "formats": [
            ADDR,
            ADDR,
            "<u2",
            "<u2",
            "<u1",
            "<u1",
            "<u1",
            "<u1",
            "<u2",
            "<u2",
            "<u4",
            ("<u1", (6,)),
            ("<u1", (6,)),
            "<u4",
            "<u4",
            "<u1",
            "<u1",
            ("<u1", (2,)),
        ],
        "offsets": [0, 16, 32, 34, 36, 37, 38, 39, 40, 42, 44, 48, 54, 60, 64, 68, 69, 70],
        "itemsize": 72,
    }
)

PLAN = np.dtype(
    {
        "names": [
            "src",
            "dst",
            "nexthop",
            "sport",
            "dport",
            "l4",
            "ttl",
            "reserved0",
            "flow_flags",
            "verdict",
            "reason",
            "direction",
            "slot",
            "service",
            "backend",
            "snat",
            "mode",
            "reserved1",
            "hash",
            "generation",
            "head_delta",
        ],
        "formats": [
            ADDR,
            ADDR,
            NEXTHOP,
            "<u2",
            "<u2",
            "<u2",
            "<u1",
            "<u1",
            "<u1",
            "<u1",
            "<u1",
            "<u1",
            "<u4",
            "<u2",
            "<u2",
            "<u2",
            "<u1",
            "<u1",
            "<u8",
            "<u4",
            "<u4",
        ],
        "offsets": [
            0,
            16,
            32,
            48,
            50,
            52,
            54,
            55,
            56,
            57,
            58,
            59,
            60,
            64,
            66,
            68,
            70,
            71,
            72,
            80,
            84,
        ],
        "itemsize": 88,
    }
)

EVENT = np.dtype(
    {
        "names": ["sequence", "time_ns", "view", "plan", "reserved"],
        "formats": ["<u8", "<u8", VIEW, PLAN, ("<u8", (10,))],
        "offsets": [0, 8, 16, 88, 176],
        "itemsize": 256,
    }
)

EVENT_HEAD = np.dtype(
    {
        "names": ["count", "reserved"],
        "formats": ["<u8", ("<u8", (7,))],
        "offsets": [0, 8],
        "itemsize": 64,
    }
)
