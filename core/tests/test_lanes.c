/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Two lanes of bursts as the DPDK driver runs them, a reader that lists flows, and the control plane: it sweeps, and
 * writes the copy of the configuration that nobody reads, after a grace period that it makes of the lanes' rounds.
 * Under the thread sanitizer.
 *
 * LB_READ acquires and LB_WRITE releases here, which to x86 are the same instructions. So a table that is read after
 * its copy was given up, or before it was complete, is a report; test_concurrent.c, where both are relaxed, reports
 * what is shared and not marked so. Nothing is suppressed. Not here, and torn or mixed up in the worst case, as is said
 * where they are written: counters that somebody reads (tables.h), wanted and learned addresses (lb_want, lb_learn),
 * and the trace ring (lb_trace), whose reader looks at an event's number before and after.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "types.h"

#undef LB_READ
#undef LB_WRITE
#define LB_READ(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define LB_WRITE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

#include "invariants.h"
#include "packets.h"

#include "burst.h"

enum {
	LANES = 2,
	TALKERS = 150, /* established from the beginning to the end */
	SECONDS = 2,
	SECONDS_MOST = 60, /* if little was done so far */
	BEGIN_S = 65000,
};

static struct world *world;
static struct {
	struct client client;
	struct lb_plan sent;
} talkers[TALKERS];
static lb_u32 clock_s, stop, lists;

static struct {
	_Alignas(64) lb_u64 rounds;
	lb_u64 random;
	lb_u64 talked, sent;
} lanes[LANES];

/* --- lanes -------------------------------------------------------------------------------------------------------- */

/* Which talker's the segment is; -1: of somebody who comes and goes. */
static int some_segment(lb_u64 *random, struct segment *segment)
{
	lb_u32 n = random_below(random, 5000), what = random_below(random, 20);
	static const lb_u8 flags[] = {LB_TCP_SYN, LB_TCP_SYN, LB_TCP_ACK, LB_TCP_ACK | LB_TCP_FIN, LB_TCP_RST};

	*segment = (struct segment){.src = address(10, 99, n >> 8, n & 255),
				    .sport = (lb_u16)(20000 + n % 60),
				    .dst = vip_address(),
				    .dport = SERVICE_PORT,
				    .flags = LB_TCP_ACK};
	if (what < 12) {
		n %= TALKERS;
		segment->src = talkers[n].client.addr;
		segment->sport = talkers[n].client.port;
		if (what < 6)
			return (int)n;
		segment->src = backend_address(talkers[n].sent.backend);
		segment->sport = SERVICE_PORT;
		segment->dst = snat_address(talkers[n].sent.snat);
		segment->dport = LB_BE16(talkers[n].sent.sport);
		return (int)n;
	}
	segment->flags = flags[what % 5];
	if (what == 12) { /* a reply to a port that somebody may have */
		segment->dport = segment->sport;
		segment->src = backend_address(1 + (n & 1));
		segment->sport = SERVICE_PORT;
	}
	return -1;
}

/* It went where its flow goes, whatever else was in the burst, on the other lane, or published meanwhile. */
static void check_talker(int n, const struct segment *segment, struct frame *frame, lb_u32 to)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)(frame_bytes(frame) + LB_ETH_BYTES);
	const struct lb_tcp *tcp = (const struct lb_tcp *)(ip + 1);
	const struct lb_plan *sent = &talkers[n].sent;

	CHECK(to == IFINDEX, "talker %d: to %u", n, to);
	if (segment->dst == vip_address() && segment->dport == SERVICE_PORT)
		CHECK(ip->src == lb_addr_v4(&sent->src) && tcp->sport == sent->sport &&
			      ip->dst == lb_addr_v4(&sent->dst) && tcp->dport == sent->dport,
		      "talker %d: from port %u instead of %u", n, LB_BE16(tcp->sport), LB_BE16(sent->sport));
	else
		CHECK(ip->src == vip_address() && tcp->sport == LB_BE16(SERVICE_PORT) &&
			      ip->dst == talkers[n].client.addr && tcp->dport == LB_BE16(talkers[n].client.port),
		      "the reply to talker %d: to %x, port %u", n, ip->dst, LB_BE16(tcp->dport));
}

static void *lane_main(void *argument)
{
	size_t lane = (size_t)argument;
	struct segment segment[LB_BURST];
	struct frame frame[LB_BURST];
	lb_u32 length[LB_BURST], to[LB_BURST];
	lb_u8 *data[LB_BURST];
	int talker[LB_BURST];

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		const struct lb_moment moment = {.now = (lb_u16)__atomic_load_n(&clock_s, __ATOMIC_ACQUIRE)};

		for (lb_u32 i = 0; i < LB_BURST; i++) {
			talker[i] = some_segment(&lanes[lane].random, &segment[i]);
			frame_build(&frame[i], &segment[i]);
			data[i] = frame_bytes(&frame[i]);
			length[i] = frame[i].length;
		}
		lb_burst(&world->env[lane], data, length, LB_BURST, IFINDEX, &moment, to);
		for (lb_u32 i = 0; i < LB_BURST; i++) {
			lanes[lane].sent += to[i] == IFINDEX;
			if (talker[i] < 0)
				continue;
			lanes[lane].talked++;
			check_talker(talker[i], &segment[i], &frame[i], to[i]);
		}
		__atomic_store_n(&lanes[lane].rounds, lanes[lane].rounds + 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* --- a reader ----------------------------------------------------------------------------------------------------- */

/* Lists all flows; the talkers are among them, each once, and with their own ends. */
static void *reader_main(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		lb_u32 seen[TALKERS] = {0};

		for (lb_u32 record = 0; record < world->shape.flow_groups * LB_FLOW_WAYS; record++) {
			struct lb_flow *flow = record_at(world, record);
			lb_u64 client = LB_READ(flow->client), binding = LB_READ(flow->binding);
			lb_u32 n;

			if (!lb_binding_usable(binding) || LB_READ(flow->client) != client)
				continue;
			for (n = 0; n < TALKERS; n++)
				if (client ==
				    lb_client_word(talkers[n].client.addr, LB_BE16(talkers[n].client.port), SERVICE))
					break;
			if (n == TALKERS)
				continue;
			CHECK(!seen[n]++, "talker %u has two flows", n);
			CHECK(lb_binding_backend(binding) == talkers[n].sent.backend &&
				      lb_binding_port(binding) == talkers[n].sent.sport &&
				      lb_binding_snat(binding) == talkers[n].sent.snat,
			      "the flow of talker %u: binding %llx", n, binding);
		}
		for (lb_u32 n = 0; n < TALKERS; n++)
			CHECK(seen[n], "talker %u has no flow", n);
		__atomic_add_fetch(&lists, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* --- the control plane -------------------------------------------------------------------------------------------- */

/* Every lane has ended the round that it is in. */
static void grace(void)
{
	lb_u64 rounds[LANES];

	for (lb_u32 lane = 0; lane < LANES; lane++)
		rounds[lane] = __atomic_load_n(&lanes[lane].rounds, __ATOMIC_SEQ_CST);
	for (lb_u32 lane = 0; lane < LANES; lane++)
		while (__atomic_load_n(&lanes[lane].rounds, __ATOMIC_SEQ_CST) == rounds[lane])
			sched_yield();
}

static lb_u32 control(lb_u32 *swept)
{
	struct timespec start, now;
	lb_u32 published = 0;
	lb_u64 random = 99;
	int enough;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		lb_u32 spare = !world->settings->active, backends = 1 + random_below(&random, 3);

		copy_fill(world, spare);
		slots_fill(world, spare, backends << 1);
		__atomic_exchange_n(&world->settings->active, spare, __ATOMIC_SEQ_CST);
		published++;
		grace();
		__atomic_store_n(&clock_s, clock_s + 1, __ATOMIC_RELEASE);
		*swept += lb_native_sweep(&world->env[LANES], 0, world->shape.flow_groups, (lb_u16)clock_s, NULL, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		enough = published > 50 && *swept > 100 && __atomic_load_n(&lists, __ATOMIC_RELAXED) > 50;
	} while (now.tv_sec < start.tv_sec + (enough ? SECONDS : SECONDS_MOST));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	return published;
}

int main(void)
{
	pthread_t threads[LANES], reader;
	lb_u64 talked = 0, sent = 0;
	lb_u32 published, swept = 0;

	world = world_new((struct shape){.flow_groups = 36, .port_tables = 2, .backends = 2, .snats = 1});
	world->settings->syn_s = 5;
	world->settings->closed_s = 5;
	world->settings->established_s = 32000;
	clock_s = BEGIN_S;
	for (lb_u32 n = 0; n < TALKERS; n++) {
		talkers[n].client = (struct client){address(10, 98, 0, n), (lb_u16)(20000 + n % 60)};
		talkers[n].sent = handshake(world, talkers[n].client, (lb_u16)clock_s);
		CHECK(forwarded(&talkers[n].sent), "talker %u was refused", n);
	}
	for (size_t lane = 0; lane < LANES; lane++) {
		lanes[lane].random = lane;
		CHECK(!pthread_create(&threads[lane], NULL, lane_main, (void *)lane), "no thread");
	}
	CHECK(!pthread_create(&reader, NULL, reader_main, NULL), "no thread");
	published = control(&swept);
	for (size_t lane = 0; lane < LANES; lane++) {
		pthread_join(threads[lane], NULL);
		talked += lanes[lane].talked;
		sent += lanes[lane].sent;
	}
	pthread_join(reader, NULL);
	world_check_strictly(world);
	printf("  %llu packets of %u talkers went where they belong, %llu were sent on in all; %u configurations, %u "
	       "swept, %u lists\n",
	       talked, TALKERS, sent, published, swept, lists);
	CHECK(sent > talked && published > 50 && swept > 100 && lists > 50, "little was done");
	world_free(world);
	return 0;
}
