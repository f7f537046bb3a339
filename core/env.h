/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a driver provides. Each is defined as a static inline in the driver's env_*.h, before lb.h is included: BPF
 * has no indirect calls and wants the map's address in the instruction, so there is no table of function pointers.
 *
 * The contract: a null pointer means that there is no such record (index out of range; where tables.h says how many
 * there are, the core keeps below that by itself); a pointer is good until the packet is done; other CPUs may write
 * flows, ports and locks at the same time. Time is not here: it is an argument.
 *
 *	struct lb_env			per CPU, whatever the driver needs to find its tables; at least `lb_u32 cpu`
 *
 *	settings(env)			struct lb_settings *
 *	copy(env, copy)			struct lb_copy *
 *	index_group(env, copy, i)	struct lb_index_group *
 *	service(env, copy, id)		struct lb_service *
 *	backend(env, copy, id)		struct lb_backend *
 *	snat(env, copy, id)		struct lb_snat *
 *	neighbour(env, copy, id)	struct lb_nexthop *
 *	route(env, copy, i)		struct lb_route *
 *	slot_line(env, copy, table, i)	struct lb_slot_line *
 *	flow_group(env, i)		struct lb_flow_group *
 *	port_line(env, i)		struct lb_port_line *	line of all port tables together: table * LB_PORT_LINES + line
 *	lock(env, i)			lb_u32 *
 *	service_counter(env, id)	struct lb_counter *	this CPU's
 *	backend_counter(env, id)	struct lb_counter *	this CPU's
 *	reason_counter(env, reason)	lb_u64 *		this CPU's
 *	wanted(env, i)			struct lb_wanted *	i below LB_WANTED_RECORDS; any CPU writes
 *	learned(env, i)			struct lb_learned *	i below LB_LEARNED_RECORDS; any CPU writes
 *	event_head(env)			struct lb_event_head *	this CPU's
 *	event(env, i)			struct lb_event *	this CPU's, i below LB_EVENTS
 */
#ifndef LB_ENV_H
#define LB_ENV_H

#include "tables.h"

struct lb_env;

LB_INLINE struct lb_settings *lb_env_settings(const struct lb_env *env);
LB_INLINE struct lb_copy *lb_env_copy(const struct lb_env *env, lb_u32 copy);
LB_INLINE struct lb_index_group *lb_env_index_group(const struct lb_env *env, lb_u32 copy, lb_u32 group);
LB_INLINE struct lb_service *lb_env_service(const struct lb_env *env, lb_u32 copy, lb_u32 id);
LB_INLINE struct lb_backend *lb_env_backend(const struct lb_env *env, lb_u32 copy, lb_u32 id);
LB_INLINE struct lb_snat *lb_env_snat(const struct lb_env *env, lb_u32 copy, lb_u32 id);
LB_INLINE struct lb_nexthop *lb_env_neighbour(const struct lb_env *env, lb_u32 copy, lb_u32 id);
LB_INLINE struct lb_route *lb_env_route(const struct lb_env *env, lb_u32 copy, lb_u32 route);
LB_INLINE struct lb_slot_line *lb_env_slot_line(const struct lb_env *env, lb_u32 copy, lb_u32 table, lb_u32 line);
LB_INLINE struct lb_flow_group *lb_env_flow_group(const struct lb_env *env, lb_u32 group);
LB_INLINE struct lb_port_line *lb_env_port_line(const struct lb_env *env, lb_u32 line);
LB_INLINE lb_u32 *lb_env_lock(const struct lb_env *env, lb_u32 lock);
LB_INLINE struct lb_counter *lb_env_service_counter(const struct lb_env *env, lb_u32 id);
LB_INLINE struct lb_counter *lb_env_backend_counter(const struct lb_env *env, lb_u32 id);
LB_INLINE lb_u64 *lb_env_reason_counter(const struct lb_env *env, lb_u32 reason);
LB_INLINE struct lb_wanted *lb_env_wanted(const struct lb_env *env, lb_u32 wanted);
LB_INLINE struct lb_learned *lb_env_learned(const struct lb_env *env, lb_u32 learned);
LB_INLINE struct lb_event_head *lb_env_event_head(const struct lb_env *env);
LB_INLINE struct lb_event *lb_env_event(const struct lb_env *env, lb_u32 event);

#endif
