/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which sockets suit the fast path: every rule on the real struct sock. For the adopting program,
 * which holds a reference on it. */
#ifndef SIDETRACK_BPF_SUITABLE_H
#define SIDETRACK_BPF_SUITABLE_H

#include "lib/peek.h"

extern const void woken_wake_function __ksym __weak;

enum { ST_WAITERS = 16 /* that are looked at; more = refused */ };

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
	/* Before what is final: until accept() a plain connection of an MPTCP listener (Go's)
	 * counts as the kernel's. */
	if (!file)
		return ST_FAST_NOT_ACCEPTED;
	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return ST_FAST_KERNEL;
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

#endif
