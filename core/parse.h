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

/* Broadcast or multicast? (Addresses of single hosts are not compared: VRRP's, for one, moves from host to host.) */
LB_INLINE int lb_to_group(const lb_u8 *data)
{
	return data[0] & 1;
}

/* view->reason is set beforehand to what a return in the middle means. */
LB_INLINE void lb_parse_tcp(const lb_u8 *data, const lb_u8 *end, lb_u32 l4, lb_u32 segment, struct lb_view *view)
{
	const struct lb_tcp *tcp;
	lb_u32 header;

	l4 &= 0x7f; /* at most 14 + 60; the mask tells the verifier */
	tcp = (const struct lb_tcp *)(data + l4);
	if ((const lb_u8 *)(tcp + 1) > end || segment < sizeof(*tcp))
		return;
	header = tcp->offset >> 4 << 2;
	if (header < sizeof(*tcp) || header > segment)
		return;
	view->reason = LB_REASON_NONE;
	view->l4 = (lb_u16)l4;
	LB_PUT(32, &view->sport, LB_GET(32, &tcp->sport));
	view->tcp_flags = tcp->flags;
}

LB_INLINE void lb_parse_ipv4(const lb_u8 *data, const lb_u8 *end, struct lb_view *view)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)(data + LB_ETH_BYTES);
	lb_u32 header, length;

	if ((const lb_u8 *)(ip + 1) > end)
		return;
	header = (ip->version_ihl & 15) << 2;
	length = LB_BE16(ip->length); /* compared as a number: Linux 6.1 knows no bounds of it that let it be added */
	if (ip->version_ihl < 0x45 || ip->version_ihl > 0x4f || length < header || LB_ETH_BYTES + length > end - data)
		return;
	lb_addr_set_v4(&view->src, LB_GET(32, &ip->src));
	lb_addr_set_v4(&view->dst, LB_GET(32, &ip->dst));
	view->protocol = ip->protocol;
	view->ttl = ip->ttl;
	if (LB_UNLIKELY(ip->protocol != LB_PROTOCOL_TCP))
		view->reason = LB_REASON_NOT_TCP;
	else if (LB_UNLIKELY(lb_to_group(data)))
		view->reason = LB_REASON_NOT_UNICAST;
	else if (LB_UNLIKELY(ip->fragment & LB_BE16(LB_IPV4_FRAGMENT)))
		view->reason = LB_REASON_FRAGMENT;
	else
		lb_parse_tcp(data, end, LB_ETH_BYTES + header, length - header, view);
}

/* All that decides what becomes of the packet. */
LB_INLINE void lb_parse(const void *data, const void *end, lb_u32 ifindex, struct lb_view *view)
{
	const struct lb_eth *eth = data;

	view->src.half[0] = view->src.half[1] = view->dst.half[0] = view->dst.half[1] = 0;
	LB_PUT(64, &view->sport, 0);
	view->l4 = 0;
	view->length = (lb_u16)((const lb_u8 *)end - (const lb_u8 *)data);
	view->ifindex = ifindex;
	view->reason = LB_REASON_MALFORMED;
	LB_PUT(64, view->eth_dst, 0);
	LB_PUT(32, view->eth_src + 2, 0);
	if ((const lb_u8 *)(eth + 1) > (const lb_u8 *)end)
		return;
	LB_PUT(64, view->eth_dst, LB_GET(64, eth));
	LB_PUT(32, view->eth_src + 2, LB_GET(32, (const lb_u8 *)eth + 8));
	if (LB_LIKELY(eth->type == LB_BE16(LB_ETHERTYPE_IPV4)))
		lb_parse_ipv4(data, end, view);
	else if (eth->type == LB_BE16(LB_ETHERTYPE_VLAN) || eth->type == LB_BE16(LB_ETHERTYPE_QINQ))
		view->reason = LB_REASON_VLAN_TAGGED;
	else
		view->reason = LB_REASON_NOT_IPV4;
}

enum { LB_PLAIN_L4 = LB_ETH_BYTES + 20, LB_PLAIN_BYTES = LB_PLAIN_L4 + 20 };

LB_INLINE const struct lb_ipv4 *lb_plain_ip(const lb_u8 *data)
{
	return (const struct lb_ipv4 *)(data + LB_ETH_BYTES);
}

LB_INLINE const struct lb_tcp *lb_plain_tcp(const lb_u8 *data)
{
	return (const struct lb_tcp *)(data + LB_PLAIN_L4);
}

/*
 * Is it a plain segment: TCP over IPv4 without IP options, to one host, whole, alive, and nothing new about its
 * flow? Then its headers lie at the places above. Several fields are compared at once.
 */
LB_INLINE int lb_plain(const lb_u8 *data, const lb_u8 *end)
{
	const struct lb_ipv4 *ip = lb_plain_ip(data);
	const struct lb_tcp *tcp = lb_plain_tcp(data);
	lb_u32 kind, life, length, header;

	if (LB_UNLIKELY(data + LB_PLAIN_BYTES > end))
		return 0;
	kind = LB_GET(32, data + 12);	  /* EtherType, version, header length, type of service */
	life = LB_GET(32, &ip->fragment); /* fragment, time to live, protocol */
	length = LB_BE16(ip->length);
	header = tcp->offset >> 2 & 0x3c;
	return LB_LIKELY((kind & LB_BE32(0xffffff00)) == LB_BE32(LB_ETHERTYPE_IPV4 << 16 | 0x4500) &&
			 (life & LB_BE32(LB_IPV4_FRAGMENT << 16 | 0xff)) == LB_BE32(LB_PROTOCOL_TCP) &&
			 !(tcp->flags & LB_TCP_TELLING) && ip->ttl > 1 && tcp->offset >= 0x50 &&
			 sizeof(*ip) + header <= length && data + LB_ETH_BYTES + length <= end && !lb_to_group(data));
}

/* The rest of the view, which few packets need: for the trace. */
LB_INLINE void lb_parse_more(const void *data, const void *end, struct lb_view *view)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)((const lb_u8 *)data + LB_ETH_BYTES);
	const struct lb_tcp *tcp = (const struct lb_tcp *)((const lb_u8 *)data + (view->l4 & 0x7f));

	__builtin_memset(&view->seq, 0, sizeof(*view) - __builtin_offsetof(struct lb_view, seq));
	if (view->reason == LB_REASON_MALFORMED || (const lb_u8 *)(ip + 1) > (const lb_u8 *)end)
		return;
	view->fragment = view->protocol && ip->fragment & LB_BE16(LB_IPV4_FRAGMENT);
	if (view->reason != LB_REASON_NONE || (const lb_u8 *)(tcp + 1) > (const lb_u8 *)end)
		return;
	view->seq = LB_GET(32, &tcp->seq);
	view->ack = LB_GET(32, &tcp->ack);
	if (view->tcp_flags & LB_TCP_SYN)
		view->checksum_partial =
			lb_looks_partial(ip, tcp, LB_BE16(ip->length) + LB_ETH_BYTES - (lb_u32)view->l4);
}

#endif
