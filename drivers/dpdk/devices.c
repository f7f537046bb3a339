/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The devices that the EAL's arguments name: that nobody else has their interfaces, and that they are there.
 *
 * Two workers on one interface would each have some of its packets, or all of them twice, and both would seem to run.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_ethdev.h>

#include "worker.h"

#define HOLDS "/run/evener"

/* The name behind iface= among a device's arguments, and whether there is one. What is a path (net_vhost) or a
 * pattern is none. */
static int interface_of(const char *arguments, char name[IF_NAMESIZE])
{
	const char *at = arguments;
	size_t length;

	while (at && (at = strstr(at, "iface=")) && at != arguments && at[-1] != ',')
		at++;
	if (!at)
		return 0;
	at += strlen("iface=");
	length = strcspn(at, ",");
	if (!length || memchr(at, '/', length) || memchr(at, '%', length))
		return 0;
	if (length >= IF_NAMESIZE)
		worker_fail("the name of an interface has at most %d characters: %s", IF_NAMESIZE - 1, arguments);
	memcpy(name, at, length);
	name[length] = '\0';
	return 1;
}

/* For an interface of this network namespace, a file that one process can have locked (flock) and only root can open.
 * The lock goes with the process. src/evener/datapath/dpdk_devices.py looks for it. */
struct held {
	char path[sizeof(HOLDS "/net-.port.") + 20 + IF_NAMESIZE];
};
static struct held held[WORKER_PORTS];
static lb_u32 holds;

/* Below zero: not locked, and errno says why. */
static int locked(const char *path)
{
	for (;;) {
		int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		struct stat status;

		if (file < 0 || flock(file, LOCK_EX | LOCK_NB))
			return -1;
		if (!fstat(file, &status) && status.st_nlink)
			return file;
		close(file); /* whoever had it has removed it in this moment */
	}
}

static void tidy_up(void)
{
	while (holds)
		(void)unlink(held[--holds].path);
}

static void hold(const char *interface)
{
	struct held *mine = &held[holds];
	struct stat here;

	if (holds == WORKER_PORTS)
		worker_fail("there can be %d devices: name fewer (--vdev)", WORKER_PORTS);
	if (stat("/proc/thread-self/ns/net", &here) || (mkdir(HOLDS, 0755) && errno != EEXIST))
		worker_fail("%s cannot be held (%s): %s", interface, strerror(errno), HOLDS);
	snprintf(mine->path, sizeof(mine->path), HOLDS "/net-%llu.port.%s", (unsigned long long)here.st_ino, interface);
	if (locked(mine->path) >= 0) { /* and open until the end */
		holds++;
		return;
	}
	if (errno == EWOULDBLOCK)
		worker_fail("%s is in use by another worker, or named twice: end the daemon that started that one, "
			    "or name another interface",
			    interface);
	worker_fail("%s cannot be held (%s): %s", interface, strerror(errno), mine->path);
}

void devices_hold(int count, char **arguments)
{
	char interface[IF_NAMESIZE];

	atexit(tidy_up);
	for (int i = 0; i < count; i++) /* only --vdev has a value like that */
		if (strstr(arguments[i], ",iface=") && interface_of(arguments[i], interface))
			hold(interface);
}

/* The first port of a device; RTE_MAX_ETHPORTS if it has none. */
static uint16_t port_of(const char *device)
{
	struct rte_dev_iterator ports;
	uint16_t id;

	if (rte_eth_iterator_init(&ports, device))
		return RTE_MAX_ETHPORTS;
	id = rte_eth_iterator_next(&ports);
	if (id != RTE_MAX_ETHPORTS)
		rte_eth_iterator_cleanup(&ports);
	return id;
}

static void check_virtual(const struct rte_devargs *device)
{
	uint16_t id = port_of(device->name);
	char interface[IF_NAMESIZE];
	int named = interface_of(device->args, interface);
	struct rte_eth_dev_info info;

	if (id == RTE_MAX_ETHPORTS && named && !if_nametoindex(interface))
		worker_fail("there is no interface %s for %s: make it first, or name another (--vdev)", interface,
			    device->name);
	if (id == RTE_MAX_ETHPORTS)
		worker_fail("DPDK could not make the device %s,%s: the lines above say why", device->name,
			    device->args);
	/* net_tap ignores all of its arguments when it does not know one, and takes a name of its own. */
	if (named && !rte_eth_dev_info_get(id, &info) && info.if_index && info.if_index != if_nametoindex(interface))
		worker_fail("DPDK does not take %s for %s: look for a mistake in %s,%s", interface, device->name,
			    device->name, device->args);
}

void devices_check(void)
{
	const struct rte_devargs *device;

	RTE_EAL_DEVARGS_FOREACH("vdev", device)
	{
		check_virtual(device);
	}
	RTE_EAL_DEVARGS_FOREACH("pci", device)
	{
		if (device->policy != RTE_DEV_BLOCKED && port_of(device->name) == RTE_MAX_ETHPORTS)
			worker_fail("the card %s was not found, or it is bound to no driver of DPDK's: look with "
				    "`dpdk-devbind.py --status-dev net`, and bind it to vfio-pci",
				    device->name);
	}
}
