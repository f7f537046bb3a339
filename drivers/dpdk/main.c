/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The worker: the core as a DPDK application.
 *
 *	evener-dpdk EAL-ARGUMENTS -- --tables=PATH --kernel=IFINDEX:FD... [--netns=PATH] [--idle-us=N]
 *
 * The daemon starts it, over tables that the daemon made; it goes on when the daemon is gone. SIGTERM ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include "worker.h"

enum { EXIT_CODE = 7, IDLE_MOST_US = 1000000 };

void worker_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("evener-dpdk: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(EXIT_CODE);
}

static lb_u32 number(const char *text, const char *what, char **end)
{
	unsigned long found;

	errno = 0;
	found = strtoul(text, end, 10);
	if (errno || *end == text || found > 0x7fffffff)
		worker_fail("%s is no number: %s", what, text);
	return (lb_u32)found;
}

static void add_kernel(struct worker *worker, const char *text)
{
	struct port *port = &worker->port[worker->ports];
	char *end;

	if (worker->ports == WORKER_PORTS)
		worker_fail("there can be %d ports: --kernel=%s", WORKER_PORTS, text);
	port->ifindex = number(text, "--kernel, IFINDEX:FD,", &end);
	if (*end != ':' || !port->ifindex)
		worker_fail("not IFINDEX:FD: --kernel=%s", text);
	port->kernel = (int)number(end + 1, "--kernel, IFINDEX:FD,", &end);
	if (*end || fcntl(port->kernel, F_SETFL, O_NONBLOCK) || fcntl(port->kernel, F_SETFD, FD_CLOEXEC))
		worker_fail("no open descriptor: --kernel=%s", text);
	worker->ports++;
}

/* What comes after the EAL's arguments. */
static void read_arguments(struct worker *worker, int count, char **arguments)
{
	static const struct option known[] = {{"tables", required_argument, NULL, 't'},
					      {"kernel", required_argument, NULL, 'k'},
					      {"netns", required_argument, NULL, 'n'},
					      {"idle-us", required_argument, NULL, 'i'},
					      {NULL, 0, NULL, 0}};
	char *end;
	int option;

	arguments[0] = "evener-dpdk"; /* in getopt's words */
	optind = 1;
	while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
		switch (option) {
		case 't':
			worker->tables_path = optarg;
			break;
		case 'k':
			add_kernel(worker, optarg);
			break;
		case 'n':
			worker->netns = optarg;
			break;
		case 'i':
			worker->idle_us = number(optarg, "--idle-us", &end);
			if (*end)
				worker_fail("--idle-us is no number: %s", optarg);
			/* Whoever waits for a round, or for the end, waits for so long. */
			if (worker->idle_us > IDLE_MOST_US)
				worker_fail("--idle-us is at most %d: %s", IDLE_MOST_US, optarg);
			break;
		default:
			exit(EXIT_CODE); /* getopt has said why */
		}
	}
	if (!worker->tables_path || !worker->ports || optind != count)
		worker_fail("usage: evener-dpdk EAL-ARGUMENTS -- --tables=PATH --kernel=IFINDEX:FD... [--netns=PATH] "
			    "[--idle-us=N]: `evener run` and `evener dpdk` start it");
}

static int arguments_after_eal(int count, char **arguments)
{
	for (int i = 1; i < count; i++)
		if (!strcmp(arguments[i], "--"))
			return i;
	return count;
}

/* Devices are made in this network namespace; threads that come later are in it, too. */
static void enter(const char *path)
{
	int namespace = open(path, O_RDONLY | O_CLOEXEC);

	if (namespace < 0 || setns(namespace, CLONE_NEWNET))
		worker_fail("this network namespace cannot be entered (%s): %s: see --netns in datapath.eal",
			    strerror(errno), path);
	close(namespace);
}

/* A TAP whose queue another process detached. Of one that is attached, and of no TAP, the kernel has none of it. */
static void attach_queues(const struct worker *worker)
{
	struct ifreq request = {.ifr_flags = IFF_ATTACH_QUEUE};

	for (lb_u32 i = 0; i < worker->ports; i++)
		(void)ioctl(worker->port[i].kernel, TUNSETQUEUE, &request);
}

static void on_signal(int number)
{
	(void)number;
	lanes_stop();
}

static void run_lanes(struct worker *worker)
{
	static struct lane lanes[LB_SHARE_LANES];
	unsigned int lcore;
	lb_u32 next = 1;

	for (lb_u32 i = 0; i < worker->lanes; i++)
		lanes[i] = (struct lane){
			.worker = worker, .env = share_env(worker, i), .share = &worker->share->lane[i], .number = i};
	RTE_LCORE_FOREACH_WORKER(lcore)
	{
		if (next < worker->lanes)
			rte_eal_remote_launch(lane_run, &lanes[next++], lcore);
	}
	fprintf(stderr, "evener-dpdk: ready: %u port%s, %u lane%s\n", worker->ports, worker->ports == 1 ? "" : "s",
		worker->lanes, worker->lanes == 1 ? "" : "s");
	__atomic_store_n(&worker->share->ready, 1, __ATOMIC_SEQ_CST);
	lane_run(&lanes[0]);
	rte_eal_mp_wait_lcore();
	worker->share->ready = 0;
}

int main(int count, char **arguments)
{
	static struct worker worker;
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	const struct sigaction action = {.sa_handler = on_signal};
	int own = arguments_after_eal(count, arguments);

	read_arguments(&worker, own < count ? count - own : 1, own < count ? arguments + own : arguments);
	share_open(&worker);
	if (worker.netns)
		enter(worker.netns);
	devices_hold(own, arguments);
	attach_queues(&worker);
	/* net_tap has a signal sent with each frame. When too many wait, the kernel sends this one, which would end us. */
	sigaction(SIGIO, &ignore, NULL);
	if (rte_eal_init(own, arguments) < 0)
		worker_fail("DPDK refuses its arguments (%s): datapath.eal: the lines above say why",
			    rte_strerror(rte_errno));
	devices_check();
	ports_start(&worker);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	run_lanes(&worker);
	ports_stop(&worker);
	worker.share->worker = 0;
	(void)rte_eal_cleanup();
	return 0;
}
