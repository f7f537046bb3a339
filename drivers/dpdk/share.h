/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The file that the daemon and the worker share: this head, then the core's tables. The daemon makes it; whoever of
 * the two starts again finds everything as it was. src/evener/datapath/dpdk_share.py has the same layout, and a test
 * compares them.
 */
#ifndef EVENER_SHARE_H
#define EVENER_SHARE_H

#include "types.h"

#define LB_SHARE_MAGIC "evener-1"

enum {
	LB_SHARE_VERSION = 1,
	LB_SHARE_LANES = 64,
	LB_SHARE_DEVICES = 16,
	LB_SHARE_SIZES = 9,
	LB_SHARE_PAGE = 4096, /* tables begin at multiples of it */
};

/* What one lane tells of itself: a cache line, written by that lane alone. */
struct lb_lane {
	lb_u64 rounds; /* one more after each round of its loop: whoever saw it change knows that older packets are done */
	lb_u32 running; /* 1 while it handles packets */
	lb_u32 lcore;
	lb_u64 tx_full;	    /* frames that a device did not take */
	lb_u64 to_kernel;   /* frames given to the kernel */
	lb_u64 from_kernel; /* frames of the kernel's own */
	lb_u64 kernel_full; /* frames that the kernel did not take */
	lb_u64 too_long;    /* frames of the kernel's that fit into no buffer */
	lb_u64 in_pieces;   /* received frames of several buffers that fit into no single one */
};

/* What the device of one port counts by itself (struct rte_eth_stats): lane 0 writes it, once a second. */
struct lb_device {
	lb_u64 imissed;	  /* frames that found the device's queue full */
	lb_u64 ierrors;	  /* frames that the device could not receive */
	lb_u64 oerrors;	  /* frames that the device could not send */
	lb_u64 rx_nombuf; /* times that there was no buffer for a frame */
};

/* Of the device of one port: lane 0 writes it, once a second. Some virtual devices are always up. */
enum lb_link {
	LB_LINK_UNKNOWN,
	LB_LINK_DOWN,
	LB_LINK_UP,
};

/* What the kernel has counted of a device's interface, where the device does not count: the daemon writes it. */
struct lb_kernel_count {
	lb_u32 ifindex; /* as this worker has it; 0: it was never looked at */
	lb_u32 worker;	/* its process number */
	lb_u64 seen;	/* what the kernel had counted when they were last looked at */
	lb_u64 missed;	/* frames that found the device's queue full, altogether */
};

/* How many records the tables have: src/evener/tables/memory.py, Sizes. */
enum lb_share_size {
	LB_SHARE_CPUS,
	LB_SHARE_INDEX_GROUPS,
	LB_SHARE_SERVICES,
	LB_SHARE_BACKENDS,
	LB_SHARE_SNATS,
	LB_SHARE_NEIGHBOURS,
	LB_SHARE_MAGLEV_TABLES,
	LB_SHARE_FLOW_GROUPS,
	LB_SHARE_PORT_TABLES,
};

/* The tables in the order in which they lie: src/evener/tables/memory.py, shapes. A test compares the two. */
enum lb_share_table {
	LB_TABLE_SETTINGS,
	LB_TABLE_COPIES,
	LB_TABLE_ENDPOINTS,
	LB_TABLE_SERVICES,
	LB_TABLE_BACKENDS,
	LB_TABLE_SNATS,
	LB_TABLE_NEIGHBOURS,
	LB_TABLE_ROUTES,
	LB_TABLE_SLOTS,
	LB_TABLE_FLOWS,
	LB_TABLE_PORTS,
	LB_TABLE_LOCKS,
	LB_TABLE_SERVICE_COUNTERS,
	LB_TABLE_BACKEND_COUNTERS,
	LB_TABLE_REASON_COUNTERS,
	LB_TABLE_WANTED,
	LB_TABLE_LEARNED,
	LB_TABLE_EVENT_HEADS,
	LB_TABLE_EVENTS,
	LB_SHARE_TABLES, /* how many there are */
};

struct lb_share {
	char magic[8];
	lb_u32 version;
	lb_u32 layout; /* digest of the tables' layouts, for the daemon */
	lb_u64 bytes;  /* of the whole file */
	lb_u64 second_ns;
	lb_u32 sizes[LB_SHARE_SIZES];
	lb_u32 worker; /* process number, for people; who lives holds a lock on the file */
	lb_u32 ready;  /* 1: packets are handled */
	lb_u32 lanes;  /* that the worker runs */
	lb_u64 offset[LB_SHARE_TABLES];
	lb_u8 home[16]; /* the network namespace that it belongs to, for the daemon */
	lb_u8 reserved[264];
	struct lb_lane lane[LB_SHARE_LANES];
	/* In what was empty before the first table: a file of a worker that does not know them has zeros here. */
	struct lb_device device[LB_SHARE_DEVICES]; /* in the order of --kernel */
	lb_u32 link[LB_SHARE_DEVICES];		   /* enum lb_link */
	struct lb_kernel_count kernel[LB_SHARE_DEVICES];
};

_Static_assert(sizeof(struct lb_lane) == 64, "lane: a cache line");
_Static_assert(__builtin_offsetof(struct lb_share, offset) == 80, "offsets");
_Static_assert(__builtin_offsetof(struct lb_share, lane) == 512, "lanes");
_Static_assert(__builtin_offsetof(struct lb_share, device) == 4608, "devices");
_Static_assert(__builtin_offsetof(struct lb_share, link) == 5120, "links");
_Static_assert(sizeof(struct lb_share) <= 2 * LB_SHARE_PAGE, "the first table has its place");

#endif
