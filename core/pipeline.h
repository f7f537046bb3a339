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

/* A SYN that may start anew: its flow is over, or nobody has answered yet and the backend may have changed. */
LB_INLINE int lb_starts_anew(lb_u8 tcp, lb_u8 flags)
{
	return tcp & LB_TCP_SYN &&
	       (lb_flow_state(flags) == LB_STATE_CLOSED || !(flags & (LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED)));
}

/* The packet's flow, found or opened: the reason to forward or stop. Forward: track->binding holds. */
LB_INLINE lb_u8 lb_forward_flow(const struct lb_env *env, const struct lb_settings *settings, struct lb_track *track)
{
	int opens = (track->tcp & (LB_TCP_SYN | LB_TCP_ACK)) == LB_TCP_SYN;
	int found = lb_flow_find_near(env, settings, track);
	lb_u8 reason;

	if (LB_UNLIKELY(!found) && !opens) /* else lb_flow_open looks, in any case */
		found = (int)lb_flow_find(env, track);
	if (LB_LIKELY(found && !lb_flow_expired(settings, track->binding, track->now) &&
		      !lb_starts_anew(track->tcp, lb_binding_flags(track->binding)))) {
		if (LB_LIKELY(lb_flow_touch(env, track)))
			return LB_REASON_FORWARD;
		if (!opens)
			return LB_REASON_FLOW_BUSY;
	}
	if (!opens)
		return LB_REASON_NO_FLOW;
	reason = (lb_u8)lb_flow_open(env, track);
	if (reason != LB_REASON_NONE)
		return reason;
	return track->fresh ? LB_REASON_FORWARD_NEW : LB_REASON_FORWARD;
}

/* To a service. */
LB_INLINE void lb_decide_forward(const struct lb_env *env, const struct lb_settings *settings,
				 const struct lb_view *view, lb_u32 copy, lb_u32 id, lb_u16 now, struct lb_plan *plan)
{
	struct lb_service *service = lb_env_service(env, copy, id);
	struct lb_track track = {.copy = copy,
				 .now = now,
				 .protocol = view->protocol,
				 .tcp = view->tcp_flags,
				 .direction = LB_DIRECTION_FORWARD};
	struct lb_backend *backend;
	struct lb_snat *snat;
	lb_u8 reason;

	plan->direction = LB_DIRECTION_FORWARD;
	plan->service = (lb_u16)id;
	if (!service)
		return lb_plan_stop(LB_REASON_NOT_OURS, plan);
	plan->mode = service->mode;
	if (view->tcp_flags & LB_TCP_SYN && view->tcp_flags & (LB_TCP_FIN | LB_TCP_RST))
		return lb_plan_stop(LB_REASON_BAD_FLAGS, plan);
	if (view->ttl <= 1)
		return lb_plan_stop(LB_REASON_TTL_EXPIRED, plan);
	track.client = lb_client_word(lb_addr_v4(&view->src), view->sport, id);
	track.hash = lb_flow_hash(settings, service, lb_addr_v4(&view->src), view->sport);
	plan->hash = track.hash;
	reason = lb_forward_flow(env, settings, &track);
	if (LB_UNLIKELY(reason != LB_REASON_FORWARD)) /* a backend was chosen, or would have been */
		plan->slot = track.slot;
	if (lb_verdict_of(reason) != LB_VERDICT_FORWARD)
		return lb_plan_stop(reason, plan);
	plan->backend = (lb_u16)lb_binding_backend(track.binding);
	plan->snat = (lb_u16)lb_binding_snat(track.binding);
	plan->flow_flags = lb_binding_flags(track.binding);
	backend = lb_env_backend(env, copy, plan->backend);
	snat = lb_env_snat(env, copy, plan->snat);
	if (!backend || !snat || backend->state != LB_BACKEND_USABLE)
		return lb_plan_stop(LB_REASON_BACKEND_GONE, plan);
	if (LB_UNLIKELY(reason == LB_REASON_FORWARD_NEW))
		lb_learn(env, copy, view);
	lb_plan_forward(view, snat, backend, track.binding, reason, plan);
}

/* The flow that holds the port which a backend sent to: 1 if the packet may use track->binding and track->client. */
LB_INLINE int lb_reply_flow(const struct lb_env *env, const struct lb_settings *settings, lb_u32 backend, lb_u32 snat,
			    lb_be16 port, struct lb_track *track)
{
	lb_u32 *word = lb_port_word(env, lb_port_table(settings, backend, snat), LB_BE16(port));
	lb_u64 ends = lb_binding_word(backend, port, snat, 0, 0);
	lb_u32 holder = word ? LB_READ(*word) : 0;
	struct lb_flow *flow = holder ? lb_flow_at(env, holder - 1) : 0;

	if (!flow)
		return 0;
	track->record = holder - 1;
	track->client = LB_READ(flow->client);
	track->binding = LB_READ(flow->binding);
	return !((track->binding ^ ends) & LB_BINDING_ENDS) && lb_binding_usable(track->binding) &&
	       LB_READ(flow->client) == track->client && !lb_flow_expired(settings, track->binding, track->now) &&
	       lb_flow_touch(env, track);
}

/* From a backend to a SNAT address. */
LB_INLINE void lb_decide_reply(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			       lb_u32 copy, lb_u32 backend, lb_u32 snat, lb_u16 now, struct lb_plan *plan)
{
	struct lb_track track = {.now = now, .tcp = view->tcp_flags, .direction = LB_DIRECTION_REPLY};
	struct lb_service *service;

	plan->direction = LB_DIRECTION_REPLY;
	plan->backend = (lb_u16)backend;
	plan->snat = (lb_u16)snat;
	if (LB_BE16(view->dport) >= settings->local_first)
		return lb_plan_stop(LB_REASON_LOCAL, plan);
	if (!lb_reply_flow(env, settings, backend, snat, view->dport, &track))
		return lb_plan_stop(LB_REASON_NO_REPLY_FLOW, plan);
	plan->service = (lb_u16)lb_client_service(track.client);
	plan->flow_flags = lb_binding_flags(track.binding);
	service = lb_env_service(env, copy, plan->service);
	if (!service || !service->mode)
		return lb_plan_stop(LB_REASON_SERVICE_GONE, plan);
	plan->mode = service->mode;
	if (view->ttl <= 1)
		return lb_plan_stop(LB_REASON_TTL_EXPIRED, plan);
	lb_plan_reply(view, service, track.client, plan);
	lb_nexthop_to(env, copy, &plan->dst, &plan->nexthop);
	if (LB_UNLIKELY(!plan->nexthop.ifindex))
		lb_recall(env, &plan->dst, &plan->nexthop);
}

/*
 * To a service first, since most packets are. One that finds no flow there may be a reply: to a port that was given
 * to a flow before a service came to listen on it.
 */
LB_INLINE void lb_decide_tcp(const struct lb_env *env, const struct lb_settings *settings, const struct lb_view *view,
			     lb_u32 copy, const struct lb_copy *header, lb_u16 now, struct lb_plan *plan)
{
	lb_u32 service, backend, snat;

	service = lb_endpoint_find(env, copy, header, &view->dst, view->dport, view->protocol, LB_ENDPOINT_SERVICE);
	if (service) {
		lb_decide_forward(env, settings, view, copy, service, now, plan);
		if (LB_LIKELY(plan->reason != LB_REASON_NO_FLOW))
			return;
	}
	backend = lb_endpoint_find(env, copy, header, &view->src, view->sport, view->protocol, LB_ENDPOINT_BACKEND);
	snat = backend ? lb_endpoint_find(env, copy, header, &view->dst, 0, 0, LB_ENDPOINT_SNAT) : 0;
	if (!snat) {
		if (!service)
			lb_plan_stop(LB_REASON_NOT_OURS, plan);
		return;
	}
	plan->service = 0;
	plan->mode = LB_MODE_NONE;
	plan->hash = 0;
	lb_decide_reply(env, settings, view, copy, backend, snat, now, plan);
}

/*
 * What is to become of the packet. `now`: the driver's seconds, 16 bits that wrap.
 */
LB_INLINE void lb_decide(const struct lb_env *env, const struct lb_view *view, lb_u16 now, struct lb_plan *plan)
{
	const struct lb_settings *settings = lb_env_settings(env);
	const struct lb_copy *header;
	lb_u32 copy;

	*plan = (struct lb_plan){0};
	if (!settings)
		return;
	copy = LB_READ(settings->active) & 1;
	header = lb_env_copy(env, copy);
	if (!header)
		return;
	plan->generation = header->generation;
	if (LB_LIKELY(view->reason == LB_REASON_NONE))
		lb_decide_tcp(env, settings, view, copy, header, now, plan);
	else if (view->reason == LB_REASON_FRAGMENT && !lb_endpoint_id(env, copy, &view->dst, 0, 0, LB_ENDPOINT_SNAT))
		lb_plan_stop(LB_REASON_NOT_OURS, plan);
	else
		lb_plan_stop(view->reason, plan);
	if (plan->verdict == LB_VERDICT_FORWARD && !plan->nexthop.ifindex)
		lb_plan_stop(LB_REASON_NEIGHBOUR_UNRESOLVED, plan);
}

/* Writes a plan whose verdict is forward into the frame. */
LB_INLINE int lb_apply(void *data, const void *end, const struct lb_plan *plan)
{
	return lb_rewrite_ipv4(data, end, plan);
}

LB_INLINE void lb_count(struct lb_counter *counter, const struct lb_plan *plan, lb_u32 length)
{
	if (!counter)
		return;
	if (plan->verdict != LB_VERDICT_FORWARD) {
		counter->refused++;
	} else if (plan->direction == LB_DIRECTION_FORWARD) {
		counter->forward_packets++;
		counter->forward_bytes += length;
		counter->flows_new += plan->reason == LB_REASON_FORWARD_NEW;
	} else {
		counter->reply_packets++;
		counter->reply_bytes += length;
	}
}

/* Leaves word that a next hop is missing. Two CPUs may mix up one record; the address then made up is asked for in vain. */
LB_INLINE void lb_want(const struct lb_env *env, const struct lb_addr *addr)
{
	struct lb_wanted *wanted = lb_env_wanted(env, lb_addr_v4(addr) % LB_WANTED_RECORDS);

	if (wanted)
		wanted->addr = *addr;
}

/* This CPU's counters: reason always; service and backend where the plan names them. Bytes are of the frame as it came. */
LB_INLINE void lb_account(const struct lb_env *env, const struct lb_view *view, const struct lb_plan *plan)
{
	lb_u64 *reason = lb_env_reason_counter(env, plan->reason);

	if (reason)
		(*reason)++;
	if (LB_UNLIKELY(plan->reason == LB_REASON_NEIGHBOUR_UNRESOLVED))
		lb_want(env, &plan->dst);
	if (plan->service)
		lb_count(lb_env_service_counter(env, plan->service), plan, view->length);
	if (plan->backend)
		lb_count(lb_env_backend_counter(env, plan->backend), plan, view->length);
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
