// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cgroup_skb/egress: keeps the FIN of an adopted socket back as long as its reader has bytes in
 * both queues. A recv() gives bytes of one of them, and applications take a short one for the last
 * once they know that the peer has closed (docs/adr/0021-a-fin-waits.md). TCP takes the packet for
 * one that could not be sent yet and tries again: when an acknowledgement comes, by its timer, or
 * when the agent has it do so (st_nudge). All other packets pass.
 */
#include "lib/fin.h"

enum {
	ST_ETH_P_IP = 0x0800,
	ST_ETH_P_IPV6 = 0x86DD,
	ST_IPV6_HEADER = 40,
	ST_TCP_HEADER = 20,
	ST_SEND_NOW = 1, /* what the program returns */
	ST_NOT_YET = 0,	 /* TCP is told EPERM, which it keeps to itself */
};

/* How long the IP header is, of a packet of TCP: 0 = it is none. */
static __always_inline __u32 st_ip_header(const struct __sk_buff *skb, const __u8 *data,
					  const __u8 *end)
{
	if (skb->protocol == bpf_htons(ST_ETH_P_IP))
		return data + ST_TCP_HEADER <= end && data[9] == ST_IPPROTO_TCP
			       ? (data[0] & 15U) * 4
			       : 0;
	if (skb->protocol == bpf_htons(ST_ETH_P_IPV6))
		return data + ST_IPV6_HEADER <= end && data[6] == ST_IPPROTO_TCP ? ST_IPV6_HEADER
										 : 0;
	return 0;
}

/* Whether it carries a FIN, and with which sequence number. */
static __always_inline int st_find_fin(const struct __sk_buff *skb, __u32 *seq)
{
	const __u8 *data = (const __u8 *)(long)skb->data;
	const __u8 *end = (const __u8 *)(long)skb->data_end;
	__u32 ip_bytes = st_ip_header(skb, data, end);
	const __u8 *tcp = data + ip_bytes;
	__u32 headers;

	if (!ip_bytes || tcp + ST_TCP_HEADER > end || !(tcp[13] & 1))
		return 0;
	headers = ip_bytes + (tcp[12] >> 4) * 4;
	*seq = bpf_ntohl(*(const __be32 *)(tcp + 4)) + skb->len - headers;
	return 1;
}

static __always_inline int st_reads_both(const struct st_far *reader, __u32 fin_seq)
{
	struct tcp_sock *tp = (struct tcp_sock *)reader->sock;
	struct sock *sk = (struct sock *)reader->sock;
	__u64 psock;

	if ((__u64)ST_READ(0, sk, __sk_common.skc_cookie.counter) != reader->cookie)
		return 0;
	psock = st_psock_of(0, sk);
	return psock &&
	       st_fin_waits(st_queue_is_empty(0, psock), fin_seq, ST_READ(0, tp, copied_seq));
}

/* The first sequence number of what it has sent (st_pair_key_of). */
static __always_inline int st_is_of(const struct st_fin *fin, const struct tcp_sock *tp)
{
	__u32 sent = tp->snd_una - (__u32)tp->bytes_acked;

	return fin->side == ST_SIDE_CLIENT ? fin->key.client_first == sent + 1
					   : fin->key.server_first == sent;
}

static __always_inline int st_may_wait(struct st_fin *fin, const struct tcp_sock *tp)
{
	struct net *net = tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net;
	__u64 now = bpf_ktime_get_ns();

	if (!fin->since_ns) {
		fin->since_ns = now;
		st_count_refused(ST_FAST_FIN_WAITS);
	}
	return now - fin->since_ns <
	       st_fin_patience(ST_READ(0, net, ipv4.sysctl_tcp_orphan_retries),
			       tp->inet_conn.icsk_user_timeout);
}

/* The agent looks when the reader has read the first of them, and has TCP try again. */
static __always_inline void st_tell_held(const struct st_fin *fin)
{
	struct st_pair_key key = fin->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u32 side = fin->side & 1;

	if (!pair || pair->held[side])
		return;
	pair->held[side] = 1;
	if (!st_send_event(ST_EVENT_OWED, fin->reader_netns_cookie, fin->reader.cookie))
		st_raise_generation(); /* the agent then looks for debts itself */
}

/* Of a socket that sends, or has sent, past TCP: 0 = it has not. */
static __always_inline struct st_fin *st_find_fin_of(struct bpf_sock *sk, __u32 seq)
{
	struct st_fin *fin = bpf_sk_storage_get(&st_fins, sk, 0, 0);
	struct st_fast *fast;

	if (fin)
		return fin;
	fast = bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0);
	return fast && st_reads_both(&fast->peer, seq) ? st_know_fin(sk, fast) : 0;
}

SEC("cgroup_skb/egress")
int st_hold_fin(struct __sk_buff *skb)
{
	struct tcp_sock *tp;
	struct bpf_sock *sk;
	struct st_fin *fin;
	__u32 seq;

	if (!st_find_fin(skb, &seq))
		return ST_SEND_NOW;
	sk = skb->sk;
	if (!sk)
		return ST_SEND_NOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return ST_SEND_NOW;
	fin = st_find_fin_of(sk, seq);
	tp = fin ? bpf_skc_to_tcp_sock(sk) : 0;
	if (!tp || !st_is_of(fin, tp) || !st_reads_both(&fin->reader, seq) || !st_may_wait(fin, tp))
		return ST_SEND_NOW;
	st_tell_held(fin);
	return ST_NOT_YET;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
