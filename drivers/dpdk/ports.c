/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* DPDK's devices: how many queues and buffers they get. */
#include <string.h>

#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include "burst.h"
#include "worker.h"

enum {
	RX_DESCRIPTORS = 1024,
	TX_DESCRIPTORS = 1024,
	/* net_af_xdp has rings of its own size, 2048: one to receive, whose buffers the kernel has for good, one to send,
	 * and one of buffers that were sent, which it looks through only when that is half full. */
	AF_XDP_BUFFERS = 6144,
	CACHE = 256, /* buffers that a lane keeps at hand */
	POOL_LEAST = 16384,
};

/* As --vdev or -a names it. */
static const char *port_name(uint16_t id)
{
	static char name[RTE_ETH_NAME_MAX_LEN];

	return rte_eth_dev_get_name_by_port(id, name) ? "?" : name;
}

/* A lane for each lcore, but no more than every device has queues for. */
static lb_u32 lanes_of(const struct worker *worker)
{
	lb_u32 lanes = rte_lcore_count();

	for (lb_u32 i = 0; i < worker->ports; i++) {
		struct rte_eth_dev_info info;
		lb_u32 queues;

		if (rte_eth_dev_info_get(worker->port[i].id, &info))
			worker_fail("DPDK port %u does not say what it can: %s: give it another device in datapath.eal",
				    worker->port[i].id, port_name(worker->port[i].id));
		queues = RTE_MIN(info.max_rx_queues, info.max_tx_queues);
		if (!queues)
			worker_fail(
				"DPDK port %u (%s) can only %s, and a balancer does both: %s: give it another device "
				"in datapath.eal",
				worker->port[i].id, info.driver_name, info.max_rx_queues ? "receive" : "send",
				port_name(worker->port[i].id));
		lanes = RTE_MIN(lanes, queues);
	}
	if (lanes > worker->share->sizes[LB_SHARE_CPUS])
		worker_fail("%u lanes, but tables for %u: name the lcores in datapath.eal (-l)", lanes,
			    worker->share->sizes[LB_SHARE_CPUS]);
	return lanes;
}

/* Buffers that one queue of a device may have at once. */
static lb_u32 buffers_of(uint16_t id)
{
	struct rte_eth_dev_info info;

	if (!rte_eth_dev_info_get(id, &info) && !strcmp(info.driver_name, "net_af_xdp"))
		return AF_XDP_BUFFERS + LB_BURST;
	return RX_DESCRIPTORS + TX_DESCRIPTORS + LB_BURST;
}

static struct rte_mempool *pool_new(const struct worker *worker)
{
	lb_u32 buffers = worker->lanes * CACHE;
	struct rte_mempool *pool;

	for (lb_u32 i = 0; i < worker->ports; i++)
		buffers += worker->lanes * buffers_of(worker->port[i].id);
	buffers = RTE_MAX(buffers, (lb_u32)POOL_LEAST);
	pool = rte_pktmbuf_pool_create("frames", buffers - 1, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
				       (int)rte_socket_id());
	if (!pool)
		worker_fail(
			"%u buffers for frames take %lu MiB and there is less (%s): give more with -m in datapath.eal",
			buffers, buffers * (sizeof(struct rte_mbuf) + RTE_MBUF_DEFAULT_BUF_SIZE + 64) >> 20,
			rte_strerror(rte_errno));
	return pool;
}

static void port_start(const struct worker *worker, uint16_t id)
{
	struct rte_eth_conf conf = {.rxmode.mq_mode = worker->lanes > 1 ? RTE_ETH_MQ_RX_RSS : RTE_ETH_MQ_RX_NONE};
	uint16_t rx = RX_DESCRIPTORS, tx = TX_DESCRIPTORS;
	int socket = rte_eth_dev_socket_id(id), error;
	struct rte_eth_dev_info info;

	rte_eth_dev_info_get(id, &info);
	conf.rx_adv_conf.rss_conf.rss_hf =
		worker->lanes > 1 ? (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP) & info.flow_type_rss_offloads : 0;
	if (!conf.rx_adv_conf.rss_conf.rss_hf) /* the device spreads packets by itself, or not */
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
	conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	error = rte_eth_dev_configure(id, (uint16_t)worker->lanes, (uint16_t)worker->lanes, &conf);
	if (!error)
		error = rte_eth_dev_adjust_nb_rx_tx_desc(id, &rx, &tx);
	for (uint16_t queue = 0; !error && queue < worker->lanes; queue++) {
		error = rte_eth_rx_queue_setup(id, queue, rx, (unsigned)socket, NULL, worker->pool);
		if (!error)
			error = rte_eth_tx_queue_setup(id, queue, tx, (unsigned)socket, NULL);
	}
	if (!error)
		error = rte_eth_dev_start(id);
	if (error)
		worker_fail("DPDK port %u (%s) could not be started with %u queue%s (%s): %s: the lines above may say "
			    "why%s",
			    id, info.driver_name, worker->lanes, worker->lanes == 1 ? "" : "s", rte_strerror(-error),
			    port_name(id),
			    worker->lanes == 1 ? ""
					       : "; name fewer lcores in datapath.eal (-l), or give the device as many "
						 "queues (queue_count= and the like)");
	/* The kernel's interface has another MAC address than the device. Some devices are always so, and refuse. */
	(void)rte_eth_promiscuous_enable(id);
}

/* 0 and what the device has counted, or an error of a device that does not count. */
static int device_counts(uint16_t id, struct lb_device *found)
{
	struct rte_eth_stats stats;
	int error = rte_eth_stats_get(id, &stats);

	if (!error)
		*found = (struct lb_device){.imissed = stats.imissed,
					    .ierrors = stats.ierrors,
					    .oerrors = stats.oerrors,
					    .rx_nombuf = stats.rx_nombuf};
	return error;
}

/* A device begins anew with each worker, or has counted for whoever had it before; the file's counts go on. */
static void go_on_counting(struct port *port, const struct lb_device *counted)
{
	struct lb_device now = {0};

	(void)device_counts(port->id, &now);
	port->before.imissed = counted->imissed - now.imissed;
	port->before.ierrors = counted->ierrors - now.ierrors;
	port->before.oerrors = counted->oerrors - now.oerrors;
	port->before.rx_nombuf = counted->rx_nombuf - now.rx_nombuf;
}

static lb_u32 link_of(uint16_t id)
{
	struct rte_eth_link link;

	if (rte_eth_link_get_nowait(id, &link))
		return LB_LINK_UNKNOWN;
	return link.link_status == RTE_ETH_LINK_UP ? LB_LINK_UP : LB_LINK_DOWN;
}

void ports_look(const struct worker *worker)
{
	for (lb_u32 i = 0; i < worker->ports; i++) {
		const struct lb_device *before = &worker->port[i].before;
		struct lb_device *told = &worker->share->device[i], now;

		worker->share->link[i] = link_of(worker->port[i].id);
		if (device_counts(worker->port[i].id, &now))
			continue;
		told->imissed = before->imissed + now.imissed;
		told->ierrors = before->ierrors + now.ierrors;
		told->oerrors = before->oerrors + now.oerrors;
		told->rx_nombuf = before->rx_nombuf + now.rx_nombuf;
	}
}

void ports_start(struct worker *worker)
{
	lb_u32 found = 0;
	uint16_t id;

	RTE_ETH_FOREACH_DEV(id)
	{
		if (found < worker->ports)
			worker->port[found].id = id;
		found++;
	}
	if (found != worker->ports || !found)
		worker_fail(
			"there are %u DPDK ports, but %u interfaces: name one for each port in datapath.interfaces, "
			"and the devices in datapath.eal (--vdev or -a)",
			found, worker->ports);
	worker->lanes = lanes_of(worker);
	worker->share->lanes = worker->lanes;
	worker->pool = pool_new(worker);
	for (lb_u32 i = 0; i < worker->ports; i++)
		port_start(worker, worker->port[i].id);
	for (lb_u32 i = 0; i < worker->ports; i++)
		go_on_counting(&worker->port[i], &worker->share->device[i]);
}

void ports_stop(const struct worker *worker)
{
	ports_look(worker);
	for (lb_u32 i = 0; i < worker->ports; i++) {
		(void)rte_eth_dev_stop(worker->port[i].id);
		(void)rte_eth_dev_close(worker->port[i].id);
	}
}
