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

/*
 * Each table is one value of an array map. The loader makes the map as large as the configuration asks for and turns
 * every reference to it into the address of that value (BPF_PSEUDO_MAP_VALUE). So the address stands in the
 * instruction, an index is added after one comparison, and nothing is looked up.
 */
#define LB_TABLE(name, record)                                                                                         \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                     \
		__uint(max_entries, 1);                                                                                \
		__type(key, lb_u32);                                                                                   \
		__type(value, record);                                                                                 \
	} name SEC(".maps")

LB_TABLE(settings, struct lb_settings);
LB_TABLE(copies, struct lb_copy);
LB_TABLE(endpoints, struct lb_index_group);
LB_TABLE(services, struct lb_service);
LB_TABLE(backends, struct lb_backend);
LB_TABLE(snats, struct lb_snat);
LB_TABLE(neighbours, struct lb_nexthop);
LB_TABLE(routes, struct lb_route);
LB_TABLE(slots, struct lb_slot_line);
LB_TABLE(flows, struct lb_flow_group);
LB_TABLE(ports, struct lb_port_line);
LB_TABLE(locks, lb_u64);
LB_TABLE(service_counters, struct lb_counter);
LB_TABLE(backend_counters, struct lb_counter);
LB_TABLE(reason_counters, lb_u64);
LB_TABLE(wanted, struct lb_wanted);
LB_TABLE(learned, struct lb_learned);
LB_TABLE(event_heads, struct lb_event_head);
LB_TABLE(events, struct lb_event);

/*
 * How many records one copy, or one CPU's row, has: numbers that the loader puts in the place of these, which occur
 * nowhere else. A constant from a data section would take three instructions and a register each time.
 */
enum {
	LB_SIZE_CPUS = 0x6c620001,
	LB_SIZE_INDEX_GROUPS,
	LB_SIZE_SERVICES,
	LB_SIZE_BACKENDS,
	LB_SIZE_SNATS,
	LB_SIZE_NEIGHBOURS,
	LB_SIZE_SLOT_LINES,
	LB_SIZE_FLOW_GROUPS,
	LB_SIZE_PORT_LINES,
	LB_SIZE_JIFFY, /* 2^32 / HZ: turns jiffies into seconds with a multiplication */
};

#define LB_SIZE(name)                                                                                                  \
	({                                                                                                             \
		lb_u64 size_;                                                                                          \
		__asm__("%0 = %1" : "=r"(size_) : "i"(LB_SIZE_##name));                                                \
		size_;                                                                                                 \
	})

#define LB_TABLE_AT(table, index)                                                                                      \
	({                                                                                                             \
		__typeof__(*(table).value) *base_ = (void *)&(table);                                                  \
		__asm__("" : "+r"(base_)); /* the compiler takes it for one record */                                  \
		if (!base_)                                                                                            \
			__builtin_unreachable();                                                                       \
		base_ + (index);                                                                                       \
	})
/* The register that is compared must be the one that is added, or the verifier has learnt nothing from it. And it
 * must be added after the comparison: volatile keeps it where it stands. */
#define LB_KEPT(x)                                                                                                     \
	({                                                                                                             \
		__asm__ volatile("" : "+r"(x));                                                                        \
		x;                                                                                                     \
	})
#define LB_ENTRY(table, count, index)                                                                                  \
	({                                                                                                             \
		lb_u64 index_ = (index);                                                                               \
		LB_OPAQUE(index_);                                                                                     \
		index_ < (count) ? LB_TABLE_AT(table, LB_KEPT(index_)) : 0;                                            \
	})
#define LB_IN_ROW(table, row, width, index)                                                                            \
	({                                                                                                             \
		lb_u64 index_ = (index), width_ = (width);                                                             \
		LB_OPAQUE(index_);                                                                                     \
		index_ < width_ ? LB_TABLE_AT(table, (row) * width_ + index_) : 0;                                     \
	})
#define LB_OF_COPY(table, copy, width, index) LB_IN_ROW(table, (copy) & 1, width, index)
#define LB_OF_CPU(table, width, index) (env->cpu < LB_SIZE(CPUS) ? LB_IN_ROW(table, env->cpu, width, index) : 0)

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env)
{
	return (struct lb_settings *)&settings;
}

LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy)
{
	return LB_TABLE_AT(copies, (lb_u64)(copy & 1));
}

LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group)
{
	return LB_OF_COPY(endpoints, copy, LB_SIZE(INDEX_GROUPS), group);
}

LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(services, copy, LB_SIZE(SERVICES), id);
}

LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(backends, copy, LB_SIZE(BACKENDS), id);
}

LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(snats, copy, LB_SIZE(SNATS), id);
}

LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_OF_COPY(neighbours, copy, LB_SIZE(NEIGHBOURS), id);
}

LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route)
{
	return LB_OF_COPY(routes, copy, LB_ROUTES, route);
}

LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line)
{
	return LB_OF_COPY(slots, copy, LB_SIZE(SLOT_LINES), table * LB_SLOT_LINES + line);
}

LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group)
{
	return LB_ENTRY(flows, LB_SIZE(FLOW_GROUPS), group);
}

LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line)
{
	return LB_ENTRY(ports, LB_SIZE(PORT_LINES), line);
}

LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock)
{
	return (lb_u32 *)LB_ENTRY(locks, LB_LOCKS, lock);
}

LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_OF_CPU(service_counters, LB_SIZE(SERVICES), id);
}

LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_OF_CPU(backend_counters, LB_SIZE(BACKENDS), id);
}

LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason)
{
	return LB_OF_CPU(reason_counters, LB_REASON_ROW, reason);
}

LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 index)
{
	return LB_ENTRY(wanted, LB_WANTED_RECORDS, index);
}

LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 index)
{
	return LB_ENTRY(learned, LB_LEARNED_RECORDS, index);
}

LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env)
{
	return LB_ENTRY(event_heads, LB_SIZE(CPUS), env->cpu);
}

LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event)
{
	return LB_OF_CPU(events, LB_EVENTS, event);
}

#endif
