// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is live is read here, from the sockets themselves: tc programs that are never attached, but
 * run by the agent (BPF_PROG_TEST_RUN) on rows that it has listed. Iterators over maps would do it,
 * too, but some kernels refuse them (docs/adr/0015-no-iterators-over-maps.md).
 */
#include "lib/peek.h"

static __always_inline void st_read_socket(struct st_live *live)
{
	struct tcp_sock *tp = (struct tcp_sock *)live->sock;
	struct sock *sk = (struct sock *)live->sock;

	live->bytes_out = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	live->bytes_in = BPF_CORE_READ(tp, bytes_received);
	live->source_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!st_addr_is_zero(&live->source))
		;
	else if (BPF_CORE_READ(sk, __sk_common.skc_family) == ST_AF_INET)
		st_addr_from_v4(&live->source, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	else
		BPF_CORE_READ_INTO(&live->source, sk, __sk_common.skc_v6_rcv_saddr);
	/* Last: the socket may have gone meanwhile. */
	live->open = (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == live->cookie;
}

static __always_inline void st_read_pair(struct st_live *live)
{
	const struct st_pair *pair = st_pair_of_client(&live->client);
	struct sock *sk = (struct sock *)live->sock;

	live->fast_reason = BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_SYN_SENT
				    ? ST_FAST_YOUNG
				    : st_why_on_tcp(&live->client, pair);
	if (!pair)
		return;
	live->fast_out = pair->fast_bytes[ST_SIDE_CLIENT];
	live->fast_in = pair->fast_bytes[ST_SIDE_SERVER];
	live->handoff_out = pair->handoff_bytes[ST_SIDE_CLIENT];
	live->handoff_in = pair->handoff_bytes[ST_SIDE_SERVER];
}

/* The packet: ST_LIVE_ROWS rows at most, each with what the agent knows; the rest is filled in. */
SEC("tc")
int st_look(struct __sk_buff *skb)
{
	struct st_live live;
	__u32 offset;
	int i;

	for (i = 0; i < ST_LIVE_ROWS; i++) {
		offset = ST_RUN_HEADER_BYTES + i * sizeof(live);
		if (bpf_skb_load_bytes(skb, offset, &live, sizeof(live)))
			break;
		st_read_pair(&live);
		st_read_socket(&live); /* says whether it was this one all the time */
		bpf_skb_store_bytes(skb, offset, &live, sizeof(live), 0);
	}
	return 0;
}

static __always_inline void st_read_fast(struct st_fast_live *live)
{
	__u64 cookie = live->state.cookie;
	struct tcp_sock *tp;
	struct st_fast *fast;
	struct bpf_sock *sk;

	sk = bpf_map_lookup_elem(&st_adopted, &cookie);
	if (!sk)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	fast = tp ? bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0) : 0;
	if (fast) {
		live->state = *fast;
		live->sock = (__u64)tp;
	}
	bpf_sk_release(sk);
}

/* The packet: as above, of st_fast_live with cookies; those that are adopted get an address and
 * what the socket knows. */
SEC("tc")
int st_look_fast(struct __sk_buff *skb)
{
	struct st_fast_live live;
	__u32 offset;
	int i;

	for (i = 0; i < ST_LIVE_ROWS; i++) {
		offset = ST_RUN_HEADER_BYTES + i * sizeof(live);
		if (bpf_skb_load_bytes(skb, offset, &live, sizeof(live)))
			break;
		st_read_fast(&live);
		bpf_skb_store_bytes(skb, offset, &live, sizeof(live), 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
