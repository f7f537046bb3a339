/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parts of the worker: what main.c puts together. share.c maps the tables, devices.c sees that each device
 * is there and nobody else's, ports.c sets them up, lane.c is the loop that packets go through.
 */
#ifndef EVENER_WORKER_H
#define EVENER_WORKER_H

#include <rte_ethdev.h>

#include "env_memory.h"
#include "share.h"

enum { WORKER_PORTS = 16 };
_Static_assert((int)WORKER_PORTS == (int)LB_SHARE_DEVICES, "each port has its record");

/* One DPDK port, and the kernel's side of it. */
struct port {
	uint16_t id;
	lb_u32 ifindex;		 /* of the kernel's interface */
	int kernel;		 /* descriptor: one frame is one read or write */
	struct lb_device before; /* to be added to what the device has counted since it was started */
};

/* All that the command line and the devices say; nothing changes once lanes run. */
struct worker {
	const char *tables_path;
	const char *netns; /* where devices are made; null: where the worker was started */
	lb_u32 idle_us;	   /* an idle lane sleeps for so long; 0: it polls on */
	lb_u32 ports;
	struct port port[WORKER_PORTS];
	struct lb_share *share;
	int lock; /* the shared file's descriptor, locked */
	lb_u32 lanes;
	struct rte_mempool *pool;
};

/* A lane: one lcore and its queue of every port. */
struct lane {
	const struct worker *worker;
	struct lb_env env;
	struct lb_lane *share;
	lb_u32 number;
};

/* Says one sentence on stderr (what is so: where: what to do) and ends the process with exit code 7. */
void worker_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Maps and locks the shared file. */
void share_open(struct worker *worker);
/* The tables as one lane sees them. */
struct lb_env share_env(const struct worker *worker, lb_u32 lane);

/* Before the EAL, with its arguments: nobody else in this network namespace has the interfaces from now on. */
void devices_hold(int count, char **arguments);
/* After it: each device that was named has a port, over the interface that was named. */
void devices_check(void);

/* Sets all DPDK ports up, with a queue for each lane; fills in worker->lanes and worker->pool. */
void ports_start(struct worker *worker);
/* Writes what the devices have counted, and whether their links are up, to the shared file. */
void ports_look(const struct worker *worker);
void ports_stop(const struct worker *worker);

/* One turn over all ports, and over the kernel's side of them: how many frames there were. */
lb_u32 lane_round(const struct lane *lane, int kernel_too);
/* Handles packets until lanes_stop. For rte_eal_mp_remote_launch. */
int lane_run(void *lane);
/* May be called from a signal handler. */
void lanes_stop(void);

#endif
