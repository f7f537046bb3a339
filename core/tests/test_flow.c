/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a flow, as stories: packets of both ends, time that passes, what must become of each.
 *
 *	>SA       the client sends a segment with these flags: S SYN, A ACK, F FIN, R RST, - none
 *	<SA       the backend answers it
 *	>S:NAME   and the plan's reason is NAME; without one it must be forwarded
 *	+60       60 seconds pass
 *
 * Each story is told at several times of day, as seconds are kept in 16 bits and wrap.
 */
#include "invariants.h"
#include "packets.h"

struct story {
	const char *name;
	const char *script;
	enum lb_flow_state state; /* at the end */
};

#define OPENED ">S:FORWARD_NEW <SA:REPLY >A:FORWARD "
#define CLOSED OPENED ">FA <A <FA >A "

static const struct story stories[] = {
	{"handshake", OPENED, LB_STATE_ESTABLISHED},
	{"SYN alone", ">S:FORWARD_NEW", LB_STATE_OPENING},
	{"SYN-ACK is not enough", ">S:FORWARD_NEW <SA:REPLY", LB_STATE_OPENING},
	{"an ACK nobody answered to is not enough", ">S >A <A >A", LB_STATE_OPENING},
	{"data may come with the third packet", ">S <SA >A >A <A", LB_STATE_ESTABLISHED},
	{"SYN again", ">S:FORWARD_NEW +1 >S:FORWARD +2 >S:FORWARD <SA >A", LB_STATE_ESTABLISHED},
	{"SYN again keeps it alive", ">S +20 >S:FORWARD +20 >S:FORWARD", LB_STATE_OPENING},
	{"SYN again after the SYN-ACK was lost", ">S <SA +1 >S:FORWARD <SA >A", LB_STATE_ESTABLISHED},
	{"SYN-ACK again", ">S <SA +3 <SA:REPLY >A", LB_STATE_ESTABLISHED},
	{"stray packets do not keep an opening flow", ">S +20 >A:FORWARD <A:REPLY +10 >A:NO_FLOW", LB_STATE_OPENING},
	{"unanswered SYN", ">S +30 <SA:NO_REPLY_FLOW >A:NO_FLOW", LB_STATE_OPENING},
	{"unanswered SYN, later another", ">S +30 >S:FORWARD_NEW <SA >A", LB_STATE_ESTABLISHED},
	{"unanswered SYN, much later another", ">S +500 >S:FORWARD_NEW <SA >A", LB_STATE_ESTABLISHED},

	{"idle, not too long", OPENED "+899 >A:FORWARD +899 <A:REPLY +899 >A:FORWARD", LB_STATE_ESTABLISHED},
	{"idle too long, client", OPENED "+900 >A:NO_FLOW", LB_STATE_ESTABLISHED},
	{"idle too long, backend", OPENED "+900 <A:NO_REPLY_FLOW", LB_STATE_ESTABLISHED},
	{"idle too long, opened again", OPENED "+900 " OPENED, LB_STATE_ESTABLISHED},
	{"SYN on an established flow changes nothing", OPENED ">S:FORWARD <A:REPLY >A:FORWARD", LB_STATE_ESTABLISHED},

	{"client closes first", OPENED ">FA <A <FA >A:FORWARD", LB_STATE_CLOSED},
	{"backend closes first", OPENED "<FA >A >FA <A:REPLY", LB_STATE_CLOSED},
	{"both at once", OPENED ">FA <FA >A <A", LB_STATE_CLOSED},
	{"FIN again", OPENED ">FA >FA >FA <A", LB_STATE_HALF_CLOSED},
	{"half closed by the client", OPENED ">FA +299 <A:REPLY >A:FORWARD +299 <A:REPLY", LB_STATE_HALF_CLOSED},
	{"half closed by the backend", OPENED "<FA +299 >A:FORWARD <A:REPLY", LB_STATE_HALF_CLOSED},
	{"half closed and silent", OPENED ">FA +300 <A:NO_REPLY_FLOW >A:NO_FLOW", LB_STATE_HALF_CLOSED},
	{"FIN before the handshake is over", ">S <SA >FA", LB_STATE_HALF_CLOSED},
	{"late packets find their way", CLOSED "+59 <FA:REPLY >A:FORWARD", LB_STATE_CLOSED},
	{"later ones do not", CLOSED "+60 <FA:NO_REPLY_FLOW >A:NO_FLOW", LB_STATE_CLOSED},
	{"SYN on a closed flow", CLOSED OPENED, LB_STATE_ESTABLISHED},
	{"SYN on a closed flow, a minute later", CLOSED "+61 " OPENED, LB_STATE_ESTABLISHED},
	{"SYN after a reset", OPENED "<R " OPENED, LB_STATE_ESTABLISHED},
	{"refused", ">S <RA:REPLY", LB_STATE_CLOSED},
	{"refused, tried again", ">S <RA:REPLY " OPENED, LB_STATE_ESTABLISHED},

	{"blind reset from the client's side", OPENED ">R >A:FORWARD <A:REPLY", LB_STATE_ESTABLISHED},
	{"blind reset from the backend's side", OPENED "<R <A >A:FORWARD +100 >A:FORWARD", LB_STATE_ESTABLISHED},
	{"blind reset of a half-closed flow", OPENED ">FA <R <A >A", LB_STATE_HALF_CLOSED},
	{"reset: the other end alone goes on", OPENED ">R <A <A <A", LB_STATE_CLOSED},
	{"reset twice, between them both ends spoke one time", OPENED ">R <A >R >A", LB_STATE_CLOSED},
	{"reset for real", OPENED ">R +60 <A:NO_REPLY_FLOW >A:NO_FLOW", LB_STATE_CLOSED},

	{"SYN and FIN", ">SF:BAD_FLAGS >SR:BAD_FLAGS >S:FORWARD_NEW >SFA:BAD_FLAGS", LB_STATE_OPENING},
	{"SYN-ACK from a client opens nothing", ">SA:NO_FLOW >S", LB_STATE_OPENING},
	{"no flags at all", OPENED ">-:FORWARD <-:REPLY", LB_STATE_ESTABLISHED},
};

static lb_u8 flags_of(const char *word)
{
	static const char letters[] = "FSR-A"; /* in the order of the bits; the fourth is PSH */
	lb_u8 flags = 0;

	for (; *word && *word != ':'; word++) {
		const char *letter = strchr(letters, *word);

		CHECK(letter, "flag %c", *word);
		if (*word != '-')
			flags |= (lb_u8)(1 << (letter - letters));
	}
	return flags;
}

static const char *reason_name(lb_u8 reason)
{
#define NAME(name, verdict, sentence) #name,
	static const char *const names[] = {LB_REASONS(NAME)};
#undef NAME
	CHECK(reason < LB_REASON_COUNT, "reason %d", reason);
	return names[reason];
}

static void tell(const struct story *story, lb_u16 now)
{
	struct world *world = world_new((struct shape){.flow_groups = 2, .port_tables = 2, .backends = 2, .snats = 1});
	struct client client = {address(10, 0, 0, 1), 34952};
	struct lb_plan plan, sent = {.backend = 1, .snat = 1, .sport = LB_BE16(client.port)};
	char script[256], *rest = NULL;
	lb_u16 started = now;

	snprintf(script, sizeof(script), "%s", story->script);
	for (char *word = strtok_r(script, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		const char *wanted = strchr(word, ':');

		if (*word == '+') {
			now += (lb_u16)atoi(word + 1);
			continue;
		}
		if (*word == '>') {
			plan = client_sends(world, 0, client, flags_of(word + 1), now);
			sent = forwarded(&plan) ? plan : sent;
		} else {
			plan = backend_sends(world, 0, &sent, flags_of(word + 1), now);
			CHECK(!forwarded(&plan) || goes_to(&plan, client), "%s: %s", story->name, word);
		}
		CHECK(wanted ? !strcmp(wanted + 1, reason_name(plan.reason)) : forwarded(&plan), "%s from %u: %s is %s",
		      story->name, started, word, reason_name(plan.reason));
		CHECK(!forwarded(&plan) || *word == '<' || LB_BE16(plan.sport) == client.port,
		      "%s: %s leaves from port %u", story->name, word, LB_BE16(plan.sport));
		world_check_strictly(world);
	}
	CHECK(world_check_strictly(world).bound == 1, "%s: one flow", story->name);
	CHECK(world_check_strictly(world).state[story->state] == 1, "%s from %u: the final state is not %d",
	      story->name, started, story->state);
	world_free(world);
}

static void test_stories(void)
{
	static const lb_u16 times[] = {0, 1, 32767, 32768, 64700, 65535};

	for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++)
		for (size_t t = 0; t < sizeof(times) / sizeof(times[0]); t++)
			tell(&stories[i], times[t]);
}

/* Flags only ever grow, but by a reset's revival, which takes exactly the reset and its marks away. */
static void test_next(void)
{
	const lb_u8 marks = LB_FLOW_LIVE_FORWARD | LB_FLOW_LIVE_REPLY;

	for (lb_u32 flags = 0; flags < 256; flags++) {
		for (lb_u32 tcp = 0; tcp < 64; tcp++) {
			for (lb_u8 direction = LB_DIRECTION_FORWARD; direction <= LB_DIRECTION_REPLY; direction++) {
				lb_u8 next = lb_flow_next((lb_u8)flags, direction, (lb_u8)tcp);
				lb_u8 lost = (lb_u8)(flags & ~next);

				CHECK(tcp & LB_TCP_RST ? !(lost & ~marks)
						       : !lost || (flags & LB_FLOW_RESET && lost & LB_FLOW_RESET &&
								   !(lost & ~(LB_FLOW_RESET | marks))),
				      "flags %02x, TCP %02x, direction %d lose %02x", flags, tcp, direction, lost);
				CHECK(!(tcp & LB_TCP_RST) || next & LB_FLOW_RESET, "a reset is noted");
				CHECK((next & LB_FLOW_CLAIMED) == (flags & LB_FLOW_CLAIMED),
				      "claims are not the packets'");
			}
		}
	}
}

/* Every pair of times: seconds that passed, up to half the circle; beyond it the other clock was ahead. */
static void test_age(void)
{
	static const lb_u16 times[] = {0, 1, 32767, 32768, 40000, 65535};

	for (size_t t = 0; t < sizeof(times) / sizeof(times[0]); t++) {
		for (lb_u32 passed = 0; passed <= 0xffff; passed++) {
			lb_u64 binding = lb_binding_word(1, LB_BE16(5000), 1, LB_FLOW_ESTABLISHED, times[t]);
			lb_u32 age = lb_flow_age(binding, (lb_u16)(times[t] + passed));

			CHECK(age == (passed < 0x8000 ? passed : 0), "%u s after %u the age is %u", passed, times[t],
			      age);
		}
	}
}

static void test_words(void)
{
	lb_u64 client = lb_client_word(address(192, 0, 2, 255), LB_BE16(65535), 65535);
	lb_u64 binding = lb_binding_word(65535, LB_BE16(60999), 255, 0xa5, 0x1234);
	lb_u64 changed = lb_binding_with(binding, 0x5a, 0xfedc);

	CHECK(lb_client_address(client) == address(192, 0, 2, 255) && lb_client_port(client) == LB_BE16(65535) &&
		      lb_client_service(client) == 65535,
	      "client %llx", client);
	CHECK(lb_binding_backend(binding) == 65535 && lb_binding_port(binding) == LB_BE16(60999) &&
		      lb_binding_snat(binding) == 255 && lb_binding_flags(binding) == 0xa5 &&
		      lb_binding_time(binding) == 0x1234,
	      "binding %llx", binding);
	CHECK(!((binding ^ changed) & LB_BINDING_ENDS) && lb_binding_flags(changed) == 0x5a &&
		      lb_binding_time(changed) == 0xfedc,
	      "binding %llx became %llx", binding, changed);
	CHECK(LB_FLOW_FREED && !lb_binding_usable(LB_FLOW_FREED), "a freed record is not a never used one");
}

struct order {
	const char *name;
	lb_u32 backend;
	lb_u8 flags;
	lb_u16 age;
	enum lb_rank rank;
};

enum { ESTABLISHED = LB_FLOW_REPLIED | LB_FLOW_ESTABLISHED, BOTH = LB_FLOW_FIN_FORWARD | LB_FLOW_FIN_REPLY };

static const struct order orders[] = {
	{"never used", 0, 0, 0, LB_RANK_FREE},
	{"freed", 0, LB_FLOW_RESET, 0, LB_RANK_FREE},
	{"opening", 1, 0, 0, LB_RANK_OPENING},
	{"opening, answered", 1, LB_FLOW_REPLIED, 2, LB_RANK_OPENING},
	{"opening for a while", 1, 0, 3, LB_RANK_STALE_OPENING},
	{"opening, its last second", 1, 0, 31, LB_RANK_STALE_OPENING},
	{"opening, over", 1, 0, 32, LB_RANK_DEAD},
	{"established", 1, ESTABLISHED, 0, LB_RANK_NEVER},
	{"established, idle", 1, ESTABLISHED, 899, LB_RANK_NEVER},
	{"established, idle too long, but just now", 1, ESTABLISHED, 901, LB_RANK_NEVER},
	{"established, over", 1, ESTABLISHED, 902, LB_RANK_DEAD},
	{"half closed", 1, ESTABLISHED | LB_FLOW_FIN_FORWARD, 301, LB_RANK_NEVER},
	{"half closed, over", 1, ESTABLISHED | LB_FLOW_FIN_REPLY, 302, LB_RANK_DEAD},
	{"closed", 1, ESTABLISHED | BOTH, 0, LB_RANK_CLOSED},
	{"reset", 1, ESTABLISHED | LB_FLOW_RESET, 61, LB_RANK_CLOSED},
	{"closed, quarantine over", 1, ESTABLISHED | BOTH, 62, LB_RANK_DEAD},
	{"being created", 0, LB_FLOW_CLAIMED, 4, LB_RANK_NEVER},
	{"being created, with a port", 1, LB_FLOW_CLAIMED, 4, LB_RANK_NEVER},
	{"claimed for a minute", 1, LB_FLOW_CLAIMED, 60, LB_RANK_NEVER},
	{"claimed for as long as can be told", 1, LB_FLOW_CLAIMED, 32767, LB_RANK_NEVER},
	{"claimed, perhaps by nobody any more", 1, LB_FLOW_DOUBTED, 32767, LB_RANK_NEVER},
	{"seen by a CPU whose clock is ahead", 1, ESTABLISHED, 65535, LB_RANK_NEVER},
};

/* Who makes room for a new flow, and in which order: free, dead, stale handshakes, closed, fresh handshakes, nobody. */
static void test_rank(void)
{
	struct world *world = world_new((struct shape){.flow_groups = 1, .port_tables = 1, .backends = 1, .snats = 1});

	CHECK(LB_RANK_FREE < LB_RANK_DEAD && LB_RANK_DEAD < LB_RANK_STALE_OPENING &&
		      LB_RANK_STALE_OPENING < LB_RANK_CLOSED && LB_RANK_CLOSED < LB_RANK_OPENING &&
		      LB_RANK_OPENING < LB_RANK_NEVER,
	      "the order of ranks");
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		for (lb_u32 seen = 0; seen <= 0xffff; seen += 4369) {
			const struct order *o = &orders[i];
			lb_u64 binding = lb_binding_word(o->backend, LB_BE16(5000), 1, o->flags, (lb_u16)seen);

			CHECK(lb_flow_rank(world->settings, binding, (lb_u16)(seen + o->age)) == o->rank,
			      "%s, seen at %u", o->name, seen);
		}
	}
	/* Whatever the flags, what is neither opening nor closed goes to nobody before its time. */
	for (lb_u32 flags = 0; flags < 256; flags++) {
		enum lb_flow_state state = lb_flow_state((lb_u8)flags);
		lb_u32 timeout = lb_flow_timeout(world->settings, (lb_u8)flags);

		for (lb_u32 age = 0; age < timeout + LB_MARGIN_S; age++) {
			lb_u64 binding = lb_binding_word(1, LB_BE16(5000), 1, (lb_u8)flags, 0);
			lb_u32 rank = lb_flow_rank(world->settings, binding, (lb_u16)age);

			if (flags & LB_FLOW_CLAIMED || (state != LB_STATE_OPENING && state != LB_STATE_CLOSED))
				CHECK(rank == LB_RANK_NEVER, "flags %02x, %u s: rank %u", flags, age, rank);
			CHECK(lb_flow_expired(world->settings, binding, (lb_u16)age) == (age >= timeout), "expiry");
			CHECK(!lb_flow_dead(world->settings, binding, (lb_u16)age), "dead before the margin is over");
		}
	}
	world_free(world);
}

int main(void)
{
	test_words();
	test_age();
	test_next();
	test_rank();
	test_stories();
	return 0;
}
