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
	return (lb_u32)(hash & 3) * LB_LINE_WAYS;
}

/* 0 if the words are equal, else all ones: a comparison without a branch, which BPF's instructions do not offer. */
LB_INLINE lb_u64 lb_differ(lb_u64 a, lb_u64 b)
{
#ifdef __bpf__
	lb_u64 x = a ^ b;

	return (lb_u64)((long long)(x | -x) >> 63);
#else
	return -(lb_u64)(a != b);
#endif
}

/* The line that a search begins with, where 19 of 20 flows are. */
LB_INLINE const struct lb_flow *lb_flow_home(const struct lb_env *env, const struct lb_settings *settings, lb_u64 place)
{
	struct lb_flow_group *group = lb_env_flow_group(env, lb_flow_group_index(settings, place, 0));

	return group ? &group->way[lb_flow_first_way(place)] : 0;
}

/*
 * The binding of a flow that this packet tells nothing new about, or 0: established, stamped lately, in its home line.
 * Which of the four records it is cannot be foreseen, and a branch that is foretold wrongly costs more than comparing
 * all four.
 */
LB_INLINE lb_u64 lb_flow_settled(const struct lb_settings *settings, const struct lb_flow *line, lb_u64 client,
				 lb_u16 now)
{
	const struct lb_flow *flow;
	lb_u64 binding;

	flow = &line[lb_differ(LB_READ(line[0].client), client) &
		     (1 + (lb_differ(LB_READ(line[1].client), client) &
			   (1 + (lb_differ(LB_READ(line[2].client), client) & 1))))];
	if (LB_READ(flow->client) != client)
		return 0;
	binding = LB_READ(flow->binding);
	return lb_binding_settled(settings, binding, now) && LB_READ(flow->client) == client ? binding : 0;
}

/* Line i of the eight in which a flow may lie, in the order of search; *index: of its first record. */
LB_INLINE struct lb_flow *lb_flow_line(const struct lb_env *env, const struct lb_settings *settings, lb_u64 place,
				       lb_u32 i, lb_u32 *index)
{
	lb_u32 number = lb_flow_group_index(settings, place, i / LB_FLOW_LINES);
	lb_u32 way = (lb_flow_first_way(place) + i * LB_LINE_WAYS) % LB_FLOW_WAYS;
	struct lb_flow_group *group = lb_env_flow_group(env, number);

	*index = number * LB_FLOW_WAYS + way;
	return group ? &group->way[way] : 0;
}

/*
 * Looks for a client's flow in line `first` and all after it: its binding, and its record; or 0. A client word of 0 is
 * that of a record which was never used, or which is just taken for the first time: its binding tells.
 */
LB_INLINE lb_u64 lb_flow_search(const struct lb_env *env, const struct lb_settings *settings, lb_u64 place,
				lb_u64 client, lb_u32 first, lb_u32 *record)
{
	lb_u32 i = first, index;
	struct lb_flow *line;

next:
	line = lb_flow_line(env, settings, place, i, &index);
	if (!line)
		return 0;
	for (lb_u32 way = 0; way < LB_LINE_WAYS; way++) {
		lb_u64 seen = LB_READ(line[way].client), binding;

		if (seen != client) {
			if (!seen && !LB_READ(line[way].binding))
				return 0;
			continue;
		}
		binding = LB_READ(line[way].binding);
		if (!lb_binding_usable(binding) || LB_READ(line[way].client) != client)
			continue;
		*record = index + way;
		return binding;
	}
	i++;
	LB_AGAIN_BELOW(i, 2 * LB_FLOW_LINES, next);
	return 0;
}

/* Looks everywhere. 1 if the client's flow was found: track has its binding and record. */
LB_INLINE lb_u32 lb_flow_find(const struct lb_env *env, const struct lb_settings *settings, struct lb_track *track)
{
	track->binding = lb_flow_search(env, settings, track->place, track->client, 0, &track->record);
	return track->binding != 0;
}

/* As lb_flow_settled, of the one flow in twenty that does not lie in its first line. */
LB_STEP lb_u64 lb_flow_settled_far(const struct lb_env *env, lb_u64 client, lb_u32 now)
{
	struct lb_settings *settings;
	lb_u64 binding, place;
	lb_u32 record;

	if (!env)
		return 0;
	settings = lb_env_settings(env);
	if (!settings)
		return 0;
	place = lb_place_hash(settings, lb_client_address(client), lb_client_port(client));
	binding = lb_flow_search(env, settings, place, client, 1, &record);
	return binding && lb_binding_settled(settings, binding, (lb_u16)now) ? binding : 0;
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

enum lb_rank {
	LB_RANK_FREE,
	LB_RANK_DEAD,
	LB_RANK_STALE_OPENING, /* no handshake for LB_OPENING_S */
	LB_RANK_CLOSED,
	LB_RANK_OPENING,
	LB_RANK_NEVER, /* somebody relies on it */
};

enum { LB_OPENING_S = 3 };

/* How willingly a record is given to a new flow. Established flows never make room for new ones. */
LB_INLINE lb_u32 lb_flow_rank(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	lb_u8 flags = lb_binding_flags(binding);
	lb_u32 age = lb_flow_age(binding, now);

	if (flags & LB_FLOW_CLAIMED)
		return LB_RANK_NEVER; /* its owner's, however long that takes: snat.h */
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
	index = lb_flow_group_index(settings, track->place, i / LB_FLOW_WAYS);
	way = (lb_flow_first_way(track->place) + i) % LB_FLOW_WAYS;
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
LB_STEP lb_u32 lb_flow_take_best(const struct lb_env *env, struct lb_track *track)
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

/* As lb_flow_take_best, but first the first free record of the first group. */
LB_INLINE lb_u32 lb_flow_take(const struct lb_env *env, const struct lb_settings *settings, struct lb_track *track)
{
	lb_u32 index = lb_flow_group_index(settings, track->place, 0), first = lb_flow_first_way(track->place);
	struct lb_flow_group *group = lb_env_flow_group(env, index);

	if (!group)
		return 0;
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_FLOW_WAYS; i++) {
		lb_u32 way = (first + i) % LB_FLOW_WAYS;
		lb_u64 old = LB_READ(group->way[way].binding);

		if (!lb_binding_free(old))
			continue;
		track->record = index * LB_FLOW_WAYS + way;
		if (LB_SWAP(group->way[way].binding, old, lb_binding_word(0, 0, 0, LB_FLOW_CLAIMED, track->now)))
			return 1;
	}
	return lb_flow_take_best(env, track);
}

#endif
