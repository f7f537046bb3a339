/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP driver: a frame in, the core's plan, a frame out. Runs on any CPU, keeps nothing of its own.
 */
#include "env_bpf.h"
#include "lb.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* 2^32 / HZ: turns jiffies into seconds with a multiplication. Reading jiffies is free, a clock costs 13 to 29 ns. */
const volatile lb_u64 lb_jiffy = (1ull << 32) / 250;

LB_INLINE lb_u16 lb_now(void)
{
	return (lb_u16)((bpf_jiffies64() * lb_jiffy) >> 32);
}

SEC("xdp")
int lb_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lb_env env = {.cpu = bpf_get_smp_processor_id()};
	const struct lb_settings *settings = lb_env_settings(&env);
	struct lb_view memory_of_view, *view = &memory_of_view;
	struct lb_plan memory_of_plan, *plan = &memory_of_plan;

	LB_IN_MEMORY(view);
	LB_IN_MEMORY(plan);
	lb_parse(data, end, ctx->ingress_ifindex, view);
	lb_decide(&env, view, lb_now(), plan);
	lb_account(&env, view, plan);
	if (LB_UNLIKELY(settings && settings->trace))
		lb_trace(&env, view, plan, bpf_ktime_get_ns());
	if (plan->verdict == LB_VERDICT_PASS)
		return XDP_PASS;
	if (plan->verdict == LB_VERDICT_DROP || !lb_apply(data, end, plan))
		return XDP_DROP;
	return plan->nexthop.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(plan->nexthop.ifindex, 0);
}

/* The datapath's seconds, for the control plane: run by BPF_PROG_TEST_RUN, never attached. */
SEC("xdp")
int lb_clock(struct xdp_md *ctx)
{
	return lb_now();
}
