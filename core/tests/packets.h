/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames for the native tests: built, summed the plain way, sent through the core.
 */
#ifndef LB_TEST_PACKETS_H
#define LB_TEST_PACKETS_H

#include "support.h"

enum { FRAME_ROOM = 2048 };

/* In host order, but for the addresses. Options are counted in 32-bit words. */
struct segment {
	lb_be32 src, dst;
	lb_u16 sport, dport;
	lb_u32 seq, ack;
	lb_u8 flags;
	lb_u8 ttl; /* 0 stands for 64 */
	lb_u8 ip_options, tcp_options;
	lb_u16 payload;
};

/* Bytes are at 2 modulo 4, as drivers arrange, so that the IP header is aligned. */
struct frame {
	_Alignas(64) lb_u8 room[2 + FRAME_ROOM];
	lb_u32 length;
};

static inline lb_u8 *frame_bytes(struct frame *frame)
{
	return frame->room + 2;
}

/* RFC 1071 in its plainest form: 16-bit words in network order, end-around carry. Not folded from wider sums. */
static inline lb_u32 sum_add(lb_u32 sum, const lb_u8 *bytes, lb_u32 length)
{
	for (lb_u32 i = 0; i < length; i += 2) {
		sum += (lb_u32)bytes[i] << 8 | (i + 1 < length ? bytes[i + 1] : 0);
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return sum;
}

static inline lb_u32 sum_ipv4(const lb_u8 *frame)
{
	return sum_add(0, frame + LB_ETH_BYTES, (frame[LB_ETH_BYTES] & 15) * 4u);
}

/* Pseudo header and segment; the frame has been parsed before, so lengths are sound. */
static inline lb_u32 sum_tcp(const lb_u8 *frame)
{
	const lb_u8 *ip = frame + LB_ETH_BYTES;
	lb_u32 header = (ip[0] & 15) * 4u, segment = ((lb_u32)ip[2] << 8 | ip[3]) - header;
	lb_u8 pseudo[4] = {0, ip[9], (lb_u8)(segment >> 8), (lb_u8)segment};

	return sum_add(sum_add(sum_add(0, ip + 12, 8), pseudo, 4), ip + header, segment);
}

static inline int sums_right(const lb_u8 *frame)
{
	return sum_ipv4(frame) == 0xffff && sum_tcp(frame) == 0xffff;
}

static inline void frame_build(struct frame *frame, const struct segment *segment)
{
	lb_u32 ip_bytes = 20u + segment->ip_options * 4u, tcp_bytes = 20u + segment->tcp_options * 4u;
	struct lb_eth *eth = (struct lb_eth *)frame_bytes(frame);
	struct lb_ipv4 *ip = (struct lb_ipv4 *)(eth + 1);
	struct lb_tcp *tcp = (struct lb_tcp *)((lb_u8 *)ip + ip_bytes);

	frame->length = LB_ETH_BYTES + ip_bytes + tcp_bytes + segment->payload;
	CHECK(frame->length <= FRAME_ROOM, "a frame of %u bytes", frame->length);
	for (lb_u32 i = 0; i < frame->length; i++)
		frame_bytes(frame)[i] = (lb_u8)(i * 7);
	memset(ip + 1, 1, ip_bytes - 20); /* no-operation options */
	memset(tcp + 1, 1, tcp_bytes - 20);
	*eth = (struct lb_eth){.dst = {0xde, 0xad, 0xbe, 0xef, 0, 0x10}, .type = LB_BE16(LB_ETHERTYPE_IPV4)};
	*ip = (struct lb_ipv4){.version_ihl = (lb_u8)(0x40 | ip_bytes / 4),
			       .length = LB_BE16(frame->length - LB_ETH_BYTES),
			       .ttl = segment->ttl ? segment->ttl : 64,
			       .protocol = LB_PROTOCOL_TCP,
			       .src = segment->src,
			       .dst = segment->dst};
	ip->check = LB_BE16((lb_u16)~sum_ipv4((lb_u8 *)eth));
	*tcp = (struct lb_tcp){.sport = LB_BE16(segment->sport),
			       .dport = LB_BE16(segment->dport),
			       .seq = LB_BE32(segment->seq),
			       .ack = LB_BE32(segment->ack),
			       .offset = (lb_u8)(tcp_bytes / 4 << 4),
			       .flags = segment->flags,
			       .window = LB_BE16(512)};
	tcp->check = LB_BE16((lb_u16)~sum_tcp((lb_u8 *)eth));
}

/* What the quick way, which leaves no plan, has written into a frame. */
static inline struct lb_plan plan_written(const struct world *world, const struct segment *segment, struct frame *frame,
					  lb_u32 ifindex)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)(frame_bytes(frame) + LB_ETH_BYTES);
	const struct lb_tcp *tcp = (const struct lb_tcp *)(ip + 1);
	int reply = ip->src == vip_address() && tcp->sport == LB_BE16(SERVICE_PORT);
	struct lb_plan plan = {.sport = tcp->sport,
			       .dport = tcp->dport,
			       .nexthop.ifindex = ifindex,
			       .verdict = LB_VERDICT_FORWARD,
			       .reason = reply ? LB_REASON_REPLY : LB_REASON_FORWARD,
			       .direction = reply ? LB_DIRECTION_REPLY : LB_DIRECTION_FORWARD,
			       .service = SERVICE};

	lb_addr_set_v4(&plan.src, ip->src);
	lb_addr_set_v4(&plan.dst, ip->dst);
	for (lb_u16 id = 1; id <= world->shape.backends; id++)
		plan.backend = (reply ? segment->src : ip->dst) == backend_address(id) ? id : plan.backend;
	for (lb_u16 id = 1; id <= world->shape.snats; id++)
		plan.snat = (reply ? segment->dst : ip->src) == snat_address(id) ? id : plan.snat;
	return plan;
}

/* One segment through the whole pipeline, as drivers do it: what was planned. */
static inline struct lb_plan segment_pass(struct world *world, lb_u32 cpu, const struct segment *segment, lb_u16 now)
{
	struct lb_view view;
	struct lb_plan plan;
	struct frame frame;
	lb_u32 ifindex;

	frame_build(&frame, segment);
	ifindex = lb_native_quick(&world->env[cpu], frame_bytes(&frame), frame.length, now);
	if (ifindex)
		return plan_written(world, segment, &frame, ifindex);
	lb_native_packet(&world->env[cpu], frame_bytes(&frame), frame.length, IFINDEX, now, &view, &plan);
	return plan;
}

/* A client: what tells one from the other. Port in host order. */
struct client {
	lb_be32 addr;
	lb_u16 port;
};

static inline struct lb_plan client_sends(struct world *world, lb_u32 cpu, struct client client, lb_u8 flags,
					  lb_u16 now)
{
	struct segment segment = {
		.src = client.addr, .sport = client.port, .dst = vip_address(), .dport = SERVICE_PORT, .flags = flags};

	return segment_pass(world, cpu, &segment, now);
}

/* The answer of a backend to what the plan sent it. */
static inline struct lb_plan backend_sends(struct world *world, lb_u32 cpu, const struct lb_plan *sent, lb_u8 flags,
					   lb_u16 now)
{
	struct segment segment = {.src = backend_address(sent->backend),
				  .sport = SERVICE_PORT,
				  .dst = snat_address(sent->snat),
				  .dport = LB_BE16(sent->sport),
				  .flags = flags};

	return segment_pass(world, cpu, &segment, now);
}

static inline int forwarded(const struct lb_plan *plan)
{
	return plan->verdict == LB_VERDICT_FORWARD;
}

/* Does this reply go to that client? */
static inline int goes_to(const struct lb_plan *plan, struct client client)
{
	return forwarded(plan) && plan->direction == LB_DIRECTION_REPLY && lb_addr_v4(&plan->dst) == client.addr &&
	       LB_BE16(plan->dport) == client.port;
}

static inline int same_ends(const struct lb_plan *a, const struct lb_plan *b)
{
	return a->backend == b->backend && a->snat == b->snat && a->sport == b->sport;
}

/* SYN, SYN-ACK, ACK. The SYN's plan; the flow is established if that was forwarded. */
static inline struct lb_plan handshake(struct world *world, struct client client, lb_u16 now)
{
	struct lb_plan syn = client_sends(world, 0, client, LB_TCP_SYN, now), next;

	if (forwarded(&syn)) {
		next = backend_sends(world, 0, &syn, LB_TCP_SYN | LB_TCP_ACK, now);
		CHECK(goes_to(&next, client), "SYN-ACK: reason %d", next.reason);
		next = client_sends(world, 0, client, LB_TCP_ACK, now);
		CHECK(next.reason == LB_REASON_FORWARD && same_ends(&syn, &next), "ACK: reason %d", next.reason);
	}
	return syn;
}

#endif
