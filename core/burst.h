/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets by the dozen, for drivers that poll a device: all are classified and memory is asked for what each will need;
 * by the time the first is looked at again, its cache line is there. One after the other they would each wait. What
 * comes out is the same as packet by packet, in the same order.
 */
#ifndef LB_BURST_H
#define LB_BURST_H

#include "quick.h"

enum { LB_BURST = 32 };

/* Where a frame goes: the number of an interface, or one of these. */
enum { LB_TO_NOBODY = 0 };
#define LB_TO_KERNEL 0xffffffffu

/* A polling driver's own time. */
struct lb_moment {
	lb_u64 ns; /* CLOCK_MONOTONIC, for the trace */
	lb_u16 now;
};

/* The long way, for one packet. */
LB_STEP lb_u32 lb_long(const struct lb_env *env, lb_u8 *data, lb_u32 length, lb_u32 ifindex,
		       const struct lb_moment *moment)
{
	const struct lb_settings *settings = lb_env_settings(env);
	const lb_u8 *end = data + length;
	struct lb_track track;
	struct lb_view view;
	struct lb_plan plan;

	lb_parse(data, end, ifindex, &view);
	lb_decide(env, &view, moment->now, &track, &plan);
	lb_account(env, &view, &plan);
	if (settings && settings->trace) {
		lb_parse_more(data, end, &view);
		lb_trace(env, &view, &plan, moment->ns);
	}
	if (plan.verdict == LB_VERDICT_PASS)
		return LB_TO_KERNEL;
	return plan.verdict == LB_VERDICT_FORWARD && lb_apply(data, end, &plan) ? plan.nexthop.ifindex : LB_TO_NOBODY;
}

/* Asks for what the packet's flow is found by: its line of the flow table, or the word of its port. */
LB_INLINE void lb_burst_ask(const struct lb_env *env, const struct lb_settings *settings, const struct lb_quick *quick)
{
	if (quick->service) {
		struct lb_flow_group *group = lb_env_flow_group(env, lb_flow_group_index(settings, quick->hash, 0));

		__builtin_prefetch(&group->way[lb_flow_first_way(quick->hash)], 0);
	} else {
		__builtin_prefetch(lb_quick_word(env, settings, quick), 0);
	}
}

/* Up to LB_BURST packets of one interface. to[i]: where frame i, written anew or left alone, goes. */
LB_INLINE void lb_burst(const struct lb_env *env, lb_u8 *const data[], const lb_u32 length[], lb_u32 count,
			lb_u32 ifindex, const struct lb_moment *moment, lb_u32 to[])
{
	const struct lb_settings *settings = lb_env_settings(env);
	struct lb_quick quick[LB_BURST];
	lb_u32 plain = 0;

	for (lb_u32 i = 0; i < count; i++) {
		if (LB_LIKELY(lb_quick_begin(env, settings, data[i], data[i] + length[i], &quick[i]))) {
			plain |= 1u << i;
			lb_burst_ask(env, settings, &quick[i]);
		}
	}
	for (lb_u32 i = 0; i < count; i++)
		if (plain >> i & 1 && !quick[i].service)
			__builtin_prefetch(lb_quick_holder(env, lb_quick_word(env, settings, &quick[i])), 0);
	for (lb_u32 i = 0; i < count; i++) {
		to[i] = LB_TO_NOBODY;
		if (LB_LIKELY(plain >> i & 1))
			to[i] = lb_quick_end(env, settings, &quick[i], data[i], data[i] + length[i], moment->now);
		if (LB_UNLIKELY(!to[i]))
			to[i] = lb_long(env, data[i], length[i], ifindex, moment);
	}
}

#endif
