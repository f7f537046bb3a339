/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bytes to view. Touches no table, trusts no length.
 *
 * On return view->reason is LB_REASON_NONE if the packet is TCP over IPv4 and whole enough to be translated, or the
 * reason why it is not. What cannot be read is passed to the kernel, which has counters for it.
 */
#ifndef LB_PARSE_H
#define LB_PARSE_H

#include "csum.h"
#include "tables.h"
#include "wire.h"

/*
 * A transmit offload leaves in the checksum field the folded sum of the pseudo header alone. One SYN in 65536 has
 * that value by chance, so this is a hint to count, not a verdict.
 */
LB_INLINE lb_u8 lb_looks_partial(const struct lb_ipv4 *ip, const struct lb_tcp *tcp, lb_u32 segment)
{
	lb_u64 sum = (lb_u64)ip->src + ip->dst + LB_BE16(LB_PROTOCOL_TCP) + LB_BE16(segment);

	return tcp->check == lb_csum_fold(sum);
}

LB_INLINE lb_u8 lb_parse_tcp(const lb_u8 *data, const lb_u8 *end, const struct lb_ipv4 *ip, struct lb_view *view,
			     lb_u32 l4, lb_u32 segment)
{
	const struct lb_tcp *tcp;
	lb_u32 header;

	l4 &= 0x7f; /* at most 14 + 60; the mask tells the verifier */
	tcp = (const struct lb_tcp *)(data + l4);
	if ((const lb_u8 *)(tcp + 1) > end || segment < sizeof(*tcp))
		return LB_REASON_MALFORMED;
	header = tcp->offset >> 4 << 2;
	if (header < sizeof(*tcp) || header > segment)
		return LB_REASON_MALFORMED;
	view->l4 = (lb_u16)l4;
	view->sport = tcp->sport;
	view->dport = tcp->dport;
	view->seq = tcp->seq;
	view->ack = tcp->ack;
	view->tcp_flags = tcp->flags;
	if (tcp->flags & LB_TCP_SYN)
		view->checksum_partial = lb_looks_partial(ip, tcp, segment);
	return LB_REASON_NONE;
}

LB_INLINE lb_u8 lb_parse_ipv4(const lb_u8 *data, const lb_u8 *end, struct lb_view *view)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)(data + LB_ETH_BYTES);
	lb_u32 header, length;

	if ((const lb_u8 *)(ip + 1) > end)
		return LB_REASON_MALFORMED;
	header = (ip->version_ihl & 15) << 2;
	length = LB_BE16(ip->length);
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || length < header ||
	    length + LB_ETH_BYTES > view->length)
		return LB_REASON_MALFORMED;
	lb_addr_set_v4(&view->src, ip->src);
	lb_addr_set_v4(&view->dst, ip->dst);
	view->protocol = ip->protocol;
	view->ttl = ip->ttl;
	view->fragment = (ip->fragment & LB_BE16(LB_IPV4_FRAGMENT)) != 0;
	if (ip->protocol != LB_PROTOCOL_TCP)
		return LB_REASON_NOT_TCP;
	if (view->fragment)
		return LB_REASON_FRAGMENT;
	return lb_parse_tcp(data, end, ip, view, LB_ETH_BYTES + header, length - header);
}

LB_INLINE void lb_parse(const void *data, const void *end, lb_u32 ifindex, struct lb_view *view)
{
	const struct lb_eth *eth = data;

	*view = (struct lb_view){.length = (lb_u16)((const lb_u8 *)end - (const lb_u8 *)data), .ifindex = ifindex};
	if ((const lb_u8 *)(eth + 1) > (const lb_u8 *)end) {
		view->reason = LB_REASON_MALFORMED;
		return;
	}
	__builtin_memcpy(view->eth_dst, eth, 12);
	if (eth->type == LB_BE16(LB_ETHERTYPE_IPV4))
		view->reason = lb_parse_ipv4(data, end, view);
	else if (eth->type == LB_BE16(LB_ETHERTYPE_VLAN) || eth->type == LB_BE16(LB_ETHERTYPE_QINQ))
		view->reason = LB_REASON_VLAN_TAGGED;
	else
		view->reason = LB_REASON_NOT_IPV4;
}

#endif
