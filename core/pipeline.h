/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The order, stated once: lb_parse (parse.h) -> lb_decide -> the driver makes room -> lb_apply -> lb_account.
 * lb_decide writes flows and never the packet; lb_apply writes the packet and never reads a table.
 */
#ifndef LB_PIPELINE_H
#define LB_PIPELINE_H

#include "open.h"
#include "parse.h"
#include "plan.h"
#include "rewrite.h"

/* The packet's flow, found or opened: the reason to forward, then *binding holds, or to stop. */
LB_INLINE lb_u8 lb_forward_flow(const struct lb_env *env, const struct lb_settings *settings,
				const struct lb_view *view, lb_u64 client, lb_u64 hash, lb_u32 copy, lb_u16 now,
				struct lb_track *track, lb_u64 *binding, lb_u32 *slot)
{
	lb_u8 reason;

	*track = (struct lb_track){.hash = hash,
				   .place = lb_place_hash(settings, lb_addr_v4(&view->src), view->sport),
				   .client = client,
				   .copy = copy,
				   .now = now,
				   .protocol = view->protocol,
				   .tcp = view->tcp_flags,
				   .direction = LB_DIRECTION_FORWARD};
	reason = (lb_u8)lb_flow_meet(env, track);
	*binding = track->binding;
	if (LB_UNLIKELY(reason != LB_REASON_FORWARD)) /* a backend was chosen, or would have been */
		*slot = track->slot;
	return reason;
}

/* To a service. */
LB_INLINE lb_u8 lb_decide_forward(const struct lb_env *env, const struct lb_settings *settings,
				  const struct lb_view *view, lb_u32 copy, lb_u32 id, lb_u16 now,
				  struct lb_track *track, struct lb_plan *plan)
{
	struct lb_service *service = lb_env_service(env, copy, id);
	struct lb_backend *backend;
	struct lb_snat *snat;
	lb_u64 client, binding;
	lb_u8 reason;

	plan->direction = LB_DIRECTION_FORWARD;
	plan->service = (lb_u16)id;
	if (!service)
		return LB_REASON_NOT_OURS;
	plan->mode = service->mode;
	if (LB_UNLIKELY((view->tcp_flags & LB_TCP_TELLING) > LB_TCP_SYN && view->tcp_flags & LB_TCP_SYN))
		return LB_REASON_BAD_FLAGS;
	if (LB_UNLIKELY(view->ttl <= 1))
		return LB_REASON_TTL_EXPIRED;
	client = lb_client_word(lb_addr_v4(&view->src), view->sport, id);
	plan->hash = lb_flow_hash(settings, service, lb_addr_v4(&view->src), view->sport);
	reason = lb_forward_flow(env, settings, view, client, plan->hash, copy, now, track, &binding, &plan->slot);
	if (LB_UNLIKELY(lb_verdict_of(reason) != LB_VERDICT_FORWARD))
		return reason;
	plan->backend = (lb_u16)lb_binding_backend(binding);
	plan->snat = (lb_u16)lb_binding_snat(binding);
	plan->flow_flags = lb_binding_flags(binding);
	backend = lb_env_backend(env, copy, lb_binding_backend(binding));
	if (!backend || backend->state != LB_BACKEND_USABLE)
		return LB_REASON_BACKEND_GONE;
	snat = lb_env_snat(env, copy, lb_binding_snat(binding));
	if (!snat)
		return LB_REASON_BACKEND_GONE;
	if (LB_UNLIKELY(reason == LB_REASON_FORWARD_NEW))
		lb_learn(env, copy, view);
	lb_plan_forward(view->ttl, view->l4, snat, backend, binding, plan);
	return reason;
}

/* The flow that holds the port which a backend sent to: its binding, and its client in *client; or 0. */
LB_INLINE lb_u64 lb_reply_flow(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			       lb_u32 backend, lb_u32 snat, lb_u16 now, struct lb_track *track, lb_u64 *client)
{
	lb_u32 *word = lb_port_word(env, lb_port_table(settings, backend, snat), LB_BE16(view->dport));
	lb_u32 holder = word ? LB_READ(*word) : 0;
	struct lb_flow *flow = holder ? lb_flow_at(env, holder - 1) : 0;
	lb_u64 binding;

	if (!flow)
		return 0;
	*client = LB_READ(flow->client);
	binding = LB_READ(flow->binding);
	if ((binding ^ lb_binding_word(backend, view->dport, snat, 0, 0)) & LB_BINDING_ENDS ||
	    !lb_binding_usable(binding) || LB_READ(flow->client) != *client)
		return 0;
	if (LB_LIKELY(!(view->tcp_flags & LB_TCP_TELLING) && lb_binding_settled(settings, binding, now)))
		return binding;
	*track = (struct lb_track){.client = *client,
				   .binding = binding,
				   .record = holder - 1,
				   .now = now,
				   .tcp = view->tcp_flags,
				   .direction = LB_DIRECTION_REPLY};
	if (lb_flow_expired(settings, binding, now))
		return 0;
	return lb_flow_note(env, track) ? track->binding : 0;
}

/* From a backend to a SNAT address. */
LB_INLINE lb_u8 lb_decide_reply(const struct lb_env *env, const struct lb_settings *settings,
				const struct lb_view *view, lb_u32 copy, lb_u32 backend, lb_u32 snat, lb_u16 now,
				struct lb_track *track, struct lb_plan *plan)
{
	struct lb_service *service;
	lb_u64 client = 0, binding;

	plan->direction = LB_DIRECTION_REPLY;
	plan->backend = (lb_u16)backend;
	plan->snat = (lb_u16)snat;
	if (LB_BE16(view->dport) >= settings->local_first)
		return LB_REASON_LOCAL;
	binding = lb_reply_flow(env, settings, view, backend, snat, now, track, &client);
	if (!binding)
		return LB_REASON_NO_REPLY_FLOW;
	plan->service = (lb_u16)lb_client_service(client);
	plan->flow_flags = lb_binding_flags(binding);
	service = lb_env_service(env, copy, plan->service);
	if (!service || !service->mode)
		return LB_REASON_SERVICE_GONE;
	plan->mode = service->mode;
	if (view->ttl <= 1)
		return LB_REASON_TTL_EXPIRED;
	lb_plan_reply(view->ttl, view->l4, service, client, plan);
	lb_nexthop_to(env, copy, &plan->dst, &plan->nexthop);
	if (LB_UNLIKELY(!plan->nexthop.ifindex))
		lb_recall(env, &plan->dst, &plan->nexthop);
	return LB_REASON_REPLY;
}

/*
 * To a service first, since most packets are. One that finds no flow there may be a reply: to a port that was given
 * to a flow before a service came to listen on it.
 */
LB_INLINE lb_u8 lb_decide_tcp(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			      lb_u32 copy, lb_u16 now, struct lb_track *track, struct lb_plan *plan)
{
	lb_u32 service, backend, snat;

	service = LB_ENDPOINT_OF(env, copy, &view->dst, view->dport, view->protocol, LB_ENDPOINT_SERVICE);
	if (service) {
		lb_u8 reason = lb_decide_forward(env, settings, view, copy, service, now, track, plan);

		if (LB_LIKELY(reason != LB_REASON_NO_FLOW))
			return reason;
	}
	backend = LB_ENDPOINT_OF(env, copy, &view->src, view->sport, view->protocol, LB_ENDPOINT_BACKEND);
	snat = backend ? LB_ENDPOINT_OF(env, copy, &view->dst, 0, 0, LB_ENDPOINT_SNAT) : 0;
	if (!snat)
		return service ? LB_REASON_NO_FLOW : LB_REASON_NOT_OURS;
	plan->service = 0;
	plan->mode = LB_MODE_NONE;
	plan->hash = 0;
	return lb_decide_reply(env, settings, view, copy, backend, snat, now, track, plan);
}

/*
 * What is to become of the packet. `now`: the driver's seconds, 16 bits that wrap. track: room to work in.
 */
LB_INLINE void lb_decide(const struct lb_env *env, const struct lb_view *view, lb_u16 now, struct lb_track *track,
			 struct lb_plan *plan)
{
	const struct lb_settings *settings = lb_env_settings(env);
	lb_u32 copy = settings ? LB_READ(settings->active) & 1 : 0;
	const struct lb_copy *header = lb_env_copy(env, copy);
	lb_u8 reason = view->reason;

	/* All but where the packet goes, which is written once: it is the larger half. */
	__builtin_memset(&plan->flow_flags, 0, sizeof(*plan) - __builtin_offsetof(struct lb_plan, flow_flags));
	if (!settings || !header)
		return lb_plan_nothing(plan);
	plan->generation = header->generation;
	if (LB_LIKELY(reason == LB_REASON_NONE))
		reason = lb_decide_tcp(env, settings, view, copy, now, track, plan);
	else if (reason == LB_REASON_FRAGMENT && !LB_ENDPOINT_OF(env, copy, &view->dst, 0, 0, LB_ENDPOINT_SNAT))
		reason = LB_REASON_NOT_OURS;
	plan->reason = reason;
	plan->verdict = lb_verdict_of(reason);
	if (LB_UNLIKELY(plan->verdict != LB_VERDICT_FORWARD))
		return lb_plan_nothing(plan);
	if (LB_UNLIKELY(!plan->nexthop.ifindex)) {
		plan->reason = LB_REASON_NEIGHBOUR_UNRESOLVED;
		plan->verdict = LB_VERDICT_DROP;
	}
}

/* Writes a plan whose verdict is forward into the frame. False if that is shorter than the parser found it. */
LB_INLINE int lb_apply(lb_u8 *data, const lb_u8 *end, const struct lb_plan *plan)
{
	lb_u32 l4 = plan->l4 & 0x7f; /* the mask tells the verifier */

	if (data + LB_ETH_BYTES + sizeof(struct lb_ipv4) > end || data + l4 + sizeof(struct lb_tcp) > end)
		return 0;
	lb_rewrite_ipv4(data, l4, plan);
	return 1;
}

/* Leaves word that a next hop is missing. Two CPUs may mix up one record; the address then made up is asked for in vain. */
LB_INLINE void lb_want(const struct lb_env *env, const struct lb_addr *addr)
{
	struct lb_wanted *wanted = lb_env_wanted(env, lb_addr_v4(addr) % LB_WANTED_RECORDS);

	if (wanted)
		wanted->addr = *addr;
}

/* Counts a packet that is not forwarded. */
LB_STEP lb_u32 lb_account_stop(const struct lb_env *env, const struct lb_plan *plan)
{
	struct lb_counter *service, *backend;
	lb_u64 *reason;

	if (!env || !plan)
		return 0;
	reason = lb_env_reason_counter(env, plan->reason);
	service = plan->service ? lb_env_service_counter(env, plan->service) : 0;
	backend = plan->backend ? lb_env_backend_counter(env, plan->backend) : 0;
	if (reason)
		(*reason)++;
	if (service)
		service->refused++;
	if (backend)
		backend->refused++;
	if (plan->reason == LB_REASON_NEIGHBOUR_UNRESOLVED)
		lb_want(env, &plan->dst);
	return 1;
}

/* What is counted of a new flow besides its packet. */
LB_INLINE void lb_account_new(const struct lb_env *env, const struct lb_plan *plan)
{
	struct lb_counter *service = lb_env_service_counter(env, plan->service);
	struct lb_counter *backend = lb_env_backend_counter(env, plan->backend);

	if (!service || !backend)
		return;
	service->flows_new++;
	backend->flows_new++;
}

/* Both directions' counters lie one after the other; which, is added and not branched upon. */
LB_INLINE void lb_count(struct lb_counter *counter, lb_u32 direction, lb_u32 length)
{
	lb_u64 *packets = &counter->forward_packets + (direction & LB_DIRECTION_REPLY);

	packets[0]++;
	packets[1] += length;
}
_Static_assert(LB_DIRECTION_REPLY == 2 && __builtin_offsetof(struct lb_counter, reply_packets) == 16, "lb_count");

/* Counts a packet that is forwarded, by this CPU. Bytes are of the frame as it came. */
LB_INLINE void lb_account_forward(const struct lb_env *env, lb_u32 reason, lb_u32 direction, lb_u32 service,
				  lb_u32 backend, lb_u32 length)
{
	lb_u64 *count = lb_env_reason_counter(env, reason);
	struct lb_counter *counter;

	if (!count)
		return;
	(*count)++;
	counter = lb_env_service_counter(env, service);
	if (!counter)
		return;
	lb_count(counter, direction, length);
	counter = lb_env_backend_counter(env, backend);
	if (!counter)
		return;
	lb_count(counter, direction, length);
}

/* This CPU's counters: reason always; service and backend where the plan names them. */
LB_INLINE void lb_account(const struct lb_env *env, const struct lb_view *view, const struct lb_plan *plan)
{
	if (LB_UNLIKELY(plan->verdict != LB_VERDICT_FORWARD)) {
		lb_account_stop(env, plan);
		return;
	}
	if (plan->reason == LB_REASON_FORWARD_NEW)
		lb_account_new(env, plan);
	lb_account_forward(env, plan->reason, plan->direction, plan->service, plan->backend, view->length);
}

/* Writes the packet's story into this CPU's ring, for whoever reads it; the oldest is overwritten. */
LB_INLINE void lb_trace(const struct lb_env *env, const struct lb_view *view, const struct lb_plan *plan,
			lb_u64 time_ns)
{
	struct lb_event_head *head = lb_env_event_head(env);
	struct lb_event *event;
	lb_u64 number;

	if (!head)
		return;
	number = head->count;
	event = lb_env_event(env, number % LB_EVENTS);
	if (!event)
		return;
	LB_WRITE(event->sequence, 0);
	event->time_ns = time_ns;
	event->view = *view;
	event->plan = *plan;
	LB_WRITE(event->sequence, number + 1);
	LB_WRITE(head->count, number + 1);
}

#endif
