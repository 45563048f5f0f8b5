// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* An iterator over the sockets that have state of ours: what `flows` shows as live is read here,
 * from the sockets themselves. */
#include "lib/common.h"

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

SEC("iter/bpf_sk_storage_map")
int st_iterate(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct st_socket *state = ctx->value;
	struct sock *sk = ctx->sk;
	struct st_live live = {};
	struct tcp_sock *tp;

	if (!sk || !state || state->role == ST_ROLE_ACCEPTED || !state->counted)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	live.state = *state;
	live.bytes_out = tp->bytes_sent - tp->bytes_retrans;
	live.bytes_in = tp->bytes_received;
	live.source_port = sk->__sk_common.skc_num;
	if (!st_addr_is_zero(&state->own))
		live.source = state->own;
	else if (sk->__sk_common.skc_family == ST_AF_INET)
		st_addr_from_v4(&live.source, sk->__sk_common.skc_rcv_saddr);
	else
		bpf_probe_read_kernel(&live.source, sizeof(live.source),
				      &sk->__sk_common.skc_v6_rcv_saddr);
	bpf_seq_write(seq, &live, sizeof(live));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
