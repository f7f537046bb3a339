/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the native tests share: a world (the tables of one small configuration), checks, random numbers. packets.h
 * sends packets through it, invariants.h says what must hold of its flows and ports.
 *
 * The world is DESIGN's segment: service 1 is 10.0.0.10:8080/tcp (a second one, where asked for, has port 8081), backends 1 and 2 are 10.0.0.2 and .3 (more are
 * 10.0.1.x), SNAT address n is 10.0.0.(9 + n), h1 is neighbour 1, clients in 10/8 lie behind a route and all others are
 * answered where they came from.
 */
#ifndef LB_TEST_SUPPORT_H
#define LB_TEST_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lb_native.c"

#define CHECK(condition, ...)                                                                                          \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: %s is false; ", __FILE__, __LINE__, #condition);                       \
			fprintf(stderr, __VA_ARGS__);                                                                  \
			fputc('\n', stderr);                                                                           \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

enum {
	SERVICE = 1,
	SERVICE_PORT = 8080,
	CPUS = 8,
	INDEX_GROUPS = 64,
	LOCAL_FIRST = 61000,
	IFINDEX = 7,
};

/* Host order in, network order out. */
static inline lb_be32 address(lb_u32 a, lb_u32 b, lb_u32 c, lb_u32 d)
{
	return LB_BE32(a << 24 | b << 16 | c << 8 | d);
}

static inline lb_be32 vip_address(void)
{
	return address(10, 0, 0, 10);
}

static inline lb_u16 service_port(lb_u32 id)
{
	return (lb_u16)(SERVICE_PORT - SERVICE + id);
}

static inline lb_be32 backend_address(lb_u32 id)
{
	return id <= 2 ? address(10, 0, 0, 1 + id) : address(10, 0, 1, id);
}

static inline lb_be32 snat_address(lb_u32 id)
{
	return address(10, 0, 0, 9 + id);
}

/* splitmix64 (G. Steele et al., "Fast splittable pseudorandom number generators", 2014): tests repeat exactly. */
static inline lb_u64 random_next(lb_u64 *state)
{
	lb_u64 z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline lb_u32 random_below(lb_u64 *state, lb_u32 range)
{
	return lb_scale((lb_u32)random_next(state), range);
}

struct shape {
	lb_u32 flow_groups;
	lb_u32 port_tables; /* a power of two */
	lb_u32 backends;
	lb_u32 snats;
	lb_u32 services; /* 0: one */
};

struct world {
	struct shape shape;
	struct lb_settings *settings;
	struct lb_env env[CPUS];
};

/* How many groups the control plane gives a table for so many flows: 55 of 100 records are used when it is full. */
static inline lb_u32 groups_for(lb_u32 flows)
{
	return (flows * 100ull + 879) / 880;
}

static inline void *lines(size_t records, size_t record_bytes)
{
	size_t bytes = (records * record_bytes + 63) / 64 * 64;
	void *memory = aligned_alloc(64, bytes);

	CHECK(memory, "out of memory: %zu bytes", bytes);
	return memset(memory, 0, bytes);
}

static inline int index_add(struct world *world, lb_u32 copy, lb_be32 addr, lb_u32 port, lb_u8 kind, lb_u32 id)
{
	struct lb_env *env = &world->env[0];
	struct lb_copy *header = lb_env_copy(env, copy);
	struct lb_endpoint new = {
		.port = LB_BE16(port), .protocol = port ? LB_PROTOCOL_TCP : 0, .kind = kind, .id = id};
	struct lb_index_group *group;

	lb_addr_set_v4(&new.addr, addr);
	group = lb_env_index_group(
		env, copy, lb_index_hash(&new.addr, new.port, new.protocol, header->index_factor) & header->index_mask);
	for (lb_u32 i = 0; i < LB_INDEX_WAYS; i++) {
		if (group->way[i].kind == LB_ENDPOINT_NONE) {
			group->way[i] = new;
			return 1;
		}
	}
	return 0;
}

/* Fills one copy's endpoint index; 0 if the seed does not suit, as more than four endpoints met in a group. */
static inline int index_fill(struct world *world, lb_u32 copy, lb_u32 seed)
{
	struct lb_copy *header = lb_env_copy(&world->env[0], copy);
	int fits;

	header->index_mask = INDEX_GROUPS - 1;
	header->index_seed = seed;
	header->index_factor = lb_index_factor(seed);
	__builtin_memset(header->listening, 0xff, sizeof(header->listening));
	memset(lb_env_index_group(&world->env[0], copy, 0), 0, INDEX_GROUPS * sizeof(struct lb_index_group));
	fits = index_add(world, copy, address(10, 0, 0, 1), 0, LB_ENDPOINT_NEIGHBOUR, 1);
	for (lb_u32 id = SERVICE; id < world->env[0].services; id++)
		fits = fits && index_add(world, copy, vip_address(), service_port(id), LB_ENDPOINT_SERVICE, id);
	for (lb_u32 id = 1; id <= world->shape.backends; id++)
		fits = fits && index_add(world, copy, backend_address(id), SERVICE_PORT, LB_ENDPOINT_BACKEND, id);
	for (lb_u32 id = 1; id <= world->shape.snats; id++)
		fits = fits && index_add(world, copy, snat_address(id), 0, LB_ENDPOINT_SNAT, id);
	return fits;
}

/* Which backends the slots name: bit n stands for backend n. 0: none does. */
static inline void slots_fill(struct world *world, lb_u32 copy, lb_u32 backends)
{
	lb_u32 ids[32], count = 0;

	for (lb_u32 id = 1; id <= world->shape.backends; id++)
		if (backends >> id & 1)
			ids[count++] = id;
	for (lb_u32 slot = 0; slot < LB_SLOTS; slot++)
		lb_env_slot_line(&world->env[0], copy, 0, slot / 32)->backend[slot % 32] =
			count ? (lb_u16)ids[slot % count] : 0;
}

static inline struct lb_nexthop nexthop_of(lb_u8 last)
{
	return (struct lb_nexthop){
		.dst = {0xde, 0xad, 0xbe, 0xef, 0, last}, .src = {0xde, 0xad, 0xbe, 0xef, 0, 0x10}, .ifindex = IFINDEX};
}

static inline void copy_fill(struct world *world, lb_u32 copy)
{
	struct lb_env *env = &world->env[0];
	struct lb_route *route = lb_env_route(env, copy, 0);
	lb_u32 seed = 1;

	while (!index_fill(world, copy, seed))
		CHECK(++seed < 1000, "no seed suits the endpoints");
	for (lb_u32 id = SERVICE; id < env->services; id++) {
		struct lb_service *service = lb_env_service(env, copy, id);

		*service = (struct lb_service){.salt = 0x6c62272e07bb0142ull * id,
					       .port = LB_BE16(service_port(id)),
					       .protocol = LB_PROTOCOL_TCP,
					       .mode = LB_MODE_FULL_NAT,
					       .snat_count = (lb_u8)world->shape.snats};
		lb_addr_set_v4(&service->addr, vip_address());
		for (lb_u32 snat = 1; snat <= world->shape.snats; snat++)
			service->snat[snat - 1] = (lb_u8)snat;
	}
	for (lb_u32 id = 1; id <= world->shape.snats; id++)
		lb_addr_set_v4(&lb_env_snat(env, copy, id)->addr, snat_address(id));
	for (lb_u32 id = 1; id <= world->shape.backends; id++) {
		struct lb_backend *backend = lb_env_backend(env, copy, id);

		backend->nexthop = nexthop_of((lb_u8)(1 + id));
		backend->port = LB_BE16(SERVICE_PORT);
		backend->protocol = LB_PROTOCOL_TCP;
		backend->state = LB_BACKEND_USABLE;
		lb_addr_set_v4(&backend->addr, backend_address(id));
	}
	*lb_env_neighbour(env, copy, 1) = nexthop_of(1);
	lb_addr_set_v4(&route->addr, address(10, 0, 0, 0));
	lb_addr_set_v4(&route->mask, address(255, 0, 0, 0));
	route->mask.half[0] = ~0ull;
	route->mask.word[2] = ~0u;
	route->nexthop = nexthop_of(0xfe);
	lb_env_copy(env, copy)->routes = 1;
	lb_env_copy(env, copy)->generation = copy + 1;
	slots_fill(world, copy, ~0u);
}

static inline struct lb_settings *settings_new(const struct shape *shape)
{
	struct lb_settings *settings = lines(1, sizeof(*settings));

	*settings = (struct lb_settings){
		.flow_groups = shape->flow_groups,
		.port_tables = shape->port_tables,
		.seed = {0x0123456789abcdefull, 0xfedcba9876543210ull, 0x452821e638d01377ull, 0xbe5466cf34e90c6cull},
		.syn_s = 30,
		.established_s = 900,
		.stamp_s = 16,
		.fin_s = 300,
		.closed_s = 60,
		.local_first = LOCAL_FIRST,
	};
	return settings;
}

static inline struct world *world_new(struct shape shape)
{
	struct world *world = calloc(1, sizeof(*world));
	struct lb_env env = {.cpus = CPUS, .index_groups = INDEX_GROUPS, .neighbours = 2, .tables = 1};

	CHECK(world && shape.backends < 32 && shape.snats <= LB_SNAT_MAX, "a shape that does not fit");
	world->shape = shape;
	world->settings = settings_new(&shape);
	env.services = SERVICE + (shape.services ? shape.services : 1);
	env.backends = shape.backends + 1;
	env.snats = shape.snats + 1;
	env.flow_groups = shape.flow_groups;
	env.port_lines = shape.port_tables * LB_PORT_LINES;
	env.settings = world->settings;
	env.copies = lines(LB_COPIES, sizeof(struct lb_copy));
	env.endpoints = lines(LB_COPIES * INDEX_GROUPS, sizeof(struct lb_index_group));
	env.service_records = lines(LB_COPIES * env.services, sizeof(struct lb_service));
	env.backend_records = lines(LB_COPIES * env.backends, sizeof(struct lb_backend));
	env.snat_records = lines(LB_COPIES * env.snats, sizeof(struct lb_snat));
	env.neighbour_records = lines(LB_COPIES * env.neighbours, sizeof(struct lb_nexthop));
	env.routes = lines(LB_COPIES * LB_ROUTES, sizeof(struct lb_route));
	env.slots = lines(LB_COPIES * LB_SLOT_LINES, sizeof(struct lb_slot_line));
	env.flows = lines(shape.flow_groups, sizeof(struct lb_flow_group));
	env.ports = lines(env.port_lines, sizeof(struct lb_port_line));
	env.locks = lines(LB_LOCKS, sizeof(lb_u64));
	env.service_counters = lines(CPUS * env.services, sizeof(struct lb_counter));
	env.backend_counters = lines(CPUS * env.backends, sizeof(struct lb_counter));
	env.reason_counters = lines(CPUS * LB_REASON_ROW, sizeof(lb_u64));
	env.wanted = lines(LB_WANTED_RECORDS, sizeof(struct lb_wanted));
	env.learned = lines(LB_LEARNED_RECORDS, sizeof(struct lb_learned));
	for (lb_u32 cpu = 0; cpu < CPUS; cpu++) {
		world->env[cpu] = env;
		world->env[cpu].cpu = cpu;
		lb_env_ready(&world->env[cpu]);
	}
	for (lb_u32 copy = 0; copy < LB_COPIES; copy++)
		copy_fill(world, copy);
	return world;
}

static inline void world_free(struct world *world)
{
	struct lb_env *env = &world->env[0];
	void *all[] = {env->settings,
		       env->copies,
		       env->endpoints,
		       env->service_records,
		       env->backend_records,
		       env->snat_records,
		       env->neighbour_records,
		       env->routes,
		       env->slots,
		       env->flows,
		       env->ports,
		       env->locks,
		       env->service_counters,
		       env->backend_counters,
		       env->reason_counters,
		       env->wanted,
		       env->learned};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		free(all[i]);
	free(world);
}

/* Publishes a configuration in which new flows go to these backends (bits, as slots_fill) and the others are gone. */
static inline void world_publish(struct world *world, lb_u32 backends)
{
	lb_u32 spare = !world->settings->active;

	slots_fill(world, spare, backends);
	for (lb_u32 id = 1; id <= world->shape.backends; id++)
		lb_env_backend(&world->env[0], spare, id)->state =
			backends >> id & 1 ? LB_BACKEND_USABLE : LB_BACKEND_GONE;
	world->settings->active = spare;
}

#endif
