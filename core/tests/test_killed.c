/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A process that is killed at any of its memory accesses: a datapath in the middle of a packet, a daemon in the middle
 * of a sweep, and then the next daemon in the middle of its repair.
 *
 * For each of a few deeds and each of its steps: what is left behind is claimed records, two at most (its own, and that
 * of a dead holder that it was sending away), and no word of a port without its record; nobody takes those records,
 * however long ago that was; the repair, itself killed at each of its steps and begun anew, leaves nothing; and no flow
 * that others had is lost.
 */
#include "stepping.h"

#include "invariants.h"
#include "packets.h"

enum { STRANGERS = 10, RECORDS = 2 * LB_FLOW_WAYS, MANY_PORTS = RECORDS + 8, FEW_PORTS = RECORDS - 8 };

/* A deed's own client, whose port nobody else asks for but where the deed says so. */
static const struct client actor = {LB_BE32(0x0a070000), LB_PORT_FIRST};

static struct world *world;
static struct lane lane;
static void (*deed)(void);
static lb_u64 fuse; /* steps until it is killed */
static lb_u16 now;

static void step(void)
{
	if (running && !fuse--)
		lane_stop();
}

static void changed(void)
{
}

static void handle(struct lane *self)
{
	deed();
}

/* Whether `what` came to its end, before it was killed in front of its step number `last` (from 0). */
static int done_in(void (*what)(void), lb_u64 last)
{
	int done;

	deed = what;
	fuse = last;
	lane.busy = 1;
	lane_resume(&lane);
	done = !lane.busy;
	if (!done)
		lane_start(&lane, handle);
	return done;
}

/* --- the deeds ---------------------------------------------------------------------------------------------------- */

static struct client stranger(lb_u32 n)
{
	return (struct client){address(10, 8, 0, n), (lb_u16)(LB_PORT_FIRST + 5 + n)};
}

/* Established flows of others, which must outlive everything. */
static void meet_strangers(void)
{
	for (lb_u32 n = 0; n < STRANGERS; n++) {
		struct lb_plan plan = handshake(world, stranger(n), now);

		CHECK(forwarded(&plan), "stranger %u: reason %d", n, plan.reason);
	}
}

static void check_strangers(void)
{
	for (lb_u32 n = 0; n < STRANGERS; n++) {
		struct lb_plan plan = client_sends(world, 0, stranger(n), LB_TCP_ACK, now);

		CHECK(plan.reason == LB_REASON_FORWARD && LB_BE16(plan.sport) == stranger(n).port,
		      "stranger %u: reason %d", n, plan.reason);
	}
}

static void nothing_more(void)
{
}

static void send_syn(void)
{
	client_sends(world, 0, actor, LB_TCP_SYN, now);
}

static void send_reset(void)
{
	client_sends(world, 0, actor, LB_TCP_RST, now);
}

static void sweep(void)
{
	lb_native_sweep(&world->env[0], 0, world->shape.flow_groups, now, NULL, NULL);
}

/* Another client has the actor's port, and lives. */
static void port_is_held(void)
{
	handshake(world, (struct client){address(10, 7, 0, 1), actor.port}, now);
}

/* Another client had it, and is dead. */
static void holder_is_dead(void)
{
	port_is_held();
	client_sends(world, 0, (struct client){address(10, 7, 0, 1), actor.port}, LB_TCP_RST, now);
	now += 62;
	meet_strangers();
}

/* Both groups are full, and only half-open flows can make room. */
static void table_is_full(void)
{
	for (lb_u32 n = 0; n < 4 * RECORDS; n++)
		client_sends(world, 0, (struct client){address(10, 6, 0, n), (lb_u16)(LB_PORT_FIRST + n % MANY_PORTS)},
			     LB_TCP_SYN, now);
}

/* Somebody has every port. */
static void no_port_is_left(void)
{
	for (lb_u32 n = 0; n < FEW_PORTS; n++)
		handshake(world, (struct client){address(10, 6, 0, n), (lb_u16)(LB_PORT_FIRST + n)}, now);
}

/* The actor's flow is over, its backend another one now. */
static void backend_has_changed(void)
{
	send_syn();
	send_reset();
	slots_fill(world, 0, 1 << 2);
}

/* Flows that are over, to be swept. */
static void flows_are_over(void)
{
	for (lb_u32 n = 0; n < 4; n++) {
		struct client client = {address(10, 6, 0, n), (lb_u16)(LB_PORT_FIRST + n)};

		handshake(world, client, now);
		client_sends(world, 0, client, LB_TCP_RST, now);
	}
	now += 62;
	meet_strangers();
}

static const struct scene {
	const char *name;
	void (*before)(void);
	void (*deed)(void);
	lb_u16 ports;
} scenes[] = {
	{"a new client", nothing_more, send_syn, MANY_PORTS},
	{"a client whose port is held", port_is_held, send_syn, MANY_PORTS},
	{"a client whose port a dead one holds", holder_is_dead, send_syn, MANY_PORTS},
	{"a client for whom another makes room", table_is_full, send_syn, MANY_PORTS},
	{"a client for whom there is no port", no_port_is_left, send_syn, FEW_PORTS},
	{"a client that goes to another backend", backend_has_changed, send_syn, MANY_PORTS},
	{"a sweep", flows_are_over, sweep, MANY_PORTS},
};

/* --- what must hold ----------------------------------------------------------------------------------------------- */

static struct {
	struct lb_flow_group flows[RECORDS / LB_FLOW_WAYS];
	struct lb_port_line ports[LB_PORT_LINES];
	lb_u16 now;
} scenery;

static void begin(const struct scene *scene)
{
	world = world_new(
		(struct shape){.flow_groups = RECORDS / LB_FLOW_WAYS, .port_tables = 1, .backends = 2, .snats = 1});
	world->settings->local_first = LB_PORT_FIRST + scene->ports;
	slots_fill(world, 0, 1 << 1);
	now = 65500;
	meet_strangers();
	scene->before();
	world_check_strictly(world);
	memcpy(scenery.flows, world->env[0].flows, sizeof(scenery.flows));
	memcpy(scenery.ports, world->env[0].ports, sizeof(scenery.ports));
	scenery.now = now;
}

/* As begin left it; only flows, ports and locks are written by packets and sweeps, and counters. */
static void begin_again(void)
{
	memcpy(world->env[0].flows, scenery.flows, sizeof(scenery.flows));
	memcpy(world->env[0].ports, scenery.ports, sizeof(scenery.ports));
	memset(world->env[0].locks, 0, LB_LOCKS * sizeof(lb_u64));
	now = scenery.now;
}

/* How many claims there are. Each word names a record that names it. (Other ports' words were never set.) */
static lb_u32 claims_left(const struct scene *scene, lb_u64 last)
{
	lb_u32 claimed = 0;

	for (lb_u32 record = 0; record < RECORDS; record++)
		claimed += lb_binding_flags(record_at(world, record)->binding) & LB_FLOW_CLAIMED;
	for (lb_u32 port = LB_PORT_FIRST; port < world->settings->local_first; port++) {
		lb_u32 holder = port_holder(world, 0, port);
		lb_u64 binding = holder ? record_at(world, holder - 1)->binding : 0;

		CHECK(!holder || (lb_binding_backend(binding) && LB_BE16(lb_binding_port(binding)) == port),
		      "%s, killed before step %llu: port %u names record %u, which does not name it", scene->name, last,
		      port, holder - 1);
	}
	return claimed;
}

/* Nobody takes what was left behind, however long it takes, and nothing else is amiss. */
static lb_u32 check_left(const struct scene *scene, lb_u64 last)
{
	lb_u32 claimed = claims_left(scene, last);

	CHECK(claimed <= 2, "%s, killed before step %llu: %u claims", scene->name, last, claimed);
	memset(world->env[0].locks, 0, LB_LOCKS * sizeof(lb_u64));
	for (lb_u32 pass = 0; pass < 2; pass++) {
		now += 40;
		table_is_full();
		check_strangers();
		CHECK(claims_left(scene, last) == claimed, "%s, killed before step %llu: a claim was taken",
		      scene->name, last);
	}
	return claimed;
}

static void doubt_claims(void)
{
	lb_native_doubt_claims(&world->env[0], now);
}

static void end_claims(void)
{
	lb_native_end_claims(&world->env[0]);
}

/* The next daemon is killed as well, and the one after it, each a step later. */
static void repair(const struct scene *scene, lb_u64 last, lb_u32 claimed)
{
	lb_u64 marking, ending;

	for (marking = 0; !done_in(doubt_claims, marking); marking++)
		CHECK(claims_left(scene, last) == claimed, "%s: a mark ended a claim", scene->name);
	for (ending = 0; !done_in(end_claims, ending); ending++) {
		CHECK(claims_left(scene, last) <= claimed, "%s: a claim more", scene->name);
		lb_native_doubt_claims(&world->env[0], now);
	}
	CHECK(marking > RECORDS && ending >= RECORDS, "the repair took %llu and %llu steps", marking, ending);
	world_check_strictly(world);
}

static void play(const struct scene *scene)
{
	lb_u32 claims = 0;
	lb_u64 last;
	int done = 0;

	begin(scene);
	for (last = 0; !done; last++) {
		lb_u32 claimed;

		begin_again();
		done = done_in(scene->deed, last);
		claimed = check_left(scene, last);
		CHECK(!done || !claimed, "%s: a claim although nobody was killed", scene->name);
		if (claimed)
			repair(scene, last, claimed);
		check_strangers();
		claims += claimed;
	}
	world_free(world);
	printf("  %s: killed before each of %llu steps, %u claims left behind and ended\n", scene->name, last - 1,
	       claims);
	CHECK(claims, "%s claims nothing", scene->name);
}

int main(void)
{
	lane_start(&lane, handle);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
		play(&scenes[i]);
	free(lane.stack);
	return 0;
}
