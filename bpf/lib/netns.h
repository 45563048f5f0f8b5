/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The cookie of a network namespace, also where the kernel has no helper for it. Until 5.12 a
 * namespace has none (0) before somebody asks in a program on a cgroup: the agent does, before it
 * writes the row (bpf/netns.bpf.c). */
#ifndef SIDETRACK_BPF_NETNS_H
#define SIDETRACK_BPF_NETNS_H

#include "lib/kernel.h"

/* Whether sockops and getsockopt programs may call bpf_get_netns_cookie (since 5.15; connect hooks
 * may since 5.7). The agent tries it and writes it before it loads. */
const volatile bool st_has_netns_helper __weak = true;

/* Before 5.12. */
struct net___atomic {
	st_atomic64 net_cookie;
} __attribute__((preserve_access_index));

/* For a pointer that the verifier knows. */
static __always_inline __u64 st_cookie_of_net(struct net *net)
{
	if (bpf_core_field_exists(net->net_cookie))
		return net->net_cookie;
	return ((struct net___atomic *)net)->net_cookie.counter;
}

/* For an address. */
static __always_inline __u64 st_probe_cookie_of_net(struct net *net)
{
	if (bpf_core_field_exists(net->net_cookie))
		return BPF_CORE_READ(net, net_cookie);
	return BPF_CORE_READ((struct net___atomic *)net, net_cookie.counter);
}

static __always_inline __u64 st_sockops_netns(struct bpf_sock_ops *ctx)
{
	struct tcp_sock *tp;

	if (st_has_netns_helper)
		return bpf_get_netns_cookie(ctx);
	tp = ctx->sk ? bpf_skc_to_tcp_sock(ctx->sk) : 0;
	return tp ? st_cookie_of_net(tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net) : 0;
}

static __always_inline __u64 st_sockopt_netns(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sock *address = 0;

	if (st_has_netns_helper)
		return bpf_get_netns_cookie(ctx);
	/* The verifier lets nobody reckon with a bpf_sock; a copy of the pointer is a number to it.
	 */
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return st_probe_cookie_of_net(BPF_CORE_READ(address, __sk_common.skc_net.net));
}

#endif
