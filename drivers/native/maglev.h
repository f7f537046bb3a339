/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maglev's table (D. Eisenbud et al., "Maglev", NSDI 2016, section 3.4): each backend has its own order of all slots
 * and takes its next free one in turn. Weights as turns: a backend moves when its share of the turns is due.
 */
#ifndef LB_MAGLEV_H
#define LB_MAGLEV_H

#include "types.h"

/*
 * Fills `slots` (size entries, size prime) with ids. offsets and skips: each below size, skips at least 1. weights: 0
 * takes no slot; `most` is their maximum and not 0. `next` and `due`: scratch, count entries each, zeroed.
 */
static inline void lb_maglev_fill(lb_u16 *slots, lb_u32 size, const lb_u16 *ids, const lb_u32 *offsets,
				  const lb_u32 *skips, const lb_u32 *weights, lb_u32 most, lb_u32 *next, lb_u64 *due,
				  lb_u32 count)
{
	lb_u32 filled = 0;

	__builtin_memset(slots, 0, (unsigned long)size * sizeof(*slots));
	for (lb_u32 i = 0; i < count; i++)
		next[i] = offsets[i];
	while (filled < size) {
		for (lb_u32 i = 0; i < count && filled < size; i++) {
			lb_u32 slot;

			due[i] += weights[i];
			if (due[i] < most)
				continue;
			due[i] -= most;
			do {
				slot = next[i];
				next[i] = slot + skips[i] < size ? slot + skips[i] : slot + skips[i] - size;
			} while (slots[slot]);
			slots[slot] = ids[i];
			filled++;
		}
	}
}

#endif
