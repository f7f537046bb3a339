/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The env of every driver but BPF: tables in plain memory that the caller lends, such as a simulator's buffers, a
 * shared file, or a running datapath's tables mapped into this process. Null pointers and short rows are fine: they
 * mean that there is no such record.
 */
#ifndef LB_ENV_MEMORY_H
#define LB_ENV_MEMORY_H

#include "env.h"

/* cffi reads the struct from here; widths and pointers only. */
struct lb_env {
	unsigned int cpu;
	unsigned int cpus;
	unsigned int index_groups; /* records in one copy, or in one CPU's row */
	unsigned int services;
	unsigned int backends;
	unsigned int snats;
	unsigned int neighbours;
	unsigned int tables;
	unsigned int flow_groups;
	unsigned int port_lines;
	void *settings;
	void *copies;
	void *endpoints;
	void *service_records;
	void *backend_records;
	void *snat_records;
	void *neighbour_records;
	void *routes;
	void *slots;
	void *flows;
	void *ports;
	void *locks;
	void *service_counters;
	void *backend_counters;
	void *reason_counters;
	void *wanted;
	void *learned;
	void *event_heads;
	void *events;
};

#define LB_ROW(type, base, row, width, index)                                                                          \
	((base) && (index) < (width) ? (type *)(base) + (unsigned long)(row) * (width) + (index) : (type *)0)

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env)
{
	return env->settings;
}

LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy)
{
	return LB_ROW(struct lb_copy, env->copies, 0, LB_COPIES, copy);
}

LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group)
{
	return LB_ROW(struct lb_index_group, env->endpoints, copy, env->index_groups, group);
}

LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_ROW(struct lb_service, env->service_records, copy, env->services, id);
}

LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_ROW(struct lb_backend, env->backend_records, copy, env->backends, id);
}

LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_ROW(struct lb_snat, env->snat_records, copy, env->snats, id);
}

LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_ROW(struct lb_nexthop, env->neighbour_records, copy, env->neighbours, id);
}

LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route)
{
	return LB_ROW(struct lb_route, env->routes, copy, LB_ROUTES, route);
}

LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line)
{
	return LB_ROW(struct lb_slot_line, env->slots, copy, env->tables * LB_SLOT_LINES, table * LB_SLOT_LINES + line);
}

LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group)
{
	return LB_ROW(struct lb_flow_group, env->flows, 0, env->flow_groups, group);
}

LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line)
{
	return LB_ROW(struct lb_port_line, env->ports, 0, env->port_lines, line);
}

LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock)
{
	lb_u64 *word = LB_ROW(lb_u64, env->locks, 0, LB_LOCKS, lock);

	return (lb_u32 *)(void *)word;
}

LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_ROW(struct lb_counter, env->service_counters, env->cpu, env->services, id);
}

LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_ROW(struct lb_counter, env->backend_counters, env->cpu, env->backends, id);
}

LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason)
{
	return LB_ROW(lb_u64, env->reason_counters, env->cpu, LB_REASON_ROW, reason);
}

LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 index)
{
	return LB_ROW(struct lb_wanted, env->wanted, 0, LB_WANTED_RECORDS, index);
}

LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 index)
{
	return LB_ROW(struct lb_learned, env->learned, 0, LB_LEARNED_RECORDS, index);
}

LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env)
{
	return LB_ROW(struct lb_event_head, env->event_heads, 0, env->cpus, env->cpu);
}

LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event)
{
	return LB_ROW(struct lb_event, env->events, env->cpu, LB_EVENTS, event);
}

#endif
