/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lanes: the core on several CPUs, or in a process that can be stopped and killed, one memory access at a time.
 *
 * Every LB_READ, LB_WRITE and LB_SWAP of the core first calls step(), where the test may stop the lane that runs
 * (lane_stop); it goes on from there when it is resumed. After each change of memory the core calls changed().
 * Outside of lanes `running` is null, and neither should do more than look.
 *
 * This replaces the core's words, so it comes before everything that includes the core.
 */
#ifndef LB_TEST_STEPPING_H
#define LB_TEST_STEPPING_H

#include <setjmp.h>
#include <ucontext.h>

#include "types.h"

static void step(void);
static void changed(void);

#undef LB_READ
#undef LB_WRITE
#undef LB_SWAP
#define LB_READ(word) (step(), *(const volatile __typeof__(word) *)&(word))
#define LB_WRITE(word, value)                                                                                          \
	do {                                                                                                           \
		__typeof__(word) value_ = (value);                                                                     \
		step();                                                                                                \
		*(volatile __typeof__(word) *)&(word) = value_;                                                        \
		changed();                                                                                             \
	} while (0)
#define LB_SWAP(word, old, new)                                                                                        \
	({                                                                                                             \
		__typeof__(word) old_ = (old), new_ = (new);                                                           \
		int done_;                                                                                             \
		step();                                                                                                \
		done_ = __sync_bool_compare_and_swap(&(word), old_, new_);                                             \
		changed();                                                                                             \
		done_;                                                                                                 \
	})

#include "support.h"

enum { STACK_BYTES = 256 << 10 };

/* The first member of what a test keeps of a lane. */
struct lane {
	jmp_buf at;
	void *stack;
	void (*handle)(struct lane *);
	int busy;
};

static struct lane *running; /* 0: the scheduler */
static jmp_buf scheduler;
static ucontext_t birthplace;

static void lane_stop(void)
{
	struct lane *self = running;

	running = NULL;
	if (!_setjmp(self->at))
		_longjmp(scheduler, 1);
}

static void lane_resume(struct lane *lane)
{
	if (!_setjmp(scheduler)) {
		running = lane;
		_longjmp(lane->at, 1);
	}
	running = NULL;
}

/* A lane's life: rest, handle what it was given, again. Whoever sets busy gives it something. */
static void lane_main(void)
{
	struct lane *self = running;

	for (;;) {
		lane_stop();
		self->handle(self);
		self->busy = 0;
	}
}

/* Begins a lane. One that was begun before is killed: what it was about to do is never done. */
static void lane_start(struct lane *lane, void (*handle)(struct lane *))
{
	ucontext_t context;

	lane->stack = lane->stack ? lane->stack : malloc(STACK_BYTES);
	lane->handle = handle;
	lane->busy = 0;
	CHECK(lane->stack && !getcontext(&context), "no lane");
	context.uc_stack.ss_sp = lane->stack;
	context.uc_stack.ss_size = STACK_BYTES;
	context.uc_link = NULL;
	makecontext(&context, lane_main, 0);
	if (!_setjmp(scheduler)) {
		running = lane;
		swapcontext(&birthplace, &context);
	}
	running = NULL;
}

#endif
