/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which record does an address, port and protocol belong to, and where does an address live? Exact matches in the
 * endpoint index, then routes. Reads configuration only.
 */
#ifndef LB_CLASSIFY_H
#define LB_CLASSIFY_H

#include "env.h"
#include "hash.h"

LB_INLINE int lb_endpoint_matches(const struct lb_endpoint *e, lb_be16 port, lb_u8 protocol, lb_u8 kind)
{
	return e->port == port && e->protocol == protocol && e->kind == kind;
}

/* The endpoint of one kind with this key: its id, or 0. */
LB_INLINE lb_u32 lb_endpoint_id(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr, lb_be16 port,
				lb_u8 protocol, lb_u8 kind)
{
	const struct lb_copy *header = lb_env_copy(env, copy);
	const struct lb_index_group *group;

	if (!header)
		return 0;
	group = lb_env_index_group(env, copy,
				   lb_index_hash(addr, port, protocol, header->index_seed) & header->index_mask);
	if (!group)
		return 0;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_INDEX_WAYS; i++) {
		const struct lb_endpoint *e = &group->way[i];

		if (lb_endpoint_matches(e, port, protocol, kind) && lb_addr_equal(&e->addr, addr))
			return e->id;
	}
	return 0;
}

/* The number of the first route that covers the address, or LB_ROUTES. */
LB_STEP lb_u32 lb_route_find(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr)
{
	const struct lb_copy *header;

	if (!env || !addr)
		return LB_ROUTES;
	header = lb_env_copy(env, copy);
	if (!header)
		return LB_ROUTES;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_ROUTES && i < header->routes; i++) {
		const struct lb_route *route = lb_env_route(env, copy, i);

		if (route && (addr->half[1] & route->mask.half[1]) == route->addr.half[1] &&
		    (addr->half[0] & route->mask.half[0]) == route->addr.half[0])
			return i;
	}
	return LB_ROUTES;
}

/* Where to send to reach this address; left alone where the tables do not say. */
LB_INLINE void lb_nexthop_to(const struct lb_env *env, lb_u32 copy, const struct lb_addr *addr,
			     struct lb_nexthop *nexthop)
{
	lb_u32 id = lb_endpoint_id(env, copy, addr, 0, 0, LB_ENDPOINT_NEIGHBOUR);
	const struct lb_nexthop *neighbour;
	const struct lb_route *route;

	if (LB_LIKELY(id)) {
		neighbour = lb_env_neighbour(env, copy, id);
		if (neighbour)
			*nexthop = *neighbour;
		return;
	}
	route = lb_env_route(env, copy, lb_route_find(env, copy, addr));
	if (route)
		*nexthop = route->nexthop;
}

#endif
