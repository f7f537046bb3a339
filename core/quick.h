/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way of most packets: plain segments of settled flows. The same parse, plan and rewrite as everybody's, but what
 * is out of the ordinary gives up, with nothing changed, and goes the long way (lb_decide). So views and plans stay in
 * registers, and nothing is written for the packets that are not here: three fifths of the instructions.
 */
#ifndef LB_QUICK_H
#define LB_QUICK_H

#include "pipeline.h"

/* To a service, on a settled flow: 1, and where to. */
LB_INLINE int lb_quick_forward(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			       lb_u32 copy, lb_u32 id, lb_u16 now, struct lb_plan *plan)
{
	const struct lb_service *service = lb_env_service(env, copy, id);
	const struct lb_backend *backend;
	const struct lb_snat *snat;
	lb_u64 client, hash, binding;

	if (!service)
		return 0;
	client = lb_client_word(lb_addr_v4(&view->src), view->sport, id);
	hash = lb_place_hash(settings, lb_addr_v4(&view->src), view->sport);
	binding = lb_flow_settled(env, settings, hash, client, now);
	if (!binding)
		return 0;
	backend = lb_env_backend(env, copy, lb_binding_backend(binding));
	if (!backend || backend->state != LB_BACKEND_USABLE)
		return 0;
	snat = lb_env_snat(env, copy, lb_binding_snat(binding));
	if (!snat)
		return 0;
	plan->service = (lb_u16)id;
	plan->backend = (lb_u16)lb_binding_backend(binding);
	plan->reason = LB_REASON_FORWARD;
	plan->direction = LB_DIRECTION_FORWARD;
	lb_plan_forward(view, snat, backend, binding, plan);
	return 1;
}

/* From a backend, on a settled flow: 1, and where to. */
LB_INLINE int lb_quick_reply(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			     lb_u32 copy, lb_u16 now, struct lb_plan *plan)
{
	struct lb_nexthop nexthop = {{0}, {0}, 0};
	lb_u32 backend, snat, holder, *word;
	struct lb_addr to;
	const struct lb_service *service;
	const struct lb_flow *flow;
	lb_u64 client, binding;

	backend = lb_endpoint_id(env, copy, &view->src, view->sport, view->protocol, LB_ENDPOINT_BACKEND);
	snat = backend ? lb_endpoint_id(env, copy, &view->dst, 0, 0, LB_ENDPOINT_SNAT) : 0;
	word = snat ? lb_port_word(env, lb_port_table(settings, backend, snat), LB_BE16(view->dport)) : 0;
	holder = word ? LB_READ(*word) : 0;
	flow = holder ? lb_flow_at(env, holder - 1) : 0;
	if (!flow)
		return 0;
	client = LB_READ(flow->client);
	binding = LB_READ(flow->binding);
	if ((binding ^ lb_binding_word(backend, view->dport, snat, 0, 0)) & LB_BINDING_ENDS ||
	    !lb_binding_settled(settings, binding, now) || LB_READ(flow->client) != client)
		return 0;
	service = lb_env_service(env, copy, lb_client_service(client));
	if (!service || !service->mode)
		return 0;
	plan->service = (lb_u16)lb_client_service(client);
	plan->backend = (lb_u16)backend;
	plan->reason = LB_REASON_REPLY;
	plan->direction = LB_DIRECTION_REPLY;
	lb_plan_reply(view, service, client, plan);
	to = plan->dst; /* both are copies, as the plan would have to be in memory for the far way */
	lb_nexthop_to(env, copy, &to, &nexthop);
	plan->nexthop = nexthop;
	return 1;
}

/* The interface to send the packet to, which is written anew and counted then; 0: it has to go the long way. */
LB_INLINE lb_u32 lb_quick(const struct lb_env *env, void *data, const void *end, lb_u16 now)
{
	const struct lb_settings *settings = lb_env_settings(env);
	struct lb_view view;
	struct lb_plan plan;
	lb_u32 copy, service;

	lb_parse(data, end, 0, &view);
	if (LB_UNLIKELY(view.reason != LB_REASON_NONE || view.tcp_flags & LB_TCP_TELLING || view.ttl <= 1 ||
			!settings || settings->trace))
		return 0;
	copy = LB_READ(settings->active) & 1;
	service = lb_endpoint_id(env, copy, &view.dst, view.dport, view.protocol, LB_ENDPOINT_SERVICE);
	if (service) {
		if (!lb_quick_forward(env, settings, &view, copy, service, now, &plan))
			return 0;
	} else if (!lb_quick_reply(env, settings, &view, copy, now, &plan)) {
		return 0;
	}
	if (!plan.nexthop.ifindex || !lb_apply(data, end, &plan))
		return 0;
	lb_account_forward(env, plan.reason, plan.direction, plan.service, plan.backend, view.length);
	return plan.nexthop.ifindex;
}

#endif
