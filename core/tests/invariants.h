/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What must hold of flows and ports whenever no packet is being handled. Written against the two words of a flow and
 * the words of the port tables, with nothing of the core's search but the test that it finds what is there.
 */
#ifndef LB_TEST_INVARIANTS_H
#define LB_TEST_INVARIANTS_H

#include "support.h"

struct census {
	lb_u32 bound;	 /* records that hold a port */
	lb_u32 claimed;	 /* records that somebody is creating; none when all packets are done */
	lb_u32 leftover; /* words of the port tables that name a record which does not hold that port */
	lb_u32 state[4]; /* bound records, enum lb_flow_state */
};

static inline struct lb_flow *record_at(const struct world *world, lb_u32 record)
{
	return &((struct lb_flow_group *)world->env[0].flows)[record / LB_FLOW_WAYS].way[record % LB_FLOW_WAYS];
}

static inline lb_u32 port_holder(const struct world *world, lb_u32 table, lb_u32 port)
{
	struct lb_port_line *line = (struct lb_port_line *)world->env[0].ports + (size_t)table * LB_PORT_LINES;

	return line[port / 16].holder[port % 16];
}

/* A bound record's own claims: its port is one that may be given, is held in its table's word, and is nobody else's. */
static inline void check_bound(const struct world *world, lb_u32 record, lb_u8 *pairs)
{
	lb_u64 binding = record_at(world, record)->binding;
	lb_u32 backend = binding & 0xffff, port = LB_BE16((lb_u16)(binding >> 16)), snat = binding >> 32 & 0xff;
	lb_u32 table = lb_port_table(world->settings, backend, snat);
	size_t pair = ((size_t)(backend * (world->shape.snats + 1) + snat) << 16) + port;

	CHECK(backend <= world->shape.backends && snat && snat <= world->shape.snats, "record %u: binding %llx", record,
	      binding);
	CHECK(port >= 1024 && port < world->settings->local_first, "record %u has the reserved port %u", record, port);
	CHECK(snat != 1 || port != SERVICE_PORT, "record %u has the service's own port", record);
	CHECK(port_holder(world, table, port) == record + 1, "record %u: port %u of table %u is held by %d", record,
	      port, table, (int)port_holder(world, table, port) - 1);
	/* What the backend sees, (SNAT address, port) -> backend, stands for one client. */
	CHECK(!(pairs[pair / 8] >> pair % 8 & 1), "record %u: backend %u, SNAT address %u, port %u is used twice",
	      record, backend, snat, port);
	pairs[pair / 8] |= (lb_u8)(1 << pair % 8);
}

/* The client of a bound record finds this very record: no client has two, and none is out of reach. */
static inline void check_found(const struct world *world, lb_u32 record)
{
	lb_u64 client = record_at(world, record)->client;
	struct lb_track track = {.client = client};

	if (!lb_client_service(client))
		return; /* only keeps a port in quarantine */
	track.place = lb_place_hash(world->settings, lb_client_address(client), lb_client_port(client));
	CHECK(lb_flow_find(&world->env[0], world->settings, &track), "record %u: its client does not find it", record);
	CHECK(track.record == record, "the client of record %u finds record %u", record, track.record);
}

/* The other way round: each word of the port tables is 0, names the record that holds the port, or is a leftover. */
static inline lb_u32 count_leftovers(const struct world *world)
{
	lb_u32 found = 0;

	for (lb_u32 table = 0; table < world->shape.port_tables; table++) {
		for (lb_u32 port = 0; port < 65536; port++) {
			lb_u32 holder = port_holder(world, table, port);
			lb_u64 binding;

			if (!holder)
				continue;
			CHECK(holder <= world->shape.flow_groups * LB_FLOW_WAYS, "port %u: holder %u", port, holder);
			binding = record_at(world, holder - 1)->binding;
			found += !lb_binding_backend(binding) || LB_BE16(lb_binding_port(binding)) != port ||
				 lb_port_table(world->settings, lb_binding_backend(binding),
					       lb_binding_snat(binding)) != table;
		}
	}
	return found;
}

/* Looks at every record and every word. A leftover is harmless, as it may be taken over; how many is for the test. */
static inline struct census world_check(const struct world *world)
{
	size_t pairs_bytes = (size_t)(world->shape.backends + 1) * (world->shape.snats + 1) * 65536 / 8;
	lb_u8 *pairs = calloc(1, pairs_bytes);
	struct census census = {0};

	CHECK(pairs, "out of memory");
	for (lb_u32 record = 0; record < world->shape.flow_groups * LB_FLOW_WAYS; record++) {
		lb_u64 binding = record_at(world, record)->binding;

		if (lb_binding_flags(binding) & LB_FLOW_CLAIMED) {
			census.claimed++;
		} else if (lb_binding_backend(binding)) {
			census.bound++;
			census.state[lb_flow_state(lb_binding_flags(binding))]++;
			check_bound(world, record, pairs);
			check_found(world, record);
		}
	}
	census.leftover = count_leftovers(world);
	free(pairs);
	return census;
}

/* As world_check, where packets were handled one after the other: then nothing is left over or unfinished. */
static inline struct census world_check_strictly(const struct world *world)
{
	struct census census = world_check(world);

	CHECK(!census.claimed && !census.leftover, "%u records claimed, %u port words left over", census.claimed,
	      census.leftover);
	return census;
}

#endif
