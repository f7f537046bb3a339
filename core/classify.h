/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which record does an address, port and protocol belong to, and where does an address live? Exact matches in the
 * endpoint index, then routes. Reads configuration only.
 */
#ifndef LB_CLASSIFY_H
#define LB_CLASSIFY_H

#include "env.h"
#include "hash.h"

/* Port, protocol and kind as they lie in an endpoint, to be compared in one. */
LB_INLINE lb_u32 lb_endpoint_tag(lb_be16 port, lb_u8 protocol, lb_u8 kind)
{
	struct {
		lb_be16 port;
		lb_u8 protocol;
		lb_u8 kind;
	} fields = {port, protocol, kind};
	lb_u32 tag;

	__builtin_memcpy(&tag, &fields, sizeof(tag));
	return tag;
}

/* The endpoint of one kind with this key: its id, or 0. */
LB_INLINE lb_u32 lb_endpoint_find(const struct lb_env *env, lb_u32 copy, const struct lb_copy *header,
				  const struct lb_addr *addr, lb_be16 port, lb_u8 protocol, lb_u8 kind)
{
	lb_u32 group = lb_index_hash(addr, port, protocol, header->index_factor) & header->index_mask;
	const struct lb_index_group *ways = lb_env_index_group(env, copy, group);
	lb_u32 tag = lb_endpoint_tag(port, protocol, kind);

	if (!ways)
		return 0;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_INDEX_WAYS; i++) {
		const struct lb_endpoint *e = &ways->way[i];
		lb_u32 have;

		__builtin_memcpy(&have, &e->port, sizeof(have));
		if (have == tag && lb_addr_equal(&e->addr, addr))
			return e->id;
		if (!e->kind) /* a group is filled from its first way on */
			break;
	}
	return 0;
}

/* The same for whoever does not have the copy's header at hand. */
LB_INLINE lb_u32 lb_endpoint_id(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr, lb_be16 port,
				lb_u8 protocol, lb_u8 kind)
{
	const struct lb_copy *header = lb_env_copy(env, copy);

	return header ? lb_endpoint_find(env, copy, header, addr, port, protocol, kind) : 0;
}

/* As lb_endpoint_id, for those who are in no hurry. */
LB_STEP lb_u32 lb_endpoint_of(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr, lb_u32 port,
			      lb_u32 protocol_and_kind)
{
	if (!env || !addr)
		return 0;
	return lb_endpoint_id(env, copy, addr, (lb_be16)port, (lb_u8)protocol_and_kind,
			      (lb_u8)(protocol_and_kind >> 8));
}
#define LB_ENDPOINT_OF(env, copy, addr, port, protocol, kind)                                                          \
	lb_endpoint_of(env, copy, addr, port, (lb_u32)(kind) << 8 | (protocol))

LB_INLINE struct lb_learned *lb_learned_of(const struct lb_env *env, const struct lb_addr *addr)
{
	return lb_env_learned(env, lb_index_hash(addr, 0, 0, lb_index_factor(0)) % LB_LEARNED_RECORDS);
}

/* The way to an address that is no known neighbour: by the first route that covers it. */
LB_STEP lb_u32 lb_nexthop_far(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr,
			      struct lb_nexthop *nexthop)
{
	const struct lb_copy *header;

	if (!env || !addr || !nexthop)
		return 0;
	header = lb_env_copy(env, copy);
	if (!header)
		return 0;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_ROUTES && i < header->routes; i++) {
		const struct lb_route *route = lb_env_route(env, copy, i);

		if (!route || (addr->half[1] & route->mask.half[1]) != route->addr.half[1] ||
		    (addr->half[0] & route->mask.half[0]) != route->addr.half[0])
			continue;
		*nexthop = route->nexthop;
		break;
	}
	return nexthop->ifindex;
}

/* Where to send to reach this address; left alone, ifindex 0, where nobody knows. */
LB_INLINE void lb_nexthop_to(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr,
			     struct lb_nexthop *nexthop)
{
	lb_u32 id = lb_endpoint_id(env, copy, addr, 0, 0, LB_ENDPOINT_NEIGHBOUR);
	const struct lb_nexthop *neighbour = id ? lb_env_neighbour(env, copy, id) : 0;

	if (LB_LIKELY(neighbour))
		*nexthop = *neighbour;
	else
		lb_nexthop_far(env, copy, addr, nexthop);
}

/* Where a client's last new flow came from. Copied between two looks at the address: a writer clears it first. */
LB_STEP lb_u32 lb_recall(const struct lb_env *env, const struct lb_addr *addr, struct lb_nexthop *nexthop)
{
	struct lb_learned *learned;
	struct lb_nexthop copy;

	if (!env || !addr || !nexthop)
		return 0;
	learned = lb_learned_of(env, addr);
	if (!learned || LB_READ(learned->addr.half[1]) != addr->half[1])
		return 0;
	copy = learned->nexthop;
	if (LB_READ(learned->addr.half[1]) == addr->half[1] && learned->addr.half[0] == addr->half[0])
		*nexthop = copy;
	return nexthop->ifindex;
}

/*
 * Notes where a new flow's client sent from, unless that is known better. Clients from afar have a route: asked first.
 * Two CPUs may mix up one record if they learn two clients of it at the same time: one client's answers then go to the
 * other's MAC address, until its next SYN, or until it is known as a neighbour.
 */
LB_STEP lb_u32 lb_learn(const struct lb_env *env, lb_u32 copy, const struct lb_view *view)
{
	struct lb_nexthop nexthop = {{0}, {0}, 0};
	struct lb_learned *learned;

	if (!env || !view || lb_nexthop_far(env, copy, &view->src, &nexthop) ||
	    LB_ENDPOINT_OF(env, copy, &view->src, 0, 0, LB_ENDPOINT_NEIGHBOUR))
		return 0;
	learned = lb_learned_of(env, &view->src);
	if (!learned)
		return 0;
	LB_WRITE(learned->addr.half[1], 0);
	__builtin_memcpy(learned->nexthop.dst, view->eth_src, 6);
	__builtin_memcpy(learned->nexthop.src, view->eth_dst, 6);
	learned->nexthop.ifindex = view->ifindex;
	learned->addr.half[0] = view->src.half[0];
	LB_WRITE(learned->addr.half[1], view->src.half[1]);
	return 1;
}

#endif
