/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow: its two words and its state machine. Pure, no table.
 *
 * Theory. Each packet adds flags and nothing but a reset's revival takes one away, so packets of one flow may be
 * handled on several CPUs in any order. The state, and with it the idle time allowed, follows from the flags:
 *
 *	opening      not ESTABLISHED			syn_s
 *	established					established_s
 *	half closed  FIN_FORWARD or FIN_REPLY		fin_s
 *	closed       both of them, or RESET		closed_s	the port's quarantine
 *
 * ESTABLISHED takes three packets that both ends agree on: SYN, the backend's SYN-ACK (REPLIED), and an ACK of the
 * client. A RESET is not believed at once, as anyone could have sent it: if both ends go on talking (LIVE_FORWARD and
 * LIVE_REPLY) the flow is what it was before.
 *
 * Idle time is in 16-bit seconds that wrap after 18 hours. A flow is alive until its timeout; it may be taken away
 * only LB_MARGIN_S later. So whoever saw it alive finishes its packet long before it can change hands.
 */
#ifndef LB_FLOW_H
#define LB_FLOW_H

#include "tables.h"
#include "wire.h"

enum lb_flow_flag {
	LB_FLOW_CLAIMED = 0x01, /* being created or ended: whoever set it owns the record and its port */
	LB_FLOW_REPLIED = 0x02,
	LB_FLOW_ESTABLISHED = 0x04,
	LB_FLOW_FIN_FORWARD = 0x08,
	LB_FLOW_FIN_REPLY = 0x10,
	LB_FLOW_RESET = 0x20,
	LB_FLOW_LIVE_FORWARD = 0x40, /* spoke after the reset */
	LB_FLOW_LIVE_REPLY = 0x80,
};

enum lb_flow_state { LB_STATE_OPENING, LB_STATE_ESTABLISHED, LB_STATE_HALF_CLOSED, LB_STATE_CLOSED };

enum { LB_MARGIN_S = 2 };

/* A binding of backend 0 is nobody's. 0 was never used: no flow lies behind it in the order of search. */
#define LB_FLOW_FREED ((lb_u64)LB_FLOW_RESET << 40)

#define LB_BINDING_ENDS 0xffffffffffull /* backend, port, SNAT address: what must not change under a packet */

LB_INLINE lb_u64 lb_client_word(lb_be32 address, lb_be16 port, lb_u32 service)
{
	return (lb_u64)(lb_u16)service << 48 | (lb_u64)port << 32 | address;
}

LB_INLINE lb_be32 lb_client_address(lb_u64 client)
{
	return (lb_be32)client;
}

LB_INLINE lb_be16 lb_client_port(lb_u64 client)
{
	return (lb_be16)(client >> 32);
}

LB_INLINE lb_u32 lb_client_service(lb_u64 client)
{
	return (lb_u32)(client >> 48);
}

LB_INLINE lb_u64 lb_binding_word(lb_u32 backend, lb_be16 port, lb_u32 snat, lb_u8 flags, lb_u16 now)
{
	return (lb_u64)now << 48 | (lb_u64)flags << 40 | (lb_u64)(snat & 0xff) << 32 | (lb_u64)port << 16 |
	       (backend & 0xffff);
}

LB_INLINE lb_u32 lb_binding_backend(lb_u64 binding)
{
	return (lb_u32)(binding & 0xffff);
}

LB_INLINE lb_be16 lb_binding_port(lb_u64 binding)
{
	return (lb_be16)(binding >> 16);
}

LB_INLINE lb_u32 lb_binding_snat(lb_u64 binding)
{
	return (lb_u32)(binding >> 32 & 0xff);
}

LB_INLINE lb_u8 lb_binding_flags(lb_u64 binding)
{
	return (lb_u8)(binding >> 40);
}

LB_INLINE lb_u16 lb_binding_time(lb_u64 binding)
{
	return (lb_u16)(binding >> 48);
}

LB_INLINE lb_u64 lb_binding_with(lb_u64 binding, lb_u8 flags, lb_u16 now)
{
	return (binding & LB_BINDING_ENDS) | (lb_u64)flags << 40 | (lb_u64)now << 48;
}

LB_INLINE int lb_binding_usable(lb_u64 binding)
{
	return lb_binding_backend(binding) && !(lb_binding_flags(binding) & LB_FLOW_CLAIMED);
}

/* Nobody's, and nobody is about to take it. */
LB_INLINE int lb_binding_free(lb_u64 binding)
{
	return !(binding & ((lb_u64)LB_FLOW_CLAIMED << 40 | 0xffff));
}

/* The state that four of the flags make: ESTABLISHED, FIN_FORWARD, FIN_REPLY, RESET. */
#define LB_STATE_OF(established, forward, reply, reset)                                                                \
	((lb_u32)((reset) || ((forward) && (reply)) ? LB_STATE_CLOSED                                                  \
		  : !(established)		    ? LB_STATE_OPENING                                                 \
		  : (forward) || (reply)	    ? LB_STATE_HALF_CLOSED                                             \
						    : LB_STATE_ESTABLISHED)                                            \
	 << 2 * ((established) | (forward) << 1 | (reply) << 2 | (reset) << 3))
#define LB_STATES_OF(forward, reply, reset)                                                                            \
	(LB_STATE_OF(0, forward, reply, reset) | LB_STATE_OF(1, forward, reply, reset))
/* All sixteen, two bits for each: a shift instead of six branches. */
#define LB_STATES                                                                                                      \
	(LB_STATES_OF(0, 0, 0) | LB_STATES_OF(1, 0, 0) | LB_STATES_OF(0, 1, 0) | LB_STATES_OF(1, 1, 0) |               \
	 LB_STATES_OF(0, 0, 1) | LB_STATES_OF(1, 0, 1) | LB_STATES_OF(0, 1, 1) | LB_STATES_OF(1, 1, 1))
_Static_assert(LB_FLOW_ESTABLISHED == 1 << 2 && LB_FLOW_RESET == 1 << 5, "four flags in a row from bit 2");

LB_INLINE enum lb_flow_state lb_flow_state(lb_u8 flags)
{
	return (enum lb_flow_state)(LB_STATES >> (flags >> 1 & 30) & 3);
}

/* Seconds that a flow in this state may be silent. */
LB_INLINE lb_u32 lb_flow_timeout(const struct lb_settings *settings, lb_u8 flags)
{
	return (&settings->syn_s)[lb_flow_state(flags)];
}
_Static_assert(__builtin_offsetof(struct lb_settings, established_s) ==
		       __builtin_offsetof(struct lb_settings, syn_s) + 2 * LB_STATE_ESTABLISHED,
	       "timeouts lie in the order of the states");

/* Seconds since the flow was seen. Another CPU's clock may be a tick ahead: that counts as now. */
LB_INLINE lb_u32 lb_flow_age(lb_u64 binding, lb_u16 now)
{
	lb_u16 age = (lb_u16)(now - lb_binding_time(binding));

	return age & 0x8000 ? 0 : age;
}

LB_INLINE int lb_flow_expired(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	return lb_flow_age(binding, now) >= lb_flow_timeout(settings, lb_binding_flags(binding));
}

/*
 * Established and stamped lately: a packet without SYN, FIN or RST has nothing to tell about it. Flags and time are
 * compared in one: what flags differ by is turned above the seconds since the stamp, and is more than any of these.
 */
LB_INLINE int lb_binding_settled(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	lb_u32 since = ((lb_u32)now << 8 | LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED) - (lb_u32)(binding >> 40);

	since <<= 8;
	return (since << 16 | since >> 16) < settings->stamp_s;
}

/* Nothing more is expected of it: the same client may start anew. */
LB_INLINE int lb_flow_over(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	return lb_flow_state(lb_binding_flags(binding)) == LB_STATE_CLOSED || lb_flow_expired(settings, binding, now);
}

/* Long enough expired that no packet in flight still relies on it. */
LB_INLINE int lb_flow_dead(const struct lb_settings *settings, lb_u64 binding, lb_u16 now)
{
	return lb_flow_age(binding, now) >= lb_flow_timeout(settings, lb_binding_flags(binding)) + LB_MARGIN_S;
}

/* The flags after a packet with these TCP flags in this direction. */
LB_INLINE lb_u8 lb_flow_next(lb_u8 flags, lb_u8 direction, lb_u8 tcp)
{
	const lb_u8 both = LB_FLOW_LIVE_FORWARD | LB_FLOW_LIVE_REPLY;
	int forward = direction == LB_DIRECTION_FORWARD;

	if (tcp & LB_TCP_RST)
		return (flags | LB_FLOW_RESET) & (lb_u8)~both;
	if (flags & LB_FLOW_RESET) {
		flags |= forward ? LB_FLOW_LIVE_FORWARD : LB_FLOW_LIVE_REPLY;
		if ((flags & both) == both)
			flags &= (lb_u8) ~(LB_FLOW_RESET | both);
	}
	if (tcp & LB_TCP_FIN)
		flags |= forward ? LB_FLOW_FIN_FORWARD : LB_FLOW_FIN_REPLY;
	if (!forward && (tcp & (LB_TCP_SYN | LB_TCP_ACK)) == (LB_TCP_SYN | LB_TCP_ACK))
		flags |= LB_FLOW_REPLIED;
	if (forward && (tcp & (LB_TCP_SYN | LB_TCP_ACK)) == LB_TCP_ACK && flags & LB_FLOW_REPLIED)
		flags |= LB_FLOW_ESTABLISHED;
	return flags;
}

#endif
