// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Puts one socket on the fast path and takes it off again: a tc program that is never attached, but
 * run once by the agent (BPF_PROG_TEST_RUN) in the network namespace of the socket. It finds the
 * socket by its own addresses, makes sure by the cookie that it is the one, and looks at the real
 * struct sock. Returns an enum st_fast_reason.
 */
#include "lib/peek.h"

extern const void woken_wake_function __ksym __weak;

enum {
	ST_FAMILY_OTHER = 0,
	ST_WAITERS = 16, /* that are looked at; more = refused */
	ST_EBUSY = 16,
	ST_EEXIST = 17,
	ST_E2BIG = 7,
	ST_PSOCK_IDLE = 1, /* references on the psock of an adopted socket in no call */
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

static __always_inline int st_is_sock(const struct st_far *far)
{
	const struct sock *sk = (struct sock *)far->sock;

	return far->cookie &&
	       (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == far->cookie;
}

/* A thread that went to sleep in recv() or send() while the socket was blocking: redirected data
 * would never wake it. */
static __always_inline int st_has_sleeper(const struct sock *sk)
{
	struct socket_wq *wq = BPF_CORE_READ(sk, sk_wq);
	struct list_head *head =
		(void *)((__u64)wq + bpf_core_field_offset(struct socket_wq, wait.head));
	struct list_head *item;
	int i;

	if (!wq)
		return 1;
	item = BPF_CORE_READ(head, next);
	for (i = 0; i < ST_WAITERS; i++) {
		struct wait_queue_entry *entry;

		if (item == head)
			return 0;
		entry = (void *)((__u64)item -
				 bpf_core_field_offset(struct wait_queue_entry, entry));
		/* Without its address every waiter with a task may be one (epoll has none). */
		if (&woken_wake_function
			    ? BPF_CORE_READ(entry, func) == (void *)&woken_wake_function
			    : BPF_CORE_READ(entry, private) != 0)
			return 1;
		item = BPF_CORE_READ(item, next);
	}
	return 1;
}

/* Every rule on the socket itself. */
static __always_inline enum st_fast_reason st_inspect(const struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	unsigned long flags = sk->__sk_common.skc_flags;
	struct file *file = BPF_CORE_READ(sk, sk_socket, file);
	const struct st_fast_config *config = st_get_fast_config();
	__u64 cookie = sk->__sk_common.skc_cookie.counter;
	struct st_mark *mark;

	if (sk->sk_protocol != ST_IPPROTO_TCP)
		return ST_FAST_NOT_TCP;
	if (sk->__sk_common.skc_state != ST_TCP_ESTABLISHED || sk->sk_shutdown || sk->sk_err)
		return ST_FAST_STATE;
	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return ST_FAST_KERNEL;
	if (!file)
		return ST_FAST_NOT_ACCEPTED;
	/* Before what is final: an application makes its socket non-blocking after it has it. */
	if (config && tp->segs_in <= config->round_trips)
		return ST_FAST_YOUNG;
	if (!(BPF_CORE_READ(file, f_flags) & ST_O_NONBLOCK))
		return ST_FAST_BLOCKING;
	mark = bpf_map_lookup_elem(&st_marks, &cookie);
	if (mark)
		return mark->reason;
	if (st_is_mptcp(tp))
		return ST_FAST_MPTCP;
	if (BPF_CORE_READ_BITFIELD_PROBED(tp, repair))
		return ST_FAST_REPAIR;
	if (tp->inet_conn.icsk_ulp_ops)
		return ST_FAST_ULP;
	if (st_has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY)))
		return ST_FAST_ZEROCOPY;
	if (sk->sk_rcvlowat > 1)
		return ST_FAST_LOWAT;
	if (sk->sk_peek_off >= 0)
		return ST_FAST_PEEK_OFF;
	if (st_asks_for_timestamps(0, (struct sock *)sk))
		return ST_FAST_TIMESTAMPS;
	if (st_asks_for_inq(0, (struct tcp_sock *)tp))
		return ST_FAST_INQ;
	return st_has_sleeper(sk) ? ST_FAST_SLEEPER : ST_FAST_NONE;
}

/* A word that the reader was owed when it was taken out was given then: a debt from now on is to be
 * told anew. */
static __always_inline void st_settle(const struct st_adopt_request *request)
{
	struct st_pair_key key = request->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u32 sender = !request->side;

	if (pair)
		pair->owed[sender & 1] = 0;
}

static __always_inline enum st_fast_reason st_insert(struct bpf_sock *sk, const struct tcp_sock *tp,
						     const struct st_adopt_request *request)
{
	struct st_fast_counters *counters = st_get_fast_counters();
	__u64 cookie = request->self.cookie;
	struct st_fast *fast;
	struct st_mark *mark;
	long error;

	if (st_psock_of(0, (struct sock *)tp))
		return bpf_sk_storage_get(&st_fast_sockets, sk, 0, 0) ? ST_FAST_NONE : ST_FAST_BUSY;
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
	fast->side = request->side;
	fast->kind = request->kind;
	st_settle(request);
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
	fast->far_copied = st_copied_seq(&fast->far);
	fast->far_arm_ns = bpf_ktime_get_ns() + ST_FAST_ARM_NS;
	fast->generation = ~0ULL; /* asks first, for both readers */
	barrier();
	fast->linked = 1;
	return ST_FAST_NONE;
}

static __always_inline int st_is_in(__u64 cookie)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&st_adopted, &cookie);

	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* Whether a psock was made for us: its program has our name (st_msg or st_msg_probe), be it that of
 * an older agent. Another product's sockets send nothing past TCP to ours. */
static __always_inline int st_is_ours(struct sk_psock *psock)
{
	char name[6] = {};

	BPF_CORE_READ_INTO(&name, psock, progs.msg_parser, aux, name);
	return name[0] == 's' && name[1] == 't' && name[2] == '_' && name[3] == 'm' &&
	       name[4] == 's' && name[5] == 'g';
}

/* Bytes of this sender may be on their way to a reader's queue: sendmsg holds a reference on the
 * psock while it runs, the map holds one while the sender is in. Of a sender that was taken out
 * before, what is left of its psock is a call's. */
static __always_inline int st_is_sending(const struct st_far *sender)
{
	struct sk_psock *psock;
	int idle;

	if (!st_is_sock(sender))
		return 0; /* closed: its calls have ended */
	idle = st_is_in(sender->cookie) ? ST_PSOCK_IDLE : 0;
	psock = (struct sk_psock *)st_psock_of(0, (struct sock *)sender->sock);
	return psock && st_is_ours(psock) && BPF_CORE_READ(psock, refcnt.refs.counter) != idle;
}

static __always_inline int st_has_senders(const struct st_fast *fast)
{
	return st_is_sending(&fast->peer) || (fast->linked && st_is_sending(&fast->far));
}

/* Bytes that its senders have decided to bring past TCP, ever. */
static __always_inline __u64 st_brought(const struct st_fast *fast)
{
	struct st_pair_key key = fast->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u32 sender = !fast->side;
	__u64 bytes = pair ? pair->fast_bytes[sender & 1] : 0;

	if (!fast->linked)
		return bytes;
	key = fast->client_key;
	pair = bpf_map_lookup_elem(&st_pairs, &key);
	return bytes + (pair ? pair->handoff_bytes[sender & 1] : 0);
}

/* A disarmed sender goes on past TCP until it finds the queue empty. So the reader is free only if
 * the queue was seen empty at a moment when no sender had anything to bring: none in a call before
 * it, none after it, and none that came and went between (tests/unit/fast_model_test.cpp). */
static __always_inline int st_is_drained(const struct st_fast *fast, __u64 psock)
{
	__u64 brought = st_brought(fast);

	barrier();
	if (st_has_senders(fast))
		return 0;
	barrier();
	if (psock && !st_queue_is_empty(0, psock))
		return 0;
	barrier();
	if (st_has_senders(fast))
		return 0;
	barrier();
	return st_brought(fast) == brought;
}

static __always_inline int st_has_read(const struct st_far *reader)
{
	__u64 psock;

	if (!st_is_sock(reader))
		return 1; /* closed: nobody waits for what it has */
	psock = st_psock_of(0, (struct sock *)reader->sock);
	return !psock || st_queue_is_empty(0, psock);
}

/* A sender that is out sends by TCP, whatever waits for its readers past it. One that peeks would
 * not see that. */
static __always_inline int st_is_waited_for(const struct st_fast *fast,
					    const struct st_adopt_request *request)
{
	return request->patient &&
	       (!st_has_read(&fast->peer) || (fast->linked && !st_has_read(&fast->far)));
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
	bpf_map_delete_elem(&st_adopted, &cookie);
	bpf_sk_storage_delete(&st_fast_sockets, sk);
	if (counters)
		counters->released++;
	return ST_FAST_NONE;
}

/* The debt is taken off first: a sender that owes again during the look says so again. */
static __always_inline enum st_fast_reason st_drained(const struct st_fast *fast,
						      const struct tcp_sock *tp)
{
	struct st_pair_key key = fast->key;
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u64 psock = st_psock_of(0, (struct sock *)tp);
	__u32 sender = !fast->side;

	if (pair)
		pair->owed[sender & 1] = 0;
	barrier();
	if (psock && !st_queue_is_empty(0, psock))
		return ST_FAST_READER_BUSY;
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
	if (!fast)
		return ST_FAST_GONE;
	switch (request->op) {
	case ST_ADOPT_ARM:
		return st_arm(fast);
	case ST_ADOPT_LINK:
		return st_link(fast, request);
	case ST_ADOPT_DISARM:
		fast->released = 1;
		return ST_FAST_NONE;
	case ST_ADOPT_DRAINED:
		return st_drained(fast, tp);
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

	if (bpf_skb_load_bytes(skb, ST_ADOPT_HEADER_BYTES, &request, sizeof(request)))
		return ST_FAST_INTERNAL;
	if (request.op == ST_ADOPT_FORGET)
		return st_forget(&request);
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
