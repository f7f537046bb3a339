/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The keyed hash. One per packet picks the flow's group; new flows take another for their Maglev slot.
 * src/evener/tables/hashing.py has the same constants and a test compares the two.
 *
 * Two rounds of xor, odd multiply and fold (the shape of MurmurHash3's finaliser, A. Appleby, public domain), but
 * with secret words for both xor and multiplier: without the seed nobody can aim flows at one group or backend.
 * SipHash is the stronger choice; it costs about four times as much, and an attacker here never sees a hash.
 */
#ifndef LB_HASH_H
#define LB_HASH_H

#include "tables.h"

LB_INLINE lb_u64 lb_hash(const struct lb_settings *settings, lb_u64 word)
{
	lb_u64 h = (word ^ settings->seed[0]) * (settings->seed[1] | 1);

	h ^= h >> 32;
	h = (h ^ settings->seed[2]) * (settings->seed[3] | 1);
	return h ^ h >> 32;
}

/*
 * Where a flow lies: by the client alone, so that its memory is asked for while the service is still looked up. Flows
 * of one client port to several services share a line, which has room for four.
 */
LB_INLINE lb_u64 lb_place_hash(const struct lb_settings *settings, lb_be32 client, lb_be16 port)
{
	return lb_hash(settings, (lb_u64)port << 32 | client);
}

/* What is chosen for a flow. The service's salt stands for VIP, port and protocol, so this is a hash of the 5-tuple. */
LB_INLINE lb_u64 lb_flow_hash(const struct lb_settings *settings, const struct lb_service *service, lb_be32 client,
			      lb_be16 port)
{
	return lb_hash(settings, ((lb_u64)port << 32 | client) ^ service->salt);
}

/* Scales 32 hash bits to 0..range-1 without a division (D. Lemire, "Fast random integer generation", 2019). */
LB_INLINE lb_u32 lb_scale(lb_u32 bits, lb_u32 range)
{
	return (lb_u32)(((lb_u64)bits * range) >> 32);
}

LB_INLINE lb_u32 lb_slot_index(lb_u64 hash)
{
	return lb_scale((lb_u32)hash, LB_SLOTS);
}

/*
 * For the endpoint index and other small tables: callers take the low bits. Multiplicative hashing (M. Dietzfelbinger,
 * "A reliable randomized algorithm for the closest-pair problem", 1997): the top bits of a product depend on all bits of
 * the word, so they are turned to the bottom. The addresses of a network differ in the top bits of the word alone. The
 * seed picks the odd multiplier; the control plane looks for one that fits what it fills in.
 */
LB_INLINE lb_u64 lb_index_factor(lb_u32 seed)
{
	return 0x9e3779b97f4a7c15ull * (2ull * seed + 1);
}

LB_INLINE lb_u32 lb_index_hash(const struct lb_addr *addr, lb_be16 port, lb_u8 protocol, lb_u64 factor)
{
	lb_u64 word = addr->half[1] ^ addr->half[0] * 3 ^ ((lb_u64)port << 16 | protocol);

	return __builtin_bswap32((lb_u32)(word * factor >> 32));
}

/* May a service listen at this port? No means no. */
LB_INLINE int lb_may_listen(const struct lb_copy *header, lb_be16 port)
{
	lb_u32 bit = port ^ port >> 8;

	/* Masked last: Linux 6.1 knows no bounds of a XOR. */
	return header->listening[bit >> 6 & 3] >> (bit & 63) & 1;
}

#endif
