/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Internet checksums, updated and never recomputed: RFC 1624 equation 3, HC' = ~(~HC + ~m + m').
 *
 * Sums run over 32-bit words in a 64-bit accumulator and are folded once; one's complement addition does not mind
 * the width (RFC 1071 section 2). A packet that arrives with a wrong checksum leaves with it equally wrong.
 */
#ifndef LB_CSUM_H
#define LB_CSUM_H

#include "types.h"

/* What replacing the 32-bit word `old` by `new` adds to an unfolded sum. */
LB_INLINE lb_u64 lb_csum_change(lb_u32 old, lb_u32 new)
{
	return 0xffffffffull - old + new;
}

/* A word and itself with its halves exchanged: the upper half of the sum is that of both halves, the carry included. */
LB_INLINE lb_u16 lb_csum_fold(lb_u64 sum)
{
	lb_u32 half;

	sum += sum << 32 | sum >> 32;
	half = (lb_u32)(sum >> 32);
	half += half << 16 | half >> 16;
	return (lb_u16)(half >> 16);
}

/* The checksum field after the sum of all changes in its data. */
LB_INLINE lb_u16 lb_csum_update(lb_u16 check, lb_u64 changes)
{
	return (lb_u16)~lb_csum_fold(0xffff - (lb_u64)check + changes);
}

#endif
