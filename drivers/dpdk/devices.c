/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The devices that the EAL's arguments name: that nobody else has their interfaces, and that they are there.
 *
 * Two workers on one interface would each have some of its packets, or all of them twice, and both would seem to run.
 */
#include <errno.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_ethdev.h>

#include "worker.h"

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

/* A name that one process of this network namespace can have (unix(7), abstract), and that goes with the process.
 * src/evener/datapath/dpdk_devices.py looks for it. */
static void claim(const char *interface)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "evener-dpdk:%s", interface);
	int held = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (held >= 0 &&
	    !bind(held, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)))
		return; /* open until the end */
	if (errno == EADDRINUSE)
		worker_fail("%s is in use by another worker, or named twice: end the daemon that started that one, "
			    "or name another interface",
			    interface);
	worker_fail("%s cannot be claimed (%s)", interface, strerror(errno));
}

void devices_claim(int count, char **arguments)
{
	char interface[IF_NAMESIZE];

	for (int i = 0; i < count; i++) /* only --vdev has a value like that */
		if (strstr(arguments[i], ",iface=") && interface_of(arguments[i], interface))
			claim(interface);
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
