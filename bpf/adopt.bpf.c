// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Puts one socket on the fast path and takes it off again: a tc program that is never attached, but
 * run once by the agent (BPF_PROG_TEST_RUN) in the network namespace of the socket. It finds the
 * socket by its own addresses, makes sure by the cookie that it is the one, and looks at the real
 * struct sock. Returns an enum st_fast_reason.
 */
#include "lib/release.h"
#include "lib/suitable.h"

enum {
	ST_FAMILY_OTHER = 0,
	ST_EBUSY = 16,
	ST_EEXIST = 17,
	ST_E2BIG = 7,
};

/* The addresses of the socket at `address`, as a packet to it would carry them: 0 = none. */
static __always_inline __u32 st_tuple_of(__u64 address, struct bpf_sock_tuple *tuple)
{
	const struct sock *sk = (struct sock *)address;
	struct st_addr remote = {}, local = {};
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u16 port = bpf_htons(BPF_CORE_READ(sk, __sk_common.skc_num));

	if (family == ST_AF_INET6) {
		bpf_core_read(&remote, sizeof(remote), &sk->__sk_common.skc_v6_daddr);
		bpf_core_read(&local, sizeof(local), &sk->__sk_common.skc_v6_rcv_saddr);
	} else if (family != ST_AF_INET) {
		return ST_FAMILY_OTHER;
	}
	/* IPv4 on an IPv6 socket is found as IPv4, like its packets. */
	if (family == ST_AF_INET || st_addr_is_v4(&remote)) {
		tuple->ipv4.saddr = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		tuple->ipv4.daddr = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		tuple->ipv4.sport = BPF_CORE_READ(sk, __sk_common.skc_dport);
		tuple->ipv4.dport = port;
		return ST_AF_INET;
	}
	__builtin_memcpy(tuple->ipv6.saddr, &remote, sizeof(remote));
	__builtin_memcpy(tuple->ipv6.daddr, &local, sizeof(local));
	tuple->ipv6.sport = BPF_CORE_READ(sk, __sk_common.skc_dport);
	tuple->ipv6.dport = port;
	return ST_AF_INET6;
}

/* The row of this socket's pair. The key alone does not say so: rows are used again. */
static __always_inline struct st_pair *st_pair_of(const struct st_adopt_request *request)
{
	struct st_pair_key key = request->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);

	return pair && pair->end[request->side & 1].cookie == request->self.cookie ? pair : 0;
}

static __always_inline enum st_fast_reason st_note(const struct st_adopt_request *request)
{
	struct st_pair *pair = st_pair_of(request);

	if (!pair)
		return ST_FAST_GONE;
	if (!request->if_none || !pair->against)
		pair->against = request->reason;
	return ST_FAST_NONE;
}

/* The word that the reader is owed is given now: a debt from now on is to be told anew. */
static __always_inline void st_settle(const struct st_adopt_request *request)
{
	struct st_pair *pair = st_pair_of(request);
	__u32 sender = !request->side;

	if (pair)
		pair->owed[sender & 1] = 0;
}

/* Nothing waits past TCP for the reader any more: its sender's FIN can go. */
static __always_inline int st_lets_fin_go(const struct st_adopt_request *request)
{
	struct st_pair *pair = st_pair_of(request);
	__u32 sender = !request->side;

	if (!pair || !pair->held[sender & 1])
		return 0;
	pair->held[sender & 1] = 0;
	return 1;
}

static __always_inline enum st_fast_reason st_insert(struct bpf_sock *sk, const struct tcp_sock *tp,
						     const struct st_adopt_request *request)
{
	struct st_fast_counters *counters = st_get_fast_counters();
	struct st_pair *pair = st_pair_of(request);
	__u64 cookie = request->self.cookie;
	struct st_fast *fast;
	struct st_mark *mark;
	long error;

	if (st_psock_of(0, (struct sock *)tp))
		return bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0) ? ST_FAST_NONE : ST_FAST_BUSY;
	if (!pair)
		return ST_FAST_GONE; /* what it has sent past TCP before is not known */
	fast = bpf_sk_storage_get(&st_fast_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!fast)
		return ST_FAST_NO_MEMORY;
	__builtin_memset(fast, 0, sizeof(*fast));
	fast->key = request->key;
	fast->cookie = cookie;
	fast->netns_cookie = request->self.netns_cookie;
	fast->peer.cookie = request->peer.cookie;
	fast->peer.sock = request->peer.sock;
	fast->peer_netns_cookie = request->peer.netns_cookie;
	fast->generation = ~0ULL; /* asks first */
	fast->tcp_ns = bpf_ktime_get_coarse_ns();
	/* No call of it is under way past TCP: it would hold a psock. */
	fast->sent = pair->fast_bytes[request->side & 1];
	fast->side = request->side;
	fast->kind = request->kind;
	st_settle(request);
	pair->against = ST_FAST_UNARMED;
	error = bpf_map_update_elem(&st_adopted, &cookie, sk, BPF_NOEXIST);
	if (error) {
		bpf_sk_storage_delete(&st_fast_sockets, sk);
		if (error == -ST_E2BIG)
			return ST_FAST_MAP_FULL;
		return error == -ST_EBUSY || error == -ST_EEXIST ? ST_FAST_BUSY : ST_FAST_NO_MEMORY;
	}
	mark = bpf_map_lookup_elem(&st_marks, &cookie);
	if (mark) {
		/* The sentinel came between the look and this. Nobody sends to it yet. */
		bpf_map_delete_elem(&st_adopted, &cookie);
		bpf_sk_storage_delete(&st_fast_sockets, sk);
		return mark->reason;
	}
	if (counters)
		counters->adopted++;
	return ST_FAST_NONE;
}

static __always_inline __u32 st_copied_seq(const struct st_far *far)
{
	const struct tcp_sock *tp = (struct tcp_sock *)far->sock;

	return BPF_CORE_READ(tp, copied_seq);
}

static __always_inline enum st_fast_reason st_arm(struct st_fast *fast)
{
	if (!st_is_sock(&fast->peer))
		return ST_FAST_PEER_GONE;
	if (fast->arm_ns)
		return ST_FAST_NONE;
	fast->peer_copied = st_copied_seq(&fast->peer);
	barrier();
	fast->arm_ns = bpf_ktime_get_ns() + ST_FAST_ARM_NS;
	return ST_FAST_NONE;
}

static __always_inline enum st_fast_reason st_link(struct st_fast *fast,
						   const struct st_adopt_request *request)
{
	if (fast->linked)
		return ST_FAST_NONE;
	fast->leg = request->leg;
	fast->far.cookie = request->far.cookie;
	fast->far.sock = request->far.sock;
	fast->far_netns_cookie = request->far.netns_cookie;
	fast->client_key = request->client_key;
	fast->slot = request->slot;
	if (!st_is_sock(&fast->leg) || !st_is_sock(&fast->far))
		return ST_FAST_RELAY_GONE;
	fast->generation = ~0ULL; /* asks first, for both readers */
	barrier();
	fast->linked = 1;
	return ST_FAST_NONE;
}

/* Only now: the release of the far reader looks for this sender only if that one is linked, too. */
static __always_inline enum st_fast_reason st_arm_link(struct st_fast *fast)
{
	if (!fast->linked || !st_is_sock(&fast->far))
		return ST_FAST_RELAY_GONE;
	if (fast->far_arm_ns)
		return ST_FAST_NONE;
	fast->far_copied = st_copied_seq(&fast->far);
	barrier();
	fast->far_arm_ns = bpf_ktime_get_ns() + ST_FAST_ARM_NS;
	return ST_FAST_NONE;
}

static __always_inline enum st_fast_reason st_release(struct bpf_sock *sk,
						      const struct tcp_sock *tp,
						      const struct st_fast *fast,
						      const struct st_adopt_request *request)
{
	struct st_fast_counters *counters = st_get_fast_counters();
	__u64 psock = st_psock_of(0, (struct sock *)tp);
	__u64 cookie = fast->cookie;

	if (st_is_waited_for(fast, request) || !st_is_drained(fast, psock))
		return ST_FAST_READER_BUSY;
	st_know_fin(sk, fast); /* without memory its FIN does not wait */
	bpf_map_delete_elem(&st_adopted, &cookie);
	bpf_sk_storage_delete(&st_fast_sockets, sk);
	if (counters)
		counters->released++;
	return ST_FAST_NONE;
}

/* The debt is taken off first: a sender that owes again during the look says so again. */
static __always_inline enum st_fast_reason st_drained(const struct tcp_sock *tp,
						      const struct st_adopt_request *request)
{
	__u64 psock = st_psock_of(0, (struct sock *)tp);

	st_settle(request);
	barrier();
	if (psock && !st_queue_is_empty(0, psock))
		return ST_FAST_READER_BUSY;
	if (st_lets_fin_go(request))
		return ST_FAST_FIN_WAITS;
	return tp->copied_seq == tp->rcv_nxt ? ST_FAST_NONE : ST_FAST_UNREAD;
}

static __always_inline enum st_fast_reason st_serve(struct bpf_sock *sk, const struct tcp_sock *tp,
						    const struct st_adopt_request *request)
{
	enum st_fast_reason reason;
	struct st_fast *fast;

	if (request->op == ST_ADOPT_LOOK)
		return st_inspect(tp);
	if (request->op == ST_ADOPT_INSERT) {
		reason = st_inspect(tp);
		return reason ? reason : st_insert(sk, tp, request);
	}
	fast = bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0);
	if (!fast) {
		if (request->op != ST_ADOPT_DRAINED)
			return ST_FAST_GONE;
		st_settle(request); /* whoever asks tells it, as it was taken out */
		return st_lets_fin_go(request) ? ST_FAST_FIN_WAITS : ST_FAST_GONE;
	}
	switch (request->op) {
	case ST_ADOPT_ARM:
		return st_arm(fast);
	case ST_ADOPT_LINK:
		return st_link(fast, request);
	case ST_ADOPT_ARM_LINK:
		return st_arm_link(fast);
	case ST_ADOPT_DISARM:
		fast->released = 1;
		return ST_FAST_NONE;
	case ST_ADOPT_DRAINED:
		return st_drained(tp, request);
	case ST_ADOPT_RELEASE:
		return st_release(sk, tp, fast, request);
	default:
		return ST_FAST_INTERNAL;
	}
}

static __always_inline enum st_fast_reason st_forget(const struct st_adopt_request *request)
{
	struct st_pair_key key = request->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);

	if (!pair || pair->end[ST_SIDE_SERVER].cookie ||
	    pair->end[ST_SIDE_CLIENT].cookie != request->self.cookie)
		return ST_FAST_GONE;
	st_drop_pair(&key, pair->end[ST_SIDE_CLIENT].netns_cookie);
	return ST_FAST_NONE;
}

SEC("tc")
int st_adopt(struct __sk_buff *skb)
{
	struct st_adopt_request request;
	struct bpf_sock_tuple tuple = {};
	enum st_fast_reason reason = ST_FAST_GONE;
	struct tcp_sock *tp;
	struct bpf_sock *sk;
	struct st_far self;
	__u32 family;

	if (bpf_skb_load_bytes(skb, ST_RUN_HEADER_BYTES, &request, sizeof(request)))
		return ST_FAST_INTERNAL;
	if (request.op == ST_ADOPT_FORGET)
		return st_forget(&request);
	if (request.op == ST_ADOPT_NOTE)
		return st_note(&request);
	self.cookie = request.self.cookie;
	self.sock = request.self.sock;
	if (!st_is_sock(&self))
		return ST_FAST_GONE;
	family = st_tuple_of(self.sock, &tuple);
	if (family == ST_AF_INET)
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else if (family == ST_AF_INET6)
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	else
		return ST_FAST_NOT_TCP;
	if (!sk)
		return ST_FAST_GONE;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp && (__u64)tp->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter == self.cookie)
		reason = st_serve(sk, tp, &request);
	bpf_sk_release(sk);
	return reason;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
