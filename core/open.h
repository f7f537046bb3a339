/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A new flow: choose a backend, take a record, claim a port, publish. Off the fast path; one lock per hash keeps two
 * CPUs from creating one client's flow twice, and nothing else: ports and records are claimed without it.
 */
#ifndef LB_OPEN_H
#define LB_OPEN_H

#include "flow_table.h"

enum { LB_LOCK_SPINS = 256 };

/* The scheduler's choice for a hash, 0 if the service has no usable backend. */
LB_INLINE lb_u32 lb_select(const struct lb_env *env, lb_u32 copy, const struct lb_service *service, lb_u64 hash)
{
	lb_u32 slot = lb_slot_index(hash);
	struct lb_slot_line *line = lb_env_slot_line(env, copy, service->table, slot / 32);

	return line ? line->backend[slot % 32] : 0;
}

LB_INLINE int lb_lock(lb_u32 *lock)
{
	LB_ROLLED
	for (int i = 0; i < LB_LOCK_SPINS; i++)
		if (LB_SWAP(*lock, 0, 1))
			return 1;
	return 0;
}

/*
 * The client's own port first, so that backends see what the client sent. Then ports below 32768, then those
 * above, from a place that depends on client and time: a retransmitted SYN searches elsewhere. (Searches fill ports in
 * clusters. Were the second one to look below 32768 again, half of all clients would be refused once that half is full.)
 */
LB_INLINE lb_u32 lb_port_search(const struct lb_env *env, const struct lb_track *track)
{
	struct lb_settings *settings;
	lb_u32 port, start;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	if (!settings)
		return 0;
	port = LB_BE16(lb_client_port(track->client));
	if (lb_port_claim(env, track, port))
		return port;
	start = (lb_u32)lb_hash(settings, track->hash + track->now);
	port = lb_port_scan(env, track, LB_PORT_FIRST + lb_scale(start, LB_PORT_LOW_END - LB_PORT_FIRST));
	if (port)
		return port;
	port = settings->local_first > LB_PORT_LOW_END ? LB_PORT_LOW_END : LB_PORT_FIRST;
	return lb_port_scan(env, track, port + lb_scale(~start, settings->local_first - port));
}

/* A SYN that may start anew: its flow is over, or nobody has answered yet and the backend may have changed. */
LB_INLINE int lb_starts_anew(lb_u8 tcp, lb_u8 flags)
{
	return tcp & LB_TCP_SYN &&
	       (lb_flow_state(flags) == LB_STATE_CLOSED || !(flags & (LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED)));
}

/* Does the flow that the client already has serve for this SYN? Then: its binding with this packet noted; else 0. */
LB_INLINE lb_u64 lb_open_again(const struct lb_settings *settings, const struct lb_track *track, lb_u64 old)
{
	lb_u8 flags = lb_binding_flags(old);
	int alive = !lb_flow_over(settings, old, track->now);
	int answered = flags & (LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED); /* before, it may go to another backend */

	if (lb_binding_backend(old) != track->backend && !(alive && answered))
		return 0;
	return lb_binding_with(old, alive ? flags : 0, track->now);
}

/* Has the binding's backend been removed from the configuration? */
LB_INLINE int lb_backend_gone(const struct lb_env *env, lb_u32 copy, lb_u64 binding)
{
	struct lb_backend *backend = lb_env_backend(env, copy, lb_binding_backend(binding));

	return !backend || backend->state != LB_BACKEND_USABLE;
}

/* May a flow that begins again have the SNAT address and port that it had? The service may have others by now. */
LB_STEP lb_u32 lb_open_keeps(const struct lb_env *env, const struct lb_track *track, lb_u64 binding)
{
	lb_u32 id = lb_binding_snat(binding), listed = 0;
	struct lb_settings *settings;
	struct lb_service *service;
	struct lb_snat *snat;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	service = lb_env_service(env, track->copy, lb_client_service(track->client));
	snat = lb_env_snat(env, track->copy, id);
	if (!settings || !service || !snat)
		return 0;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_SNAT_MAX && i < service->snat_count; i++)
		listed |= service->snat[i] == id;
	return listed &&
	       lb_port_allowed(env, settings, track->copy, snat, LB_BE16(lb_binding_port(binding)), track->protocol);
}

/* Goes on with the flow in track, or makes way for a new one and returns 0. */
LB_STEP lb_u32 lb_open_known(const struct lb_env *env, struct lb_track *track)
{
	struct lb_settings *settings;
	struct lb_flow *flow;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	flow = lb_flow_at(env, track->record);
	if (!settings || !flow)
		return 0;
	LB_ROLLED
	for (int attempt = 0; attempt < 4; attempt++) { /* the backend's answer may come in between */
		lb_u64 old = LB_READ(flow->binding), new = lb_open_again(settings, track, old);
		int over = lb_flow_over(settings, old, track->now);

		/* the record may have been given to another client meanwhile, who may look the same: ask again after it */
		if (!new || !lb_binding_usable(old) || LB_READ(flow->client) != track->client)
			break;
		if (lb_backend_gone(env, track->copy, old) || (over && !lb_open_keeps(env, track, old)))
			break;
		if (LB_SWAP(flow->binding, old, new)) {
			if (LB_READ(flow->client) != track->client)
				return 0;
			track->fresh = (lb_u8)over;
			track->binding = new;
			return 1;
		}
	}
	/* Other ends. The record stays as the quarantine of its port, but the client no longer finds it. */
	(void)LB_SWAP(flow->client, track->client, track->client & 0xffffffffffffull);
	return 0;
}

/* Which of the service's SNAT addresses a flow tries first. */
LB_INLINE lb_u32 lb_snat_first(const struct lb_service *service, lb_u64 hash)
{
	return lb_scale((lb_u32)(hash >> 16), service->snat_count);
}

/*
 * Reads what a new flow will need from afar: its line of the flow table and that of the port it wants. Both are then
 * under way at the same time; after the lock, they would be waited for one after the other.
 */
LB_INLINE void lb_open_ask(const struct lb_env *env, const struct lb_settings *settings,
			   const struct lb_service *service, const struct lb_track *track)
{
	struct lb_flow_group *group = lb_env_flow_group(env, lb_flow_group_index(settings, track->place, 0));
	lb_u32 snat = service->snat[lb_snat_first(service, track->hash) % LB_SNAT_MAX];
	lb_u32 *word = lb_port_word(env, lb_port_table(settings, track->backend, snat),
				    LB_BE16(lb_client_port(track->client)));

	if (group && word) {
		(void)LB_READ(group->way[lb_flow_first_way(track->place)].client);
		(void)LB_READ(*word);
	}
}

LB_INLINE lb_u8 lb_open_new(const struct lb_env *env, const struct lb_service *service, struct lb_track *track)
{
	lb_u32 port = 0, start;
	struct lb_flow *flow;

	if (!lb_flow_take(env, lb_env_settings(env), track))
		return LB_REASON_FLOW_TABLE_FULL;
	flow = lb_flow_at(env, track->record);
	if (!flow)
		return LB_REASON_FLOW_TABLE_FULL;
	LB_WRITE(flow->client, track->client);
	start = lb_snat_first(service, track->hash);
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_SNAT_MAX && i < service->snat_count && !port; i++) {
		lb_u32 n = start + i < service->snat_count ? start + i : start + i - service->snat_count;

		track->snat = service->snat[n % LB_SNAT_MAX];
		port = lb_port_search(env, track);
	}
	track->fresh = 1;
	track->binding =
		port ? lb_binding_word(track->backend, LB_BE16(port), track->snat, 0, track->now) : LB_FLOW_FREED;
	LB_WRITE(flow->binding, track->binding);
	return port ? LB_REASON_FORWARD : LB_REASON_SNAT_EXHAUSTED;
}

/*
 * The flow of a packet to a service that is not settled: found and noted, or opened by a SYN. The reason to forward,
 * then track->binding holds, or to stop.
 */
LB_STEP lb_u32 lb_flow_meet(const struct lb_env *env, struct lb_track *track)
{
	struct lb_settings *settings;
	struct lb_service *service;
	lb_u32 *lock, found;
	lb_u8 reason = LB_REASON_FORWARD;
	int opens;

	if (!env || !track)
		return LB_REASON_NO_BACKEND;
	settings = lb_env_settings(env);
	service = lb_env_service(env, track->copy, lb_client_service(track->client));
	lock = lb_env_lock(env, (lb_u32)(track->hash >> 40) % LB_LOCKS);
	if (!settings || !service || !lock)
		return LB_REASON_NO_BACKEND;
	opens = (track->tcp & (LB_TCP_SYN | LB_TCP_ACK)) == LB_TCP_SYN;
	if (opens) {
		track->backend = lb_select(env, track->copy, service, track->hash);
		lb_open_ask(env, settings, service, track);
		if (!lb_lock(lock))
			return LB_REASON_FLOW_BUSY;
	}
	found = lb_flow_find(env, settings, track);
	if (!opens) {
		if (!found || lb_flow_expired(settings, track->binding, track->now) ||
		    lb_starts_anew(track->tcp, lb_binding_flags(track->binding)))
			return LB_REASON_NO_FLOW;
		/* one that lies far from its line is met here again and again: only to be read */
		if (!(track->tcp & LB_TCP_TELLING) && lb_binding_settled(settings, track->binding, track->now))
			return LB_REASON_FORWARD;
		if (lb_backend_gone(env, track->copy, track->binding)) /* left to expire; the caller says why */
			return LB_REASON_FORWARD;
		return lb_flow_note(env, track) ? LB_REASON_FORWARD : LB_REASON_FLOW_BUSY;
	}
	track->slot = lb_slot_index(track->hash);
	if (!found || !lb_open_known(env, track)) {
		reason = track->backend ? lb_open_new(env, service, track) : LB_REASON_NO_BACKEND;
	}
	LB_WRITE(*lock, 0);
	return reason == LB_REASON_FORWARD && track->fresh ? LB_REASON_FORWARD_NEW : reason;
}

#endif
