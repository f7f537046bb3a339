/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The incremental checksum against the full one, exhaustively.
 *
 * Full recomputation is ~S, S the 16-bit one's complement sum of the data with end-around carry (RFC 1071). S has two
 * zeros: 0x0000, which only data of nothing but zeros sums to, and 0xffff. So of the two checksum fields that stand for
 * a zero sum, a sender who computes writes 0x0000 (S = 0xffff), and 0xffff only over all-zero data, which no packet is:
 * its version or its protocol is not zero.
 *
 * What is proven, each by trying everything:
 *
 *   update     all 2^32 pairs of checksum field and change, the change folded to 16 bits: lb_csum_update gives the
 *              complement of the end-around-carry sum of ~field and change. In particular 0xffff comes out only of
 *              field 0xffff and change 0x0000: never for a packet, as a replaced word changes the sum by ~old + new,
 *              which is 0x0000 only for old = 0xffff and new = 0x0000.
 *   change     all 2^32 pairs (old, new) of a 16-bit word, in the low half of 32 bits for even old and in the high
 *              half for odd: the message {old, rest} with its full checksum, after lb_csum_update, has exactly the checksum that full
 *              recomputation gives {new, rest}. With rest != 0 the bits are the same, which side of zero included (the
 *              trap of RFC 1141 that RFC 1624 corrects). With rest = 0 and new = 0, all-zero data, full recomputation
 *              says 0xffff and the update 0x0000 unless old was 0 too: equal in one's complement, checked as such.
 *
 * Random: 32-bit words, several changes added before one fold, and the largest sum that a caller can build.
 */
#include <stdio.h>
#include <stdlib.h>

#include "csum.h"

/* End-around-carry addition, the definition. */
static inline lb_u32 plus(lb_u32 a, lb_u32 b)
{
	lb_u32 sum = a + b;

	return sum > 0xffff ? sum - 0xffff : sum;
}

static void fail(const char *what, lb_u32 a, lb_u32 b, lb_u32 got, lb_u32 wanted)
{
	fprintf(stderr, "%s: %08x %08x gives %04x instead of %04x\n", what, a, b, got, wanted);
	abort();
}

/* Counts first and looks closer only on failure: the loop has no branch, so the compiler makes vectors of it. */
static void test_update(void)
{
	for (lb_u32 check = 0; check <= 0xffff; check++) {
		lb_u32 wrong = 0, change;

		for (change = 0; change <= 0xffff; change++)
			wrong += lb_csum_update((lb_u16)check, change) != (~plus(~check & 0xffff, change) & 0xffff);
		for (change = 0; wrong && change <= 0xffff; change++)
			if (lb_csum_update((lb_u16)check, change) != (~plus(~check & 0xffff, change) & 0xffff))
				fail("update", check, change, lb_csum_update((lb_u16)check, change),
				     ~plus(~check & 0xffff, change) & 0xffff);
	}
}

static inline lb_u32 updated(lb_u32 old, lb_u32 new, lb_u32 rest, lb_u32 shift)
{
	lb_u32 before = ~plus(old, rest) & 0xffff;

	return lb_csum_update((lb_u16)before, lb_csum_change(old << shift, new << shift));
}

/* The rest of the message differs from pair to pair and is never 0. */
static void test_change(void)
{
	for (lb_u32 old = 0; old <= 0xffff; old++) {
		lb_u32 shift = (old & 1) * 16, wrong = 0, new;
		lb_u32 stretch = old * 40503 | 1;

		for (new = 0; new <= 0xffff; new++) {
			lb_u32 rest = 1 + (new * stretch & 0xfffe);

			wrong += updated(old, new, rest, shift) != (~plus(new, rest) & 0xffff);
		}
		for (new = 0; wrong && new <= 0xffff; new++) {
			lb_u32 rest = 1 + (new * stretch & 0xfffe);

			if (updated(old, new, rest, shift) != (~plus(new, rest) & 0xffff))
				fail("change", old, new, updated(old, new, rest, shift), ~plus(new, rest) & 0xffff);
		}
	}
}

/* Nothing but the word itself, so that the sum comes to lie on either zero. */
static void test_zeros(void)
{
	static const lb_u32 rests[] = {0, 0xffff};

	for (lb_u32 i = 0; i < 4; i++) {
		lb_u32 rest = rests[i & 1], shift = i >> 1 ? 16 : 0;

		for (lb_u32 word = 0; word <= 0xffff; word++) {
			lb_u32 got = updated(word, 0, rest, shift), wanted = ~plus(0, rest) & 0xffff;

			if (got != wanted && !(got == 0 && wanted == 0xffff && rest == 0))
				fail("to zero", word, rest, got, wanted);
			got = updated(0, word, rest, shift);
			wanted = ~plus(word, rest) & 0xffff;
			if (got != wanted && !(got == 0 && wanted == 0xffff && rest == 0))
				fail("from zero", word, rest, got, wanted);
		}
	}
}

static lb_u32 random32(lb_u64 *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (lb_u32)(*state >> 32);
}

/* A message of eight 32-bit words of which some are replaced, as an IP header's are. */
static void test_random(void)
{
	lb_u64 state = 1;

	for (lb_u32 round = 0; round < 10000000; round++) {
		lb_u32 before = 1, after = 1; /* the message holds a word of 1 besides, as a packet holds a version */
		lb_u64 changes = 0;
		lb_u32 got;

		for (lb_u32 i = 0; i < 8; i++) {
			lb_u32 old = random32(&state), new = i & 1 ? old : random32(&state);

			old = (round & 7) == i ? ~0u : old;
			new = (round >> 3 & 7) == i ? 0 : new;
			before = plus(plus(before, old >> 16), old & 0xffff);
			after = plus(plus(after, new >> 16), new & 0xffff);
			changes += lb_csum_change(old, new);
		}
		got = lb_csum_update((lb_u16)~before, changes);
		if (got != (~after & 0xffff))
			fail("random", before, after, got, ~after & 0xffff);
	}
	/* No caller's sum is wider than this, and folding is complete even here. */
	if (lb_csum_fold(~0ull) != 0xffff || lb_csum_fold(0xfffffffeffffffffull) != 0xfffe)
		fail("fold", ~0u, ~0u, lb_csum_fold(~0ull), 0xffff);
}

int main(void)
{
	test_update();
	test_change();
	test_zeros();
	test_random();
	return 0;
}
