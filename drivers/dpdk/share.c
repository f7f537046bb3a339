/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The file that this process shares with the daemon. Every number in it is checked before it is used. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

/* Bytes of each table. */
static void table_bytes(const lb_u32 sizes[LB_SHARE_SIZES], lb_u64 bytes[LB_SHARE_TABLES])
{
	const lb_u64 copies = LB_COPIES, cpus = sizes[LB_SHARE_CPUS];
	const lb_u64 found[LB_SHARE_TABLES] = {
		[LB_TABLE_SETTINGS] = sizeof(struct lb_settings),
		[LB_TABLE_COPIES] = copies * sizeof(struct lb_copy),
		[LB_TABLE_ENDPOINTS] = copies * sizes[LB_SHARE_INDEX_GROUPS] * sizeof(struct lb_index_group),
		[LB_TABLE_SERVICES] = copies * sizes[LB_SHARE_SERVICES] * sizeof(struct lb_service),
		[LB_TABLE_BACKENDS] = copies * sizes[LB_SHARE_BACKENDS] * sizeof(struct lb_backend),
		[LB_TABLE_SNATS] = copies * sizes[LB_SHARE_SNATS] * sizeof(struct lb_snat),
		[LB_TABLE_NEIGHBOURS] = copies * sizes[LB_SHARE_NEIGHBOURS] * sizeof(struct lb_nexthop),
		[LB_TABLE_ROUTES] = copies * LB_ROUTES * sizeof(struct lb_route),
		[LB_TABLE_SLOTS] = copies * sizes[LB_SHARE_MAGLEV_TABLES] * LB_SLOT_LINES * sizeof(struct lb_slot_line),
		[LB_TABLE_FLOWS] = (lb_u64)sizes[LB_SHARE_FLOW_GROUPS] * sizeof(struct lb_flow_group),
		[LB_TABLE_PORTS] = (lb_u64)sizes[LB_SHARE_PORT_TABLES] * LB_PORT_LINES * sizeof(struct lb_port_line),
		[LB_TABLE_LOCKS] = LB_LOCKS * sizeof(lb_u64),
		[LB_TABLE_SERVICE_COUNTERS] = cpus * sizes[LB_SHARE_SERVICES] * sizeof(struct lb_counter),
		[LB_TABLE_BACKEND_COUNTERS] = cpus * sizes[LB_SHARE_BACKENDS] * sizeof(struct lb_counter),
		[LB_TABLE_REASON_COUNTERS] = cpus * LB_REASON_ROW * sizeof(lb_u64),
		[LB_TABLE_WANTED] = LB_WANTED_RECORDS * sizeof(struct lb_wanted),
		[LB_TABLE_LEARNED] = LB_LEARNED_RECORDS * sizeof(struct lb_learned),
		[LB_TABLE_EVENT_HEADS] = cpus * sizeof(struct lb_event_head),
		[LB_TABLE_EVENTS] = cpus * LB_EVENTS * sizeof(struct lb_event),
	};

	memcpy(bytes, found, sizeof(found));
}

/* As src/evener/tables/memory.py calls them: its Sizes, and its shapes. */
static const char *const size_names[LB_SHARE_SIZES] = {
	[LB_SHARE_CPUS] = "cpus",
	[LB_SHARE_INDEX_GROUPS] = "index_groups",
	[LB_SHARE_SERVICES] = "services",
	[LB_SHARE_BACKENDS] = "backends",
	[LB_SHARE_SNATS] = "snats",
	[LB_SHARE_NEIGHBOURS] = "neighbours",
	[LB_SHARE_MAGLEV_TABLES] = "tables",
	[LB_SHARE_FLOW_GROUPS] = "flow_groups",
	[LB_SHARE_PORT_TABLES] = "port_tables",
};
static const char *const table_names[LB_SHARE_TABLES] = {
	[LB_TABLE_SETTINGS] = "settings",
	[LB_TABLE_COPIES] = "copies",
	[LB_TABLE_ENDPOINTS] = "endpoints",
	[LB_TABLE_SERVICES] = "services",
	[LB_TABLE_BACKENDS] = "backends",
	[LB_TABLE_SNATS] = "snats",
	[LB_TABLE_NEIGHBOURS] = "neighbours",
	[LB_TABLE_ROUTES] = "routes",
	[LB_TABLE_SLOTS] = "slots",
	[LB_TABLE_FLOWS] = "flows",
	[LB_TABLE_PORTS] = "ports",
	[LB_TABLE_LOCKS] = "locks",
	[LB_TABLE_SERVICE_COUNTERS] = "service_counters",
	[LB_TABLE_BACKEND_COUNTERS] = "backend_counters",
	[LB_TABLE_REASON_COUNTERS] = "reason_counters",
	[LB_TABLE_WANTED] = "wanted",
	[LB_TABLE_LEARNED] = "learned",
	[LB_TABLE_EVENT_HEADS] = "event_heads",
	[LB_TABLE_EVENTS] = "events",
};

static void *table_at(const struct lb_share *share, enum lb_share_table table)
{
	return (char *)share + share->offset[table];
}

static void share_check(const struct worker *worker, lb_u64 length)
{
	const struct lb_share *share = worker->share;
	const char *path = worker->tables_path;
	lb_u64 bytes[LB_SHARE_TABLES];

	if (memcmp(share->magic, LB_SHARE_MAGIC, sizeof(share->magic)) || share->version != LB_SHARE_VERSION)
		worker_fail("this is no file of tables, or one of another version: %s: the daemon makes it anew", path);
	if (share->bytes != length)
		worker_fail("the tables are %llu bytes long, but say %llu: %s: the daemon makes them anew", length,
			    share->bytes, path);
	if (!share->second_ns)
		worker_fail("a second of the tables has no length: %s: the daemon makes them anew", path);
	for (int i = 0; i < LB_SHARE_SIZES; i++)
		if (!share->sizes[i] || share->sizes[i] > 1u << 28)
			worker_fail("the tables are for %u %s: %s: the daemon makes them anew", share->sizes[i],
				    size_names[i], path);
	if (share->sizes[LB_SHARE_CPUS] > LB_SHARE_LANES)
		worker_fail("the tables are for %u lanes: %s: there can be %d", share->sizes[LB_SHARE_CPUS], path,
			    LB_SHARE_LANES);
	table_bytes(share->sizes, bytes);
	for (int i = 0; i < LB_SHARE_TABLES; i++) {
		/* They lie in their order: a size or a place that is wrong makes one reach into the next. */
		const lb_u64 next = i + 1 < LB_SHARE_TABLES ? share->offset[i + 1] : length;

		if (share->offset[i] % LB_SHARE_PAGE || share->offset[i] < sizeof(*share) || next > length ||
		    share->offset[i] > next || bytes[i] > next - share->offset[i])
			worker_fail(
				"the table %s lies at %llu, %llu bytes long, and the next at %llu, in a file of %llu: "
				"%s: the daemon makes it anew",
				table_names[i], share->offset[i], bytes[i], next, length, path);
	}
}

/* Who says that it runs over the file: half a sentence, or nothing. */
static const char *user_of(int file, char said[static 32])
{
	lb_u32 pid;

	said[0] = 0;
	if (pread(file, &pid, sizeof(pid), __builtin_offsetof(struct lb_share, worker)) == sizeof(pid) && pid)
		snprintf(said, 32, ", pid %u", pid);
	return said;
}

void share_open(struct worker *worker)
{
	const char *path = worker->tables_path;
	char pid[32];
	struct stat stat;

	worker->lock = open(path, O_RDWR | O_CLOEXEC);
	if (worker->lock < 0 || fstat(worker->lock, &stat))
		worker_fail("the tables cannot be opened (%s): %s: evener run makes them", strerror(errno), path);
	if (flock(worker->lock, LOCK_EX | LOCK_NB))
		worker_fail("another worker uses these tables%s: %s: end it first", user_of(worker->lock, pid), path);
	if ((lb_u64)stat.st_size < sizeof(struct lb_share))
		worker_fail("the tables are cut off, %lld bytes long: %s: the daemon makes them anew",
			    (long long)stat.st_size, path);
	worker->share = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, worker->lock, 0);
	if (worker->share == MAP_FAILED)
		worker_fail("%lld bytes of tables cannot be mapped (%s): %s: lower datapath.flows",
			    (long long)stat.st_size, strerror(errno), path);
	share_check(worker, (lb_u64)stat.st_size);
	/* Locks of a worker that was killed; nobody holds one now. */
	memset(table_at(worker->share, LB_TABLE_LOCKS), 0, LB_LOCKS * sizeof(lb_u64));
	for (int i = 0; i < LB_SHARE_LANES; i++)
		worker->share->lane[i].running = 0;
	worker->share->worker = (lb_u32)getpid();
}

struct lb_env share_env(const struct worker *worker, lb_u32 lane)
{
	const struct lb_share *share = worker->share;
	const lb_u32 *sizes = share->sizes;

	struct lb_env env = {
		.cpu = lane,
		.cpus = sizes[LB_SHARE_CPUS],
		.index_groups = sizes[LB_SHARE_INDEX_GROUPS],
		.services = sizes[LB_SHARE_SERVICES],
		.backends = sizes[LB_SHARE_BACKENDS],
		.snats = sizes[LB_SHARE_SNATS],
		.neighbours = sizes[LB_SHARE_NEIGHBOURS],
		.tables = sizes[LB_SHARE_MAGLEV_TABLES],
		.flow_groups = sizes[LB_SHARE_FLOW_GROUPS],
		.port_lines = sizes[LB_SHARE_PORT_TABLES] * LB_PORT_LINES,
		.settings = table_at(share, LB_TABLE_SETTINGS),
		.copies = table_at(share, LB_TABLE_COPIES),
		.endpoints = table_at(share, LB_TABLE_ENDPOINTS),
		.service_records = table_at(share, LB_TABLE_SERVICES),
		.backend_records = table_at(share, LB_TABLE_BACKENDS),
		.snat_records = table_at(share, LB_TABLE_SNATS),
		.neighbour_records = table_at(share, LB_TABLE_NEIGHBOURS),
		.routes = table_at(share, LB_TABLE_ROUTES),
		.slots = table_at(share, LB_TABLE_SLOTS),
		.flows = table_at(share, LB_TABLE_FLOWS),
		.ports = table_at(share, LB_TABLE_PORTS),
		.locks = table_at(share, LB_TABLE_LOCKS),
		.service_counters = table_at(share, LB_TABLE_SERVICE_COUNTERS),
		.backend_counters = table_at(share, LB_TABLE_BACKEND_COUNTERS),
		.reason_counters = table_at(share, LB_TABLE_REASON_COUNTERS),
		.wanted = table_at(share, LB_TABLE_WANTED),
		.learned = table_at(share, LB_TABLE_LEARNED),
		.event_heads = table_at(share, LB_TABLE_EVENT_HEADS),
		.events = table_at(share, LB_TABLE_EVENTS),
	};

	lb_env_ready(&env);
	return env;
}
