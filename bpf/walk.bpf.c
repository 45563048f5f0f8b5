// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A walk over all TCP sockets of a namespace, for what needs their lock. */
#include "lib/peek.h"

enum {
	ST_SOL_SOCKET = 1,
	ST_SO_RCVLOWAT = 18,
	ST_SOCK_RCVBUF_LOCK = 2, /* include/net/sock.h: the application set SO_RCVBUF */
};

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

/* What waits past TCP counts in the same buffer as what TCP has: an adopted reader with room for
 * less than twice the window would close TCP's, and drop bytes that come behind. No read of what
 * came past TCP opens it again, only TCP's timers do. An application that has set SO_RCVBUF keeps
 * that, and a smaller window (st_window_of). */
static __always_inline __u32 st_missing_room(struct tcp_sock *tp)
{
	const struct st_fast_config *config = st_get_fast_config();
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	__u32 wanted;

	if (!config || !config->charges_reader || sk->sk_rcvlowat > 1 ||
	    (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & ST_SOCK_RCVBUF_LOCK))
		return 0;
	wanted = 2 * config->window;
	if (sk->sk_rcvbuf >= (int)wanted || !bpf_sk_storage_get(&st_fast_sockets, tp, 0, 0))
		return 0;
	return wanted;
}

/* Two things that only setting SO_RCVLOWAT does (net/ipv4/tcp.c, tcp_set_rcvlowat): a value above
 * half of the buffer grows it, without a lock as by SO_RCVBUF; and setting it, even to what it is,
 * looks whether bytes wait and wakes who watches. The socket is locked meanwhile. */
SEC("iter/tcp")
int st_nudge(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp;
	int low_water, room;
	bool told;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	told = st_nudged_cookie && (__u64)common->skc_cookie.counter == st_nudged_cookie;
	low_water = tp->inet_conn.icsk_inet.sk.sk_rcvlowat;
	room = st_missing_room(tp);
	if (room)
		bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &room, sizeof(room));
	if (room || told)
		bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &low_water, sizeof(low_water));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
