/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The env of every driver but BPF: tables in plain memory that the caller lends, such as a simulator's buffers, a
 * shared file, or a running datapath's tables mapped into this process. Whoever has none of the last two (null) is not
 * traced; all others have to be there.
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
	/* From here on lb_env_ready fills in: where each copy of the configuration begins, and this CPU's rows. */
	void *of_copy[7][2];
	void *of_cpu[5];
};

enum lb_env_of_copy {
	LB_OF_COPY_ENDPOINTS,
	LB_OF_COPY_SERVICES,
	LB_OF_COPY_BACKENDS,
	LB_OF_COPY_SNATS,
	LB_OF_COPY_NEIGHBOURS,
	LB_OF_COPY_ROUTES,
	LB_OF_COPY_SLOTS,
};

enum lb_env_of_cpu {
	LB_OF_CPU_SERVICES,
	LB_OF_CPU_BACKENDS,
	LB_OF_CPU_REASONS,
	LB_OF_CPU_EVENT_HEAD,
	LB_OF_CPU_EVENTS,
};

LB_INLINE void *lb_env_row(void *base, unsigned long long row, unsigned long long records, unsigned long bytes)
{
	return base ? (char *)base + row * records * bytes : base;
}

/* To be called once all that is above is filled in, and before anything else. */
LB_INLINE void lb_env_ready(struct lb_env *env)
{
	for (unsigned int copy = 0; copy < 2; copy++) {
		env->of_copy[LB_OF_COPY_ENDPOINTS][copy] =
			lb_env_row(env->endpoints, copy, env->index_groups, sizeof(struct lb_index_group));
		env->of_copy[LB_OF_COPY_SERVICES][copy] =
			lb_env_row(env->service_records, copy, env->services, sizeof(struct lb_service));
		env->of_copy[LB_OF_COPY_BACKENDS][copy] =
			lb_env_row(env->backend_records, copy, env->backends, sizeof(struct lb_backend));
		env->of_copy[LB_OF_COPY_SNATS][copy] =
			lb_env_row(env->snat_records, copy, env->snats, sizeof(struct lb_snat));
		env->of_copy[LB_OF_COPY_NEIGHBOURS][copy] =
			lb_env_row(env->neighbour_records, copy, env->neighbours, sizeof(struct lb_nexthop));
		env->of_copy[LB_OF_COPY_ROUTES][copy] =
			lb_env_row(env->routes, copy, LB_ROUTES, sizeof(struct lb_route));
		env->of_copy[LB_OF_COPY_SLOTS][copy] =
			lb_env_row(env->slots, copy, env->tables * LB_SLOT_LINES, sizeof(struct lb_slot_line));
	}
	env->of_cpu[LB_OF_CPU_SERVICES] =
		lb_env_row(env->service_counters, env->cpu, env->services, sizeof(struct lb_counter));
	env->of_cpu[LB_OF_CPU_BACKENDS] =
		lb_env_row(env->backend_counters, env->cpu, env->backends, sizeof(struct lb_counter));
	env->of_cpu[LB_OF_CPU_REASONS] = lb_env_row(env->reason_counters, env->cpu, LB_REASON_ROW, sizeof(lb_u64));
	env->of_cpu[LB_OF_CPU_EVENT_HEAD] = lb_env_row(env->event_heads, env->cpu, 1, sizeof(struct lb_event_head));
	env->of_cpu[LB_OF_CPU_EVENTS] = lb_env_row(env->events, env->cpu, LB_EVENTS, sizeof(struct lb_event));
}

/* Says to the compiler that a table is there. */
LB_INLINE void *lb_env_there(void *base)
{
	if (!base)
		__builtin_unreachable();
	return base;
}

#define LB_ENTRY(type, base, count, index) ((index) < (count) ? (type *)lb_env_there(base) + (index) : (type *)0)
#define LB_OF_COPY(type, table, copy, width, index)                                                                    \
	LB_ENTRY(type, env->of_copy[LB_OF_COPY_##table][(copy) & 1], width, index)
#define LB_OF_CPU(type, table, width, index) LB_ENTRY(type, env->of_cpu[LB_OF_CPU_##table], width, index)
#define LB_IF_TRACED(type, table, width, index)                                                                        \
	(env->of_cpu[LB_OF_CPU_##table] ? LB_OF_CPU(type, table, width, index) : (type *)0)

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env)
{
	return env->settings;
}

LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy)
{
	return (struct lb_copy *)env->copies + (copy & 1);
}

LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group)
{
	return LB_OF_COPY(struct lb_index_group, ENDPOINTS, copy, env->index_groups, group);
}

LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(struct lb_service, SERVICES, copy, env->services, id);
}

LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(struct lb_backend, BACKENDS, copy, env->backends, id);
}

LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(struct lb_snat, SNATS, copy, env->snats, id);
}

LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(struct lb_nexthop, NEIGHBOURS, copy, env->neighbours, id);
}

LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route)
{
	return LB_OF_COPY(struct lb_route, ROUTES, copy, LB_ROUTES, route);
}

LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line)
{
	return LB_OF_COPY(struct lb_slot_line, SLOTS, copy, env->tables * LB_SLOT_LINES, table * LB_SLOT_LINES + line);
}

LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group)
{
	return LB_ENTRY(struct lb_flow_group, env->flows, env->flow_groups, group);
}

LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line)
{
	return LB_ENTRY(struct lb_port_line, env->ports, env->port_lines, line);
}

LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock)
{
	lb_u64 *word = LB_ENTRY(lb_u64, env->locks, LB_LOCKS, lock);

	return (lb_u32 *)(void *)word;
}

LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_OF_CPU(struct lb_counter, SERVICES, env->services, id);
}

LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_OF_CPU(struct lb_counter, BACKENDS, env->backends, id);
}

LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason)
{
	return LB_OF_CPU(lb_u64, REASONS, LB_REASON_ROW, reason);
}

LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 index)
{
	return LB_ENTRY(struct lb_wanted, env->wanted, LB_WANTED_RECORDS, index);
}

LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 index)
{
	return LB_ENTRY(struct lb_learned, env->learned, LB_LEARNED_RECORDS, index);
}

LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env)
{
	return LB_IF_TRACED(struct lb_event_head, EVENT_HEAD, 1u, 0u);
}

LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event)
{
	return LB_IF_TRACED(struct lb_event, EVENTS, LB_EVENTS, event);
}

#endif
