/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known of a socket whose FIN waits, or may have to though it is adopted no longer: its
 * reader has bytes in both queues (docs/adr/0021-a-fin-waits.md). */
#ifndef SIDETRACK_BPF_FIN_H
#define SIDETRACK_BPF_FIN_H

#include "lib/peek.h"

struct st_fin {
	struct st_pair_key key; /* of the connection: a socket may be used for another one */
	struct st_far reader;
	__u64 reader_netns_cookie;
	__u64 since_ns;	    /* CLOCK_MONOTONIC: when it was kept back first; 0 = never */
	__u32 acknowledged; /* what the packet acknowledged that was kept back first */
	__u32 side;	    /* enum st_pair_side: its own */
};

/* Written by st_adopt and st_hold_fin; dies with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct st_fin);
} st_fins __weak SEC(".maps");

static __always_inline struct st_fin *st_know_fin(struct bpf_sock *sk, const struct st_fast *fast)
{
	struct st_fin *fin = bpf_sk_storage_get(&st_fins, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!fin)
		return 0;
	if (fin->key.client_first != fast->key.client_first ||
	    fin->key.server_first != fast->key.server_first)
		fin->since_ns = 0;
	fin->key = fast->key;
	fin->side = fast->side;
	fin->reader = fast->peer;
	fin->reader_netns_cookie = fast->peer_netns_cookie;
	return fin;
}

#endif
