/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Both ends of tier T5 on the wire. t5_source, run by BPF_PROG_TEST_RUN with live frames, makes each one a segment of
 * the next of t5_flows flows and sends it out of an interface; t5_sink, attached to that interface, counts what comes back
 * and drops it. The checksums that do not fit are kept as they are by a balancer.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile lb_u32 t5_flows = 1;
const volatile lb_u32 t5_interface = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8);
	__type(key, lb_u32);
	__type(value, lb_u64);
} t5_counts SEC(".maps"); /* 0: sent, 1: came back, 2: flow that is next */

LB_INLINE lb_u64 *counter(lb_u32 which)
{
	return bpf_map_lookup_elem(&t5_counts, &which);
}

SEC("xdp")
int t5_source(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lb_ipv4 *ip = data + LB_ETH_BYTES;
	struct lb_tcp *tcp = (struct lb_tcp *)(ip + 1);
	lb_u64 *sent = counter(0), *next = counter(2);
	lb_u32 flow;

	if (!sent || !next || (void *)(tcp + 1) > end)
		return XDP_ABORTED;
	flow = (lb_u32)*next;
	*next = flow + 1 < t5_flows ? flow + 1 : 0;
	ip->src = LB_BE32(0x0a000001u + flow / 50000);
	tcp->sport = LB_BE16((lb_u16)(10000 + flow % 50000));
	(*sent)++;
	return bpf_redirect(t5_interface, 0);
}

/* On as many CPUs as there are queues; one writes at a time, or a few are lost from the count. */
SEC("xdp")
int t5_sink(struct xdp_md *ctx)
{
	lb_u64 *back = counter(1);

	if (back)
		__sync_fetch_and_add(back, 1);
	return XDP_DROP;
}
