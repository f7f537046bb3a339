/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How many machine instructions a packet takes: bursts of segments of established flows, forward or reply, over tables
 * in memory. Run under callgrind, which counts inside t5_burst alone.
 *
 *	valgrind --tool=callgrind --toggle-collect=t5_burst t5_count forward|reply BURSTS
 */
#include "support.h"

#include "burst.h"
#include "packets.h"

__attribute__((noinline)) void t5_burst(const struct lb_env *env, lb_u8 *const data[], const lb_u32 length[],
					const struct lb_moment *moment, lb_u32 to[])
{
	lb_burst(env, data, length, LB_BURST, IFINDEX, moment, to);
}

/* A segment of a flow that both ends have agreed upon. */
static struct segment established(struct world *world, struct client client, int reply, lb_u16 now)
{
	struct lb_plan plan = client_sends(world, 0, client, LB_TCP_SYN, now);

	CHECK(plan.reason == LB_REASON_FORWARD_NEW, "a SYN met reason %d", plan.reason);
	backend_sends(world, 0, &plan, LB_TCP_SYN | LB_TCP_ACK, now);
	client_sends(world, 0, client, LB_TCP_ACK, now);
	if (reply)
		return (struct segment){.src = lb_addr_v4(&plan.dst),
					.sport = LB_BE16(plan.dport),
					.dst = lb_addr_v4(&plan.src),
					.dport = LB_BE16(plan.sport),
					.flags = LB_TCP_ACK};
	return (struct segment){.src = client.addr,
				.sport = client.port,
				.dst = vip_address(),
				.dport = SERVICE_PORT,
				.flags = LB_TCP_ACK};
}

int main(int count, char **arguments)
{
	const struct lb_moment moment = {.ns = 0, .now = 100};
	struct world *world =
		world_new((struct shape){.flow_groups = 1024, .port_tables = 4, .backends = 2, .snats = 2});
	struct frame fresh[LB_BURST], frames[LB_BURST];
	lb_u32 length[LB_BURST], to[LB_BURST];
	lb_u8 *data[LB_BURST];

	CHECK(count == 3, "usage: t5_count forward|reply BURSTS");
	for (lb_u32 i = 0; i < LB_BURST; i++) {
		struct client client = {address(10, 0, 0, 1), (lb_u16)(40000 + i)};
		struct segment segment = established(world, client, arguments[1][0] == 'r', moment.now);

		frame_build(&fresh[i], &segment);
	}
	for (int burst = 0; burst < atoi(arguments[2]); burst++) {
		for (lb_u32 i = 0; i < LB_BURST; i++) {
			frames[i] = fresh[i];
			data[i] = frame_bytes(&frames[i]);
			length[i] = frames[i].length;
		}
		t5_burst(&world->env[0], data, length, &moment, to);
		for (lb_u32 i = 0; i < LB_BURST; i++)
			CHECK(to[i] == IFINDEX, "packet %u went to %u", i, to[i]);
	}
	world_free(world);
	return 0;
}
