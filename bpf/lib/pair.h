/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Finds the two ends of a connection that are both on this node, and forgets them. Called by
 * sockops only; nothing here puts a socket on the fast path (bpf/adopt.bpf.c does).
 */
#ifndef SIDETRACK_BPF_PAIR_H
#define SIDETRACK_BPF_PAIR_H

#include "lib/fast_maps.h"
#include "lib/netns.h"
#include "lib/rules.h"

/* The key as the connection's client (`active`) or its server works it out, now or later. The SYN
 * that a client sent counts as acknowledged. */
static __always_inline void st_pair_key_of(struct bpf_sock_ops *ctx, int active,
					   struct st_pair_key *key)
{
	__u32 sent = ctx->snd_una - (__u32)ctx->bytes_acked;
	__u32 received = ctx->rcv_nxt - (__u32)ctx->bytes_received;

	key->client_first = active ? sent + 1 : received;
	key->server_first = active ? received : sent;
}

/* A client's close gives its row back. */
static __always_inline void st_follow(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline struct st_observed *st_find_observed(const struct tcp_sock *tp)
{
	__u64 cookie = st_known_cookie(tp);

	return cookie ? bpf_map_lookup_elem(&st_observed, &cookie) : 0;
}

static __always_inline int st_is_plain(const struct tcp_sock *tp)
{
	return !st_is_mptcp(tp) && !BPF_CORE_READ_BITFIELD(tp, repair);
}

/* NONE = the row is there. */
static __always_inline enum st_fast_reason st_publish_pair(struct bpf_sock_ops *ctx,
							   struct tcp_sock *tp, __u8 kind,
							   __u64 netns_cookie,
							   struct st_pair_key *published)
{
	struct st_pod_state *state = bpf_map_lookup_elem(&st_pod_state, &netns_cookie);
	struct st_pair_key key;
	struct st_pair pair = {};

	if (!state)
		return ST_FAST_POD_OFF;
	if (!st_is_plain(tp))
		return ST_FAST_NOT_TCP;
	st_pair_key_of(ctx, 1, &key);
	pair.kind = kind;
	pair.end[ST_SIDE_CLIENT].cookie = bpf_get_socket_cookie(ctx);
	pair.end[ST_SIDE_CLIENT].netns_cookie = netns_cookie;
	pair.end[ST_SIDE_CLIENT].sock = (__u64)tp;
	if (state->pairs >= ST_PAIR_QUOTA ||
	    bpf_map_update_elem(&st_pairs, &key, &pair, BPF_NOEXIST)) {
		st_count_refused(ST_FAST_PAIRS_FULL);
		return ST_FAST_PAIRS_FULL;
	}
	__sync_fetch_and_add(&state->pairs, 1);
	if (published)
		*published = key;
	st_follow(ctx);
	return ST_FAST_NONE;
}

static __always_inline int st_is_engine_socket(const struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	const struct st_config *config = st_get_config();

	/* Before 5.16 the field can hold something else. */
	if (!config || !bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return 0;
	return st_is_engine_cgroup(config, sk->sk_cgrp_data.cgroup->kn->id);
}

/* To an address of the own network namespace. */
static __always_inline int st_stays_inside(struct bpf_sock_ops *ctx)
{
	if (ctx->family == ST_AF_INET)
		return ctx->remote_ip4 == ctx->local_ip4 ||
		       (bpf_ntohl(ctx->remote_ip4) >> 24) == 127;
	return ctx->remote_ip6[0] == ctx->local_ip6[0] && ctx->remote_ip6[1] == ctx->local_ip6[1] &&
	       ctx->remote_ip6[2] == ctx->local_ip6[2] && ctx->remote_ip6[3] == ctx->local_ip6[3];
}

static __always_inline void st_destination(struct bpf_sock_ops *ctx, struct st_addr *destination)
{
	__u32 words[4] = {0, 0, bpf_htonl(0xffff)};

	if (ctx->family == ST_AF_INET) {
		words[3] = ctx->remote_ip4;
		barrier(); /* the compiler must not merge the reads of both branches */
	} else {
		words[0] = ctx->remote_ip6[0];
		words[1] = ctx->remote_ip6[1];
		words[2] = ctx->remote_ip6[2];
		words[3] = ctx->remote_ip6[3];
		barrier();
	}
	__builtin_memcpy(destination, words, sizeof(words));
}

/* connect() has decided before it came to the rules. */
static __always_inline int st_is_excluded(struct bpf_sock_ops *ctx, const struct st_pod *pod)
{
	volatile __u32 port = ctx->remote_port;
	struct st_addr destination;
	struct st_rules rules = {};

	st_destination(ctx, &destination);
	st_find_rules(pod, &destination, bpf_ntohl(port), &rules);
	return st_decide_rules(&rules) != ST_REASON_COUNT;
}

/* A client's side is established. `socket` is its state, if it was redirected. */
static __always_inline void st_pair_active(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					   struct st_socket *socket)
{
	const struct st_fast_config *config = st_get_fast_config();
	struct st_observed *observed;
	struct st_client *client;
	const struct st_pod *pod;
	struct tcp_sock *tp;
	__u64 netns_cookie;
	__u8 kind;

	if (!config || !config->enabled)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	observed = socket ? 0 : st_find_observed(tp);
	client = socket ? &socket->client : observed ? &observed->client : 0;
	if (client) {
		client->paired = 0; /* the row may be another's that was evicted a moment ago */
		if (client->fast_path == ST_FAST_PATH_OFF)
			return;
		client->unpaired =
			st_publish_pair(ctx, tp, socket ? ST_PAIR_TO_ENGINE : ST_PAIR_DIRECT,
					client->netns_cookie, &client->pair);
		client->paired = !client->unpaired;
		return;
	}
	kind = st_is_engine_socket(tp) ? ST_PAIR_FROM_ENGINE : ST_PAIR_DIRECT;
	if (kind == ST_PAIR_DIRECT && !(config->loopback && st_stays_inside(ctx)))
		return;
	netns_cookie = st_sockops_netns(ctx);
	pod = bpf_map_lookup_elem(&st_pods, &netns_cookie);
	if (!st_pod_takes_part(pod) || (kind == ST_PAIR_DIRECT && st_is_excluded(ctx, pod)))
		return;
	st_publish_pair(ctx, tp, kind, netns_cookie, 0);
}

/* A server's side is established. */
static __always_inline void st_pair_passive(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	const struct st_fast_config *config = st_get_fast_config();
	struct st_fast_counters *counters;
	struct st_pair_key key;
	struct st_pair *pair;
	struct tcp_sock *tp;
	__u64 netns_cookie;

	if (!config || !config->enabled)
		return;
	st_pair_key_of(ctx, 0, &key);
	pair = bpf_map_lookup_elem(&st_pairs, &key);
	if (!pair || pair->end[ST_SIDE_SERVER].cookie)
		return;
	netns_cookie = st_sockops_netns(ctx);
	pair->loopback = netns_cookie == pair->end[ST_SIDE_CLIENT].netns_cookie;
	/* Tuples of loopback repeat in every pod; an engine's own hop always stays inside. */
	if (pair->loopback ? pair->kind == ST_PAIR_DIRECT && !config->loopback
			   : st_stays_inside(ctx))
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || !st_is_plain(tp))
		return;
	pair->end[ST_SIDE_SERVER].netns_cookie = netns_cookie;
	pair->end[ST_SIDE_SERVER].sock = (__u64)tp;
	barrier();
	pair->end[ST_SIDE_SERVER].cookie = bpf_get_socket_cookie(ctx);
	counters = st_get_fast_counters();
	if (counters)
		counters->paired++;
}

/* The socket will be another connection: what waits in its queue must not be read by that one. */
static __always_inline void st_leave_fast_path(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 cookie;

	if (!bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0))
		return;
	cookie = bpf_get_socket_cookie(ctx);
	bpf_map_delete_elem(&st_adopted, &cookie);
	bpf_sk_storage_delete(&st_fast_sockets, sk);
}

/* A client, or a socket with storage of ours, is closed; `old` is the state before. Bytes that wait
 * stay readable, as after an RST or FIN of TCP, unless it was a disconnect: open until now, and no
 * error. (A server's disconnect is seen when it connects or listens again.) */
static __always_inline void st_pair_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u32 old)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct st_pair_key key;
	struct st_pair *pair;

	if (!tp)
		return;
	st_pair_key_of(ctx, 1, &key);
	pair = bpf_map_lookup_elem(&st_pairs, &key);
	if (pair && pair->end[ST_SIDE_CLIENT].cookie == bpf_get_socket_cookie(ctx))
		st_drop_pair(&key, pair->end[ST_SIDE_CLIENT].netns_cookie);
	if ((old == BPF_TCP_ESTABLISHED || old == BPF_TCP_CLOSE_WAIT) &&
	    !tp->inet_conn.icsk_inet.sk.sk_err)
		st_leave_fast_path(ctx, sk);
}

#endif
