/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets on several CPUs at once, one memory access at a time, in orders that chance picks and a seed repeats.
 *
 * Threads meet in the middle of an operation once in a million packets; here they do so all the time. Every LB_READ,
 * LB_WRITE and LB_SWAP of the core first offers to let another lane go on (stepping.h). What this explores is sequentially
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
 * The clock moves only when no packet would see it move twice: a packet takes less than LB_MARGIN_S, as flow.h says.
 * The daemon, which sweeps, may be stopped for any time, mostly where it has just claimed a record, and killed anywhere.
 * So may all, as when the datapath is a process. The next daemon ends their claims before it sweeps; packets go on.
 */
#include "stepping.h"

#include "invariants.h"
#include "packets.h"

enum { LANES = 4, CLIENTS = 40, RECORDS = LB_FLOW_WAYS, SEEN = 16 };

enum work { WORK_CLIENT, WORK_BACKEND, WORK_SWEEP, WORK_CLAIMS }; /* from the third on the daemon's */

/* A CPU: what it does, and who owned what it asks for while it did. */
struct cpu {
	struct lane lane;
	enum work work;
	lb_u32 client;	     /* number of, for either direction */
	struct lb_plan sent; /* WORK_BACKEND: what is answered */
	lb_u8 flags;
	lb_u16 now;
	struct lb_plan plan;
	lb_u64 seen[SEEN]; /* ends that the client had, or clients that had the ends */
	lb_u32 seen_count;
	lb_u64 job;   /* how many were begun */
	lb_u64 wakes; /* it stands still until so many packets have been handled */
};

static struct cpu cpus[LANES];

static struct world *world;
static struct kept {
	struct client client;
	struct lb_plan sent;
} clients[CLIENTS];
static struct lb_flow shadow[RECORDS];
static lb_u64 random_state, seed, handled, naps, killed, ended;
static lb_u32 patience; /* a lane goes on with probability 1 - 1/patience */
static lb_u32 sweeps;	/* of 100 things to do */
static lb_u16 clock_s;
static int orphaned; /* there may be claims that nobody owns */

#define HOLDS(condition, ...) CHECK(condition, "seed %llu: " __VA_ARGS__)

/* --- lanes -------------------------------------------------------------------------------------------------------- */

static int is_daemon(const struct cpu *cpu)
{
	return cpu->lane.busy && cpu->work >= WORK_SWEEP;
}

static int asleep(const struct cpu *cpu)
{
	return cpu->lane.busy && handled < cpu->wakes;
}

static void step(void)
{
	if (running && (asleep((struct cpu *)running) || !random_below(&random_state, patience)))
		lane_stop();
}

/* A grace period: whoever handles a packet has come to its end. New packets come all the while. */
static void grace(void)
{
	lb_u64 jobs[LANES];

	for (lb_u32 i = 0; i < LANES; i++)
		jobs[i] = cpus[i].lane.busy && !is_daemon(&cpus[i]) ? cpus[i].job : 0;
	for (lb_u32 i = 0; i < LANES; i++)
		while (jobs[i] && cpus[i].lane.busy && cpus[i].job == jobs[i])
			lane_stop();
}

static void handle(struct lane *lane)
{
	struct cpu *cpu = (struct cpu *)lane;
	struct lb_env *env = &world->env[0];

	if (cpu->work == WORK_CLIENT) {
		cpu->plan = client_sends(world, 0, clients[cpu->client].client, cpu->flags, cpu->now);
	} else if (cpu->work == WORK_BACKEND) {
		cpu->plan = backend_sends(world, 0, &cpu->sent, cpu->flags, cpu->now);
	} else if (cpu->work == WORK_SWEEP) {
		lb_native_sweep(env, 0, world->shape.flow_groups, cpu->now, NULL, NULL);
	} else {
		lb_native_doubt_claims(env, cpu->now);
		grace();
		ended += lb_native_end_claims(env);
	}
}

/* Kills the daemon, or everybody. What they had under way stays as it is, but for the locks of a datapath. */
static void kill_lanes(int everybody)
{
	for (lb_u32 i = 0; i < LANES; i++) {
		if (cpus[i].lane.busy && (everybody || is_daemon(&cpus[i]))) {
			lane_start(&cpus[i].lane, handle);
			killed++;
		}
	}
	if (everybody)
		memset(world->env[0].locks, 0, LB_LOCKS * sizeof(lb_u64));
	orphaned = 1;
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

static void note(struct cpu *cpu, lb_u64 word)
{
	for (lb_u32 i = 0; i < cpu->seen_count; i++)
		if (cpu->seen[i] == word)
			return;
	HOLDS(cpu->seen_count < SEEN, "too many changes during one packet", seed);
	cpu->seen[cpu->seen_count++] = word;
}

static void note_owner(struct cpu *cpu, const struct lb_flow *flow)
{
	if (!cpu->lane.busy || !lb_binding_usable(flow->binding))
		return;
	if (cpu->work == WORK_CLIENT && flow->client == client_word(cpu->client))
		note(cpu, flow->binding & LB_BINDING_ENDS);
	if (cpu->work == WORK_BACKEND && (flow->binding & LB_BINDING_ENDS) == plan_ends(&cpu->sent))
		note(cpu, flow->client);
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

/* The daemon sometimes stands still where it has just claimed a record; never all of it, lest the world do. */
static void maybe_nap(void)
{
	struct cpu *self = (struct cpu *)running;

	for (lb_u32 i = 0; i < LANES; i++)
		if (asleep(&cpus[i]))
			return;
	if (self->work == WORK_SWEEP && !random_below(&random_state, 4)) {
		self->wakes = handled + (2ull << random_below(&random_state, 10));
		naps++;
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
			note_owner(&cpus[i], flow);
		if (running && lb_binding_usable(shadow[record].binding) && !lb_binding_usable(flow->binding))
			maybe_nap();
		shadow[record] = *flow;
	}
}

static void check_done(const struct cpu *cpu)
{
	lb_u64 word, i = 0;

	if (cpu->work >= WORK_SWEEP || !forwarded(&cpu->plan))
		return;
	word = cpu->work == WORK_CLIENT ? plan_ends(&cpu->plan)
					: lb_client_word(lb_addr_v4(&cpu->plan.dst), cpu->plan.dport, SERVICE);
	while (i < cpu->seen_count && cpu->seen[i] != word)
		i++;
	HOLDS(i < cpu->seen_count, "%s of client %u: %llx was never its own", seed,
	      cpu->work == WORK_CLIENT ? "a packet" : "a reply", cpu->client, word);
}

/* --- the load ----------------------------------------------------------------------------------------------------- */

/* Claims are ended when a daemon starts, so by one lane, while no other one sweeps. */
static enum work daemon_work(void)
{
	for (lb_u32 i = 0; i < LANES && orphaned; i++)
		if (is_daemon(&cpus[i]))
			return WORK_CLIENT;
	return orphaned ? WORK_CLAIMS : WORK_SWEEP;
}

static void give_work(struct cpu *cpu)
{
	static const lb_u8 flags[] = {
		LB_TCP_SYN, LB_TCP_SYN, LB_TCP_SYN, LB_TCP_ACK, LB_TCP_ACK, LB_TCP_ACK, LB_TCP_FIN | LB_TCP_ACK,
		LB_TCP_RST};
	lb_u32 what = random_below(&random_state, 100);

	/* half of all is about one client out of four, so that they meet */
	cpu->client = random_below(&random_state, random_below(&random_state, 2) ? 4 : CLIENTS);
	cpu->flags = flags[random_below(&random_state, sizeof(flags))];
	cpu->sent = clients[cpu->client].sent;
	cpu->now = clock_s;
	cpu->work = what < sweeps ? daemon_work() : what < 65 || !cpu->sent.backend ? WORK_CLIENT : WORK_BACKEND;
	if (cpu->work == WORK_BACKEND && cpu->flags == LB_TCP_SYN)
		cpu->flags |= LB_TCP_ACK;
	cpu->lane.busy = 1;
	cpu->job++;
	cpu->wakes = 0;
	cpu->seen_count = 0;
	for (lb_u32 record = 0; record < RECORDS; record++)
		note_owner(cpu, record_at(world, record));
}

static void finish(struct cpu *cpu)
{
	check_done(cpu);
	if (cpu->work == WORK_CLIENT && forwarded(&cpu->plan))
		clients[cpu->client].sent = cpu->plan;
	if (cpu->work == WORK_CLAIMS)
		orphaned = 0;
}

/* Packets first: the daemon waits for them. */
static void let_rest(int daemons, int sleepers)
{
	for (lb_u32 i = 0; i < LANES; i++) {
		while (cpus[i].lane.busy && is_daemon(&cpus[i]) == daemons && (sleepers || !asleep(&cpus[i]))) {
			lane_resume(&cpus[i].lane);
			if (!cpus[i].lane.busy)
				finish(&cpus[i]);
		}
	}
}

/* All lanes come to rest; then everything must agree. Thoroughly: also who stood still, and word by word. */
static void rest(int thoroughly)
{
	let_rest(0, thoroughly);
	let_rest(1, thoroughly);
	if (thoroughly && orphaned) {
		lb_native_doubt_claims(&world->env[0], clock_s);
		ended += lb_native_end_claims(&world->env[0]);
		orphaned = 0;
	}
	if (thoroughly) {
		struct census census = world_check(world);

		HOLDS(!census.claimed && !census.leftover, "%u records claimed, %u port words left over", seed,
		      census.claimed, census.leftover);
	}
	for (lb_u32 record = 0; record < RECORDS; record++) {
		lb_u64 binding = record_at(world, record)->binding;
		lb_u32 table = lb_port_table(world->settings, lb_binding_backend(binding), lb_binding_snat(binding));

		if (lb_binding_backend(binding) && (lb_binding_usable(binding) || !orphaned))
			HOLDS(port_holder(world, table, LB_BE16(lb_binding_port(binding))) == record + 1,
			      "record %u lost port %u", seed, record, LB_BE16(lb_binding_port(binding)));
	}
}

static void tick(void)
{
	for (lb_u32 i = 0; i < LANES; i++)
		if (cpus[i].lane.busy && !is_daemon(&cpus[i]) && cpus[i].now != clock_s)
			return;
	clock_s++;
}

/* What happens between two packets. */
static void happen(void)
{
	if (!random_below(&random_state, seed & 1 ? 100 : 8)) /* packets in a second */
		tick();
	if (!random_below(&random_state, 2000))
		world->settings->active ^= 1;
	if (!random_below(&random_state, 500))
		kill_lanes(random_below(&random_state, 4) == 0);
	if (!random_below(&random_state, 20))
		rest(random_below(&random_state, 50) == 0);
}

static void explore(struct shape shape, lb_u32 ports, lb_u32 distinct, lb_u32 packets)
{
	lb_u64 last = handled + packets;
	struct lb_service *service;

	random_state = seed;
	sweeps = seed & 2 ? 2 : 15;
	clock_s = (lb_u16)(seed * 9973);
	world = world_new(shape);
	service = lb_env_service(&world->env[0], 1, SERVICE);
	world->settings->syn_s = world->settings->closed_s = 3;
	world->settings->established_s = 6;
	world->settings->stamp_s = 1;
	world->settings->fin_s = 4;
	world->settings->local_first = (lb_u16)(LB_PORT_FIRST + ports);
	slots_fill(world, 1, 2); /* publishing flips to the first backend and the last SNAT address alone */
	service->snat_count = 1;
	service->snat[0] = (lb_u8)shape.snats;
	if (shape.backends > 1 && seed & 4)
		lb_env_backend(&world->env[0], 1, 2)->state = LB_BACKEND_GONE;
	memset(shadow, 0, sizeof(shadow));
	for (lb_u32 i = 0; i < CLIENTS; i++)
		clients[i] = (struct kept){{address(10, 9, 0, i), (lb_u16)(LB_PORT_FIRST + i % distinct)}, {0}};
	while (handled < last) {
		struct cpu *cpu = &cpus[random_below(&random_state, LANES)];

		if (asleep(cpu))
			continue;
		if (!cpu->lane.busy) {
			patience = 1u << random_below(&random_state, 7);
			give_work(cpu);
		}
		lane_resume(&cpu->lane);
		if (!cpu->lane.busy) {
			finish(cpu);
			handled++;
			happen();
		}
	}
	rest(1);
	world_free(world);
}

int main(int argc, char **argv)
{
	static const struct shape shapes[] = {
		{.flow_groups = 1, .port_tables = 1, .backends = 1, .snats = 1},
		{.flow_groups = 1, .port_tables = 2, .backends = 2, .snats = 2},
	};
	lb_u64 first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	lb_u64 seeds = argc > 2 ? strtoull(argv[2], NULL, 10) : 300;

	for (lb_u32 i = 0; i < LANES; i++)
		lane_start(&cpus[i].lane, handle);
	for (seed = first; seed < first + seeds; seed++) {
		for (lb_u32 i = 0; i < 2; i++) {
			explore(shapes[i], 30, 3 + seed % 8, 5000); /* records are scarce */
			explore(shapes[i], 7, 7, 1000);		    /* ports are */
		}
	}
	printf("  %llu packets in chance's orders; the daemon stood still %llu times, %llu times somebody was killed "
	       "in the "
	       "middle of something, and %llu claims were left behind\n",
	       handled, naps, killed, ended);
	CHECK(seeds < 100 || (naps > 1000 && killed > 1000 && ended > 100), "little happened");
	for (lb_u32 i = 0; i < LANES; i++)
		free(cpus[i].lane.stack);
	return 0;
}
