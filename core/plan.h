/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Choice to plan: one function per mode and direction. Values only.
 */
#ifndef LB_PLAN_H
#define LB_PLAN_H

#include "classify.h"
#include "flow.h"

/* Two bits for each reason, in one word. */
#define LB_REASON_BITS(name, verdict, sentence) | (lb_u64)LB_VERDICT_##verdict << (2 * LB_REASON_##name)
#define LB_VERDICTS (0 LB_REASONS(LB_REASON_BITS))
_Static_assert(LB_REASON_COUNT <= 32, "two bits for each reason in 64");

LB_INLINE lb_u8 lb_verdict_of(lb_u8 reason)
{
	return LB_VERDICTS >> (2 * reason & 63) & 3;
}

LB_INLINE void lb_plan_stop(lb_u8 reason, struct lb_plan *plan)
{
	plan->reason = reason;
	plan->verdict = lb_verdict_of(reason);
}

/* Full NAT, client to backend: from SNAT address and port to the backend. */
LB_INLINE void lb_plan_forward(const struct lb_view *view, const struct lb_snat *snat, const struct lb_backend *backend,
			       lb_u64 binding, lb_u8 reason, struct lb_plan *plan)
{
	plan->src = snat->addr;
	plan->sport = lb_binding_port(binding);
	plan->dst = backend->addr;
	plan->dport = backend->port;
	plan->nexthop = backend->nexthop;
	plan->ttl = view->ttl - 1;
	plan->l4 = view->l4;
	lb_plan_stop(reason, plan);
}

/* Full NAT, backend to client: from the VIP to the client's own address and port. */
LB_INLINE void lb_plan_reply(const struct lb_view *view, const struct lb_service *service, lb_u64 client,
			     struct lb_plan *plan)
{
	plan->src = service->addr;
	plan->sport = service->port;
	lb_addr_set_v4(&plan->dst, lb_client_address(client));
	plan->dport = lb_client_port(client);
	plan->ttl = view->ttl - 1;
	plan->l4 = view->l4;
	lb_plan_stop(LB_REASON_REPLY, plan);
}

#endif
