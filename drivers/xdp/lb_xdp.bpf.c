/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP driver: a frame in, the core's plan, a frame out. Runs on any CPU, keeps nothing of its own.
 */
#include "env_bpf.h"
#include "lb.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Reading jiffies is free, a clock costs 13 to 29 ns. */
LB_INLINE lb_u16 lb_now(void)
{
	return (lb_u16)(LB_TIMES(bpf_jiffies64(), LB_SIZE_JIFFY) >> 32);
}

/*
 * Tells of the packet. It is parsed again, so that everybody else's view is half as long.
 */
LB_STEP int lb_xdp_trace(struct xdp_md *ctx, const struct lb_plan *plan)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lb_env env = {.cpu = bpf_get_smp_processor_id()};
	struct lb_view view;

	if (!plan)
		return 0;
	LB_IN_MEMORY(view);
	lb_parse(data, end, ctx->ingress_ifindex, &view);
	lb_parse_more(data, end, &view);
	lb_trace(&env, &view, plan, bpf_ktime_get_ns());
	return 0;
}

/* The long way works here and not on the stack, of which a whole chain of calls has 512 bytes. */
struct lb_desk {
	struct lb_view view;
	struct lb_plan plan;
	struct lb_track track;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, lb_u32);
	__type(value, struct lb_desk);
} desks SEC(".maps");

SEC("xdp")
int lb_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lb_env env = {.cpu = bpf_get_smp_processor_id()};
	lb_u16 now = lb_now();
	lb_u32 ifindex = lb_quick(&env, data, end, now), zero = 0;
	struct lb_desk *desk;
	struct lb_plan *plan;

	if (LB_LIKELY(ifindex))
		return ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(ifindex, 0);
	desk = bpf_map_lookup_elem(&desks, &zero);
	if (!desk)
		return XDP_PASS;
	plan = &desk->plan;
	lb_parse(data, end, ctx->ingress_ifindex, &desk->view);
	lb_decide(&env, &desk->view, now, &desk->track, plan);
	lb_account(&env, &desk->view, plan);
	if (LB_UNLIKELY(lb_env_settings(&env)->trace))
		lb_xdp_trace(ctx, plan);
	if (LB_UNLIKELY(plan->verdict == LB_VERDICT_PASS))
		return XDP_PASS;
	if (LB_UNLIKELY(plan->verdict == LB_VERDICT_DROP || !lb_apply(data, end, plan)))
		return XDP_DROP;
	return plan->nexthop.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(plan->nexthop.ifindex, 0);
}

/* The datapath's seconds, for the control plane: run by BPF_PROG_TEST_RUN, never attached. */
SEC("xdp")
int lb_clock(struct xdp_md *ctx)
{
	return lb_now();
}
