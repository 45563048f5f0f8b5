// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cgroup/getpeername4|6, getsockname4|6: a redirected socket shows the address that its application
 * asked for and the pod's own address, not the engine's listener. The local port stays: it is the
 * real one.
 */
#include "lib/common.h"

enum { ST_NAME_UNCHANGED = 1 };

/* The state of a redirected socket that is or was connected (inet_dport survives a reset, not a
 * disconnect). */
static __always_inline struct st_socket *st_redirected_socket(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct st_socket *state;

	if (!sk || !sk->dst_port)
		return 0;
	state = bpf_sk_storage_get(&st_sockets, sk, 0, 0);
	return state && state->role == ST_ROLE_REDIRECTED ? state : 0;
}

static __always_inline void st_read_ip6(struct bpf_sock_addr *ctx, __u32 words[4])
{
	words[0] = ctx->user_ip6[0];
	barrier();
	words[1] = ctx->user_ip6[1];
	barrier();
	words[2] = ctx->user_ip6[2];
	barrier();
	words[3] = ctx->user_ip6[3];
}

static __always_inline void st_write_ip6(struct bpf_sock_addr *ctx, const struct st_addr *addr)
{
	__u32 words[4];

	__builtin_memcpy(words, addr, sizeof(words));
	ctx->user_ip6[0] = words[0];
	barrier();
	ctx->user_ip6[1] = words[1];
	barrier();
	ctx->user_ip6[2] = words[2];
	barrier();
	ctx->user_ip6[3] = words[3];
}

SEC("cgroup/getpeername4")
int st_getpeername4(struct bpf_sock_addr *ctx)
{
	struct st_socket *state = st_redirected_socket(ctx);

	if (state) {
		ctx->user_ip4 = st_addr_to_v4(&state->client.destination);
		ctx->user_port = state->client.port_be;
	}
	return ST_NAME_UNCHANGED;
}

SEC("cgroup/getpeername6")
int st_getpeername6(struct bpf_sock_addr *ctx)
{
	struct st_socket *state = st_redirected_socket(ctx);

	if (state) {
		st_write_ip6(ctx, &state->client.destination);
		ctx->user_port = state->client.port_be;
	}
	return ST_NAME_UNCHANGED;
}

/* Only a loopback answer is replaced: a source that the application bound itself is shown as it is.
 */
SEC("cgroup/getsockname4")
int st_getsockname4(struct bpf_sock_addr *ctx)
{
	struct st_socket *state = st_redirected_socket(ctx);

	if (state && (bpf_ntohl(ctx->user_ip4) >> 24) == 127 && !st_addr_is_zero(&state->own))
		ctx->user_ip4 = st_addr_to_v4(&state->own);
	return ST_NAME_UNCHANGED;
}

SEC("cgroup/getsockname6")
int st_getsockname6(struct bpf_sock_addr *ctx)
{
	struct st_socket *state = st_redirected_socket(ctx);
	struct st_addr shown;
	__u32 words[4];

	if (!state || st_addr_is_zero(&state->own))
		return ST_NAME_UNCHANGED;
	st_read_ip6(ctx, words);
	__builtin_memcpy(&shown, words, sizeof(shown));
	if (st_addr_is_loopback(&shown))
		st_write_ip6(ctx, &state->own);
	return ST_NAME_UNCHANGED;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
