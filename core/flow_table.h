/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table: groups of 16 records (four cache lines), two groups per hash. A search starts at the cache line
 * that the hash names and stops at a record that was never used; 19 of 20 flows lie in their first line.
 *
 * Writers compete by compare-and-swap on the binding. A reader takes client, binding and client again: if the client
 * word is the same twice, the binding between them was that client's (words are written in the order binding taken,
 * client, binding published; x86 keeps loads and stores in order, another machine needs barriers at LB_READ).
 */
#ifndef LB_FLOW_TABLE_H
#define LB_FLOW_TABLE_H

#include "hash.h"
#include "snat.h"

/*
 * choice: 0 or 1, each half of the hash names one group. Without a branch: with one, the compiler lays a search's loop
 * out so that it closes by falling through, which Linux 6.1 takes for an endless one.
 */
LB_INLINE lb_u32 lb_flow_group_index(const struct lb_settings *settings, lb_u64 hash, lb_u32 choice)
{
	return lb_scale((lb_u32)(hash >> (32 - 32 * choice)), settings->flow_groups);
}

LB_INLINE lb_u32 lb_flow_first_way(lb_u64 hash)
{
	return (lb_u32)(hash & 3) * 4;
}

/* One way of a group. 1: the flow is here; 0: it is not; -1: nor in any later one. */
LB_INLINE int lb_flow_is(const struct lb_flow *flow, struct lb_track *track)
{
	lb_u64 client = LB_READ(flow->client);
	lb_u64 binding = LB_READ(flow->binding);

	if (client == track->client && lb_binding_usable(binding) && LB_READ(flow->client) == client) {
		track->binding = binding;
		return 1;
	}
	return binding ? 0 : -1;
}

/* 0 if the words are equal, else all ones: a comparison without a branch, which BPF's instructions do not offer. */
LB_INLINE lb_u64 lb_differ(lb_u64 a, lb_u64 b)
{
	lb_u64 x = a ^ b;

	return (lb_u64)((long long)(x | -x) >> 63);
}

/*
 * Looks in the hash's own cache line, where 19 of 20 flows are. 1: found; 0: look on. Which of the four records it is
 * cannot be foreseen, and a branch that is foretold wrongly costs more than comparing all four.
 */
LB_INLINE int lb_flow_find_near(const struct lb_env *env, const struct lb_settings *settings, struct lb_track *track)
{
	lb_u32 index = lb_flow_group_index(settings, track->hash, 0), first = lb_flow_first_way(track->hash), way;
	struct lb_flow_group *group = lb_env_flow_group(env, index);
	const struct lb_flow *line;

	if (!group)
		return 0;
	line = &group->way[first];
	way = lb_differ(LB_READ(line[0].client), track->client) &
	      (1 + (lb_differ(LB_READ(line[1].client), track->client) &
		    (1 + (lb_differ(LB_READ(line[2].client), track->client) & 1))));
	track->record = index * LB_FLOW_WAYS + first + way;
	/* Not group->way[first + way]: the compiler adds the two with an OR, and Linux 6.1 knows no bounds of an OR. */
	return lb_flow_is(&line[way], track) > 0;
}

/* Looks everywhere. 1 if the client's flow was found: track has its binding and record. */
LB_STEP lb_u32 lb_flow_find(const struct lb_env *env, struct lb_track *track)
{
	struct lb_settings *settings;
	lb_u32 first;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	if (!settings)
		return 0;
	first = lb_flow_first_way(track->hash);
	LB_ROLLED
	for (lb_u32 i = 0; i < 2 * LB_FLOW_WAYS; i++) {
		lb_u32 index = lb_flow_group_index(settings, track->hash, i / LB_FLOW_WAYS);
		struct lb_flow_group *group = lb_env_flow_group(env, index);
		lb_u32 way = (first + i) % LB_FLOW_WAYS;
		int found = group ? lb_flow_is(&group->way[way], track) : -1;

		track->record = index * LB_FLOW_WAYS + way;
		if (found)
			return found > 0;
	}
	return 0;
}

/*
 * Notes a packet in the flow of track. 1: the flow was still this client's, and the packet may use track->binding.
 *
 * It must win a compare-and-swap, as a flow that is opening or closed may be taken away for a new one at any time.
 * The client word is read after it, in case the record changed hands and came to look the same.
 */
LB_STEP lb_u32 lb_flow_note(const struct lb_env *env, struct lb_track *track)
{
	struct lb_flow *flow;

	if (!env || !track)
		return 0;
	flow = lb_flow_at(env, track->record);
	if (!flow)
		return 0;
	LB_ROLLED
	for (int attempt = 0; attempt < 4; attempt++) {
		lb_u64 old = track->binding, seen;
		lb_u8 next = lb_flow_next(lb_binding_flags(old), track->direction, track->tcp);
		/* only the handshake itself keeps an opening flow: stray packets must not */
		int stray = lb_flow_state(next) == LB_STATE_OPENING && !(track->tcp & LB_TCP_SYN);

		track->binding = lb_binding_with(old, next, stray ? lb_binding_time(old) : track->now);
		if (LB_SWAP(flow->binding, old, track->binding))
			return LB_READ(flow->client) == track->client;
		seen = LB_READ(flow->binding);
		if ((seen ^ old) & LB_BINDING_ENDS || !lb_binding_usable(seen))
			return 0;
		track->binding = seen;
	}
	return 0;
}

/* As lb_flow_note; but an established flow that was seen this second already is only read. */
LB_INLINE int lb_flow_touch(const struct lb_env *env, struct lb_track *track)
{
	const lb_u8 telling = LB_TCP_SYN | LB_TCP_FIN | LB_TCP_RST;

	if (LB_LIKELY(lb_binding_time(track->binding) == track->now && !(track->tcp & telling) &&
		      lb_binding_flags(track->binding) == (LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED)))
		return 1;
	return lb_flow_note(env, track) != 0;
}

enum lb_rank {
	LB_RANK_FREE,
	LB_RANK_DEAD,
	LB_RANK_STALE_OPENING, /* no handshake for LB_OPENING_S */
	LB_RANK_CLOSED,
	LB_RANK_OPENING,
	LB_RANK_NEVER, /* somebody relies on it */
};

enum {
	LB_OPENING_S = 3,
	LB_CLAIMED_S = 5, /* whoever claims for longer is no more */
};

/* How willingly a record is given to a new flow. Established flows never make room for new ones. */
LB_INLINE lb_u32 lb_flow_rank(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	lb_u8 flags = lb_binding_flags(binding);
	lb_u32 age = lb_flow_age(binding, now);

	if (flags & LB_FLOW_CLAIMED)
		return age >= LB_CLAIMED_S ? LB_RANK_DEAD : LB_RANK_NEVER;
	if (!lb_binding_backend(binding))
		return LB_RANK_FREE;
	if (lb_flow_dead(settings, binding, now))
		return LB_RANK_DEAD;
	switch (lb_flow_state(flags)) {
	case LB_STATE_OPENING:
		return age >= LB_OPENING_S ? LB_RANK_STALE_OPENING : LB_RANK_OPENING;
	case LB_STATE_CLOSED:
		return LB_RANK_CLOSED;
	default:
		return LB_RANK_NEVER;
	}
}

/* The best record so far for a new flow. */
struct lb_candidate {
	lb_u64 binding;
	lb_u32 cost; /* rank, then youth: the lowest is taken */
	lb_u32 record;
};

/* Looks at way i of 32. Sets best if it costs less; returns 1 if no later way needs to be looked at. */
LB_STEP lb_u32 lb_flow_consider(const struct lb_env *env, const struct lb_track *track, struct lb_candidate *best,
				lb_u32 i)
{
	struct lb_settings *settings;
	struct lb_flow_group *group;
	lb_u32 index, way, cost;
	lb_u64 binding;

	if (!env || !track || !best)
		return 1;
	settings = lb_env_settings(env);
	if (!settings || (i == LB_FLOW_WAYS && best->cost < LB_RANK_STALE_OPENING << 16))
		return 1;
	index = lb_flow_group_index(settings, track->hash, i / LB_FLOW_WAYS);
	way = (lb_flow_first_way(track->hash) + i) % LB_FLOW_WAYS;
	group = lb_env_flow_group(env, index);
	if (!group)
		return 1;
	binding = LB_READ(group->way[way].binding);
	cost = lb_flow_rank(settings, binding, track->now) << 16;
	if (cost)
		cost |= 0xffff - (lb_flow_age(binding, track->now) & 0xffff);
	if (cost < best->cost)
		*best = (struct lb_candidate){.binding = binding, .cost = cost, .record = index * LB_FLOW_WAYS + way};
	return cost == 0;
}

/* Takes the record that is given up most willingly, and gives its port back. 1: track->record is ours. */
LB_STEP lb_u32 lb_flow_take(const struct lb_env *env, struct lb_track *track)
{
	struct lb_settings *settings;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	if (!settings)
		return 0;
	LB_ROLLED
	for (int attempt = 0; attempt < 3; attempt++) {
		struct lb_candidate best = {.cost = LB_RANK_NEVER << 16, .record = 0};
		struct lb_flow *flow;

		LB_ROLLED
		for (lb_u32 i = 0; i < 2 * LB_FLOW_WAYS; i++)
			if (lb_flow_consider(env, track, &best, i))
				break;
		flow = lb_flow_at(env, best.record);
		if (!flow || best.cost >= LB_RANK_NEVER << 16)
			return 0;
		if (LB_SWAP(flow->binding, best.binding, lb_binding_with(best.binding, LB_FLOW_CLAIMED, track->now))) {
			if (lb_binding_backend(best.binding))
				lb_port_release(env, settings, best.binding, best.record);
			track->record = best.record;
			return 1;
		}
	}
	return 0;
}

#endif
