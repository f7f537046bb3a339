/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Plan to bytes: addresses, ports, time to live, both checksums, both MAC addresses. Reads no table.
 */
#ifndef LB_REWRITE_H
#define LB_REWRITE_H

#include "csum.h"
#include "tables.h"
#include "wire.h"

LB_INLINE lb_u32 lb_port_pair(lb_be16 first, lb_be16 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (lb_u32)second << 16 | first;
#else
	return (lb_u32)first << 16 | second;
#endif
}

/* Writes the plan into the frame. False if the frame is shorter than the parser found it; then nothing is written. */
LB_INLINE int lb_rewrite_ipv4(lb_u8 *data, const lb_u8 *end, const struct lb_plan *plan)
{
	lb_u32 l4 = plan->l4 & 0x7f; /* the mask tells the verifier */
	struct lb_eth *eth = (struct lb_eth *)data;
	struct lb_ipv4 *ip = (struct lb_ipv4 *)(eth + 1);
	struct lb_tcp *tcp = (struct lb_tcp *)(data + l4);
	lb_u64 addresses, ports;
	lb_u16 hop;

	if ((lb_u8 *)(ip + 1) > end || (lb_u8 *)(tcp + 1) > end)
		return 0;
	__builtin_memcpy(eth->dst, plan->nexthop.dst, 6);
	__builtin_memcpy(eth->src, plan->nexthop.src, 6);
	addresses = lb_csum_change(ip->src, lb_addr_v4(&plan->src)) + lb_csum_change(ip->dst, lb_addr_v4(&plan->dst));
	ports = lb_csum_change(lb_port_pair(tcp->sport, tcp->dport), lb_port_pair(plan->sport, plan->dport));
	hop = LB_BE16(ip->ttl << 8 | ip->protocol);
	ip->check = lb_csum_update(ip->check, addresses + lb_csum_change(hop, LB_BE16(plan->ttl << 8 | ip->protocol)));
	ip->ttl = plan->ttl;
	ip->src = lb_addr_v4(&plan->src);
	ip->dst = lb_addr_v4(&plan->dst);
	tcp->check = lb_csum_update(tcp->check, addresses + ports);
	tcp->sport = plan->sport;
	tcp->dport = plan->dport;
	return 1;
}

#endif
