/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What kind of address an st_addr is. */
#ifndef SIDETRACK_ADDR_H
#define SIDETRACK_ADDR_H

#include "sidetrack/abi/types.h"

static inline int st_addr_is_v4(const struct st_addr *a)
{
	const __u8 *b = a->bytes;

	return !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7] | b[8] | b[9]) &&
	       b[10] == 0xff && b[11] == 0xff;
}

static inline int st_addr_equal(const struct st_addr *a, const struct st_addr *b)
{
	__u8 differ = 0;
	int i;

	for (i = 0; i < 16; i++)
		differ |= a->bytes[i] ^ b->bytes[i];
	return !differ;
}

static inline int st_addr_is_zero(const struct st_addr *a)
{
	static const struct st_addr zero = {{0}};

	return st_addr_equal(a, &zero);
}

/* 127.0.0.0/8 or ::1. */
static inline int st_addr_is_loopback(const struct st_addr *a)
{
	static const struct st_addr one = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

	return st_addr_is_v4(a) ? a->bytes[12] == 127 : st_addr_equal(a, &one);
}

/* Destinations that are never redirected: unspecified (the kernel connects those to loopback),
 * loopback, link-local, multicast. */
static inline int st_addr_is_local(const struct st_addr *a)
{
	const __u8 *b = a->bytes;

	if (st_addr_is_v4(a))
		return b[12] == 127 || (b[12] == 169 && b[13] == 254) || b[12] >= 224 ||
		       !(b[12] | b[13] | b[14] | b[15]);
	return st_addr_is_zero(a) || st_addr_is_loopback(a) ||
	       (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || b[0] == 0xff;
}

#endif
