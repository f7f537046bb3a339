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
	LB_SIZE_NEIGHBOURS,
	LB_SIZE_SLOT_LINES,
	LB_SIZE_FLOW_GROUPS,
	LB_SIZE_PORT_LINES,
	LB_SIZE_JIFFY, /* 2^32 / HZ: turns jiffies into seconds with a multiplication */
};

/*
 * Two steps in assembly, as the compiler must not know the sizes, and as Linux 6.1 learns something only where a
 * register is compared with a number, and forgets it unless a number is what it is multiplied by.
 *
 * LB_BELOW: the index if it is below size, else the function returns null. The register that is compared must be the
 * one that is added, and after the comparison: volatile keeps it where it stands. The other empty instruction keeps
 * the compiler from joining both ends, and from asking for null afterwards.
 */
#define LB_BELOW(index, size)                                                                                          \
	({                                                                                                             \
		__label__ beyond_, below_;                                                                             \
		lb_u64 index_ = (index);                                                                               \
		LB_OPAQUE(index_);                                                                                     \
		__asm__ goto("if %0 >= %1 goto %l2" : : "r"(index_), "i"(size) : : beyond_);                           \
		goto below_;                                                                                           \
	beyond_:                                                                                                       \
		__asm__ volatile("");                                                                                  \
		return 0;                                                                                              \
	below_:                                                                                                        \
		__asm__ volatile("" : "+r"(index_));                                                                   \
		index_;                                                                                                \
	})
#define LB_TIMES(value, size)                                                                                          \
	({                                                                                                             \
		lb_u64 product_ = (value);                                                                             \
		__asm__("%0 *= %1" : "+r"(product_) : "i"(size));                                                      \
		product_;                                                                                              \
	})
#define LB_CPU(env) LB_BELOW((env)->cpu, LB_SIZE_CPUS)

/* The first record of a table, which the compiler takes for its only one. */
#define LB_RECORDS(table)                                                                                              \
	({                                                                                                             \
		__typeof__((table).value) first_ = (void *)&(table);                                                   \
		__asm__("" : "+r"(first_));                                                                            \
		if (!first_)                                                                                           \
			__builtin_unreachable();                                                                       \
		first_;                                                                                                \
	})
/* In a row of as many as the loader says. */
#define LB_IN_ROW(table, row, size, index) (LB_RECORDS(table) + LB_TIMES(row, size) + LB_BELOW(index, size))
/* In a row of a known power of two: without a comparison, and never null. */
#define LB_MASKED(table, row, size, index) (LB_RECORDS(table) + (lb_u64)(row) * (size) + ((index) & ((size) - 1)))

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env)
{
	return (struct lb_settings *)&settings;
}

LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy)
{
	return LB_RECORDS(copies) + (copy & 1);
}

LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group)
{
	return LB_IN_ROW(endpoints, copy & 1, LB_SIZE_INDEX_GROUPS, group);
}

LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_IN_ROW(services, copy & 1, LB_SIZE_SERVICES, id);
}

LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_IN_ROW(backends, copy & 1, LB_SIZE_BACKENDS, id);
}

LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_MASKED(snats, copy & 1, LB_SNATS, id);
}

LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id)
{
	return LB_IN_ROW(neighbours, copy & 1, LB_SIZE_NEIGHBOURS, id);
}

LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route)
{
	return LB_MASKED(routes, copy & 1, LB_ROUTES, route);
}

LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line)
{
	return LB_IN_ROW(slots, copy & 1, LB_SIZE_SLOT_LINES, table * LB_SLOT_LINES + line);
}

LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group)
{
	return LB_RECORDS(flows) + LB_BELOW(group, LB_SIZE_FLOW_GROUPS);
}

LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line)
{
	return LB_RECORDS(ports) + LB_BELOW(line, LB_SIZE_PORT_LINES);
}

LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock)
{
	return (lb_u32 *)LB_MASKED(locks, 0, LB_LOCKS, lock);
}

LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_IN_ROW(service_counters, LB_CPU(env), LB_SIZE_SERVICES, id);
}

LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id)
{
	return LB_IN_ROW(backend_counters, LB_CPU(env), LB_SIZE_BACKENDS, id);
}

LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason)
{
	return LB_MASKED(reason_counters, LB_CPU(env), LB_REASON_ROW, reason);
}

LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 index)
{
	LB_OPAQUE(index); /* which comes from an address: masked here, and not before its bytes are turned round */
	return LB_MASKED(wanted, 0, LB_WANTED_RECORDS, index);
}

LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 index)
{
	LB_OPAQUE(index); /* which comes from an address: masked here, and not before its bytes are turned round */
	return LB_MASKED(learned, 0, LB_LEARNED_RECORDS, index);
}

LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env)
{
	return LB_RECORDS(event_heads) + LB_CPU(env);
}

LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event)
{
	return LB_MASKED(events, LB_CPU(env), LB_EVENTS, event);
}

#endif
