/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packet headers as they are on the wire. A frame begins at an even address, and no more is promised: DPDK's begin at
 * multiples of 64, so the words of their IP headers are not aligned. Only to BPF they are called so, since its compiler
 * would take them apart: five times the instructions. There frames begin at 2 modulo 4.
 */
#ifndef LB_WIRE_H
#define LB_WIRE_H

#include "types.h"

enum {
	LB_ETHERTYPE_IPV4 = 0x0800,
	LB_ETHERTYPE_VLAN = 0x8100,
	LB_ETHERTYPE_QINQ = 0x88a8,
	LB_PROTOCOL_TCP = 6,
	LB_TCP_FIN = 0x01,
	LB_TCP_SYN = 0x02,
	LB_TCP_RST = 0x04,
	LB_TCP_ACK = 0x10,
	LB_TCP_TELLING = LB_TCP_SYN | LB_TCP_FIN | LB_TCP_RST, /* change a flow's state, or may */
	LB_IPV4_FRAGMENT = 0x3fff,			       /* more-fragments flag and offset */
	LB_ETH_BYTES = 14,
};

#ifdef __bpf__
#define LB_WIRE
#else
#define LB_WIRE __attribute__((packed, aligned(2)))
#endif

struct lb_eth {
	lb_u8 dst[6];
	lb_u8 src[6];
	lb_be16 type;
} LB_WIRE;

/* RFC 791 section 3.1 */
struct lb_ipv4 {
	lb_u8 version_ihl;
	lb_u8 tos;
	lb_be16 length;
	lb_be16 id;
	lb_be16 fragment;
	lb_u8 ttl;
	lb_u8 protocol;
	lb_u16 check;
	lb_be32 src;
	lb_be32 dst;
} LB_WIRE;

/* RFC 9293 section 3.1 */
struct lb_tcp {
	lb_be16 sport;
	lb_be16 dport;
	lb_be32 seq;
	lb_be32 ack;
	lb_u8 offset;
	lb_u8 flags;
	lb_be16 window;
	lb_u16 check;
	lb_be16 urgent;
} LB_WIRE;

/* Two ports as the word that they are in the packet. */
LB_INLINE lb_u32 lb_port_pair(lb_be16 first, lb_be16 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (lb_u32)second << 16 | first;
#else
	return (lb_u32)first << 16 | second;
#endif
}

_Static_assert(sizeof(struct lb_eth) == 14, "Ethernet header");
_Static_assert(sizeof(struct lb_ipv4) == 20, "IPv4 header");
_Static_assert(sizeof(struct lb_tcp) == 20, "TCP header");

#endif
