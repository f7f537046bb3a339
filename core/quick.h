/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way of most packets: plain segments of settled flows. The same plan and rewrite as everybody's, but what is out
 * of the ordinary gives up, with nothing changed, and goes the long way (lb_decide). So plans stay in registers, and
 * nothing is written for the packets that are not here: a third of the instructions. The order is that of pipeline.h:
 * all that decides is looked up before the first byte of the packet is written.
 *
 * In two parts, so that a driver with bursts can ask memory for all of them before it needs the first (burst.h).
 */
#ifndef LB_QUICK_H
#define LB_QUICK_H

#include "pipeline.h"

/* What is in force: the settings, and one copy of the configuration. */
struct lb_force {
	const struct lb_settings *settings;
	const struct lb_copy *header;
	lb_u32 copy;
};

/* False where nothing is, and where every packet is traced and so goes the long way. */
LB_INLINE int lb_quick_force(const struct lb_env *env, struct lb_force *force)
{
	const struct lb_settings *settings = lb_env_settings(env);

	force->settings = settings;
	force->copy = settings ? LB_READ(settings->active) & 1 : 0;
	force->header = lb_env_copy(env, force->copy);
	return settings && !settings->trace && force->header;
}

/* The service that was met last: most likely the next segment's, too. */
struct lb_recent {
	lb_u64 at; /* address and port */
	lb_u32 service;
};

/* What is known of a plain segment before the flow tables were looked at. */
struct lb_quick {
	lb_u32 service; /* 0: a reply */
	lb_u32 backend; /* of a reply, as the next two */
	lb_u32 snat;
	lb_u32 *word;		    /* of the port that it is sent to */
	lb_u64 client;		    /* to a service, as the next one: the flow's client word */
	const struct lb_flow *line; /* where the flow lies, most likely */
};

/* The service at this address and port, or 0. */
LB_INLINE lb_u32 lb_quick_service(const struct lb_env *env, const struct lb_force *force, const struct lb_addr *dst,
				  lb_be16 port, struct lb_recent *recent)
{
	lb_u64 at = (lb_u64)port << 32 | lb_addr_v4(dst);
	lb_u32 service;

	if (recent->at == at)
		return recent->service;
	service = lb_endpoint_find(env, force->copy, force->header, dst, port, LB_PROTOCOL_TCP, LB_ENDPOINT_SERVICE);
	if (service)
		*recent = (struct lb_recent){at, service};
	return service;
}

/* Is it a plain segment to a service, or from a backend? */
LB_INLINE int lb_quick_begin(const struct lb_env *env, const struct lb_force *force, const lb_u8 *data,
			     const lb_u8 *end, struct lb_recent *recent, struct lb_quick *quick)
{
	const struct lb_ipv4 *ip = lb_plain_ip(data);
	const struct lb_tcp *tcp = lb_plain_tcp(data);
	struct lb_addr src, dst;

	if (LB_UNLIKELY(!lb_plain(data, end)))
		return 0;
	lb_addr_set_v4(&src, LB_GET(32, &ip->src));
	lb_addr_set_v4(&dst, LB_GET(32, &ip->dst));
	quick->service = lb_quick_service(env, force, &dst, tcp->dport, recent);
	if (quick->service) {
		lb_u64 place = lb_place_hash(force->settings, lb_addr_v4(&src), tcp->sport);

		quick->client = lb_client_word(lb_addr_v4(&src), tcp->sport, quick->service);
		quick->line = lb_flow_home(env, force->settings, place);
		return quick->line != 0;
	}
	quick->backend = lb_endpoint_find(env, force->copy, force->header, &src, tcp->sport, LB_PROTOCOL_TCP,
					  LB_ENDPOINT_BACKEND);
	quick->snat =
		quick->backend ? lb_endpoint_find(env, force->copy, force->header, &dst, 0, 0, LB_ENDPOINT_SNAT) : 0;
	if (!quick->snat)
		return 0;
	quick->word =
		lb_port_word(env, lb_port_table(force->settings, quick->backend, quick->snat), LB_BE16(tcp->dport));
	return quick->word != 0;
}

/* The record that holds the port which a reply is sent to. */
LB_INLINE const struct lb_flow *lb_quick_holder(const struct lb_env *env, const struct lb_quick *quick)
{
	lb_u32 holder = LB_READ(*quick->word);

	return holder ? lb_flow_at(env, holder - 1) : 0;
}

/* To a service, on a settled flow: written anew, counted, and the interface to send it to; or 0. */
LB_INLINE lb_u32 lb_quick_forward(const struct lb_env *env, const struct lb_force *force, const struct lb_quick *quick,
				  lb_u8 *data, lb_u32 length, lb_u16 now)
{
	const struct lb_backend *backend;
	const struct lb_snat *snat;
	struct lb_plan plan;
	lb_u64 binding = lb_flow_settled(force->settings, quick->line, quick->client, now);

	if (LB_UNLIKELY(!binding))
		binding = lb_flow_settled_far(env, quick->client, now);
	if (!binding)
		return 0;
	backend = lb_env_backend(env, force->copy, lb_binding_backend(binding));
	snat = lb_env_snat(env, force->copy, lb_binding_snat(binding));
	if (!backend || !snat || backend->state != LB_BACKEND_USABLE || !backend->nexthop.ifindex)
		return 0;
	lb_plan_forward(lb_plain_ip(data)->ttl, LB_PLAIN_L4, snat, backend, binding, &plan);
	lb_rewrite_ipv4(data, LB_PLAIN_L4, &plan);
	lb_account_forward(env, LB_REASON_FORWARD, LB_DIRECTION_FORWARD, quick->service, lb_binding_backend(binding),
			   length);
	return plan.nexthop.ifindex;
}

/* From a backend, on a settled flow: as lb_quick_forward. */
LB_INLINE lb_u32 lb_quick_reply(const struct lb_env *env, const struct lb_force *force, const struct lb_quick *quick,
				lb_u8 *data, lb_u32 length, lb_u16 now)
{
	const struct lb_flow *flow = lb_quick_holder(env, quick);
	struct lb_nexthop nexthop = {{0}, {0}, 0};
	const struct lb_service *service;
	lb_u64 client, binding;
	struct lb_plan plan;
	struct lb_addr to;

	if (!flow)
		return 0;
	client = LB_READ(flow->client);
	binding = LB_READ(flow->binding);
	if ((binding ^ lb_binding_word(quick->backend, lb_plain_tcp(data)->dport, quick->snat, 0, 0)) &
		    LB_BINDING_ENDS ||
	    !lb_binding_settled(force->settings, binding, now) || LB_READ(flow->client) != client)
		return 0;
	service = lb_env_service(env, force->copy, lb_client_service(client));
	if (!service || !service->mode)
		return 0;
	lb_addr_set_v4(&to, lb_client_address(client)); /* in memory for the far way, unlike the plan */
	lb_nexthop_to(env, force->copy, &to, &nexthop);
	if (!nexthop.ifindex)
		return 0;
	lb_plan_reply(lb_plain_ip(data)->ttl, LB_PLAIN_L4, service, client, &plan);
	plan.nexthop = nexthop;
	lb_rewrite_ipv4(data, LB_PLAIN_L4, &plan);
	lb_account_forward(env, LB_REASON_REPLY, LB_DIRECTION_REPLY, lb_client_service(client), quick->backend, length);
	return plan.nexthop.ifindex;
}

/* The interface to send the packet to, which is written anew and counted then; 0: it has to go the long way. */
LB_INLINE lb_u32 lb_quick_end(const struct lb_env *env, const struct lb_force *force, const struct lb_quick *quick,
			      lb_u8 *data, lb_u32 length, lb_u16 now)
{
	return quick->service ? lb_quick_forward(env, force, quick, data, length, now)
			      : lb_quick_reply(env, force, quick, data, length, now);
}

/* All of it, for one packet. */
LB_INLINE lb_u32 lb_quick(const struct lb_env *env, lb_u8 *data, const lb_u8 *end, lb_u16 now)
{
	struct lb_force force;
	struct lb_quick quick;
	struct lb_recent recent = {0, 0};

	if (!lb_quick_force(env, &force) || !lb_quick_begin(env, &force, data, end, &recent, &quick))
		return 0;
	return lb_quick_end(env, &force, &quick, data, (lb_u16)(end - data), now);
}

#endif
