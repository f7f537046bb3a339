/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table and the port tables under pressure: nobody who is established makes room, no two clients share a
 * port, a port rests after use.
 *
 * The table is sized as the control plane sizes it for FLOWS flows (groups_for): FLOWS fill 55 of 100 records.
 */
#include "invariants.h"
#include "packets.h"

enum { FLOWS = 65536 };

struct kept {
	struct client client;
	struct lb_plan sent;
};

static struct kept *kept;
static lb_u32 kept_count;

/* Client number n, all different; ports are spread over Linux clients' own range. */
static struct client client_number(lb_u32 n)
{
	return (struct client){address(10, 64 + (n >> 16), n >> 8 & 255, n & 255),
			       (lb_u16)(32768 + n * 7919ull % 28232)};
}

/* Establishes flows of clients first..first+count-1 and keeps account of them; how many were refused. */
static lb_u32 establish(struct world *world, lb_u32 first, lb_u32 count, lb_u16 now)
{
	lb_u32 refused = 0;

	for (lb_u32 n = first; n < first + count; n++) {
		struct client client = client_number(n);
		struct lb_plan sent = handshake(world, client, now);

		if (forwarded(&sent))
			kept[kept_count++] = (struct kept){client, sent};
		else
			refused++;
	}
	return refused;
}

/* Every kept flow still goes where it went, in both directions. */
static void check_kept(struct world *world, lb_u16 now)
{
	for (lb_u32 i = 0; i < kept_count; i++) {
		struct lb_plan there = client_sends(world, 0, kept[i].client, LB_TCP_ACK, now);
		struct lb_plan back = backend_sends(world, 0, &kept[i].sent, LB_TCP_ACK, now);

		CHECK(there.reason == LB_REASON_FORWARD && same_ends(&there, &kept[i].sent), "flow %u of %u: reason %d",
		      i, kept_count, there.reason);
		CHECK(goes_to(&back, kept[i].client), "the reply of flow %u: reason %d", i, back.reason);
	}
}

static lb_u64 counted(const struct world *world, enum lb_reason reason)
{
	return *lb_env_reason_counter(&world->env[0], reason);
}

static void test_full(void)
{
	struct world *world = world_new(
		(struct shape){.flow_groups = groups_for(FLOWS), .port_tables = 4, .backends = 4, .snats = 1});
	lb_u32 records = groups_for(FLOWS) * LB_FLOW_WAYS, refused, beyond;

	kept_count = 0;
	refused = establish(world, 0, FLOWS, 100);
	check_kept(world, 101);
	printf("  %u flows in a table for %u: %u refused\n", kept_count, FLOWS, refused);
	CHECK(refused <= FLOWS / 1000, "%u of %u refused at the nominal size", refused, FLOWS);

	beyond = establish(world, FLOWS, 2 * FLOWS, 102);
	check_kept(world, 103);
	printf("  %u more clients: %u refused, %u of %u records in use\n", 2 * FLOWS, beyond, kept_count, records);
	CHECK(counted(world, LB_REASON_FLOW_TABLE_FULL) == refused + beyond, "all for want of a record");
	CHECK(kept_count > records * 9 / 10, "%u of %u records used", kept_count, records);
	CHECK(world_check_strictly(world).state[LB_STATE_ESTABLISHED] == kept_count, "who was refused left nothing");
	world_free(world);
}

/* SYNs that nobody answers, ten for each flow that the table is made for. */
static void test_flood(lb_u32 established)
{
	struct world *world = world_new(
		(struct shape){.flow_groups = groups_for(FLOWS), .port_tables = 4, .backends = 4, .snats = 1});
	lb_u64 admitted = 0;
	lb_u32 late = 0;

	kept_count = 0;
	establish(world, 0, established, 65530);
	established = kept_count;
	for (lb_u32 n = 0; n < 10 * FLOWS; n++) {
		lb_u16 now = (lb_u16)(65530 + n / (FLOWS / 2)); /* 20 seconds, across the wrap */
		struct lb_plan plan = client_sends(world, 0, client_number(FLOWS + n), LB_TCP_SYN, now);

		admitted += forwarded(&plan);
	}
	check_kept(world, (lb_u16)(65530 + 21));
	/* Those who come during the flood and answer at once are let in as well. */
	late = 1000 - establish(world, 20 * FLOWS, 1000, (lb_u16)(65530 + 21));
	check_kept(world, (lb_u16)(65530 + 22));
	printf("  flood of %u SYNs over %u established flows: 0 lost, %llu SYNs admitted, then %u of 1000 handshakes\n",
	       10 * FLOWS, established, admitted, late);
	CHECK(late >= 900, "%u of 1000 handshakes after the flood", late);
	CHECK(world_check_strictly(world).state[LB_STATE_ESTABLISHED] == kept_count, "established flows are all there");
	world_free(world);
}

/* One of a few clients, who share few ports, does one of the things that clients, backends and operators do. */
static void random_step(struct world *world, struct kept *some, lb_u32 clients, lb_u64 *random, lb_u16 *now)
{
	static const lb_u8 flags[] = {LB_TCP_SYN, LB_TCP_ACK, LB_TCP_ACK, LB_TCP_ACK | LB_TCP_FIN, LB_TCP_RST};
	struct kept *one = &some[random_below(random, clients)];
	lb_u32 what = random_below(random, 1000);
	struct lb_plan plan;

	if (what < 2) {
		world_publish(world, random_below(random, 1u << (world->shape.backends + 1)));
	} else if (what < 4) {
		lb_u8 removed[32] = {0};
		lb_u32 id = 1 + random_below(random, world->shape.backends);

		removed[id] = lb_env_backend(&world->env[0], world->settings->active, id)->state == LB_BACKEND_GONE;
		lb_native_sweep(&world->env[0], 0, world->shape.flow_groups, *now, removed, NULL);
	} else if (what < 60) {
		*now += (lb_u16)(1 + random_below(random, what < 10 ? 100 : 3));
	} else if (what < 300) {
		handshake(world, one->client, *now);
	} else if (what < 700) {
		plan = client_sends(world, 0, one->client, flags[random_below(random, sizeof(flags))], *now);
		one->sent = forwarded(&plan) ? plan : one->sent;
	} else if (one->sent.backend) {
		plan = backend_sends(world, 0, &one->sent, flags[1 + random_below(random, sizeof(flags) - 1)], *now);
		CHECK(!forwarded(&plan) || plan.direction == LB_DIRECTION_REPLY, "a reply is a reply");
	}
}

/* handshake() CHECKs that what it opened is its client's; here the tables are looked at all the while as well. */
static void test_random(struct shape shape, lb_u32 clients, lb_u32 ports, lb_u16 local_first, lb_u64 seed)
{
	struct world *world = world_new(shape);
	struct kept *some = calloc(clients, sizeof(*some));
	lb_u64 random = seed;
	lb_u16 now = (lb_u16)(seed * 32749);

	CHECK(some, "out of memory");
	world->settings->local_first = local_first;
	for (lb_u32 i = 0; i < clients; i++)
		some[i].client = (struct client){address(10, 9, 0, i), (lb_u16)(1024 + i % ports)};
	for (lb_u32 step = 0; step < 20000; step++) {
		random_step(world, some, clients, &random, &now);
		if (step % 200 == 0)
			world_check_strictly(world);
	}
	world_check_strictly(world);
	free(some);
	world_free(world);
}

static void test_streams(void)
{
	static const struct shape shapes[] = {
		{.flow_groups = 8, .port_tables = 2, .backends = 2, .snats = 1},
		{.flow_groups = 2,
		 .port_tables = 1,
		 .backends = 3,
		 .snats = 2}, /* pairs share a table; too few records */
		{.flow_groups = 1, .port_tables = 4, .backends = 2, .snats = 3},
	};

	for (lb_u64 seed = 1; seed <= 4; seed++) {
		for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
			test_random(shapes[i], 60, 5, LOCAL_FIRST, seed);
			test_random(shapes[i], 60, 5, 1024 + 20, seed + 100); /* twenty ports in all */
		}
	}
}

int main(void)
{
	kept = calloc(4 * FLOWS, sizeof(*kept));
	CHECK(kept, "out of memory");
	test_full();
	test_flood(FLOWS / 2);
	test_flood(FLOWS);
	test_streams();
	free(kept);
	return 0;
}
