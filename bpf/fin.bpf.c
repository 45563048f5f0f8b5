// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cgroup_skb/egress: keeps the packet with the FIN of an adopted socket back as long as its reader
 * has bytes in both queues. A recv() gives bytes of one of them, and applications take a short one
 * for the last once they know that the peer has closed (docs/adr/0021-a-fin-waits.md). TCP takes
 * the packet for one that could not be sent yet and tries again: when an acknowledgement comes, by
 * its timer, or when the agent has it do so (st_nudge). All other packets pass, and so do those
 * whose FIN is not found at once (IPv6 with extension headers).
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

/* What a packet with a FIN says. */
struct st_fin_packet {
	__u32 seq; /* of the FIN itself */
	__u32 acknowledged;
};

static __always_inline int st_find_fin(const struct __sk_buff *skb, struct st_fin_packet *packet)
{
	const __u8 *data = (const __u8 *)(long)skb->data;
	const __u8 *end = (const __u8 *)(long)skb->data_end;
	__u32 ip_bytes = st_ip_header(skb, data, end);
	const __u8 *tcp = data + ip_bytes;
	__u32 headers;

	if (!ip_bytes || tcp + ST_TCP_HEADER > end || !(tcp[13] & 1))
		return 0;
	headers = ip_bytes + (tcp[12] >> 4) * 4;
	packet->seq = bpf_ntohl(*(const __be32 *)(tcp + 4)) + skb->len - headers;
	packet->acknowledged = bpf_ntohl(*(const __be32 *)(tcp + 8));
	return 1;
}

static __always_inline int st_reads_both(const struct st_far *reader, __u32 fin_seq)
{
	struct tcp_sock *tp = (struct tcp_sock *)reader->sock;
	struct sock *sk = (struct sock *)reader->sock;
	__u64 psock;

	if (!reader->cookie ||
	    (__u64)ST_READ(0, sk, __sk_common.skc_cookie.counter) != reader->cookie)
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

static __always_inline __u64 st_patience_of(const struct tcp_sock *tp)
{
	struct net *net = tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net;
	struct st_fin_limits limits = {
		.orphan_retries = ST_READ(0, net, ipv4.sysctl_tcp_orphan_retries),
		.retries = ST_READ(0, net, ipv4.sysctl_tcp_retries2),
		.user_timeout_ms = tp->inet_conn.icsk_user_timeout,
	};

	if (bpf_core_field_exists(net->ipv4.sysctl_tcp_rto_max_ms))
		limits.rto_max_ms = ST_READ(0, net, ipv4.sysctl_tcp_rto_max_ms);
	return st_fin_patience(&limits);
}

/* The packet of a socket that is sent to meanwhile also acknowledges that, and no other would. */
static __always_inline int st_may_wait(struct st_fin *fin, const struct tcp_sock *tp,
				       const struct st_fin_packet *packet)
{
	__u64 now = bpf_ktime_get_ns();

	if (!fin->since_ns) {
		fin->since_ns = now;
		fin->acknowledged = packet->acknowledged;
		st_count_refused(ST_FAST_FIN_WAITS);
	}
	return fin->acknowledged == packet->acknowledged &&
	       now - fin->since_ns < st_patience_of(tp);
}

/* The agent looks when the reader has read the first of them, and has TCP try again. Told with each
 * try, of which there are few: nothing is lost with one. */
static __always_inline void st_tell_held(const struct st_fin *fin)
{
	struct st_pair_key key = fin->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u32 side = fin->side & 1;

	if (!pair)
		return;
	pair->held[side] = 1;
	if (!st_send_event(ST_EVENT_OWED, fin->reader_netns_cookie, fin->reader.cookie))
		st_raise_generation(); /* the agent then looks for debts itself */
}

/* What is known of a sender past TCP, also of one that is out again, if its FIN has to wait. */
static __always_inline struct st_fin *st_find_waiting(struct bpf_sock *sk,
						      const struct tcp_sock *tp, __u32 seq)
{
	struct st_fast *fast = bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0);
	struct st_fin *fin;

	if (fast)
		return st_reads_both(&fast->peer, seq) ? st_know_fin(sk, fast) : 0;
	fin = bpf_sk_storage_get(&st_fins, sk, 0, 0);
	return fin && st_is_of(fin, tp) && st_reads_both(&fin->reader, seq) ? fin : 0;
}

SEC("cgroup_skb/egress")
int st_hold_fin(struct __sk_buff *skb)
{
	struct st_fin_packet packet;
	struct tcp_sock *tp;
	struct bpf_sock *sk;
	struct st_fin *fin;

	if (!st_find_fin(skb, &packet))
		return ST_SEND_NOW;
	sk = skb->sk;
	if (!sk)
		return ST_SEND_NOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return ST_SEND_NOW;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return ST_SEND_NOW;
	fin = st_find_waiting(sk, tp, packet.seq);
	if (!fin || !st_may_wait(fin, tp, &packet))
		return ST_SEND_NOW;
	st_tell_held(fin);
	return ST_NOT_YET;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
