/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way of most packets: plain segments of settled flows. The same plan and rewrite as everybody's, but what
 * is out of the ordinary gives up, with nothing changed, and goes the long way (lb_decide). So views and plans stay in
 * registers, and nothing is written for the packets that are not here: three fifths of the instructions.
 *
 * In three parts, so that a driver with bursts can ask memory for all of them before it needs the first (burst.h).
 */
#ifndef LB_QUICK_H
#define LB_QUICK_H

#include "pipeline.h"

/* What is known of a packet before the flow tables were looked at. */
struct lb_quick {
	struct lb_view view;
	lb_u64 hash;	/* to a service: where the flow lies */
	lb_u32 service; /* 0: a reply */
	lb_u32 backend; /* of a reply, as the next one */
	lb_u32 snat;
	lb_u32 copy;
};

/* Is it a plain segment to a service, or from a backend? */
LB_INLINE int lb_quick_begin(const struct lb_env *env, const struct lb_settings *settings, const void *data,
			     const void *end, struct lb_quick *quick)
{
	struct lb_view *view = &quick->view;

	if (LB_UNLIKELY(!lb_parse_plain(data, end, view) || !settings || settings->trace))
		return 0;
	quick->copy = LB_READ(settings->active) & 1;
	quick->service = lb_endpoint_id(env, quick->copy, &view->dst, view->dport, view->protocol, LB_ENDPOINT_SERVICE);
	if (quick->service) {
		quick->hash = lb_place_hash(settings, lb_addr_v4(&view->src), view->sport);
		return 1;
	}
	quick->backend = lb_endpoint_id(env, quick->copy, &view->src, view->sport, view->protocol, LB_ENDPOINT_BACKEND);
	quick->snat = quick->backend ? lb_endpoint_id(env, quick->copy, &view->dst, 0, 0, LB_ENDPOINT_SNAT) : 0;
	return quick->snat != 0;
}

/* The word of the port that a reply is sent to. */
LB_INLINE lb_u32 *lb_quick_word(const struct lb_env *env, const struct lb_settings *settings,
				const struct lb_quick *quick)
{
	return lb_port_word(env, lb_port_table(settings, quick->backend, quick->snat), LB_BE16(quick->view.dport));
}

/* The record that holds a port, by the port's word. */
LB_INLINE const struct lb_flow *lb_quick_holder(const struct lb_env *env, const lb_u32 *word)
{
	lb_u32 holder = word ? LB_READ(*word) : 0;

	return holder ? lb_flow_at(env, holder - 1) : 0;
}

/* To a service, on a settled flow: 1, and where to. */
LB_INLINE int lb_quick_forward(const struct lb_env *env, const struct lb_settings *settings,
			       const struct lb_quick *quick, lb_u16 now, struct lb_plan *plan)
{
	const struct lb_view *view = &quick->view;
	const struct lb_backend *backend;
	const struct lb_snat *snat;
	lb_u64 client, binding;

	if (!lb_env_service(env, quick->copy, quick->service))
		return 0;
	client = lb_client_word(lb_addr_v4(&view->src), view->sport, quick->service);
	binding = lb_flow_settled(env, settings, quick->hash, client, now);
	if (LB_UNLIKELY(!binding))
		binding = lb_flow_settled_far(env, quick->hash, client, now);
	if (!binding)
		return 0;
	backend = lb_env_backend(env, quick->copy, lb_binding_backend(binding));
	if (!backend || backend->state != LB_BACKEND_USABLE)
		return 0;
	snat = lb_env_snat(env, quick->copy, lb_binding_snat(binding));
	if (!snat)
		return 0;
	plan->service = (lb_u16)quick->service;
	plan->backend = (lb_u16)lb_binding_backend(binding);
	plan->reason = LB_REASON_FORWARD;
	plan->direction = LB_DIRECTION_FORWARD;
	lb_plan_forward(view, snat, backend, binding, plan);
	return 1;
}

/* From a backend, on a settled flow: 1, and where to. */
LB_INLINE int lb_quick_reply(const struct lb_env *env, const struct lb_settings *settings, const struct lb_quick *quick,
			     lb_u16 now, struct lb_plan *plan)
{
	const struct lb_flow *flow = lb_quick_holder(env, lb_quick_word(env, settings, quick));
	struct lb_nexthop nexthop = {{0}, {0}, 0};
	struct lb_addr to;
	const struct lb_service *service;
	lb_u64 client, binding;

	if (!flow)
		return 0;
	client = LB_READ(flow->client);
	binding = LB_READ(flow->binding);
	if ((binding ^ lb_binding_word(quick->backend, quick->view.dport, quick->snat, 0, 0)) & LB_BINDING_ENDS ||
	    !lb_binding_settled(settings, binding, now) || LB_READ(flow->client) != client)
		return 0;
	service = lb_env_service(env, quick->copy, lb_client_service(client));
	if (!service || !service->mode)
		return 0;
	plan->service = (lb_u16)lb_client_service(client);
	plan->backend = (lb_u16)quick->backend;
	plan->reason = LB_REASON_REPLY;
	plan->direction = LB_DIRECTION_REPLY;
	lb_plan_reply(&quick->view, service, client, plan);
	to = plan->dst; /* both are copies, as the plan would have to be in memory for the far way */
	lb_nexthop_to(env, quick->copy, &to, &nexthop);
	plan->nexthop = nexthop;
	return 1;
}

/* The interface to send the packet to, which is written anew and counted then; 0: it has to go the long way. */
LB_INLINE lb_u32 lb_quick_end(const struct lb_env *env, const struct lb_settings *settings,
			      const struct lb_quick *quick, void *data, const void *end, lb_u16 now)
{
	struct lb_plan plan;

	if (quick->service) {
		if (!lb_quick_forward(env, settings, quick, now, &plan))
			return 0;
	} else if (!lb_quick_reply(env, settings, quick, now, &plan)) {
		return 0;
	}
	plan.l4 = LB_PLAIN_L4; /* which the compiler may have lost sight of */
	if (!plan.nexthop.ifindex || !lb_apply(data, end, &plan))
		return 0;
	lb_account_forward(env, plan.reason, plan.direction, plan.service, plan.backend, quick->view.length);
	return plan.nexthop.ifindex;
}

/* All of it, for one packet. */
LB_INLINE lb_u32 lb_quick(const struct lb_env *env, void *data, const void *end, lb_u16 now)
{
	const struct lb_settings *settings = lb_env_settings(env);
	struct lb_quick quick;

	if (!lb_quick_begin(env, settings, data, end, &quick))
		return 0;
	return lb_quick_end(env, settings, &quick, data, end, now);
}

#endif
