// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A walk over all TCP sockets of a namespace, for what needs their lock. */
#include "lib/peek.h"

enum { ST_SO_RCVLOWAT = 18 };

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

/* Which socket st_nudge is to tell; 0 = none. */
__u64 st_nudged_cookie;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

/* Adopted sockets whose application has not set SO_RCVBUF, where what waits counts in the buffer.
 */
static __always_inline int st_is_to_widen(struct tcp_sock *tp, const struct st_fast_config *config)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	return config && config->charges_reader && sk->sk_rcvlowat <= 1 &&
	       !(st_user_locks(0, (struct sock *)sk) & ST_SOCK_RCVBUF_LOCK) &&
	       bpf_sk_storage_get(&st_fast_sockets, tp, 0, 0);
}

/* A buffer for one window past TCP and all that its peer, with a send buffer like its own, can send
 * behind (st_window_of). */
static __always_inline void st_widen(struct tcp_sock *tp, int low_water,
				     const struct st_fast_config *config)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	int wanted = config->window + st_send_memory(0, sk);

	if (sk->sk_rcvbuf >= wanted)
		return;
	bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &wanted, sizeof(wanted));
	bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &low_water, sizeof(low_water));
}

/* Two things that only setting SO_RCVLOWAT does (net/ipv4/tcp.c, tcp_set_rcvlowat): a value above
 * half of the buffer grows it, without a lock as by SO_RCVBUF; and setting it, even to what it is,
 * looks whether bytes wait and wakes who watches. The socket is locked meanwhile. */
SEC("iter/tcp")
int st_nudge(struct bpf_iter__tcp *ctx)
{
	const struct st_fast_config *config = st_get_fast_config();
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp;
	int low_water;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	low_water = tp->inet_conn.icsk_inet.sk.sk_rcvlowat;
	if (st_is_to_widen(tp, config))
		st_widen(tp, low_water, config);
	if (st_nudged_cookie && (__u64)common->skc_cookie.counter == st_nudged_cookie)
		bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &low_water, sizeof(low_water));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
