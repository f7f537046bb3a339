/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What tests of evener.datapath.bpf load: one of each kind of map, programs that are easy to predict. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u8 before = 1;
const volatile __u32 answer = 2; /* XDP_PASS */
const volatile __u64 wide = 0;

__u64 runs;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct { __u32 word[3]; });
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} per_cpu SEC(".maps");

/* Copies word 0 of entry 1 to word 1, adds one byte in front, returns the constant. */
SEC("xdp")
int sample(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u32 *words = bpf_map_lookup_elem(&shared, &key);

	__sync_fetch_and_add(&runs, 1);
	if (words)
		words[1] = words[0];
	bpf_xdp_adjust_head(ctx, -4);
	return (int)answer;
}

SEC("xdp")
int arrived_at(struct xdp_md *ctx)
{
	return (int)ctx->ingress_ifindex;
}

SEC("xdp")
int sample_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* The verifier refuses it: no bounds check. Loaded only by the test of the error. */
SEC("?xdp")
int careless(struct xdp_md *ctx)
{
	return *(volatile __u8 *)(long)ctx->data;
}
