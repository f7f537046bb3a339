/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets on three CPUs at once, one memory access at a time, in orders that chance picks and a seed repeats.
 *
 * Threads meet in the middle of an operation once in a million packets; here they do so all the time. Every LB_READ,
 * LB_WRITE and LB_SWAP of the core first offers to let another lane go on. What this explores is sequentially
 * consistent; x86's one liberty, a load that overtakes an earlier store, is for test_concurrent.c.
 *
 * A tiny world, in which records and ports are always scarce, is watched at every change:
 *
 *   - no two usable flows have one port of one port table, not even for a moment;
 *   - whoever is established, and not over for longer than the margin, keeps its record and its port;
 *   - a packet leaves with the port that its client had at some moment while the packet was handled, and a reply
 *     goes to the client that had the port at such a moment;
 *   - when all lanes rest, records and ports agree (invariants.h), and nothing is left claimed or over.
 *
 * On the core of this test's first day it found, within seconds, a repeated SYN that went on with another client's
 * record and two ways for two clients to come to share a port. Arguments: the first seed, and how many.
 *
 * The clock moves only when no lane would see it move twice: a packet takes less than LB_MARGIN_S, as flow.h says.
 */
#include <setjmp.h>
#include <ucontext.h>

#include "types.h"

static void step(void);
static void changed(void);

#undef LB_READ
#undef LB_WRITE
#undef LB_SWAP
#define LB_READ(word) (step(), *(const volatile __typeof__(word) *)&(word))
#define LB_WRITE(word, value)                                                                                          \
	do {                                                                                                           \
		__typeof__(word) value_ = (value);                                                                     \
		step();                                                                                                \
		*(volatile __typeof__(word) *)&(word) = value_;                                                        \
		changed();                                                                                             \
	} while (0)
#define LB_SWAP(word, old, new)                                                                                        \
	({                                                                                                             \
		__typeof__(word) old_ = (old), new_ = (new);                                                           \
		int done_;                                                                                             \
		step();                                                                                                \
		done_ = __sync_bool_compare_and_swap(&(word), old_, new_);                                             \
		changed();                                                                                             \
		done_;                                                                                                 \
	})

#include "invariants.h"
#include "packets.h"

enum { LANES = 3, CLIENTS = 40, RECORDS = LB_FLOW_WAYS, SEEN = 16, STACK_BYTES = 256 << 10 };

enum work { WORK_CLIENT, WORK_BACKEND, WORK_SWEEP };

/* A CPU: what it does, and who owned what it asks for while it did. */
struct lane {
	jmp_buf at;
	void *stack;
	int busy;
	enum work work;
	lb_u32 client;	     /* number of, for either direction */
	struct lb_plan sent; /* WORK_BACKEND: what is answered */
	lb_u8 flags;
	lb_u16 now;
	struct lb_plan plan;
	lb_u64 seen[SEEN]; /* ends that the client had, or clients that had the ends */
	lb_u32 seen_count;
};

static struct lane lanes[LANES];
static struct lane *running; /* 0: the scheduler */
static jmp_buf scheduler;
static ucontext_t birthplace;

static struct world *world;
static struct kept {
	struct client client;
	struct lb_plan sent;
} clients[CLIENTS];
static struct lb_flow shadow[RECORDS];
static lb_u64 random_state, seed, handled;
static lb_u32 patience; /* a lane goes on with probability 1 - 1/patience */
static lb_u32 sweeps;	/* of 100 things to do */
static lb_u16 clock_s;

#define HOLDS(condition, ...) CHECK(condition, "seed %llu: " __VA_ARGS__)

/* --- lanes -------------------------------------------------------------------------------------------------------- */

static void step(void)
{
	struct lane *self = running;

	if (!self || random_below(&random_state, patience))
		return;
	running = NULL;
	if (!_setjmp(self->at))
		_longjmp(scheduler, 1);
}

static void resume(struct lane *lane)
{
	if (!_setjmp(scheduler)) {
		running = lane;
		_longjmp(lane->at, 1);
	}
	running = NULL;
}

static void handle(struct lane *lane)
{
	if (lane->work == WORK_SWEEP)
		lb_native_sweep(&world->env[0], 0, world->shape.flow_groups, lane->now, NULL, NULL);
	else if (lane->work == WORK_CLIENT)
		lane->plan = client_sends(world, 0, clients[lane->client].client, lane->flags, lane->now);
	else
		lane->plan = backend_sends(world, 0, &lane->sent, lane->flags, lane->now);
}

/* A lane's life: handle what it was given, rest, again. */
static void lane_main(void)
{
	struct lane *self = running;

	for (;;) {
		running = NULL;
		if (!_setjmp(self->at))
			_longjmp(scheduler, 1);
		handle(self);
		self->busy = 0;
	}
}

static void lane_start(struct lane *lane)
{
	ucontext_t context;

	lane->stack = malloc(STACK_BYTES);
	CHECK(lane->stack && !getcontext(&context), "no lane");
	context.uc_stack.ss_sp = lane->stack;
	context.uc_stack.ss_size = STACK_BYTES;
	context.uc_link = NULL;
	makecontext(&context, lane_main, 0);
	running = lane;
	if (!_setjmp(scheduler))
		swapcontext(&birthplace, &context);
}

/* --- the watch ---------------------------------------------------------------------------------------------------- */

static lb_u64 client_word(lb_u32 number)
{
	return lb_client_word(clients[number].client.addr, LB_BE16(clients[number].client.port), SERVICE);
}

static lb_u64 plan_ends(const struct lb_plan *plan)
{
	return lb_binding_word(plan->backend, plan->sport, plan->snat, 0, 0);
}

static void note(struct lane *lane, lb_u64 word)
{
	for (lb_u32 i = 0; i < lane->seen_count; i++)
		if (lane->seen[i] == word)
			return;
	HOLDS(lane->seen_count < SEEN, "too many changes during one packet", seed);
	lane->seen[lane->seen_count++] = word;
}

static void note_owner(struct lane *lane, const struct lb_flow *flow)
{
	if (!lane->busy || !lb_binding_usable(flow->binding))
		return;
	if (lane->work == WORK_CLIENT && flow->client == client_word(lane->client))
		note(lane, flow->binding & LB_BINDING_ENDS);
	if (lane->work == WORK_BACKEND && (flow->binding & LB_BINDING_ENDS) == plan_ends(&lane->sent))
		note(lane, flow->client);
}

static void check_change(lb_u32 record, const struct lb_flow *old, const struct lb_flow *new)
{
	int same = !((old->binding ^ new->binding) & LB_BINDING_ENDS) && lb_binding_usable(new->binding);

	if (!lb_binding_usable(old->binding))
		return;
	HOLDS(same || lb_flow_rank(world->settings, old->binding, clock_s) != LB_RANK_NEVER,
	      "record %u was taken from an established flow: %llx became %llx", seed, record, old->binding,
	      new->binding);
	HOLDS(old->client == new->client || new->client == (old->client & 0xffffffffffffull) || !same,
	      "record %u changed hands in use", seed, record);
}

static void check_unique(lb_u32 record)
{
	lb_u64 binding = record_at(world, record)->binding;

	for (lb_u32 i = 0; i < RECORDS && lb_binding_usable(binding); i++) {
		lb_u64 other = record_at(world, i)->binding;

		HOLDS(i == record || !lb_binding_usable(other) || lb_binding_port(other) != lb_binding_port(binding) ||
			      lb_port_table(world->settings, lb_binding_backend(other), lb_binding_snat(other)) !=
				      lb_port_table(world->settings, lb_binding_backend(binding),
						    lb_binding_snat(binding)),
		      "records %u and %u share port %u", seed, record, i, LB_BE16(lb_binding_port(binding)));
	}
}

static void changed(void)
{
	for (lb_u32 record = 0; record < RECORDS; record++) {
		const struct lb_flow *flow = record_at(world, record);

		if (flow->client == shadow[record].client && flow->binding == shadow[record].binding)
			continue;
		check_change(record, &shadow[record], flow);
		check_unique(record);
		for (lb_u32 i = 0; i < LANES; i++)
			note_owner(&lanes[i], flow);
		shadow[record] = *flow;
	}
}

static void check_done(const struct lane *lane)
{
	lb_u64 word;
	lb_u32 i;

	if (lane->work == WORK_SWEEP || !forwarded(&lane->plan))
		return;
	word = lane->work == WORK_CLIENT ? plan_ends(&lane->plan)
					 : lb_client_word(lb_addr_v4(&lane->plan.dst), lane->plan.dport, SERVICE);
	for (i = 0; i < lane->seen_count && lane->seen[i] != word; i++)
		;
	HOLDS(i < lane->seen_count, "%s of client %u: %llx was never its own", seed,
	      lane->work == WORK_CLIENT ? "a packet" : "a reply", lane->client, word);
}

/* --- the load ----------------------------------------------------------------------------------------------------- */

static void give_work(struct lane *lane)
{
	static const lb_u8 flags[] = {
		LB_TCP_SYN, LB_TCP_SYN, LB_TCP_SYN, LB_TCP_ACK, LB_TCP_ACK, LB_TCP_ACK, LB_TCP_FIN | LB_TCP_ACK,
		LB_TCP_RST};
	lb_u32 what = random_below(&random_state, 100);

	/* half of all is about one client out of four, so that they meet */
	lane->client = random_below(&random_state, random_below(&random_state, 2) ? 4 : CLIENTS);
	lane->flags = flags[random_below(&random_state, sizeof(flags))];
	lane->sent = clients[lane->client].sent;
	lane->now = clock_s;
	lane->work = what < sweeps ? WORK_SWEEP : what < 65 || !lane->sent.backend ? WORK_CLIENT : WORK_BACKEND;
	if (lane->work == WORK_BACKEND && lane->flags == LB_TCP_SYN)
		lane->flags |= LB_TCP_ACK;
	lane->busy = 1;
	lane->seen_count = 0;
	for (lb_u32 record = 0; record < RECORDS; record++)
		note_owner(lane, record_at(world, record));
}

static void finish(struct lane *lane)
{
	check_done(lane);
	if (lane->work == WORK_CLIENT && forwarded(&lane->plan))
		clients[lane->client].sent = lane->plan;
}

/* All lanes come to rest; then everything must agree. Words are looked at one by one only now and then. */
static void rest(int thoroughly)
{
	for (lb_u32 i = 0; i < LANES; i++) {
		while (lanes[i].busy) {
			resume(&lanes[i]);
			if (!lanes[i].busy)
				finish(&lanes[i]);
		}
	}
	if (thoroughly) {
		struct census census = world_check(world);

		HOLDS(!census.claimed && !census.leftover, "%u records claimed, %u port words left over", seed,
		      census.claimed, census.leftover);
	}
	for (lb_u32 record = 0; record < RECORDS; record++) {
		lb_u64 binding = record_at(world, record)->binding;
		lb_u32 table = lb_port_table(world->settings, lb_binding_backend(binding), lb_binding_snat(binding));

		if (lb_binding_backend(binding))
			HOLDS(port_holder(world, table, LB_BE16(lb_binding_port(binding))) == record + 1,
			      "record %u lost port %u", seed, record, LB_BE16(lb_binding_port(binding)));
	}
}

static void tick(void)
{
	for (lb_u32 i = 0; i < LANES; i++)
		if (lanes[i].busy && lanes[i].now != clock_s)
			return;
	clock_s++;
}

static void explore(struct shape shape, lb_u32 ports, lb_u32 distinct, lb_u32 packets)
{
	lb_u32 haste = seed & 1 ? 100 : 8; /* packets in a second */

	random_state = seed;
	sweeps = seed & 2 ? 2 : 15;
	clock_s = (lb_u16)(seed * 9973);
	world = world_new(shape);
	world->settings->syn_s = 3;
	world->settings->established_s = 6;
	world->settings->stamp_s = 1;
	world->settings->fin_s = 4;
	world->settings->closed_s = 3;
	world->settings->local_first = (lb_u16)(LB_PORT_FIRST + ports);
	slots_fill(world, 1, 2); /* publishing flips between all backends and the first alone */
	memset(shadow, 0, sizeof(shadow));
	memset(clients, 0, sizeof(clients));
	for (lb_u32 i = 0; i < CLIENTS; i++)
		clients[i].client = (struct client){address(10, 9, 0, i), (lb_u16)(LB_PORT_FIRST + i % distinct)};
	for (lb_u32 packet = 0; packet < packets;) {
		struct lane *lane = &lanes[random_below(&random_state, LANES)];

		if (!lane->busy) {
			patience = 1u << random_below(&random_state, 7);
			give_work(lane);
		}
		resume(lane);
		if (!lane->busy) {
			finish(lane);
			packet++;
			handled++;
			if (!random_below(&random_state, haste))
				tick();
			if (!random_below(&random_state, 2000))
				world->settings->active ^= 1;
			if (!random_below(&random_state, 20))
				rest(random_below(&random_state, 50) == 0);
		}
	}
	rest(1);
	world_free(world);
}

int main(int argc, char **argv)
{
	static const struct shape shapes[] = {
		{.flow_groups = 1, .port_tables = 1, .backends = 1, .snats = 1},
		{.flow_groups = 1, .port_tables = 2, .backends = 2, .snats = 1},
	};
	lb_u64 first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	lb_u64 seeds = argc > 2 ? strtoull(argv[2], NULL, 10) : 300;

	for (lb_u32 i = 0; i < LANES; i++)
		lane_start(&lanes[i]);
	for (seed = first; seed < first + seeds; seed++) {
		for (lb_u32 i = 0; i < 2; i++) {
			explore(shapes[i], 30, 3 + seed % 8, 5000); /* records are scarce */
			explore(shapes[i], 7, 7, 1000);		    /* ports are */
		}
	}
	printf("  %llu packets in chance's orders\n", handled);
	for (lb_u32 i = 0; i < LANES; i++)
		free(lanes[i].stack);
	return 0;
}
