/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fixed-width types and the few compiler words that the core uses.
 *
 * Kernel, libc and DPDK headers redefine one another, so the core includes none of them: this file and wire.h
 * stand in. Words marked be are in network byte order and are only compared, copied and summed, never counted with.
 */
#ifndef LB_TYPES_H
#define LB_TYPES_H

typedef unsigned char lb_u8;
typedef unsigned short lb_u16;
typedef unsigned int lb_u32;
typedef unsigned long long lb_u64;
typedef lb_u16 lb_be16;
typedef lb_u32 lb_be32;

#define LB_INLINE static inline __attribute__((always_inline))

/*
 * A step off the fast path. The BPF build makes it a global function: the verifier checks it once, on its own,
 * instead of along every path that calls it. A global function may be handed a null pointer, so steps check theirs.
 */
#ifdef __bpf__
#define LB_STEP __attribute__((noinline))
#else
#define LB_STEP static __attribute__((unused))
#endif

/* Keeps a loop a loop: unrolled, the BPF program would be four times as long for nothing. */
#ifdef __clang__
#define LB_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define LB_ROLLED
#endif

/*
 * The end of a loop: again, as long as value is below limit. Linux 6.1 takes a loop that closes by falling through for
 * an endless one; the compiler cannot lay one out so whose last instruction is this.
 */
#ifdef __bpf__
#define LB_AGAIN_BELOW(value, limit, again)                                                                            \
	__asm__ goto("if %0 < %1 goto %l2" : : "r"((lb_u64)(value)), "i"(limit) : : again)
#else
#define LB_AGAIN_BELOW(value, limit, again)                                                                            \
	do                                                                                                             \
		if ((value) < (limit))                                                                                 \
			goto again;                                                                                    \
	while (0)
#endif

/*
 * Makes a local struct stay in memory. Taken apart into
 * registers, of which BPF has ten, views and plans are spilled and cleared again on every path: half the program.
 */
#define LB_IN_MEMORY(object) __asm__ volatile("" : : "r"(&(object)) : "memory")

/* Hides from the compiler what it knows of a value. */
#define LB_OPAQUE(value) __asm__("" : "+r"(value))

#define LB_LIKELY(x) __builtin_expect(!!(x), 1)
#define LB_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* One whole load or store of a word that another CPU may change at the same time. */
#define LB_READ(word) (*(const volatile __typeof__(word) *)&(word))
#define LB_WRITE(word, value) (*(volatile __typeof__(word) *)&(word) = (value))

/* Compare-and-swap with a full barrier. True if the word was `old` and is `new` now. */
#define LB_SWAP(word, old, new) (__sync_val_compare_and_swap(&(word), (old), (new)) == (old))

/*
 * Words of a packet, aligned to 2. BPF has single instructions for them, but its compiler would take them apart into
 * bytes; other compilers know best.
 */
#ifdef __bpf__
typedef lb_u16 __attribute__((may_alias)) lb_any16;
typedef lb_u32 __attribute__((may_alias)) lb_any32;
typedef lb_u64 __attribute__((may_alias)) lb_any64;
#define LB_GET(bits, from) (*(const lb_any##bits *)(from))
#define LB_PUT(bits, to, value) (*(lb_any##bits *)(to) = (value))
#else
#define LB_GET(bits, from)                                                                                             \
	({                                                                                                             \
		lb_u##bits word_;                                                                                      \
		__builtin_memcpy(&word_, (from), sizeof(word_));                                                       \
		word_;                                                                                                 \
	})
#define LB_PUT(bits, to, value)                                                                                        \
	({                                                                                                             \
		lb_u##bits word_ = (value);                                                                            \
		__builtin_memcpy((to), &word_, sizeof(word_));                                                         \
	})
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LB_BE16(x) ((lb_be16)__builtin_bswap16((lb_u16)(x)))
#define LB_BE32(x) ((lb_be32)__builtin_bswap32((lb_u32)(x)))
#else
#define LB_BE16(x) ((lb_be16)(x))
#define LB_BE32(x) ((lb_be32)(x))
#endif

/* An IPv6 address, or an IPv4 address in its mapped form ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). */
struct lb_addr {
	union {
		lb_be32 word[4];
		lb_u64 half[2]; /* the same bytes, for comparisons */
	};
};

/* Written whole: a narrow store that is read back as a wide word has to wait for memory. */
LB_INLINE void lb_addr_set_v4(struct lb_addr *addr, lb_be32 v4)
{
	addr->half[0] = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	addr->half[1] = (lb_u64)v4 << 32 | LB_BE32(0xffff);
#else
	addr->half[1] = 0xffffull << 32 | v4;
#endif
}

LB_INLINE lb_be32 lb_addr_v4(const struct lb_addr *addr)
{
	return addr->word[3];
}

LB_INLINE int lb_addr_equal(const struct lb_addr *a, const struct lb_addr *b)
{
	return a->half[1] == b->half[1] && a->half[0] == b->half[0];
}

#endif
