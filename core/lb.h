/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * evener's packet core: the one include for drivers, which define lb_env (env.h) before it.
 *
 * Read in the order of the packet: parse.h, classify.h, flow_table.h, open.h, plan.h, rewrite.h; pipeline.h states
 * the order, tables.h what is remembered, reasons.h every possible end.
 */
#ifndef LB_H
#define LB_H

#include "quick.h"

#endif
