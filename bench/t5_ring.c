/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tier T5: the worker's own round on a ring device, beside a loop that only swaps MAC addresses (what testpmd calls
 * macswap) on the same device. Frames are written and taken away outside the measured time, 32 at a time, and both
 * targets take turns, run by run. One lcore.
 *
 *	t5_ring EAL-ARGUMENTS -- TABLES VIP-ADDRESS VIP-PORT RUNS PACKETS FLOWS...
 *
 * TABLES: a shared file with a configuration in force, and no flows. Prints one line for each case and run:
 *	case flows target nanoseconds-per-packet packets-forwarded
 */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ether.h>
#include <rte_lcore.h>

#include "lb.h"
#include "burst.h"
#include "worker.h"

enum { FRAME = 64, RING = 1024, ROUNDS_MOST = 1 << 24 };

void worker_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(7);
}

/* Both ends of a flow behind the balancer, as the backend's answers have them. */
struct ends {
	lb_be32 backend, snat;
	lb_be16 backend_port, snat_port;
};

static struct worker worker;
static struct lane lane;
static struct rte_ring *in, *out;
static struct ends *ends;
static lb_be32 vip;
static lb_be16 vip_port;
static lb_u64 chance = 88172645463325252ull;

static lb_u32 random_below(lb_u32 limit)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return lb_scale((lb_u32)(chance >> 16), limit);
}

/* A segment without data, in a frame of the least length. Checksums are left wrong, which the balancer keeps. */
static void write_segment(lb_u8 *data, lb_be32 src, lb_be16 sport, lb_be32 dst, lb_be16 dport, lb_u8 flags)
{
	struct lb_eth eth = {.dst = {2, 0, 0, 0, 0, 1}, .src = {2, 0, 0, 0, 0, 2}, .type = LB_BE16(LB_ETHERTYPE_IPV4)};
	struct lb_ipv4 ip = {.version_ihl = 0x45,
			     .length = LB_BE16(40),
			     .ttl = 64,
			     .protocol = LB_PROTOCOL_TCP,
			     .src = src,
			     .dst = dst};
	struct lb_tcp tcp = {.sport = sport, .dport = dport, .offset = 0x50, .flags = flags};

	memcpy(data, &eth, sizeof(eth));
	memcpy(data + LB_ETH_BYTES, &ip, sizeof(ip));
	memcpy(data + LB_PLAIN_L4, &tcp, sizeof(tcp));
}

static lb_be32 client_address(lb_u32 flow)
{
	return LB_BE32(0x0a000001u + flow / 50000);
}

static lb_be16 client_port(lb_u32 flow)
{
	return LB_BE16(10000 + flow % 50000);
}

static void write_client(lb_u8 *data, lb_u32 flow, lb_u8 flags)
{
	write_segment(data, client_address(flow), client_port(flow), vip, vip_port, flags);
}

static void write_backend(lb_u8 *data, lb_u32 flow, lb_u8 flags)
{
	const struct ends *at = &ends[flow];

	write_segment(data, at->backend, at->backend_port, at->snat, at->snat_port, flags);
}

/* A handshake; false if the table had no room. */
static int establish(lb_u32 flow)
{
	const struct lb_moment moment = {.ns = 0, .now = 0};
	lb_u8 room[2 + FRAME], *data = room + 2;
	struct lb_ipv4 ip;
	struct lb_tcp tcp;

	write_client(data, flow, LB_TCP_SYN);
	if (lb_long(&lane.env, data, FRAME, 1, &moment) - 1 >= LB_TO_KERNEL - 1)
		return 0;
	memcpy(&ip, data + LB_ETH_BYTES, sizeof(ip));
	memcpy(&tcp, data + LB_PLAIN_L4, sizeof(tcp));
	ends[flow] = (struct ends){ip.dst, ip.src, tcp.dport, tcp.sport};
	write_backend(data, flow, LB_TCP_SYN | LB_TCP_ACK);
	(void)lb_long(&lane.env, data, FRAME, 1, &moment);
	write_client(data, flow, LB_TCP_ACK);
	return lb_long(&lane.env, data, FRAME, 1, &moment) - 1 < LB_TO_KERNEL - 1;
}

static lb_u32 macswap(void)
{
	struct rte_mbuf *frame[LB_BURST];
	uint16_t count = rte_eth_rx_burst(worker.port[0].id, 0, frame, LB_BURST);

	for (uint16_t i = 0; i < count; i++) {
		struct rte_ether_hdr *eth = rte_pktmbuf_mtod(frame[i], struct rte_ether_hdr *);
		struct rte_ether_addr was = eth->dst_addr;

		rte_prefetch0(rte_pktmbuf_mtod(frame[(i + 1) % count], void *));
		eth->dst_addr = eth->src_addr;
		eth->src_addr = was;
	}
	return rte_eth_tx_burst(worker.port[0].id, 0, frame, count);
}

enum target { EVENER, MACSWAP, TARGETS };

static double run(enum target target, int reply, lb_u32 flows, lb_u32 packets, lb_u32 *forwarded)
{
	lb_u64 taken = 0;

	*forwarded = 0;
	for (lb_u32 sent = 0; sent < packets; sent += LB_BURST) {
		struct rte_mbuf *frame[LB_BURST];
		lb_u64 begun;
		lb_u32 back;

		if (rte_pktmbuf_alloc_bulk(worker.pool, frame, LB_BURST))
			worker_fail("no buffers");
		for (lb_u32 i = 0; i < LB_BURST; i++) {
			lb_u8 *data = rte_pktmbuf_mtod(frame[i], lb_u8 *);

			frame[i]->data_len = FRAME;
			frame[i]->pkt_len = FRAME;
			if (reply)
				write_backend(data, random_below(flows), LB_TCP_ACK);
			else
				write_client(data, random_below(flows), LB_TCP_ACK);
		}
		rte_ring_enqueue_bulk(in, (void **)frame, LB_BURST, NULL);
		begun = rte_rdtsc_precise();
		if (target == EVENER)
			lane_round(&lane, 0);
		else
			macswap();
		taken += rte_rdtsc_precise() - begun;
		back = rte_ring_dequeue_burst(out, (void **)frame, LB_BURST, NULL);
		rte_pktmbuf_free_bulk(frame, back);
		*forwarded += back;
	}
	return (double)taken * 1e9 / (double)rte_get_tsc_hz() / packets;
}

static void measure(int reply, lb_u32 flows, lb_u32 runs, lb_u32 packets)
{
	static const char *const names[TARGETS] = {"evener", "macswap"};

	for (lb_u32 i = 0; i < runs * TARGETS; i++) {
		lb_u32 forwarded;
		double ns = run(i % TARGETS, reply, flows, packets, &forwarded);

		printf("%s %u %s %.3f %u\n", reply ? "reply" : "forward", flows, names[i % TARGETS], ns, forwarded);
	}
}

static void start(const char *tables)
{
	struct rte_ring *rx[1], *tx[1];

	in = rte_ring_create("t5_in", RING, (int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
	out = rte_ring_create("t5_out", RING, (int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
	if (!in || !out)
		worker_fail("no rings");
	rx[0] = in;
	tx[0] = out;
	if (rte_eth_from_rings("t5", rx, 1, tx, 1, rte_socket_id()) < 0)
		worker_fail("no ring device");
	worker.tables_path = tables;
	worker.ports = 1;
	worker.port[0] = (struct port){.ifindex = 1, .kernel = -1};
	share_open(&worker);
	ports_start(&worker);
	lane = (struct lane){
		.worker = &worker, .env = share_env(&worker, 0), .share = &worker.share->lane[0], .number = 0};
}

int main(int count, char **arguments)
{
	int own = rte_eal_init(count, arguments);
	lb_u32 most, refused = 0;
	char **given = arguments + own;

	if (own < 0 || count - own < 7)
		worker_fail("usage: t5_ring EAL-ARGUMENTS -- TABLES VIP-ADDRESS VIP-PORT RUNS PACKETS FLOWS...");
	start(given[1]);
	vip = inet_addr(given[2]);
	vip_port = LB_BE16(atoi(given[3]));
	most = (lb_u32)atoi(arguments[count - 1]);
	ends = calloc(most, sizeof(*ends));
	if (!ends)
		worker_fail("no memory");
	for (lb_u32 flow = 0; flow < most; flow++)
		refused += !establish(flow);
	fprintf(stderr, "%u flows, %u refused\n", most, refused);
	for (int i = 6; i < count - own; i++)
		for (int reply = 0; reply < 2; reply++)
			measure(reply, (lb_u32)atoi(given[i]), (lb_u32)atoi(given[4]), (lb_u32)atoi(given[5]));
	worker.share->worker = 0;
	rte_eth_dev_stop(worker.port[0].id);
	(void)rte_eal_cleanup();
	return 0;
}
