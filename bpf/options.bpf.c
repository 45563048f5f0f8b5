// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cgroup/getsockopt and cgroup/setsockopt, attached to the engine's cgroup only: SO_ORIGINAL_DST
 * for accepted sockets, and the engine's report of where it sent a connection.
 */
#include "lib/common.h"
#include "lib/netns.h"

enum { ST_OPTION_PASS = 1, ST_OPTION_ANSWERED = -1 };

/* What getsockopt writes: struct sockaddr_in and sockaddr_in6 (UAPI layouts). */
struct st_sockaddr_in {
	__u16 family;
	__u16 port_be;
	__u32 addr_be;
	__u8 zero[8];
};
struct st_sockaddr_in6 {
	__u16 family;
	__u16 port_be;
	__u32 flow;
	__u32 addr[4];
	__u32 scope;
};

/* The record of a socket that sockops could keep nothing in, or whose callback has not run when
 * accept() returns it, is found by the sequence numbers: those before the client's first byte, as
 * bytes (and a FIN, which the kernel counts as one) may have come since. */
static __always_inline int st_find_record(struct bpf_sock *sk, __u64 scope, struct st_addr *addr,
					  __u16 *port_be)
{
	struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);
	struct st_counters *counters;
	struct st_record_key key = {};
	struct st_record *record;

	if (!tp)
		return 0;
	key.scope = scope;
	key.client_sequence = tp->rcv_nxt - (__u32)tp->bytes_received;
	key.server_sequence = tp->snd_nxt;
	record = bpf_map_lookup_elem(&st_records, &key);
	if (!record)
		return 0;
	*addr = record->destination;
	*port_be = record->port_be;
	counters = st_get_counters(record->namespace_slot);
	if (counters)
		counters->record_fallback++;
	return 1;
}

static __always_inline int st_original(struct bpf_sockopt *ctx, struct st_addr *addr,
				       __u16 *port_be)
{
	struct bpf_sock *sk = ctx->sk;
	struct st_socket *state;
	__u64 netns_cookie;

	if (!sk)
		return 0;
	state = bpf_sk_storage_get(&st_sockets, sk, 0, 0);
	if (state) {
		if (state->role != ST_ROLE_ACCEPTED)
			return 0;
		*addr = state->client.destination;
		*port_be = state->client.port_be;
		return 1;
	}
	netns_cookie = st_sockopt_netns(ctx);
	return st_find_record(sk, netns_cookie, addr, port_be) ||
	       st_find_record(sk, 0, addr, port_be);
}

SEC("cgroup/getsockopt")
int st_getsockopt(struct bpf_sockopt *ctx)
{
	struct st_sockaddr_in *v4 = ctx->optval;
	struct st_sockaddr_in6 *v6 = ctx->optval;
	struct st_addr addr = {};
	__u16 port_be = 0;

	if (ctx->optname != ST_SO_ORIGINAL_DST ||
	    (ctx->level != ST_SOL_IP && ctx->level != ST_SOL_IPV6))
		return ST_OPTION_PASS;
	if (!st_original(ctx, &addr, &port_be)) {
		/* The kernel's own answer stands: an error, or conntrack's. */
		st_count(st_slot_of(st_sockopt_netns(ctx)), ST_REASON_NO_ORIGINAL_DESTINATION);
		return ST_OPTION_PASS;
	}
	if (ctx->level == ST_SOL_IP) {
		if (!st_addr_is_v4(&addr) || (void *)(v4 + 1) > ctx->optval_end)
			return ST_OPTION_PASS;
		__builtin_memset(v4, 0, sizeof(*v4));
		v4->family = ST_AF_INET;
		v4->port_be = port_be;
		v4->addr_be = st_addr_to_v4(&addr);
		ctx->optlen = sizeof(*v4);
	} else {
		if ((void *)(v6 + 1) > ctx->optval_end)
			return ST_OPTION_PASS;
		__builtin_memset(v6, 0, sizeof(*v6));
		v6->family = ST_AF_INET6;
		v6->port_be = port_be;
		__builtin_memcpy(v6->addr, &addr, sizeof(v6->addr));
		ctx->optlen = sizeof(*v6);
	}
	ctx->retval = 0;
	return ST_OPTION_PASS;
}

SEC("cgroup/setsockopt")
int st_setsockopt(struct bpf_sockopt *ctx)
{
	struct st_report *report = ctx->optval;
	struct st_socket *state;
	__u64 client_cookie;

	if (ctx->optname != ST_SO_REPORT ||
	    (ctx->level != ST_SOL_IP && ctx->level != ST_SOL_IPV6) || !ctx->sk)
		return ST_OPTION_PASS;
	if ((void *)(report + 1) > ctx->optval_end)
		return ST_OPTION_PASS;
	state = bpf_sk_storage_get(&st_sockets, ctx->sk, 0, 0);
	if (state && state->role == ST_ROLE_ACCEPTED) {
		client_cookie = state->client_cookie;
		bpf_map_update_elem(&st_endpoints, &client_cookie, report, BPF_ANY);
	}
	ctx->optlen = ST_OPTION_ANSWERED;
	return ST_OPTION_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
