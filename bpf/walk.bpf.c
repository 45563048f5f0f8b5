// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Walks over all TCP sockets of a namespace, for what needs their lock. */
#include "lib/common.h"
#include "lib/fin.h"

enum {
	ST_SO_RCVLOWAT = 18,
	ST_TCP_NODELAY = 1,
	ST_TCP_NAGLE_OFF = 1,		     /* include/net/tcp.h */
	ST_TCP_BPF_SOCK_OPS_CB_FLAGS = 1008, /* since 6.12 */
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

/* Which socket st_nudge is to tell; 0 = none, or ST_NUDGE_LET_GO. */
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

/* Sends what waits, and leaves TCP_NODELAY as it is: setting it does that (net/ipv4/tcp.c,
 * __tcp_sock_set_nodelay). Before Linux 6.1 programs may not, and TCP's timer has to do. */
static __always_inline void st_push(struct tcp_sock *tp)
{
	int was_on = BPF_CORE_READ_BITFIELD(tp, nonagle) & ST_TCP_NAGLE_OFF;
	int on = 1, off = 0;

	bpf_setsockopt(tp, ST_IPPROTO_TCP, ST_TCP_NODELAY, &on, sizeof(on));
	if (!was_on)
		bpf_setsockopt(tp, ST_IPPROTO_TCP, ST_TCP_NODELAY, &off, sizeof(off));
}

/* A FIN that waits is tried again; one that still has to waits on (bpf/fin.bpf.c). */
static __always_inline void st_push_fin(struct tcp_sock *tp, __u8 state)
{
	struct st_fin *fin;

	if (state != BPF_TCP_FIN_WAIT1 && state != BPF_TCP_CLOSING && state != BPF_TCP_LAST_ACK)
		return;
	fin = bpf_sk_storage_get(&st_fins, tp, 0, 0);
	if (!fin || !fin->since_ns)
		return;
	if (st_nudged_cookie == ST_NUDGE_LET_GO)
		fin->since_ns = 1; /* has waited long enough */
	st_push(tp);
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
	st_push_fin(tp, common->skc_state);
	low_water = tp->inet_conn.icsk_inet.sk.sk_rcvlowat;
	if (st_is_to_widen(tp, config))
		st_widen(tp, low_water, config);
	if (st_nudged_cookie && (__u64)common->skc_cookie.counter == st_nudged_cookie)
		bpf_setsockopt(tp, ST_SOL_SOCKET, ST_SO_RCVLOWAT, &low_water, sizeof(low_water));
	return 0;
}

/* Which listener st_watch_engine is to watch. */
__u64 st_watched_cookie;

/* A listener of the external engine that sockops did not see being made, as it is older: from here
 * on its close is seen. A kernel without the option refuses; then the agent has to go on looking.
 */
SEC("iter/tcp")
int st_watch_engine(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	__u32 slot = ST_EXTERNAL_ENGINE_SLOT;
	__u64 cookie = st_watched_cookie;
	struct st_engine *engine;
	struct tcp_sock *tp;
	int flags;

	if (!common || (__u64)common->skc_cookie.counter != cookie ||
	    common->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	engine = bpf_map_lookup_elem(&st_engines, &slot);
	if (!tp || !engine)
		return 0;
	flags = tp->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
	if (!bpf_setsockopt(tp, ST_IPPROTO_TCP, ST_TCP_BPF_SOCK_OPS_CB_FLAGS, &flags,
			    sizeof(flags)))
		st_note_watched(engine, cookie);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
