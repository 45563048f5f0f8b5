/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP options that a pod's policy asks for (sidetrack.io/tcp), set when a connection is
 * established. Called by sockops only. What the kernel does not take is left as it is. */
#ifndef SIDETRACK_BPF_TUNING_H
#define SIDETRACK_BPF_TUNING_H

#include "lib/pair.h"

enum {
	ST_SO_KEEPALIVE = 9,
	ST_TCP_NODELAY = 1,
	ST_TCP_KEEPIDLE = 4,
	ST_TCP_CONGESTION = 13,
	ST_TCP_USER_TIMEOUT = 18,
};

/* Whether st_tunings has had a row since the agent began: nobody else looks there. */
__u32 st_has_tunings;

static __always_inline void st_set_tuning(struct bpf_sock_ops *ctx, const struct st_tuning *tuning)
{
	struct st_tuning wanted = *tuning;
	int on = 1, keepalive = wanted.keepalive_s, timeout = wanted.user_timeout_ms;

	if (keepalive) {
		bpf_setsockopt(ctx, ST_SOL_SOCKET, ST_SO_KEEPALIVE, &on, sizeof(on));
		bpf_setsockopt(ctx, ST_IPPROTO_TCP, ST_TCP_KEEPIDLE, &keepalive, sizeof(keepalive));
	}
	if (timeout)
		bpf_setsockopt(ctx, ST_IPPROTO_TCP, ST_TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	if (wanted.nodelay)
		bpf_setsockopt(ctx, ST_IPPROTO_TCP, ST_TCP_NODELAY, &on, sizeof(on));
	if (wanted.congestion[0])
		bpf_setsockopt(ctx, ST_IPPROTO_TCP, ST_TCP_CONGESTION, wanted.congestion,
			       sizeof(wanted.congestion));
}

/* A client's side is established: a redirected one, one that is observed, or the engine's way to
 * the server. An excluded one is left alone. */
static __always_inline void st_tune(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				    const struct st_socket *socket)
{
	struct st_tuning *tuning;
	struct tcp_sock *tp;
	__u64 netns_cookie;

	if (!*(volatile __u32 *)&st_has_tunings)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || (!socket && !st_find_observed(tp) && !st_is_engine_socket(tp)))
		return;
	netns_cookie = st_sockops_netns(ctx);
	tuning = bpf_map_lookup_elem(&st_tunings, &netns_cookie);
	if (tuning)
		st_set_tuning(ctx, tuning);
}

#endif
