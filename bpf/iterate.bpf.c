// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Iterators over the sockets that have state of ours, and over the adopted ones: what is shown as
 * live is read here, from the sockets themselves. */
#include "lib/peek.h"

enum { ST_SOL_SOCKET = 1, ST_SO_RCVLOWAT = 18 };

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	__u64 *key;
	struct st_observed *value;
} __attribute__((preserve_access_index));

/* The socket may be gone meanwhile: whoever calls compares its cookie afterwards. */
static __always_inline void st_read_live(struct tcp_sock *tp, struct st_live *live)
{
	struct sock *sk = (struct sock *)tp;
	struct st_pair_key key = live->client.pair;
	struct st_pair *pair;

	live->bytes_out = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	live->bytes_in = BPF_CORE_READ(tp, bytes_received);
	live->source_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!st_addr_is_zero(&live->source))
		;
	else if (BPF_CORE_READ(sk, __sk_common.skc_family) == ST_AF_INET)
		st_addr_from_v4(&live->source, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	else
		BPF_CORE_READ_INTO(&live->source, sk, __sk_common.skc_v6_rcv_saddr);
	pair = live->client.paired ? bpf_map_lookup_elem(&st_pairs, &key) : 0;
	if (!pair)
		return;
	live->fast_out = pair->fast_bytes[ST_SIDE_CLIENT];
	live->fast_in = pair->fast_bytes[ST_SIDE_SERVER];
	live->handoff_out = pair->handoff_bytes[ST_SIDE_CLIENT];
	live->handoff_in = pair->handoff_bytes[ST_SIDE_SERVER];
}

SEC("iter/bpf_sk_storage_map")
int st_iterate(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct st_socket *state = ctx->value;
	struct st_live live = {.redirected = 1};
	struct sock *sk = ctx->sk;
	struct tcp_sock *tp;

	if (!sk || !state || state->role != ST_ROLE_REDIRECTED || !state->client.counted)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	live.client = state->client;
	live.source = state->own;
	st_read_live(tp, &live);
	bpf_seq_write(ctx->meta->seq, &live, sizeof(live));
	return 0;
}

SEC("iter/bpf_map_elem")
int st_iterate_observed(struct bpf_iter__bpf_map_elem *ctx)
{
	struct st_observed *row = ctx->value;
	volatile __u64 *key = ctx->key;
	struct st_live live = {};
	struct tcp_sock *tp;
	struct sock *sk;
	__u64 cookie;

	if (!key || !row || !row->client.counted)
		return 0;
	/* First: an evicted row is another socket's at once, and would fit that one. */
	cookie = *key;
	live.client = row->client;
	tp = (struct tcp_sock *)row->sock;
	sk = (struct sock *)row->sock;
	st_read_live(tp, &live);
	if ((__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == cookie)
		bpf_seq_write(ctx->meta->seq, &live, sizeof(live));
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int st_iterate_fast(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct st_fast_live live = {};
	struct st_fast *fast = ctx->value;

	if (!ctx->sk || !fast)
		return 0;
	live.state = *fast;
	live.sock = (__u64)ctx->sk;
	bpf_seq_write(ctx->meta->seq, &live, sizeof(live));
	return 0;
}

/* Which socket st_nudge is to tell; 0 = none. */
__u64 st_nudged_cookie;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

/* What waits past TCP counts in the same buffer as what TCP has: an adopted reader with room for
 * less than twice the window would close TCP's, and drop bytes that come behind. No read of what
 * came past TCP opens it again, only TCP's timers do. An application that has set SO_RCVBUF keeps
 * that (st_window_of). */
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
