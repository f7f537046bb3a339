/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Source ports of full NAT.
 *
 * A port table has one word for each of 65536 ports: 1 + index of the flow that holds the port, or 0. A reply finds
 * its flow by that word, without a hash; a claim is one compare-and-swap from 0, so on any number of CPUs a port has
 * one holder. Each pair of backend and SNAT address uses one table; there may be fewer tables than pairs, then pairs
 * share one and its ports. A flow that holds a port says so in its own binding.
 *
 * Order, so that a reader never meets a flow without its port: bind the record (flag CLAIMED), claim the word, clear
 * the flag. To give up: set CLAIMED, clear the word, free the record or use it anew.
 *
 * A word is set from 0 only, and cleared only by who set the CLAIMED of its record. Were it handed on from a dead
 * holder to the next, a CPU that has just found the holder dead could be late, and rob a flow that claimed the same
 * port with the same record in between: two clients would share it.
 *
 * For the same reason nobody takes a CLAIMED record from its owner, however old the claim is: the daemon's sweeper, or
 * a datapath that is a process, may have been stopped for any time in the middle of the order, and then goes on. One
 * that was killed there leaves its claim behind. But it leaves nothing else: the record names the word from before the
 * word is set until after it is cleared, so there is never a word whose record does not name it. What is left behind is
 * found by lb_claim_doubt and ended by lb_claim_end when the next daemon starts.
 */
#ifndef LB_SNAT_H
#define LB_SNAT_H

#include "classify.h"
#include "flow.h"

enum {
	LB_PORT_FIRST = 1024,	 /* lower ports are never given out */
	LB_PORT_LOW_END = 32768, /* where Linux clients' own ports begin: rewritten ports keep below while they can */
	LB_PORT_STRETCH = 512,	 /* ports tried in one search */
	LB_PORT_OWNERS = 16,	 /* of these, how many holders are looked at: they may be dead */
	LB_FLOW_DOUBTED = LB_FLOW_CLAIMED | LB_FLOW_RESET, /* flags of a claim whose owner may be no more */
};

LB_INLINE lb_u32 lb_port_table(const struct lb_settings *settings, lb_u32 backend, lb_u32 snat)
{
	return (backend + snat * 7) & (settings->port_tables - 1);
}

LB_INLINE lb_u32 *lb_port_word(const struct lb_env *env, lb_u32 table, lb_u32 port)
{
	struct lb_port_line *line = lb_env_port_line(env, table * LB_PORT_LINES + (port >> 4 & (LB_PORT_LINES - 1)));

	return line ? &line->holder[port & 15] : 0;
}

LB_INLINE struct lb_flow *lb_flow_at(const struct lb_env *env, lb_u32 index)
{
	struct lb_flow_group *group = lb_env_flow_group(env, index / LB_FLOW_WAYS);

	return group ? &group->way[index % LB_FLOW_WAYS] : 0;
}

/* The word of the port that a binding names. */
LB_INLINE lb_u32 *lb_port_bound(const struct lb_env *env, const struct lb_settings *settings, lb_u64 binding)
{
	return lb_port_word(env, lb_port_table(settings, lb_binding_backend(binding), lb_binding_snat(binding)),
			    LB_BE16(lb_binding_port(binding)));
}

/* Gives the port of a record that was just taken away back, if it is the holder. */
LB_INLINE void lb_port_release(const struct lb_env *env, const struct lb_settings *settings, lb_u64 binding,
			       lb_u32 index)
{
	lb_u32 *word = lb_port_bound(env, settings, binding);

	if (word)
		(void)LB_SWAP(*word, index + 1, 0);
}

/* Ends a flow: its record is freed and its port given back. False if it changed meanwhile. */
LB_INLINE int lb_flow_end(lb_u64 *record, lb_u64 binding, lb_u32 *word, lb_u32 holder, lb_u16 now)
{
	if (!LB_SWAP(*record, binding, lb_binding_with(binding, LB_FLOW_CLAIMED, now)))
		return 0;
	(void)LB_SWAP(*word, holder, 0);
	LB_WRITE(*record, LB_FLOW_FREED);
	return 1;
}

/*
 * Marks a claim as one whose owner may be no more. An owner that goes on writes over the mark, as all that it does to
 * its record is plain stores; so a claim that still is marked when all who were under way have finished is nobody's.
 * (Its age would not tell, nor would it help to compare the binding: the next owner's may look the same.)
 */
LB_INLINE int lb_claim_doubt(lb_u64 *record, lb_u16 now)
{
	lb_u64 binding = LB_READ(*record);

	return lb_binding_flags(binding) & LB_FLOW_CLAIMED &&
	       LB_SWAP(*record, binding, lb_binding_with(binding, LB_FLOW_DOUBTED, now));
}

/* Ends a claim that is still marked; a process killed in here leaves it as it was. */
LB_INLINE int lb_claim_end(const struct lb_env *env, const struct lb_settings *settings, lb_u64 *record, lb_u32 index)
{
	lb_u64 binding = LB_READ(*record);

	if (lb_binding_flags(binding) != LB_FLOW_DOUBTED)
		return 0;
	lb_port_release(env, settings, binding, index);
	return LB_SWAP(*record, binding, LB_FLOW_FREED);
}

/* Sends the holder of a port away if it is so long dead that it can be: 1, and the word was cleared. */
LB_INLINE int lb_port_vacate(const struct lb_env *env, const struct lb_settings *settings, lb_u32 table, lb_u32 port,
			     lb_u32 *word, lb_u32 holder, lb_u16 now)
{
	struct lb_flow *flow = lb_flow_at(env, holder - 1);
	lb_u64 binding;

	if (!flow)
		return 0;
	binding = LB_READ(flow->binding);
	return lb_binding_usable(binding) && LB_BE16(lb_binding_port(binding)) == port &&
	       lb_port_table(settings, lb_binding_backend(binding), lb_binding_snat(binding)) == table &&
	       lb_flow_dead(settings, binding, now) && lb_flow_end(&flow->binding, binding, word, holder, now);
}

/* May the balancer use this port of this SNAT address? Not those of services, nor the reserved ones. */
LB_INLINE int lb_port_allowed(const struct lb_env *env, const struct lb_settings *settings, lb_u32 copy,
			      const struct lb_snat *snat, lb_u32 port, lb_u8 protocol)
{
	const struct lb_copy *header = lb_env_copy(env, copy);

	return port >= LB_PORT_FIRST && port < settings->local_first && header &&
	       (!lb_may_listen(header, LB_BE16(port)) ||
		!LB_ENDPOINT_OF(env, copy, &snat->addr, LB_BE16(port), protocol, LB_ENDPOINT_SERVICE));
}

/*
 * A packet's way to its flow: the keys, what was chosen, what was found. One struct, handed from step to step, as a
 * BPF function takes five arguments at most and the stack of a whole call chain holds 512 bytes.
 */
struct lb_track {
	lb_u64 hash;  /* lb_flow_hash: what to choose */
	lb_u64 place; /* lb_place_hash: where to look */
	lb_u64 client;
	lb_u64 binding; /* the flow's, when found */
	lb_u32 record;	/* the flow's, when found */
	lb_u32 copy;
	lb_u32 slot;
	lb_u32 backend; /* chosen; 0: there is none */
	lb_u16 snat;	/* chosen */
	lb_u16 now;
	lb_u8 protocol;
	lb_u8 direction;
	lb_u8 tcp;   /* flags of this packet */
	lb_u8 fresh; /* the flow is new with this packet */
};

/* Claims one port for a record that the caller has taken: 1, or 0 with nothing left behind. */
LB_STEP lb_u32 lb_port_claim(const struct lb_env *env, const struct lb_track *track, lb_u32 port)
{
	struct lb_settings *settings;
	struct lb_snat *snat;
	struct lb_flow *flow;
	lb_u32 table, holder, *word;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	snat = lb_env_snat(env, track->copy, track->snat);
	flow = lb_flow_at(env, track->record);
	if (!settings || !snat || !flow || !lb_port_allowed(env, settings, track->copy, snat, port, track->protocol))
		return 0;
	table = lb_port_table(settings, track->backend, track->snat);
	word = lb_port_word(env, table, port);
	if (!word)
		return 0;
	holder = LB_READ(*word);
	if (holder && !lb_port_vacate(env, settings, table, port, word, holder, track->now))
		return 0;
	LB_WRITE(flow->binding,
		 lb_binding_word(track->backend, LB_BE16(port), track->snat, LB_FLOW_CLAIMED, track->now));
	return LB_SWAP(*word, 0, track->record + 1);
}

/*
 * Claims the first port of a stretch that can be had, from `port` on: the port, or 0. It counts the port itself up to
 * keep fewer values on the stack: Linux 6.1 rounds every frame of the call chain up to 32 bytes, and the
 * deepest one (lb_flow_open, lb_port_search, this, lb_port_claim) then takes all 512.
 */
LB_STEP lb_u32 lb_port_scan(const struct lb_env *env, const struct lb_track *track, lb_u32 port)
{
	struct lb_settings *settings;
	lb_u32 table;

	if (!env || !track)
		return 0;
	settings = lb_env_settings(env);
	if (!settings)
		return 0;
	table = lb_port_table(settings, track->backend, track->snat);
	LB_ROLLED
	for (lb_u32 i = 0; i < LB_PORT_STRETCH; i++, port = (port + 1) & 0xffff) {
		lb_u32 *word = lb_port_word(env, table, port);

		if (!word)
			return 0;
		if (LB_READ(*word) && i >= LB_PORT_OWNERS)
			continue;
		if (lb_port_claim(env, track, port))
			return port;
	}
	return 0;
}

#endif
