/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables: flat memory, records of whole or half cache lines, declared once here. A driver supplies the memory,
 * Python maps the same memory with layouts generated from this file's type information.
 *
 * Who writes what:
 *   configuration (copy, endpoint, service, backend, snat, slots, neighbour, route): the control plane, into the copy
 *       that is not active; one store to lb_settings.active publishes it, and the other copy may be written again
 *       only after a grace period.
 *   flows, ports, locks: the datapath, any CPU, by compare-and-swap; the control plane only through the core's own
 *       functions (native library).
 *   counters, events: one CPU each; read by anyone.
 *
 * Ids are stable over changes of configuration, because flows remember them. Id 0 means none, as memory starts zero.
 */
#ifndef LB_TABLES_H
#define LB_TABLES_H

#include "reasons.h"
#include "types.h"

enum {
	LB_COPIES = 2,
	LB_SLOTS = 65537,     /* Maglev table size: prime, at least 100 times the backends (NSDI 2016, section 3.4) */
	LB_SLOT_LINES = 2049, /* LB_SLOTS / 32, rounded up */
	LB_SNATS = 256,	      /* SNAT addresses and VIPs: their ids have 8 bits in a flow */
	LB_SNAT_MAX = 16,     /* of one service */
	LB_INDEX_WAYS = 4,
	LB_FLOW_WAYS = 16,
	LB_LINE_WAYS = 4, /* flow records in a cache line */
	LB_FLOW_LINES = LB_FLOW_WAYS / LB_LINE_WAYS,
	LB_PORT_LINES = 4096, /* 65536 ports / 16 */
	LB_ROUTES = 32,
	LB_LOCKS = 1024,
	LB_EVENTS = 2048, /* per CPU */
	LB_WANTED_RECORDS = 64,
	LB_LEARNED_RECORDS = 1024,
	LB_REASON_ROW = 64,
};

/* One record for the whole datapath: 128 bytes. */
struct lb_settings {
	lb_u32 active;	    /* which copy of the configuration is in force: 0 or 1 */
	lb_u32 flow_groups; /* how many groups the flow table has */
	lb_u32 port_tables; /* how many port tables, a power of two */
	lb_u32 trace;	    /* 0: no events are written */
	lb_u64 seed[4];	    /* secret; lb_hash */
	/* Idle time after which a flow is over, seconds, below 32768. Anchored in RFC 5382 and RFC 7857. */
	lb_u16 syn_s; /* not yet answered and acknowledged */
	lb_u16 established_s;
	lb_u16 fin_s;	    /* one side has closed */
	lb_u16 closed_s;    /* both have, or a reset was seen: the port is in quarantine */
	lb_u16 local_first; /* host order; ports local_first..65535 of a SNAT address are the balancer's own */
	lb_u16 stamp_s;	    /* an established flow is stamped again when its stamp is this old */
	lb_u32 layout;	    /* digest of these layouts: whoever adopts the memory compares it */
	lb_u64 reserved[8];
};

/* One for each copy of the configuration: 64 bytes. */
struct lb_copy {
	lb_u32 generation;
	lb_u32 index_mask; /* groups of the endpoint index in use, less one */
	lb_u32 index_seed;
	lb_u32 routes;
	lb_u64 index_factor; /* that the seed stands for: lb_index_factor */
	lb_u64 listening[4]; /* a set of bits, those of the services' ports: lb_port_bit */
	lb_u32 reserved[2];
};

enum lb_endpoint_kind {
	LB_ENDPOINT_NONE,
	LB_ENDPOINT_SERVICE,   /* (VIP, port, protocol) -> service id */
	LB_ENDPOINT_BACKEND,   /* (address, port, protocol) -> backend id */
	LB_ENDPOINT_SNAT,      /* (address, 0, 0) -> SNAT address id; every VIP has one, used or not */
	LB_ENDPOINT_NEIGHBOUR, /* (address, 0, 0) -> neighbour id */
};

struct lb_endpoint {
	struct lb_addr addr;
	lb_be16 port;
	lb_u8 protocol;
	lb_u8 kind;
	lb_u32 id;
	lb_u64 reserved;
};

struct lb_index_group {
	struct lb_endpoint way[LB_INDEX_WAYS];
};

/* Where to send a frame: both MAC addresses and the interface. ifindex 0: not resolved. */
struct lb_nexthop {
	lb_u8 dst[6];
	lb_u8 src[6];
	lb_u32 ifindex;
} __attribute__((aligned(8))); /* copied in two words */

struct lb_service {
	struct lb_addr addr;
	lb_u64 salt; /* keyed digest of (VIP, port, protocol) */
	lb_be16 port;
	lb_u8 protocol;
	lb_u8 mode;
	lb_u16 table; /* which Maglev table */
	lb_u8 snat_count;
	lb_u8 reserved0;
	lb_u8 snat[LB_SNAT_MAX]; /* ids */
	lb_u8 reserved[16];
};

enum lb_mode { LB_MODE_NONE, LB_MODE_FULL_NAT };

enum lb_backend_state {
	LB_BACKEND_NONE,   /* unknown id */
	LB_BACKEND_USABLE, /* takes new flows if slots name it */
	LB_BACKEND_GONE,   /* removed from the configuration, flows may remain */
};

struct lb_backend {
	struct lb_addr addr;
	struct lb_nexthop nexthop;
	lb_be16 port;
	lb_u8 protocol;
	lb_u8 state;
	lb_u32 reserved[7];
};

struct lb_snat {
	struct lb_addr addr;
	lb_u64 reserved[2];
};

struct lb_slot_line {
	lb_u16 backend[32];
};

/* Prefixes behind a gateway (or on the link: nexthop.ifindex 0), longest first. */
struct lb_route {
	struct lb_addr addr;
	struct lb_addr mask;
	struct lb_nexthop nexthop;
	lb_u64 reserved[2];
};

/*
 * A flow: two words, both directions. Only flow.h takes them apart.
 *   client   address 32 | port 16 | service id 16	(address and port in network order)
 *   binding  backend id 16 | SNAT port 16 | SNAT id 8 | flags 8 | last seen 16 (seconds, wraps)
 */
struct lb_flow {
	lb_u64 client;
	lb_u64 binding;
};

struct lb_flow_group {
	struct lb_flow way[LB_FLOW_WAYS];
};

/* 16 ports of a port table: 0, or 1 + index of the flow that holds the port. */
struct lb_port_line {
	lb_u32 holder[16];
};

/* An address whose next hop a packet lacked: the control plane asks the kernel for it and clears the record. */
struct lb_wanted {
	struct lb_addr addr;
};

/*
 * Where a client's last new connection came from, as long as neither neighbours nor routes know the client: the answer
 * goes back there. The kernel learns a client's address from its ARP request for the VIP, but to hear of that takes
 * the control plane longer than the backend takes to answer.
 */
struct lb_learned {
	struct lb_addr addr; /* written last, cleared first */
	struct lb_nexthop nexthop;
};

struct lb_counter {
	lb_u64 forward_packets;
	lb_u64 forward_bytes;
	lb_u64 reply_packets;
	lb_u64 reply_bytes;
	lb_u64 flows_new;
	lb_u64 refused;
	lb_u64 reserved[2];
};

/* What the parser found. Offsets are from the start of the frame. */
struct lb_view {
	struct lb_addr src;
	struct lb_addr dst;
	lb_be16 sport;
	lb_be16 dport;
	lb_u8 protocol;
	lb_u8 tcp_flags;
	lb_u8 ttl;
	lb_u8 reason;  /* LB_REASON_NONE: parsed to the end */
	lb_u16 l4;     /* offset of the TCP header */
	lb_u16 length; /* of the frame, bytes */
	lb_u32 ifindex;
	lb_u8 eth_dst[6];
	lb_u8 eth_src[6];
	/* What follows decides nothing: lb_parse_more */
	lb_be32 seq;
	lb_be32 ack;
	lb_u8 fragment;
	lb_u8 checksum_partial; /* looks like an unfinished transmit offload; only said of SYNs */
	lb_u8 reserved[2];
};

enum lb_direction { LB_DIRECTION_NONE, LB_DIRECTION_FORWARD, LB_DIRECTION_REPLY };

/* What is to become of the packet: a value, printed by explain, narrated by trace, compared by tests. */
struct lb_plan {
	struct lb_addr src;
	struct lb_addr dst;
	struct lb_nexthop nexthop;
	lb_be16 sport;
	lb_be16 dport;
	lb_u16 l4;
	lb_u8 ttl;
	lb_u8 reserved0;
	lb_u8 flow_flags; /* of the flow, after this packet */
	lb_u8 verdict;
	lb_u8 reason;
	lb_u8 direction;
	lb_u32 slot; /* only where a backend was chosen: reason FORWARD_NEW */
	lb_u16 service;
	lb_u16 backend;
	lb_u16 snat;
	lb_u8 mode;
	lb_u8 reserved1;
	lb_u64 hash;
	lb_u32 generation;
	lb_u32 head_delta; /* bytes to make room for in front; 0 in full NAT */
};

/* One traced packet. sequence is written last: 1 + its number on this CPU. */
struct lb_event {
	lb_u64 sequence;
	lb_u64 time_ns; /* CLOCK_MONOTONIC */
	struct lb_view view;
	struct lb_plan plan;
	lb_u64 reserved[10];
};

struct lb_event_head {
	lb_u64 count;
	lb_u64 reserved[7];
};

_Static_assert(sizeof(struct lb_settings) == 128, "settings");
_Static_assert(sizeof(struct lb_copy) == 64, "copy");
_Static_assert(sizeof(struct lb_endpoint) == 32, "endpoint");
_Static_assert(sizeof(struct lb_service) == 64, "service");
_Static_assert(sizeof(struct lb_backend) == 64, "backend");
_Static_assert(sizeof(struct lb_snat) == 32, "snat");
_Static_assert(sizeof(struct lb_route) == 64, "route");
_Static_assert(sizeof(struct lb_flow_group) == 256, "flow group: four cache lines");
_Static_assert(sizeof(struct lb_port_line) == 64, "port line");
_Static_assert(sizeof(struct lb_learned) == 32, "learned");
_Static_assert(sizeof(struct lb_counter) == 64, "counter");
_Static_assert(sizeof(struct lb_view) == 72, "view");
_Static_assert(sizeof(struct lb_plan) == 88, "plan");
_Static_assert(sizeof(struct lb_event) == 256, "event");
_Static_assert(sizeof(struct lb_view) + sizeof(struct lb_plan) <= 256, "half of a BPF stack");
/*
 * Linux 6.1 (not 6.18) remembers a constant that is stored on the stack at a multiple of 8, but loses sight of who
 * relies on it when the store goes through a pointer. It then takes paths with other constants for the same path, and
 * removes code that only they reach: TCP fragments of others were dropped. So what is stored and then asked lies elsewhere.
 */
_Static_assert(__builtin_offsetof(struct lb_view, reason) % 8, "Linux 6.1 would forget a reason");
_Static_assert(__builtin_offsetof(struct lb_plan, reason) % 8, "Linux 6.1 would forget a reason");
_Static_assert(__builtin_offsetof(struct lb_plan, verdict) % 8, "Linux 6.1 would forget a verdict");
_Static_assert((int)LB_REASON_COUNT <= (int)LB_REASON_ROW, "a row of reason counters");

#endif
