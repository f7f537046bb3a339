/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * lab_pass: lets every frame through.
 *
 * A veth hands over the frames that its other end sends with XDP_TX only while it carries an XDP
 * program of its own: without one they are counted as sent and vanish. The lab puts this one on
 * every port of its bridge. It needs no header: one number of <linux/bpf.h> is all that it uses.
 */
#define SEC(name) __attribute__((section(name), used))

enum { LAB_XDP_PASS = 2 }; /* XDP_PASS of <linux/bpf.h> */

SEC("xdp") int lab_pass(void *ctx)
{
	(void)ctx;
	return LAB_XDP_PASS;
}

SEC("license") const char lab_license[] = "GPL";
