/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Choice to plan: one function per mode and direction. Values only.
 */
#ifndef LB_PLAN_H
#define LB_PLAN_H

#include "classify.h"
#include "flow.h"
#include "wire.h"

/* Two bits for each reason, in one word. */
#define LB_REASON_BITS(name, verdict, sentence) | (lb_u64)LB_VERDICT_##verdict << (2 * LB_REASON_##name)
#define LB_VERDICTS (0 LB_REASONS(LB_REASON_BITS))
_Static_assert(LB_REASON_COUNT <= 32, "two bits for each reason in 64");

LB_INLINE lb_u8 lb_verdict_of(lb_u8 reason)
{
	if (LB_LIKELY(reason >= LB_REASON_FORWARD && reason <= LB_REASON_REPLY))
		return LB_VERDICT_FORWARD;
	return LB_VERDICTS >> (2 * reason & 63) & 3;
}

/* Where the packet would go: nowhere. */
LB_INLINE void lb_plan_nothing(struct lb_plan *plan)
{
	__builtin_memset(plan, 0, __builtin_offsetof(struct lb_plan, flow_flags));
}

/* Both at once, as they are read again: a word that was stored in halves has to wait for memory. */
LB_INLINE void lb_plan_ports(lb_be16 sport, lb_be16 dport, struct lb_plan *plan)
{
	LB_PUT(32, &plan->sport, lb_port_pair(sport, dport));
}

/* Full NAT, client to backend: from SNAT address and port to the backend. */
LB_INLINE void lb_plan_forward(lb_u8 ttl, lb_u16 l4, const struct lb_snat *snat, const struct lb_backend *backend,
			       lb_u64 binding, struct lb_plan *plan)
{
	plan->src = snat->addr;
	plan->dst = backend->addr;
	lb_plan_ports(lb_binding_port(binding), backend->port, plan);
	plan->nexthop = backend->nexthop;
	plan->ttl = ttl - 1;
	plan->reserved0 = 0;
	plan->l4 = l4;
}

/* Full NAT, backend to client: from the VIP to the client's own address and port. */
LB_INLINE void lb_plan_reply(lb_u8 ttl, lb_u16 l4, const struct lb_service *service, lb_u64 client,
			     struct lb_plan *plan)
{
	plan->src = service->addr;
	lb_addr_set_v4(&plan->dst, lb_client_address(client));
	plan->nexthop = (struct lb_nexthop){{0}, {0}, 0}; /* the caller looks for it */
	lb_plan_ports(service->port, lb_client_port(client), plan);
	plan->ttl = ttl - 1;
	plan->reserved0 = 0;
	plan->l4 = l4;
}

#endif
