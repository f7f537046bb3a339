/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The core's tables as BPF array maps, mmapable, so that Python reads and writes the same memory. An array lookup is
 * inlined by the verifier: a bounds check and a multiplication.
 */
#ifndef LB_ENV_BPF_H
#define LB_ENV_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "env.h"

struct lb_env {
	lb_u32 cpu;
};

/* Sizes are set by the loader from the configuration; these are for one service to try. */
#define LB_MAP(name, record, entries)                                                                                  \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                     \
		__uint(max_entries, entries);                                                                          \
		__type(key, lb_u32);                                                                                   \
		__type(value, record);                                                                                 \
	} name SEC(".maps")

LB_MAP(settings, struct lb_settings, 1);
LB_MAP(copies, struct lb_copy, LB_COPIES);
LB_MAP(endpoints, struct lb_index_group, LB_COPIES * 64);
LB_MAP(services, struct lb_service, LB_COPIES * 16);
LB_MAP(backends, struct lb_backend, LB_COPIES * 64);
LB_MAP(snats, struct lb_snat, LB_COPIES * 128);
LB_MAP(neighbours, struct lb_nexthop, LB_COPIES * 64);
LB_MAP(routes, struct lb_route, LB_COPIES *LB_ROUTES);
LB_MAP(slots, struct lb_slot_line, LB_COPIES * 2 * LB_SLOT_LINES);
LB_MAP(flows, struct lb_flow_group, 64);
LB_MAP(ports, struct lb_port_line, LB_PORT_LINES);
LB_MAP(locks, lb_u64, LB_LOCKS);
LB_MAP(service_counters, struct lb_counter, 16);
LB_MAP(backend_counters, struct lb_counter, 64);
LB_MAP(reason_counters, lb_u64, LB_REASON_ROW);
LB_MAP(wanted, struct lb_wanted, LB_WANTED_RECORDS);
LB_MAP(learned, struct lb_learned, LB_LEARNED_RECORDS);
LB_MAP(event_heads, struct lb_event_head, 1);
LB_MAP(events, struct lb_event, LB_EVENTS);

/* How many records one copy, or one CPU's row, has. Set before load. */
const volatile lb_u32 lb_index_groups = 64;
const volatile lb_u32 lb_services = 16;
const volatile lb_u32 lb_backends = 64;
const volatile lb_u32 lb_snats = 128;
const volatile lb_u32 lb_neighbours = 64;
const volatile lb_u32 lb_tables = 2;

#define LB_LOOKUP(map, index)                                                                                          \
	({                                                                                                             \
		lb_u32 key_ = (index);                                                                                 \
		bpf_map_lookup_elem(&(map), &key_);                                                                    \
	})
#define LB_IN_ROW(row, width, index) ((index) < (width) ? (row) * (width) + (index) : 0xffffffffu)

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env)
{
	return LB_LOOKUP(settings, 0);
}

LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy)
{
	return LB_LOOKUP(copies, copy);
}

LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group)
{
	return LB_LOOKUP(endpoints, LB_IN_ROW(copy, lb_index_groups, group));
}

LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_LOOKUP(services, LB_IN_ROW(copy, lb_services, id));
}

LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_LOOKUP(backends, LB_IN_ROW(copy, lb_backends, id));
}

LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_LOOKUP(snats, LB_IN_ROW(copy, lb_snats, id));
}

LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_LOOKUP(neighbours, LB_IN_ROW(copy, lb_neighbours, id));
}

LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route)
{
	return LB_LOOKUP(routes, LB_IN_ROW(copy, LB_ROUTES, route));
}

LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line)
{
	return LB_LOOKUP(slots, LB_IN_ROW(copy, lb_tables * LB_SLOT_LINES, table * LB_SLOT_LINES + line));
}

LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group)
{
	return LB_LOOKUP(flows, group);
}

LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line)
{
	return LB_LOOKUP(ports, line);
}

LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock)
{
	return LB_LOOKUP(locks, lock);
}

LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_LOOKUP(service_counters, LB_IN_ROW(env->cpu, lb_services, id));
}

LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_LOOKUP(backend_counters, LB_IN_ROW(env->cpu, lb_backends, id));
}

LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason)
{
	return LB_LOOKUP(reason_counters, LB_IN_ROW(env->cpu, LB_REASON_ROW, reason));
}

LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 index)
{
	return LB_LOOKUP(wanted, index);
}

LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 index)
{
	return LB_LOOKUP(learned, index);
}

LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env)
{
	return LB_LOOKUP(event_heads, env->cpu);
}

LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event)
{
	return LB_LOOKUP(events, LB_IN_ROW(env->cpu, LB_EVENTS, event));
}

#endif
