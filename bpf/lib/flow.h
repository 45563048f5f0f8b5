/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow record of a connection that ends, told to the agent. Called by sockops only. */
#ifndef SIDETRACK_BPF_FLOW_H
#define SIDETRACK_BPF_FLOW_H

#include "lib/fast_maps.h"
#include "lib/flow_ring.h"

/* How the client saw its connection end. `old` is the state it had before TCP_CLOSE. */
static __always_inline __u8 st_close_reason(int error, __u32 old)
{
	if (error == ST_ECONNREFUSED)
		return ST_CLOSE_REFUSED;
	if (error == ST_ETIMEDOUT)
		return ST_CLOSE_TIMEOUT;
	if (error == ST_ECONNABORTED)
		return ST_CLOSE_KILLED;
	if (error)
		return ST_CLOSE_RST_REMOTE;
	return old == BPF_TCP_ESTABLISHED || old == BPF_TCP_CLOSE_WAIT || old == BPF_TCP_SYN_SENT
		       ? ST_CLOSE_RST_LOCAL
		       : ST_CLOSE_FIN;
}

static __always_inline void st_read_bytes(struct bpf_sock *sk, __u64 *out, __u64 *in, int *error)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp)
		return;
	*out = tp->bytes_sent - tp->bytes_retrans;
	*in = tp->bytes_received;
	/* A received FIN counts as a byte there. */
	if (*in && (tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags >> ST_SOCK_DONE_BIT) & 1)
		*in -= 1;
	*error = tp->inet_conn.icsk_inet.sk.sk_err;
}

static __always_inline void st_source(struct bpf_sock_ops *ctx, struct st_addr *source)
{
	__u32 words[4] = {0, 0, bpf_htonl(0xffff)};

	if (ctx->family == ST_AF_INET) {
		words[3] = ctx->local_ip4;
		barrier(); /* the compiler must not merge the reads of both branches */
	} else {
		words[0] = ctx->local_ip6[0];
		words[1] = ctx->local_ip6[1];
		words[2] = ctx->local_ip6[2];
		words[3] = ctx->local_ip6[3];
		barrier();
	}
	__builtin_memcpy(source, words, sizeof(words));
}

/* The bytes of a connection by the way they took, counted; `path` becomes the best way that any
 * took. */
static __always_inline void st_sum_bytes(const struct st_client *client, const struct st_pair *pair,
					 __u8 *path, __u64 *bytes_out, __u64 *bytes_in)
{
	struct st_counters *counters = st_get_counters(client->namespace_slot);
	__u64 fast_out, fast_in, past_out, past_in;

	if (counters) {
		counters->bytes_out[*path] += *bytes_out;
		counters->bytes_in[*path] += *bytes_in;
	}
	if (!pair)
		return;
	fast_out = pair->fast_bytes[ST_SIDE_CLIENT];
	fast_in = pair->fast_bytes[ST_SIDE_SERVER];
	past_out = pair->handoff_bytes[ST_SIDE_CLIENT];
	past_in = pair->handoff_bytes[ST_SIDE_SERVER];
	*bytes_out += fast_out + past_out;
	*bytes_in += fast_in + past_in;
	if (counters) {
		counters->bytes_out[ST_PATH_FAST] += fast_out;
		counters->bytes_in[ST_PATH_FAST] += fast_in;
		counters->bytes_out[ST_PATH_HANDOFF] += past_out;
		counters->bytes_in[ST_PATH_HANDOFF] += past_in;
	}
	if (past_out | past_in)
		*path = ST_PATH_HANDOFF;
	else if (fast_out | fast_in)
		*path = ST_PATH_FAST;
}

/* A flow record with all that the client's side knows; 0 = the ring is full. */
static __always_inline struct st_flow *st_begin_flow(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						     const struct st_client *client, __u8 path,
						     __u32 old)
{
	const struct st_pair *pair = st_pair_of_client(client);
	__u64 bytes_out = 0, bytes_in = 0;
	struct st_flow *flow;
	int error = 0;

	st_read_bytes(sk, &bytes_out, &bytes_in, &error);
	st_sum_bytes(client, pair, &path, &bytes_out, &bytes_in);
	flow = st_reserve_flow(client->namespace_slot);
	if (!flow)
		return 0;
	flow->netns_cookie = client->netns_cookie;
	flow->start_ns = client->start_ns;
	flow->end_ns = bpf_ktime_get_ns();
	flow->bytes_out = bytes_out;
	flow->bytes_in = bytes_in;
	st_source(ctx, &flow->source);
	flow->source_port_be = bpf_htons(ctx->local_port);
	flow->destination = client->destination;
	flow->destination_port_be = client->port_be;
	flow->path = path;
	flow->reason = client->reason;
	flow->close = st_close_reason(error, old);
	if (old != BPF_TCP_SYN_SENT)
		flow->fast_reason = st_why_on_tcp(client, pair);
	return flow;
}

#endif
