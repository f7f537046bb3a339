/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fuzzes parse, decide and apply: each input is a script of packets through a small world, from raw bytes to
 * well-formed segments, with time, sweeps and publications between them. libFuzzer with the address and
 * undefined-behaviour sanitizers; every frame is a heap block of just its length, so that a read beyond it is seen.
 *
 * Checked of every packet:
 *   - the verdict is the reason's; view and plan keep to their enums;
 *   - a frame that is not forwarded is left alone, byte for byte;
 *   - one that is forwarded keeps its length, and nothing changes but MAC addresses, time to live, addresses, ports
 *     and the two checksums; the plan's values are what stands there;
 *   - both checksums are as right or wrong as before, by full recomputation;
 *   - the quick way, where it takes the packet at all, says the same and leaves flows alone;
 *   - the source is a VIP or SNAT address with a port that may be given, the destination a backend or a client.
 * And at the end of each input that flows and ports agree (invariants.h).
 *
 *	make fuzz				200,000 inputs, about 15 packets each
 *	make fuzz FUZZ_RUNS=100000000		the long run, hours on one CPU
 *
 * The folder given as the first argument gets seeds when it is empty.
 */
#include <dirent.h>
#include <stdint.h>

#include "support.h"

/* Coverage is of the core alone: twice the speed, and no inputs kept for the sake of the checks' own branches. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#include "invariants.h"
#include "packets.h"

enum { PACKETS_MOST = 64, COPY_ALL = 0, COPY_FIRST_ONLY = 1 };

/* Bytes of an input, taken one after the other; 0 when there are none left. */
struct script {
	const uint8_t *bytes;
	size_t length;
};

static lb_u8 take(struct script *script)
{
	if (!script->length)
		return 0;
	script->length--;
	return *script->bytes++;
}

static struct world *world;

/* Through pointers, lest the core be inlined where no coverage is taken. */
static int (*volatile native_parse)(const unsigned char *, unsigned int, unsigned int, void *) = lb_native_parse;
static int (*volatile native_packet)(struct lb_env *, unsigned char *, unsigned int, unsigned int, unsigned short,
				     void *, void *) = lb_native_packet;
static unsigned int (*volatile native_quick)(struct lb_env *, unsigned char *, unsigned int,
					     unsigned short) = lb_native_quick;
static unsigned int (*volatile native_sweep)(struct lb_env *, unsigned int, unsigned int, unsigned short,
					     const unsigned char *, const unsigned char *) = lb_native_sweep;

/* What a script's numbers stand for; few of each, so that packets meet. */
static lb_be32 some_address(lb_u8 n)
{
	const lb_be32 all[] = {address(10, 0, 0, 1), address(10, 9, 0, 1),  vip_address(),
			       snat_address(2),	     backend_address(1),    backend_address(2),
			       address(10, 9, 0, 2), address(192, 0, 2, 77)};

	return all[n & 7];
}

static lb_u16 some_port(lb_u8 n)
{
	static const lb_u16 all[] = {40000, 40001, SERVICE_PORT, 1023, 1024, LOCAL_FIRST, 65535, 0};

	return n & 8 ? (lb_u16)(40000 + (n >> 4)) : all[n & 7];
}

static lb_u8 some_flags(lb_u8 n)
{
	static const lb_u8 all[] = {LB_TCP_SYN, LB_TCP_SYN | LB_TCP_ACK, LB_TCP_ACK,	 LB_TCP_ACK | LB_TCP_FIN,
				    LB_TCP_RST, LB_TCP_SYN | LB_TCP_FIN, LB_TCP_ACK | 8, 0};

	return all[n & 7];
}

/* Changes when any flow does. */
static lb_u64 all_bindings(void)
{
	lb_u64 sum = 0;

	for (lb_u32 record = 0; record < world->shape.flow_groups * LB_FLOW_WAYS; record++)
		sum = sum * 0x9e3779b97f4a7c15ull + record_at(world, record)->binding;
	return sum;
}

/* --- what must hold of one packet --------------------------------------------------------------------------------- */

static int one_of(lb_be32 addr, lb_be32 a, lb_be32 b)
{
	return addr == a || addr == b;
}

static void check_plan(const struct lb_view *view, const struct lb_plan *plan)
{
	lb_be32 src = lb_addr_v4(&plan->src), dst = lb_addr_v4(&plan->dst);
	lb_u32 port = LB_BE16(plan->sport);

	CHECK(plan->reason < LB_REASON_COUNT && plan->verdict == lb_verdict_of(plan->reason), "reason %d, verdict %d",
	      plan->reason, plan->verdict);
	CHECK(plan->direction <= LB_DIRECTION_REPLY && view->reason < LB_REASON_COUNT, "enums");
	CHECK(plan->service <= SERVICE && plan->backend <= 2 && plan->snat <= 2, "ids");
	if (!forwarded(plan))
		return;
	CHECK(plan->reason != LB_REASON_NONE && view->reason == LB_REASON_NONE && view->ttl > 1, "view's reason %d",
	      view->reason);
	CHECK(!(view->eth_dst[0] & 1), "to a group of hosts");
	CHECK(plan->ttl == view->ttl - 1 && plan->l4 == view->l4 && plan->nexthop.ifindex && !plan->head_delta, "plan");
	if (plan->direction == LB_DIRECTION_FORWARD) {
		CHECK(one_of(src, snat_address(1), snat_address(2)), "source %x", src);
		CHECK(port >= LB_PORT_FIRST && port < LOCAL_FIRST && (port != SERVICE_PORT || src != vip_address()),
		      "port %u", port);
		CHECK(one_of(dst, backend_address(1), backend_address(2)) && plan->dport == LB_BE16(SERVICE_PORT),
		      "destination %x", dst);
	} else {
		CHECK(src == vip_address() && plan->sport == LB_BE16(SERVICE_PORT), "source %x", src);
		CHECK(one_of(lb_addr_v4(&view->src), backend_address(1), backend_address(2)), "a reply from %x",
		      lb_addr_v4(&view->src));
	}
}

/* Makes both frames the same where the plan may write, after a look at what was written there. */
static void check_bytes(lb_u8 *before, lb_u8 *after, lb_u32 length, const struct lb_plan *plan)
{
	const struct lb_ipv4 *ip = (const struct lb_ipv4 *)(after + LB_ETH_BYTES);
	const struct lb_tcp *tcp = (const struct lb_tcp *)(after + plan->l4);
	const struct {
		lb_u32 offset, bytes;
	} written[] = {
		{0, 12}, {LB_ETH_BYTES + 8, 1}, {LB_ETH_BYTES + 10, 10}, {plan->l4 + 0u, 4}, {plan->l4 + 16u, 2}};

	CHECK(!memcmp(after, plan->nexthop.dst, 6) && !memcmp(after + 6, plan->nexthop.src, 6), "MAC addresses");
	CHECK(ip->ttl == plan->ttl && ip->src == lb_addr_v4(&plan->src) && ip->dst == lb_addr_v4(&plan->dst), "IP");
	CHECK(tcp->sport == plan->sport && tcp->dport == plan->dport, "TCP");
	CHECK(sum_ipv4(before) % 0xffff == sum_ipv4(after) % 0xffff, "the IP checksum was %04x off, is %04x off",
	      sum_ipv4(before), sum_ipv4(after));
	CHECK(sum_tcp(before) % 0xffff == sum_tcp(after) % 0xffff, "the TCP checksum was %04x off, is %04x off",
	      sum_tcp(before), sum_tcp(after));
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		memcpy(before + written[i].offset, after + written[i].offset, written[i].bytes);
	CHECK(!memcmp(before, after, length), "a byte changed that is not the plan's");
}

/* What the quick way did to a copy of the frame, and which interface it named: as the long way, or nothing. */
static void check_quick(const lb_u8 *quick, lb_u32 to, const lb_u8 *before, const lb_u8 *after, lb_u32 length,
			const struct lb_plan *plan, lb_u64 bindings)
{
	if (!to) {
		CHECK(!memcmp(quick, before, length), "the quick way changed a frame that it did not take");
		return;
	}
	CHECK(forwarded(plan) && plan->nexthop.ifindex == to, "quick to %u, the plan says %u", to,
	      plan->nexthop.ifindex);
	CHECK(plan->reason == LB_REASON_FORWARD || plan->reason == LB_REASON_REPLY, "quick, but reason %d",
	      plan->reason);
	CHECK(!memcmp(quick, after, length), "the quick way wrote another frame");
	CHECK(bindings == all_bindings(), "a settled flow was changed");
}

/* `before` is at 2 modulo 4 and may be written. */
static struct lb_plan pass(lb_u8 *before, lb_u32 length, lb_u16 now)
{
	lb_u8 *room = malloc(2 + (size_t)length), *after = room + 2;
	lb_u8 *desk = malloc(2 + (size_t)length), *quick = desk + 2;
	struct lb_view view, parsed;
	struct lb_plan plan;
	lb_u64 bindings;
	lb_u32 to;
	int verdict;

	CHECK(room && desk, "out of memory");
	memcpy(after, before, length);
	memcpy(quick, before, length);
	to = native_quick(&world->env[0], quick, length, now);
	bindings = all_bindings();
	native_parse(after, length, IFINDEX, &parsed);
	verdict = native_packet(&world->env[0], after, length, IFINDEX, now, &view, &plan);
	CHECK(verdict == plan.verdict, "apply refused what parse had accepted");
	CHECK(!memcmp(&view, &parsed, sizeof(view)), "parse says two things");
	check_plan(&view, &plan);
	check_quick(quick, to, before, after, length, &plan, bindings);
	free(desk);
	if (forwarded(&plan))
		check_bytes(before, after, length, &plan);
	else
		CHECK(!memcmp(before, after, length), "a frame was changed for reason %d", plan.reason);
	free(room);
	return plan;
}

/* --- scripts ------------------------------------------------------------------------------------------------------ */

/* Raw bytes, up to 255 of what is left. */
static void pass_raw(struct script *script, lb_u16 now)
{
	struct frame frame;
	lb_u8 wanted = take(script);

	frame.length = wanted < script->length ? wanted : (lb_u32)script->length;
	for (lb_u32 i = 0; i < frame.length; i++)
		frame_bytes(&frame)[i] = take(script);
	pass(frame_bytes(&frame), frame.length, now);
}

/* A well-formed segment, then up to three bytes of its headers changed, or its end cut off. */
static void pass_segment(struct script *script, struct lb_plan *sent, lb_u8 what, lb_u16 now)
{
	lb_u8 who = take(script), shape = take(script), harm = take(script);
	struct segment segment = {.flags = some_flags(what >> 3), .dst = vip_address(), .dport = SERVICE_PORT};
	struct frame frame;
	struct lb_plan plan;

	if (what & 64) { /* a reply to what was sent last */
		segment.src = backend_address(sent->backend ? sent->backend : 1);
		segment.sport = SERVICE_PORT;
		segment.dst = snat_address(sent->snat ? sent->snat : 1);
		segment.dport = LB_BE16(sent->sport);
	} else {
		segment.src = some_address(who);
		segment.sport = some_port(who >> 3);
	}
	if (what & 128) {
		segment.dst = some_address(who >> 3);
		segment.dport = some_port(shape);
	}
	segment.seq = shape * 0x01010101u;
	segment.ip_options = shape & 1 ? shape >> 4 & 7 : 0;
	segment.tcp_options = shape & 2 ? shape >> 4 & 7 : 0;
	segment.payload = shape >> 3;
	segment.ttl = shape & 8 ? shape >> 4 & 3 : 64;
	frame_build(&frame, &segment);
	for (lb_u8 i = 0; i < (harm & 3); i++) {
		lb_u8 where = take(script);

		frame_bytes(&frame)[where % frame.length] ^= take(script);
	}
	if (harm & 4)
		frame.length -= (harm >> 3) % frame.length;
	plan = pass(frame_bytes(&frame), frame.length, now);
	if (forwarded(&plan) && plan.direction == LB_DIRECTION_FORWARD)
		*sent = plan;
}

static void run(struct script script)
{
	struct lb_plan sent = {.backend = 1, .snat = 1, .sport = LB_BE16(40000)};
	lb_u16 now = (lb_u16)(take(&script) << 8);

	for (lb_u32 packets = 0; script.length && packets < PACKETS_MOST; packets++) {
		lb_u8 what = take(&script);

		switch (what & 7) {
		case 0:
			pass_raw(&script, now);
			break;
		case 1:
			now += take(&script) * (what & 8 ? 8 : 1);
			break;
		case 2:
			if (what & 8)
				world->settings->active ^= 1;
			native_sweep(&world->env[0], 0, world->shape.flow_groups, now, NULL, NULL);
			break;
		default:
			pass_segment(&script, &sent, what, now);
		}
	}
}

/* Flows and the ports they hold are cleared one by one: the port tables are much larger than what a script uses. */
static void forget(void)
{
	for (lb_u32 record = 0; record < world->shape.flow_groups * LB_FLOW_WAYS; record++) {
		struct lb_flow *flow = record_at(world, record);
		lb_u32 *word = lb_port_bound(&world->env[0], world->settings, flow->binding);

		if (lb_binding_backend(flow->binding) && word)
			*word = 0;
		*flow = (struct lb_flow){0};
	}
	world->settings->active = COPY_ALL;
}

/* Every record holds its port; every now and then, that no other word is set. */
static void check_world(void)
{
	static lb_u32 inputs;

	for (lb_u32 record = 0; record < world->shape.flow_groups * LB_FLOW_WAYS; record++) {
		lb_u64 binding = record_at(world, record)->binding;

		CHECK(!(lb_binding_flags(binding) & LB_FLOW_CLAIMED), "record %u stays claimed", record);
		if (lb_binding_backend(binding)) {
			CHECK(*lb_port_bound(&world->env[0], world->settings, binding) == record + 1,
			      "record %u does not hold its port", record);
			check_found(world, record);
		}
	}
	if (++inputs % 4096 == 0)
		world_check_strictly(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	run((struct script){bytes, length});
	check_world();
	forget();
	return 0;
}

/* --- seeds -------------------------------------------------------------------------------------------------------- */

static void write_seed(const char *folder, const char *name, const uint8_t *bytes, size_t length)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "wb");
	CHECK(file && fwrite(bytes, 1, length, file) == length && !fclose(file), "cannot write %s", path);
}

/* A conversation, a raw frame of each kind, and random scripts. what: 3 is a segment, its flags' number times 8. */
static void write_seeds(const char *folder)
{
	static const uint8_t conversation[] = {7, 3,	       0,  16, 0, 3 + 64 + 8, 0, 20, 0, 3 + 16,	     0, 4,
					       0, 3 + 64 + 16, 0,  6,  0, 3 + 24,     0, 16, 0, 3 + 64 + 24, 0, 0,
					       0, 1,	       62, 2,  3, 0,	      0, 0};
	struct segment segment = {.src = some_address(0),
				  .sport = 40000,
				  .dst = vip_address(),
				  .dport = SERVICE_PORT,
				  .flags = LB_TCP_SYN};
	uint8_t bytes[256] = {0, 0};
	struct frame frame;
	lb_u64 random = 1;

	write_seed(folder, "conversation", conversation, sizeof(conversation));
	frame_build(&frame, &segment);
	bytes[2] = (uint8_t)frame.length;
	memcpy(bytes + 3, frame_bytes(&frame), frame.length);
	write_seed(folder, "raw", bytes, 3 + frame.length);
	for (char name[] = "random-0"; name[7] <= '9'; name[7]++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)random_next(&random);
		write_seed(folder, name, bytes, sizeof(bytes));
	}
}

static int is_empty(const char *folder)
{
	DIR *listing = opendir(folder);
	int entries = 0;

	while (listing && readdir(listing))
		entries++;
	if (listing)
		closedir(listing);
	return listing && entries <= 2; /* itself and its parent */
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	world = world_new((struct shape){.flow_groups = 2, .port_tables = 1, .backends = 2, .snats = 2});
	slots_fill(world, COPY_FIRST_ONLY, 1 << 1);
	for (int i = 1; i < *argc; i++) {
		if ((*argv)[i][0] != '-') {
			if (is_empty((*argv)[i]))
				write_seeds((*argv)[i]);
			break;
		}
	}
	return 0;
}

#pragma clang attribute pop
