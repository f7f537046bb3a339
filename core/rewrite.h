/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Plan to bytes: addresses, ports, time to live, both checksums, both MAC addresses. Reads no table.
 */
#ifndef LB_REWRITE_H
#define LB_REWRITE_H

#include "csum.h"
#include "tables.h"
#include "wire.h"

/* The time to live is the first byte of its word in the header's sum; the second does not change. */
LB_INLINE lb_u32 lb_hop(lb_u8 ttl)
{
	return LB_BE16(ttl << 8);
}

/* Writes the plan into the frame, whose TCP header begins at l4. */
LB_INLINE void lb_rewrite_ipv4(lb_u8 *data, lb_u32 l4, const struct lb_plan *plan)
{
	struct lb_ipv4 *ip = (struct lb_ipv4 *)(data + LB_ETH_BYTES);
	struct lb_tcp *tcp = (struct lb_tcp *)(data + l4);
	lb_u32 src = lb_addr_v4(&plan->src), dst = lb_addr_v4(&plan->dst), ports = LB_GET(32, &plan->sport);
	lb_u64 change, hop;

	change = lb_csum_change(LB_GET(32, &ip->src), src) + lb_csum_change(LB_GET(32, &ip->dst), dst);
	hop = lb_csum_change(lb_hop(ip->ttl), lb_hop(plan->ttl));
	tcp->check = lb_csum_update(tcp->check, change + lb_csum_change(LB_GET(32, &tcp->sport), ports));
	ip->check = lb_csum_update(ip->check, change + hop);
	ip->ttl = plan->ttl;
	LB_PUT(32, &ip->src, src);
	LB_PUT(32, &ip->dst, dst);
	LB_PUT(32, &tcp->sport, ports);
	LB_PUT(64, data, LB_GET(64, plan->nexthop.dst));
	LB_PUT(32, data + 8, LB_GET(32, plan->nexthop.src + 2));
}

#endif
