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

/* Up to LB_BURST packets of one interface. to[i]: where frame i, written anew or left alone, goes. */
LB_INLINE void lb_burst(const struct lb_env *env, lb_u8 *const data[], const lb_u32 length[], lb_u32 count,
			lb_u32 ifindex, const struct lb_moment *moment, lb_u32 to[])
{
	struct lb_recent recent = {0, 0};
	struct lb_quick quick[LB_BURST];
	lb_u32 plain = 0, replies = 0;
	const lb_u16 now = moment->now;
	struct lb_force force;
	lb_u32 quickly = lb_quick_force(env, &force) ? count : 0;

	for (lb_u32 i = 0; i < quickly; i++) {
		if (LB_UNLIKELY(!lb_quick_begin(env, &force, data[i], data[i] + length[i], &recent, &quick[i])))
			continue;
		plain |= 1u << i;
		if (quick[i].service) {
			__builtin_prefetch(quick[i].line, 0);
		} else {
			replies |= 1u << i;
			__builtin_prefetch(quick[i].word, 0);
		}
	}
	for (lb_u32 rest = replies; rest; rest &= rest - 1)
		__builtin_prefetch(lb_quick_holder(env, &quick[__builtin_ctz(rest)]), 0);
	for (lb_u32 i = 0; i < count; i++) {
		lb_u32 out = 0;

		if (LB_LIKELY(plain >> i & 1))
			out = lb_quick_end(env, &force, &quick[i], data[i], length[i], now);
		to[i] = LB_LIKELY(out) ? out : lb_long(env, data[i], length[i], ifindex, moment);
	}
}

#endif
