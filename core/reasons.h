/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why a packet was forwarded, passed to the kernel or dropped: one list. The C and Python enums, the counters, the
 * metric labels and the page in docs/reference all come from it. The verdict belongs to the reason.
 *
 *	X(name, verdict, sentence)
 *
 * New ones go to the end: who adopts a datapath's counters knows them by number.
 */
#ifndef LB_REASONS_H
#define LB_REASONS_H

#define LB_REASONS(X)                                                                                                  \
	X(NONE, PASS, "no decision was taken")                                                                         \
	X(FORWARD, FORWARD, "client to backend, on a flow that is known")                                              \
	X(FORWARD_NEW, FORWARD, "client to backend, first packet of a new flow")                                       \
	X(REPLY, FORWARD, "backend to client, on a flow that is known")                                                \
	X(NOT_IPV4, PASS, "neither IPv4 nor anything else that is balanced (ARP, IPv6, ...)")                          \
	X(VLAN_TAGGED, PASS, "the frame carries a VLAN tag; tagged frames are not balanced")                           \
	X(NOT_TCP, PASS, "IPv4, but not TCP (ICMP, UDP, ...)")                                                         \
	X(NOT_OURS, PASS, "TCP, but neither to a service nor from a backend to a SNAT address")                        \
	X(LOCAL, PASS, "from a backend to a port that is reserved for the balancer's own connections")                 \
	X(MALFORMED, PASS, "a header is cut short or contradicts itself; the kernel counts it too")                    \
	X(NO_FLOW, PASS, "to a service, not a SYN, and no flow is known: the kernel answers with a reset")             \
	X(FRAGMENT, DROP, "a TCP fragment to a VIP or SNAT address: only the first would carry ports")                 \
	X(BAD_FLAGS, DROP, "a SYN that is also a FIN or a RST")                                                        \
	X(TTL_EXPIRED, DROP, "the time to live would reach zero here")                                                 \
	X(NO_REPLY_FLOW, DROP, "from a backend to a SNAT address, but no flow holds that port")                        \
	X(NO_BACKEND, DROP, "the service has no usable backend")                                                       \
	X(BACKEND_GONE, DROP, "the flow's backend was removed from the configuration")                                 \
	X(SERVICE_GONE, DROP, "the flow's service was removed from the configuration")                                 \
	X(FLOW_TABLE_FULL, DROP, "new flow refused: both groups of the flow table hold established flows only")        \
	X(SNAT_EXHAUSTED, DROP, "new flow refused: a bounded search found no free source port to the backend")         \
	X(FLOW_BUSY, DROP, "another CPU was creating or ending this flow for too long")                                \
	X(NEIGHBOUR_UNRESOLVED, DROP, "the next hop's MAC address is not known yet; the kernel is asked for it")       \
	X(NOT_UNICAST, PASS, "TCP in a frame to a group of hosts (broadcast, multicast); the kernel discards it")

#define LB_REASON_ENUM(name, verdict, sentence) LB_REASON_##name,
enum lb_reason { LB_REASONS(LB_REASON_ENUM) LB_REASON_COUNT };
#undef LB_REASON_ENUM

enum lb_verdict { LB_VERDICT_PASS, LB_VERDICT_DROP, LB_VERDICT_FORWARD };

#endif
