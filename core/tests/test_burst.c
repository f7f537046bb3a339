/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A burst is the same as its packets one after the other, by the long way alone: two worlds get the same packets,
 * and afterwards every frame, where it goes, and all tables are the same.
 *
 * Few clients, few ports and a small table: so that packets of one burst are of the same flow, that one of them
 * opens, establishes or ends what the next one is of, and that flows make room. Every frame is a heap block of just
 * its length; in one world its headers are aligned, in the other they are not, as with DPDK.
 */
#include "invariants.h"
#include "packets.h"

#include "burst.h"

enum {
	BURSTS = 60000,
	TALKS = 64,
	SERVICES = 2,
	COMPARED_EVERY = 16, /* bursts; ports and counters are many */
};

/* The two ends of a flow that a forwarded frame has shown. */
struct talk {
	struct client client;
	lb_be32 snat, backend;
	lb_u16 port, service_port;
};

/* A frame in each of the two worlds. */
struct twin {
	lb_u8 *one, *other; /* blocks */
	lb_u32 length;
};

static struct world *by_burst, *one_by_one;
static struct talk talks[TALKS];
static lb_u32 talks_count;
static lb_u64 chance = 1;

/* --- packets ------------------------------------------------------------------------------------------------------ */

static lb_u8 some_flags(void)
{
	static const lb_u8 all[] = {LB_TCP_SYN, LB_TCP_SYN | LB_TCP_ACK, LB_TCP_ACK | LB_TCP_FIN,
				    LB_TCP_RST, LB_TCP_SYN | LB_TCP_FIN, 0};

	return random_below(&chance, 3) ? LB_TCP_ACK : all[random_below(&chance, 6)];
}

static struct segment some_segment(void)
{
	struct segment segment = {.src = address(10, 0, 0, random_below(&chance, 4)),
				  .sport = (lb_u16)(40000 + random_below(&chance, 12)),
				  .dst = vip_address(),
				  .dport = service_port(SERVICE + random_below(&chance, SERVICES)),
				  .flags = some_flags(),
				  .seq = (lb_u32)random_next(&chance),
				  .payload = (lb_u16)random_below(&chance, 30)};
	lb_u32 what = random_below(&chance, 20);

	if (what < 14 && talks_count) {
		const struct talk *talk = &talks[random_below(&chance, talks_count)];

		segment.src = talk->client.addr;
		segment.sport = talk->client.port;
		segment.dport = talk->service_port;
		if (what < 7) {
			segment.src = talk->backend;
			segment.sport = SERVICE_PORT;
			segment.dst = talk->snat;
			segment.dport = talk->port;
		}
	} else if (what == 14) {
		segment.dport = (lb_u16)random_next(&chance);
	} else if (what == 15) {
		segment.src = backend_address(1 + random_below(&chance, 2));
		segment.dst = snat_address(1 + random_below(&chance, 2));
	} else if (what == 16) {
		segment.src = address(192, 0, 2, random_below(&chance, 4)); /* answered where it came from */
		segment.flags = LB_TCP_SYN;
	}
	switch (random_below(&chance, 30)) {
	case 0:
		segment.ttl = 1;
		break;
	case 1:
		segment.ip_options = (lb_u8)random_below(&chance, 11);
		break;
	case 2:
		segment.tcp_options = (lb_u8)random_below(&chance, 11);
		break;
	}
	return segment;
}

/* Well-formed more often than not. */
static struct twin some_twin(void)
{
	struct segment segment = some_segment();
	struct frame frame;
	struct twin twin;

	frame_build(&frame, &segment);
	if (!random_below(&chance, 12))
		for (lb_u32 n = random_below(&chance, 4); n; n--)
			frame_bytes(&frame)[random_below(&chance, frame.length)] ^= (lb_u8)random_next(&chance);
	if (!random_below(&chance, 40))
		frame.length = random_below(&chance, frame.length);
	twin = (struct twin){malloc(frame.length), malloc(2 + (size_t)frame.length), frame.length};
	CHECK(twin.one && twin.other, "out of memory");
	memcpy(twin.one, frame_bytes(&frame), frame.length);
	memcpy(twin.other + 2, frame_bytes(&frame), frame.length);
	return twin;
}

/* What a frame to a backend shows; its client is that of the frame that it was made of. */
static void remember(const lb_u8 *before, const lb_u8 *after)
{
	const struct lb_ipv4 *was = (const struct lb_ipv4 *)(before + LB_ETH_BYTES);
	const struct lb_ipv4 *is = (const struct lb_ipv4 *)(after + LB_ETH_BYTES);
	const struct lb_tcp *from, *to;
	struct talk *talk;

	if (was->dst != vip_address() || (is->dst != backend_address(1) && is->dst != backend_address(2)))
		return;
	from = (const struct lb_tcp *)((const lb_u8 *)was + (was->version_ihl & 15) * 4);
	to = (const struct lb_tcp *)((const lb_u8 *)is + (is->version_ihl & 15) * 4);
	if (from->dport != LB_BE16(service_port(SERVICE)) && from->dport != LB_BE16(service_port(SERVICE + 1)))
		return;
	talk = &talks[talks_count < TALKS ? talks_count++ : random_below(&chance, TALKS)];
	*talk = (struct talk){
		{was->src, LB_BE16(from->sport)}, is->src, is->dst, LB_BE16(to->sport), LB_BE16(from->dport)};
}

/* --- two worlds --------------------------------------------------------------------------------------------------- */

static void same(const char *what, lb_u32 burst, const void *a, const void *b, size_t bytes)
{
	CHECK(!memcmp(a, b, bytes), "burst %u: %s differ", burst, what);
}

static void compare(lb_u32 burst)
{
	const struct lb_env *a = &by_burst->env[0], *b = &one_by_one->env[0];

	same("flows", burst, a->flows, b->flows, a->flow_groups * sizeof(struct lb_flow_group));
	if (burst % COMPARED_EVERY)
		return;
	same("ports", burst, a->ports, b->ports, a->port_lines * sizeof(struct lb_port_line));
	same("locks", burst, a->locks, b->locks, LB_LOCKS * sizeof(lb_u64));
	same("counters of services", burst, a->service_counters, b->service_counters,
	     a->services * sizeof(struct lb_counter));
	same("counters of backends", burst, a->backend_counters, b->backend_counters,
	     a->backends * sizeof(struct lb_counter));
	same("counters of reasons", burst, a->reason_counters, b->reason_counters, LB_REASON_ROW * sizeof(lb_u64));
	same("wanted addresses", burst, a->wanted, b->wanted, LB_WANTED_RECORDS * sizeof(struct lb_wanted));
	same("learned addresses", burst, a->learned, b->learned, LB_LEARNED_RECORDS * sizeof(struct lb_learned));
}

/* Backend 1 cannot be reached, or can be again; backend 2 is gone, or is back. */
static void turn_backend(struct world *world, lb_u32 id)
{
	struct lb_backend *backend = lb_env_backend(&world->env[0], world->settings->active, id);

	if (id == 1)
		backend->nexthop.ifindex ^= IFINDEX;
	else
		backend->state ^= LB_BACKEND_USABLE ^ LB_BACKEND_GONE;
}

/* Between bursts: time, a sweep, another configuration, other backends, or that packets are traced. */
static lb_u16 happen(lb_u16 now)
{
	struct world *both[] = {by_burst, one_by_one};
	lb_u32 what = random_below(&chance, 30), freed[2] = {0};

	for (int i = 0; i < 2; i++) {
		if (what == 0)
			freed[i] = lb_native_sweep(&both[i]->env[0], 0, both[i]->shape.flow_groups, now, NULL, NULL);
		else if (what == 1)
			both[i]->settings->active ^= 1;
		else if (what == 2)
			both[i]->settings->trace ^= 1;
		else if (what == 10 || what == 11)
			turn_backend(both[i], what - 9);
	}
	CHECK(freed[0] == freed[1], "%u and %u flows swept", freed[0], freed[1]);
	return (lb_u16)(what == 3 ? now + random_below(&chance, 70) : what < 10 ? now + 1 : now);
}

/* How many packets were sent on. */
static lb_u32 run_burst(lb_u32 burst, lb_u16 now)
{
	const struct lb_moment moment = {.now = now};
	lb_u32 count = random_below(&chance, 2) ? LB_BURST : 1 + random_below(&chance, LB_BURST), sent = 0;
	lb_u32 length[LB_BURST], to[LB_BURST];
	struct twin twin[LB_BURST];
	lb_u8 *data[LB_BURST];

	for (lb_u32 i = 0; i < count; i++) {
		twin[i] = some_twin();
		data[i] = twin[i].one;
		length[i] = twin[i].length;
	}
	lb_burst(&by_burst->env[0], data, length, count, IFINDEX, &moment, to);
	for (lb_u32 i = 0; i < count; i++) {
		lb_u8 *before = malloc(length[i]), *other = twin[i].other + 2;
		lb_u32 where;

		CHECK(before, "out of memory");
		memcpy(before, other, length[i]);
		where = lb_long(&one_by_one->env[0], other, length[i], IFINDEX, &moment);
		CHECK(where == to[i], "burst %u, packet %u: to %u by burst, %u by itself", burst, i, to[i], where);
		CHECK(!memcmp(data[i], other, length[i]), "burst %u, packet %u: another frame", burst, i);
		if (where != LB_TO_NOBODY && where != LB_TO_KERNEL) {
			sent++;
			remember(before, other);
		}
		free(before);
		free(twin[i].one);
		free(twin[i].other);
	}
	return sent;
}

int main(void)
{
	const struct shape shape = {
		.flow_groups = 3, .port_tables = 1, .backends = 2, .snats = 2, .services = SERVICES};
	lb_u64 sent = 0, opened;
	lb_u16 now = 65000;

	by_burst = world_new(shape);
	one_by_one = world_new(shape);
	slots_fill(by_burst, 1, 1 << 2);
	slots_fill(one_by_one, 1, 1 << 2);
	for (lb_u32 burst = 0; burst < BURSTS; burst++) {
		sent += run_burst(burst, now);
		compare(burst);
		now = happen(now);
	}
	compare(0);
	world_check_strictly(by_burst);
	opened = *lb_env_reason_counter(&by_burst->env[0], LB_REASON_FORWARD_NEW);
	printf("  %u bursts, %llu packets sent on, %llu flows opened: as one by one\n", BURSTS, sent, opened);
	CHECK(opened > BURSTS / 10 && sent > 5 * opened, "little was done");
	world_free(by_burst);
	world_free(one_by_one);
	return 0;
}
