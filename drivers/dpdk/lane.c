/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A lane: receive a burst, let the core decide, send. Lanes share the tables and nothing else; a reply may come in on
 * any of them.
 */
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include "lb.h"
#include "burst.h"
#include "worker.h"

enum {
	KERNEL_BURST = 32,    /* frames of the kernel's that are taken in one go */
	KERNEL_EVERY_US = 50, /* a system call costs as much as several packets */
	LOOK_EVERY_S = 1,     /* at what the devices count: some ask the kernel for it, or their firmware */
	IDLE_ROUNDS = 64,     /* empty rounds before a lane sleeps */
};

static atomic_int stopping;

void lanes_stop(void)
{
	atomic_store(&stopping, 1);
}

static struct lb_moment moment_now(const struct lb_share *share)
{
	struct timespec time;
	lb_u64 ns;

	clock_gettime(CLOCK_MONOTONIC, &time);
	ns = (lb_u64)time.tv_sec * 1000000000u + (lb_u64)time.tv_nsec;
	return (struct lb_moment){.ns = ns, .now = (lb_u16)(ns / share->second_ns)};
}

/* Frames that leave by one port. */
struct out {
	struct rte_mbuf *frame[LB_BURST];
	uint16_t count;
};

static void send_out(const struct lane *lane, const struct port *port, struct out *out)
{
	uint16_t sent = 0;

	for (int attempt = 0; attempt < 4 && sent < out->count; attempt++)
		sent += rte_eth_tx_burst(port->id, (uint16_t)lane->number, out->frame + sent, out->count - sent);
	if (sent < out->count) {
		lane->share->tx_full += (lb_u64)(out->count - sent);
		rte_pktmbuf_free_bulk(out->frame + sent, out->count - sent);
	}
	out->count = 0;
}

/* Consumes the frame. */
static void give_kernel(const struct lane *lane, const struct port *port, struct rte_mbuf *frame)
{
	ssize_t length = rte_pktmbuf_data_len(frame);

	if (write(port->kernel, rte_pktmbuf_mtod(frame, void *), (size_t)length) == length)
		lane->share->to_kernel++;
	else
		lane->share->kernel_full++;
	rte_pktmbuf_free(frame);
}

/* The port of an interface; of those that no port has, the one that the packet came in by. */
static lb_u32 port_of(const struct worker *worker, lb_u32 ifindex, lb_u32 came_in)
{
	for (lb_u32 i = 0; i < worker->ports; i++)
		if (worker->port[i].ifindex == ifindex)
			return i;
	return came_in;
}

/* The core wants frames in one piece. How many are, in front. */
static uint16_t whole_frames(const struct lane *lane, struct rte_mbuf *frame[], uint16_t count)
{
	uint16_t whole = 0;

	for (uint16_t i = 0; i < count; i++) {
		if (likely(frame[i]->nb_segs == 1) || !rte_pktmbuf_linearize(frame[i])) {
			frame[whole++] = frame[i];
		} else {
			lane->share->in_pieces++;
			rte_pktmbuf_free(frame[i]);
		}
	}
	return whole;
}

static void handle(const struct lane *lane, lb_u32 came_in, struct rte_mbuf *frame[], uint16_t count)
{
	const struct worker *worker = lane->worker;
	const struct lb_moment moment = moment_now(worker->share);
	lb_u32 length[LB_BURST], to[LB_BURST];
	lb_u8 *data[LB_BURST];
	struct out out[WORKER_PORTS];

	for (uint16_t i = 0; i < count; i++) {
		data[i] = rte_pktmbuf_mtod(frame[i], lb_u8 *);
		length[i] = rte_pktmbuf_data_len(frame[i]);
		rte_prefetch0(data[i]);
	}
	for (lb_u32 i = 0; i < worker->ports; i++)
		out[i].count = 0;
	lb_burst(&lane->env, data, length, count, worker->port[came_in].ifindex, &moment, to);
	for (uint16_t i = 0; i < count; i++) {
		lb_u32 port;

		if (unlikely(to[i] == LB_TO_NOBODY)) {
			rte_pktmbuf_free(frame[i]);
			continue;
		}
		if (unlikely(to[i] == LB_TO_KERNEL)) {
			give_kernel(lane, &worker->port[came_in], frame[i]);
			continue;
		}
		port = port_of(worker, to[i], came_in);
		out[port].frame[out[port].count++] = frame[i];
	}
	for (lb_u32 i = 0; i < worker->ports; i++)
		if (out[i].count)
			send_out(lane, &worker->port[i], &out[i]);
}

/* Sends what the kernel has to say, unchanged: how many frames. */
static uint16_t take_kernel(const struct lane *lane, const struct port *port)
{
	struct out out = {.count = 0};
	uint16_t taken = 0;

	for (int tries = 0; tries < KERNEL_BURST; tries++) {
		struct rte_mbuf *frame = rte_pktmbuf_alloc(lane->worker->pool);
		ssize_t length;

		if (!frame)
			break;
		length = read(port->kernel, rte_pktmbuf_mtod(frame, void *), rte_pktmbuf_tailroom(frame));
		if (length <= 0) {
			rte_pktmbuf_free(frame);
			break;
		}
		if (length == rte_pktmbuf_tailroom(frame)) { /* perhaps only its beginning */
			lane->share->too_long++;
			rte_pktmbuf_free(frame);
			continue;
		}
		frame->data_len = (uint16_t)length;
		frame->pkt_len = (lb_u32)length;
		out.frame[out.count++] = frame;
		taken++;
	}
	if (taken) {
		lane->share->from_kernel += taken;
		send_out(lane, port, &out);
	}
	return taken;
}
_Static_assert((int)KERNEL_BURST <= (int)LB_BURST, "one burst out");

lb_u32 lane_round(const struct lane *lane, int kernel_too)
{
	const struct worker *worker = lane->worker;
	struct rte_mbuf *frame[LB_BURST];
	lb_u32 frames = 0;

	for (lb_u32 i = 0; i < worker->ports; i++) {
		uint16_t count = rte_eth_rx_burst(worker->port[i].id, (uint16_t)lane->number, frame, LB_BURST);

		frames += count;
		count = whole_frames(lane, frame, count);
		if (count)
			handle(lane, i, frame, count);
		if (kernel_too)
			frames += take_kernel(lane, &worker->port[i]);
	}
	return frames;
}

int lane_run(void *arg)
{
	struct lane *lane = arg;
	const struct worker *worker = lane->worker;
	const lb_u64 every = rte_get_tsc_hz() / 1000000 * KERNEL_EVERY_US;
	const lb_u64 look_every = rte_get_tsc_hz() * LOOK_EVERY_S;
	lb_u64 looked = 0, counted = 0;
	lb_u32 idle = 0;

	lane->share->lcore = rte_lcore_id();
	__atomic_store_n(&lane->share->running, 1, __ATOMIC_SEQ_CST);
	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		lb_u64 time = rte_rdtsc();
		int kernel_too = lane->number == 0 && (idle || time - looked >= every);

		if (kernel_too) {
			looked = time;
			if (time - counted >= look_every) {
				counted = time;
				ports_look(worker);
			}
		}
		if (lane_round(lane, kernel_too))
			idle = 0;
		else if (++idle > IDLE_ROUNDS && worker->idle_us)
			rte_delay_us_sleep(worker->idle_us);
		/* All loads and stores of this round come before it. */
		__atomic_store_n(&lane->share->rounds, lane->share->rounds + 1, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&lane->share->running, 0, __ATOMIC_SEQ_CST);
	return 0;
}
