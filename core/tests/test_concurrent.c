/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets on several real threads at once, under the thread sanitizer.
 *
 * The core's LB_READ and LB_WRITE are volatile accesses, which the sanitizer takes for races, as BPF has no other
 * word for them. Here they are relaxed atomics, to x86 the same instructions; so every report that remains is of an
 * access that the core does not mark as shared, and there is none to suppress. Not covered: what the core learns of
 * next hops (clients here lie behind a route) and the trace ring (one CPU each).
 *
 * What test_interleave.c cannot show: the processor's own order of loads and stores, and two CPUs truly at once.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "types.h"

#undef LB_READ
#undef LB_WRITE
#define LB_READ(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define LB_WRITE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)

#include "invariants.h"
#include "packets.h"

enum {
	THREADS = 3,
	ROUNDS = 20000,
	CALLERS = 400, /* clients that open, talk and close */
	PORTS = 60,    /* which share these source ports */
	SECONDS = 3,
};

static struct world *world;

/* --- one SYN, two CPUs -------------------------------------------------------------------------------------------- */

static lb_u32 arrived;
static struct lb_plan answers[2];
static lb_u32 busy[2];

/* Both wait for each other by spinning, so that they leave at the same moment. */
static void meet(lb_u32 meeting)
{
	__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
	for (lb_u32 spins = 1; __atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < 2 * meeting; spins++)
		if (spins % 1000 == 0)
			sched_yield();
}

static struct client twin(lb_u32 round)
{
	return (struct client){address(10, 77, round >> 8, round & 255), (lb_u16)(40000 + round % 50)};
}

static void *twin_main(void *argument)
{
	lb_u32 cpu = (lb_u32)(size_t)argument;

	for (lb_u32 round = 0; round < ROUNDS; round++) {
		struct lb_plan plan;

		meet(2 * round + 1);
		/* A CPU that lost its processor while it held the lock: the client's next SYN, then. */
		while (plan = client_sends(world, cpu, twin(round), LB_TCP_SYN, 100),
		       plan.reason == LB_REASON_FLOW_BUSY)
			busy[cpu]++;
		answers[cpu] = plan;
		meet(2 * round + 2);
		CHECK(forwarded(&plan) && same_ends(&answers[0], &answers[1]),
		      "round %u: reasons %d and %d, ports %u and %u", round, answers[0].reason, answers[1].reason,
		      LB_BE16(answers[0].sport), LB_BE16(answers[1].sport));
		CHECK((answers[0].reason == LB_REASON_FORWARD_NEW) + (answers[1].reason == LB_REASON_FORWARD_NEW) == 1,
		      "round %u: one of them opened the flow", round);
	}
	return NULL;
}

static void test_same_syn(void)
{
	pthread_t threads[2];
	struct census census;

	world = world_new(
		(struct shape){.flow_groups = groups_for(2 * ROUNDS), .port_tables = 2, .backends = 2, .snats = 1});
	for (size_t i = 0; i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, twin_main, (void *)i), "no thread");
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	census = world_check_strictly(world);
	CHECK(census.bound == ROUNDS, "%u flows for %u clients", census.bound, ROUNDS);
	printf("  %u SYNs on two CPUs at once: one flow and one port each; %u times busy\n", ROUNDS, busy[0] + busy[1]);
	world_free(world);
}

/* --- everybody talks ---------------------------------------------------------------------------------------------- */

/* Who has the lock for writing opens and closes; those who read it talk, on any CPU, also at once. */
struct caller {
	pthread_rwlock_t lock;
	struct client client;
	struct lb_plan sent;
	int talking;
};

static struct caller callers[CALLERS];
static lb_u32 clock_s, stop;

/* One for each thread: the second in which it handles a packet. */
static struct {
	_Alignas(64) lb_u32 now;
	lb_u64 random;
	lb_u64 packets, opened, closed, evicted, refused;
} cpus[THREADS];

/* Called before each packet: the clock waits until everybody has come here, so that no packet sees it move twice. */
static lb_u16 now_on(lb_u32 cpu)
{
	lb_u32 now = __atomic_load_n(&clock_s, __ATOMIC_ACQUIRE);

	__atomic_store_n(&cpus[cpu].now, now, __ATOMIC_RELEASE);
	cpus[cpu].packets++;
	return (lb_u16)now;
}

/* Both directions of an established flow: its own ends, its own client, whatever the others do. */
static void talk(lb_u32 cpu, const struct caller *caller)
{
	struct lb_plan plan = client_sends(world, cpu, caller->client, LB_TCP_ACK, now_on(cpu));

	CHECK(plan.reason == LB_REASON_FORWARD && same_ends(&plan, &caller->sent), "reason %d, port %u instead of %u",
	      plan.reason, LB_BE16(plan.sport), LB_BE16(caller->sent.sport));
	plan = backend_sends(world, cpu, &caller->sent, LB_TCP_ACK, now_on(cpu));
	CHECK(goes_to(&plan, caller->client), "the reply to port %u: reason %d, to port %u",
	      LB_BE16(caller->sent.sport), plan.reason, LB_BE16(plan.dport));
}

/* Until it is established a flow may have to make room. */
static void open_flow(lb_u32 cpu, struct caller *caller)
{
	struct lb_plan syn = client_sends(world, cpu, caller->client, LB_TCP_SYN, now_on(cpu)), plan;

	if (!forwarded(&syn)) {
		cpus[cpu].refused++;
		return;
	}
	plan = backend_sends(world, cpu, &syn, LB_TCP_SYN | LB_TCP_ACK, now_on(cpu));
	if (goes_to(&plan, caller->client))
		plan = client_sends(world, cpu, caller->client, LB_TCP_ACK, now_on(cpu));
	if (plan.reason != LB_REASON_FORWARD || !(plan.flow_flags & LB_FLOW_ESTABLISHED)) {
		cpus[cpu].evicted++;
		return;
	}
	CHECK(same_ends(&plan, &syn), "established with port %u, opened with %u", LB_BE16(plan.sport),
	      LB_BE16(syn.sport));
	caller->sent = syn;
	caller->talking = 1;
	cpus[cpu].opened++;
}

static void close_flow(lb_u32 cpu, struct caller *caller)
{
	if (random_below(&cpus[cpu].random, 2)) {
		client_sends(world, cpu, caller->client, LB_TCP_RST, now_on(cpu));
	} else {
		client_sends(world, cpu, caller->client, LB_TCP_FIN | LB_TCP_ACK, now_on(cpu));
		backend_sends(world, cpu, &caller->sent, LB_TCP_FIN | LB_TCP_ACK, now_on(cpu));
	}
	caller->talking = 0;
	cpus[cpu].closed++;
}

/* SYNs of clients that nobody will see again, from the callers' ports, and replies to anywhere. */
static void disturb(lb_u32 cpu)
{
	lb_u64 *random = &cpus[cpu].random;
	lb_u32 n = random_below(random, 5000);
	struct client client = {address(10, 99, n >> 8, n & 255), (lb_u16)(20000 + n % PORTS)};
	struct lb_plan anywhere = {.backend = (lb_u16)(1 + (n & 1)), .snat = 1, .sport = LB_BE16(client.port)};

	if (random_below(random, 4))
		client_sends(world, cpu, client, random_below(random, 8) ? LB_TCP_SYN : LB_TCP_RST, now_on(cpu));
	else
		backend_sends(world, cpu, &anywhere, LB_TCP_ACK, now_on(cpu));
}

static void *caller_main(void *argument)
{
	lb_u32 cpu = (lb_u32)(size_t)argument;
	lb_u64 *random = &cpus[cpu].random;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		struct caller *caller = &callers[random_below(random, CALLERS)];
		lb_u32 what = random_below(random, 10);

		if (what < 4) {
			disturb(cpu);
		} else if (what < 8 && !pthread_rwlock_tryrdlock(&caller->lock)) {
			if (caller->talking)
				talk(cpu, caller);
			pthread_rwlock_unlock(&caller->lock);
		} else if (what >= 8 && !pthread_rwlock_trywrlock(&caller->lock)) {
			if (caller->talking)
				close_flow(cpu, caller);
			else
				open_flow(cpu, caller);
			pthread_rwlock_unlock(&caller->lock);
		}
	}
	return NULL;
}

static int all_caught_up(void)
{
	for (lb_u32 cpu = 0; cpu < THREADS; cpu++)
		if (__atomic_load_n(&cpus[cpu].now, __ATOMIC_ACQUIRE) != clock_s)
			return 0;
	return 1;
}

/* The control plane meanwhile: sweeps, publishes, and time goes by. */
static lb_u32 control(void)
{
	struct timespec start, now, pause = {.tv_nsec = 200000};
	lb_u64 random = 99;
	lb_u32 swept = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		lb_u32 group = random_below(&random, world->shape.flow_groups);

		swept += lb_native_sweep(&world->env[0], group, 4, (lb_u16)clock_s, NULL, NULL);
		if (!random_below(&random, 50))
			__atomic_store_n(&world->settings->active, !world->settings->active, __ATOMIC_RELEASE);
		if (all_caught_up())
			__atomic_store_n(&clock_s, clock_s + 1, __ATOMIC_RELEASE);
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < start.tv_sec + SECONDS);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	return swept;
}

static void test_everybody(void)
{
	lb_u64 packets = 0, opened = 0, closed = 0, evicted = 0, refused = 0;
	pthread_t threads[THREADS];
	lb_u32 swept, talking = 0;

	world = world_new((struct shape){.flow_groups = 36, .port_tables = 2, .backends = 2, .snats = 1});
	world->settings->syn_s = 5;
	world->settings->closed_s = 5;
	world->settings->established_s = 32000;
	slots_fill(world, 1, 1 << 2);
	clock_s = 65000;
	for (lb_u32 i = 0; i < CALLERS; i++) {
		pthread_rwlock_init(&callers[i].lock, NULL);
		callers[i].client = (struct client){address(10, 98, i >> 8, i & 255), (lb_u16)(20000 + i % PORTS)};
	}
	for (size_t i = 0; i < THREADS; i++) {
		cpus[i].random = i;
		CHECK(!pthread_create(&threads[i], NULL, caller_main, (void *)i), "no thread");
	}
	swept = control();
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		packets += cpus[i].packets;
		opened += cpus[i].opened;
		closed += cpus[i].closed;
		evicted += cpus[i].evicted;
		refused += cpus[i].refused;
	}
	world_check_strictly(world);
	for (lb_u32 i = 0; i < CALLERS; i++) {
		talking += callers[i].talking != 0;
		if (callers[i].talking)
			talk(0, &callers[i]);
		pthread_rwlock_destroy(&callers[i].lock);
	}
	printf("  %llu packets in %u seconds of the tables' time: %llu flows opened, %llu closed, %u talk on; %llu "
	       "made "
	       "room before they were established, %llu refused, %u swept\n",
	       packets, clock_s - 65000, opened, closed, talking, evicted, refused, swept);
	CHECK(opened > 100 && opened - closed == talking, "little was done");
	world_free(world);
}

int main(void)
{
	test_same_syn();
	test_everybody();
	return 0;
}
