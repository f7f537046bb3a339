/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The native driver: the core as a shared library, for the simulator, for explain, for the tests, and for the daemon,
 * which sweeps a running datapath's flows with the very functions that the datapath uses.
 */
#include "env_memory.h"
#include "layout_check.h"
#include "lb.h"
#include "maglev.h"

#define LB_API __attribute__((visibility("default")))

/* To be called once the env is filled in, and before it is used. */
LB_API void lb_native_ready(struct lb_env *env)
{
	lb_env_ready(env);
}

LB_API void lb_native_fence(void)
{
	__sync_synchronize();
}

/* One frame through the whole pipeline, in place. data is at 2 modulo 4. Returns the verdict. */
LB_API int lb_native_packet(struct lb_env *env, unsigned char *data, unsigned int length, unsigned int ifindex,
			    unsigned short now, void *view_out, void *plan_out)
{
	struct lb_view *view = view_out;
	struct lb_plan *plan = plan_out;
	struct lb_track track;
	const struct lb_settings *settings = lb_env_settings(env);

	lb_parse(data, data + length, ifindex, view);
	lb_parse_more(data, data + length, view);
	lb_decide(env, view, now, &track, plan);
	lb_account(env, view, plan);
	if (settings && settings->trace)
		lb_trace(env, view, plan, now * 1000000000ull);
	if (plan->verdict == LB_VERDICT_FORWARD && !lb_apply(data, data + length, plan))
		return LB_VERDICT_DROP;
	return plan->verdict;
}

/* The way of most packets alone: the interface to send to, or 0 and nothing changed. */
LB_API unsigned int lb_native_quick(struct lb_env *env, unsigned char *data, unsigned int length, unsigned short now)
{
	return lb_quick(env, data, data + length, now);
}

/* Parse alone; the reason. */
LB_API int lb_native_parse(const unsigned char *data, unsigned int length, unsigned int ifindex, void *view)
{
	lb_parse(data, data + length, ifindex, view);
	lb_parse_more(data, data + length, view);
	return ((struct lb_view *)view)->reason;
}

/* Decide alone, for a view made by hand. */
LB_API void lb_native_decide(struct lb_env *env, const void *view, unsigned short now, void *plan)
{
	struct lb_track track;

	lb_decide(env, view, now, &track, plan);
}

/* Is this flow to be ended: over, or of a backend or service that was removed? */
static int is_due(const struct lb_env *env, const struct lb_flow *flow, lb_u64 binding, lb_u16 now,
		  const unsigned char *backends, const unsigned char *services)
{
	lb_u32 backend = lb_binding_backend(binding), service = lb_client_service(LB_READ(flow->client));

	if (!backend || lb_flow_rank(lb_env_settings(env), binding, now) == LB_RANK_DEAD)
		return backend != 0;
	return lb_binding_usable(binding) && ((backends && backend < env->backends && backends[backend]) ||
					      (services && service < env->services && services[service]));
}

/* Frees one flow if it is due. A packet that comes in between makes it try again: an id must not outlive its flows. */
static unsigned int sweep_one(const struct lb_env *env, lb_u32 index, lb_u16 now, const unsigned char *backends,
			      const unsigned char *services)
{
	struct lb_flow *flow = lb_flow_at(env, index);

	for (int attempt = 0; flow && attempt < 16; attempt++) {
		lb_u64 binding = LB_READ(flow->binding);
		lb_u32 *word = lb_port_bound(env, lb_env_settings(env), binding);

		if (!word || !is_due(env, flow, binding, now, backends, services))
			return 0;
		if (lb_flow_end(&flow->binding, binding, word, index + 1, now))
			return 1;
	}
	return 0;
}

/*
 * Frees flows that are over in groups first..first+count-1, and those whose backend's or service's byte is set (one
 * for each id; null: none is). Returns how many.
 */
LB_API unsigned int lb_native_sweep(struct lb_env *env, unsigned int first, unsigned int count, unsigned short now,
				    const unsigned char *backends, const unsigned char *services)
{
	unsigned int freed = 0;

	for (lb_u32 i = first; lb_env_settings(env) && i < first + count; i++)
		for (lb_u32 way = 0; way < LB_FLOW_WAYS; way++)
			freed += sweep_one(env, i * LB_FLOW_WAYS + way, now, backends, services);
	return freed;
}

/* Marks every claim: how many. Then a grace period, then lb_native_end_claims (snat.h, lb_claim_doubt). */
LB_API unsigned int lb_native_doubt_claims(struct lb_env *env, unsigned short now)
{
	unsigned int marked = 0;
	struct lb_flow *flow;

	for (lb_u32 i = 0; (flow = lb_flow_at(env, i)); i++)
		marked += lb_claim_doubt(&flow->binding, now);
	return marked;
}

/* Ends the claims that still are marked, as their owners are no more: how many. */
LB_API unsigned int lb_native_end_claims(struct lb_env *env)
{
	const struct lb_settings *settings = lb_env_settings(env);
	unsigned int ended = 0;
	struct lb_flow *flow;

	for (lb_u32 i = 0; settings && (flow = lb_flow_at(env, i)); i++)
		ended += lb_claim_end(env, settings, &flow->binding, i);
	return ended;
}

/* The flow's state (enum lb_flow_state) and the seconds it has left, for flags and time as stored. */
LB_API int lb_native_flow_state(unsigned char flags)
{
	return lb_flow_state(flags);
}

LB_API unsigned char lb_native_flow_next(unsigned char flags, unsigned char direction, unsigned char tcp)
{
	return lb_flow_next(flags, direction, tcp);
}

LB_API unsigned long long lb_native_hash(struct lb_env *env, unsigned long long word)
{
	return lb_hash(lb_env_settings(env), word);
}

LB_API unsigned int lb_native_index_hash(const void *addr, unsigned short port, unsigned char protocol,
					 unsigned int seed)
{
	return lb_index_hash(addr, port, protocol, lb_index_factor(seed));
}

LB_API unsigned short lb_native_csum_update(unsigned short check, unsigned int old, unsigned int new)
{
	return lb_csum_update(check, lb_csum_change(old, new));
}

LB_API void lb_native_maglev(unsigned short *slots, unsigned int size, const unsigned short *ids,
			     const unsigned int *offsets, const unsigned int *skips, const unsigned int *weights,
			     unsigned int most, unsigned int *next, unsigned long long *due, unsigned int count)
{
	lb_maglev_fill(slots, size, ids, offsets, skips, weights, most, next, due, count);
}
