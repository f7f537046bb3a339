/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The driver of `evener bench`, tier T1: run by BPF_PROG_TEST_RUN with repeat, it writes a fresh frame over what the
 * program under test made of the one before, and tail-calls that program. Plain repeat would show the program its own
 * output. What the driver itself costs is measured with t1_empty as the program, and subtracted.
 *
 * Frames are Ethernet, IPv4, TCP: state.frame, with addresses, ports and both checksums filled in. Client frames are
 * computed from the flow's number. Frames of backends are taken from `ends` in order, since only the program under
 * test knows its choices; the driver can write them down there (state.record) by looking at the program's output.
 *
 * The next frame is made while the program under test is at work on this one, as a network card would: a frame's
 * addresses are in memory before the program begins, and it does not wait for the driver's arithmetic. Not so in
 * serialised runs, where a flow is to be known only when the packet before is done.
 *
 * Fields are written by stores at least as wide as the loads of any program, so that no load has to wait for two.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "csum.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Flow n is client FIRST_CLIENT + a permutation of n's lower 24 bits: no two of 16 million are the same. */
#define T1_CLIENT_NET 0x0a000000u
#define T1_CLIENT_MASK 0x00ffffffu

enum {
	T1_FRAME = 60, /* bytes; 64 on the wire */
	T1_PORT_FIRST = 1024,
	T1_PORTS = 65536 - T1_PORT_FIRST, /* RFC 4814 section 4: 1024..65535, pseudo-random */
	T1_ENDS = 1 << 20,
};

enum t1_order { T1_SEQUENTIAL, T1_UNIFORM };

struct t1_frame {
	lb_u64 eth0;   /* bytes 0..7 */
	lb_u64 eth8;   /* 8..11 */
	lb_u64 type;   /* 12..13 */
	lb_u64 ip14;   /* 14..21 */
	lb_u64 ip22;   /* 22..23: time to live, protocol */
	lb_u64 dst;    /* 30..33 */
	lb_u64 port;   /* 36..37 */
	lb_u64 seq;    /* 38..45 */
	lb_u64 tcp;    /* 46..49: offset, flags, window */
	lb_u64 ip_sum; /* unfolded sums of what is the same in every frame */
	lb_u64 tcp_sum;
};

/* The changing part of a frame, as it lies in the frame; ports: source in the lower half. */
struct t1_ends {
	lb_be32 src;
	lb_be32 dst;
	lb_u32 ports;
	lb_u32 reserved;
};

/* A frame's changing part with its checksums. */
struct t1_ready {
	lb_u64 addresses; /* source in the lower half */
	lb_u32 ports;
	lb_u16 ip_check;
	lb_u16 tcp_check;
};

/* One record; all words of 64 bits, so that it needs no generated layout. */
struct t1_state {
	lb_u64 flows;	   /* uniform order: numbers are below this; from_ends: records in use */
	lb_u64 next;	   /* sequential order: the number of the next frame to be made */
	lb_u64 sent;	   /* the number of the next frame to be sent; its record in `ends` */
	lb_u64 random;	   /* state of the generator */
	lb_u64 order;	   /* enum t1_order */
	lb_u64 from_ends;  /* frames of backends: take both ends from `ends` */
	lb_u64 record;	   /* write the output of the frame before into `ends`, turned around */
	lb_u64 serialised; /* the next number depends on the bytes of the last output */
	lb_u64 made;	   /* `ready` holds the frame to be sent */
	struct t1_frame frame;
	struct t1_ready ready;
};

#define T1_MAP(name, kind, flags, record, entries)                                                                     \
	struct {                                                                                                       \
		__uint(type, kind);                                                                                    \
		__uint(map_flags, flags);                                                                              \
		__uint(max_entries, entries);                                                                          \
		__type(key, lb_u32);                                                                                   \
		__type(value, record);                                                                                 \
	} name SEC(".maps")

T1_MAP(driver, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, struct t1_state, 1);
T1_MAP(ends, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, struct t1_ends, T1_ENDS);
T1_MAP(targets, BPF_MAP_TYPE_PROG_ARRAY, 0, lb_u32, 1);

#define T1_AT(data, offset, type) (*(type *)((data) + (offset)))

/* The number of the next flow. `output`: bytes that the program wrote last. */
LB_INLINE lb_u32 t1_choose(struct t1_state *state, lb_u64 output)
{
	lb_u64 number = state->next;

	__asm__ volatile("%0 &= 0" : "+r"(output)); /* always 0, but only when the output is there */
	if (state->order == T1_SEQUENTIAL) {
		state->next = number + 1 + output;
		if (state->from_ends && state->next >= state->flows)
			state->next = 0;
	} else {
		/* D. Knuth's MMIX generator; its upper half, scaled */
		state->random = state->random * 6364136223846793005ull + 1442695040888963407ull + output;
		number = (state->random >> 32) * state->flows >> 32;
	}
	return (lb_u32)number;
}

/* A client's address and port: pseudo-random and different for each of 2^24 numbers. */
LB_INLINE struct t1_ends t1_client(const struct t1_frame *frame, lb_u32 number)
{
	lb_u32 mixed = number * 0x9e3779b1u, port;
	lb_u32 host = number & T1_CLIENT_MASK;

	host = host * 0x85ebcbu & T1_CLIENT_MASK;
	host ^= host >> 12;
	host = host * 0xb2ae35u & T1_CLIENT_MASK;
	mixed ^= mixed >> 15;
	mixed *= 0x85ebca77u;
	port = T1_PORT_FIRST + (lb_u32)((lb_u64)mixed * T1_PORTS >> 32);
	return (struct t1_ends){
		.src = LB_BE32(T1_CLIENT_NET | host),
		.dst = (lb_be32)frame->dst,
		.ports = (lb_u32)frame->port << 16 | LB_BE16(port),
	};
}

/* Makes the next frame's changing part. False if there is no such record in `ends`. */
LB_INLINE int t1_make(struct t1_state *state, lb_u64 output)
{
	lb_u32 number = t1_choose(state, output);
	struct t1_ends made, *scripted;
	lb_u64 sum;

	if (state->from_ends) {
		scripted = bpf_map_lookup_elem(&ends, &number);
		if (!scripted)
			return 0;
		made = *scripted;
	} else {
		made = t1_client(&state->frame, number);
	}
	sum = (lb_u64)made.src + made.dst;
	state->ready = (struct t1_ready){
		.addresses = made.src | (lb_u64)made.dst << 32,
		.ports = made.ports,
		.ip_check = ~lb_csum_fold(state->frame.ip_sum + sum),
		.tcp_check = ~lb_csum_fold(state->frame.tcp_sum + sum + made.ports),
	};
	return 1;
}

LB_INLINE void t1_write(lb_u8 *data, const struct t1_frame *frame, const struct t1_ready *ready)
{
	T1_AT(data, 0, lb_u64) = frame->eth0;
	T1_AT(data, 8, lb_u32) = (lb_u32)frame->eth8;
	T1_AT(data, 12, lb_u16) = (lb_u16)frame->type;
	T1_AT(data, 14, lb_u64) = frame->ip14;
	T1_AT(data, 22, lb_u32) = (lb_u32)frame->ip22 | (lb_u32)ready->ip_check << 16;
	T1_AT(data, 26, lb_u64) = ready->addresses;
	T1_AT(data, 34, lb_u32) = ready->ports;
	T1_AT(data, 38, lb_u64) = frame->seq;
	T1_AT(data, 46, lb_u32) = (lb_u32)frame->tcp;
	T1_AT(data, 50, lb_u32) = ready->tcp_check;
}

/* What the backend would answer to the frame that the program made of number `sent` - 1. */
LB_INLINE void t1_record(const lb_u8 *data, lb_u64 sent)
{
	lb_u32 key = (lb_u32)sent - 1, ports = T1_AT(data, 34, const lb_u32);
	struct t1_ends *answer = bpf_map_lookup_elem(&ends, &key);

	if (!answer)
		return;
	answer->src = T1_AT(data, 30, const lb_be32);
	answer->dst = T1_AT(data, 26, const lb_be32);
	answer->ports = ports >> 16 | ports << 16;
}

SEC("xdp")
int t1_driver(struct xdp_md *ctx)
{
	lb_u8 *data = (lb_u8 *)(long)ctx->data, *end = (lb_u8 *)(long)ctx->data_end;
	lb_u32 zero = 0;
	struct t1_state *state = bpf_map_lookup_elem(&driver, &zero);

	if (!state || data + T1_FRAME > end)
		return XDP_ABORTED;
	if (state->record)
		t1_record(data, state->sent);
	state->sent++;
	if (!state->made && !t1_make(state, T1_AT(data, 50, lb_u16)))
		return XDP_ABORTED;
	t1_write(data, &state->frame, &state->ready);
	state->made = !state->serialised;
	if (state->made && !t1_make(state, 0))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &targets, 0);
	return XDP_ABORTED;
}

/* The null target: what is measured with it is the driver's own cost and the kernel's loop. */
SEC("xdp")
int t1_empty(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* The least that any balancer can do: both MAC addresses exchanged. */
SEC("xdp")
int t1_reflect(struct xdp_md *ctx)
{
	lb_u16 *data = (lb_u16 *)(long)ctx->data, *end = (lb_u16 *)(long)ctx->data_end;

	if (data + 6 > end)
		return XDP_ABORTED;
	for (int i = 0; i < 3; i++) {
		lb_u16 word = data[i];

		data[i] = data[i + 3];
		data[i + 3] = word;
	}
	return XDP_TX;
}
