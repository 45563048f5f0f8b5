// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cgroup/sock_create, on the agent's own cgroup and only where there is no SO_NETNS_COOKIE (before
 * 5.14): tells which network namespace a new socket is in. Nothing is refused, nothing is sent.
 */
#include "lib/kernel.h"

/* Socket cookie -> netns cookie. The program writes, who made the socket reads at once: a cache. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} st_told SEC(".maps");

SEC("cgroup/sock_create")
int st_tell_netns(struct bpf_sock *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	__u64 netns = bpf_get_netns_cookie(ctx);

	bpf_map_update_elem(&st_told, &socket, &netns, BPF_ANY);
	return 1; /* go on */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
