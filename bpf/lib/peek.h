/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads another socket than the one that a program runs for, by its kernel address. The address may
 * be stale: whoever reads checks the cookie, and reads of memory that is gone give 0.
 *
 * Two ways: `cast` = bpf_rdonly_cast (a kfunc since 6.2) and plain loads, else a helper call for
 * each field. It is a constant in every program, so only one of both is compiled.
 */
#ifndef SIDETRACK_BPF_PEEK_H
#define SIDETRACK_BPF_PEEK_H

#include "lib/fast_maps.h"

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

#define ST_CAST(cast, type, address)                                                               \
	((type *)((cast) ? bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(type))       \
			 : (void *)(address)))
#define ST_READ(cast, pointer, field)                                                              \
	({                                                                                         \
		typeof((pointer)->field) st_value;                                                 \
		if (cast)                                                                          \
			st_value = (pointer)->field;                                               \
		else                                                                               \
			BPF_CORE_READ_INTO(&st_value, pointer, field);                             \
		st_value;                                                                          \
	})

enum {
	ST_O_NONBLOCK = 04000,
	ST_PSOCK_MASK = 7,	 /* flags in the low bits of sk_user_data (include/net/sock.h) */
	ST_SOCK_SNDBUF_LOCK = 1, /* include/net/sock.h: the application set SO_SNDBUF */
	ST_SOCK_RCVBUF_LOCK = 2, /* SO_RCVBUF */
	ST_SEND_EXCESS = 131072, /* by which one call may exceed a send buffer: an skb or two */
	ST_MEMORY_LEVELS = 6,	 /* container, pod, class, all pods, and two more */
	ST_MEMORY_MARGIN = 32,	 /* pages that are left to others */
	ST_PAGE_SHIFT = 12,
	ST_PATIENT_BYTES = 16384, /* worth waiting for a reader */
	ST_PATIENT_NS = 2000,	  /* how long, and for each byte */
	ST_PATIENT_BYTES_PER_NS = 4,
	ST_PATIENT_LOOKS = 2000,
};

static __always_inline __u64 st_psock_of(const int cast, struct sock *sk)
{
	return (__u64)ST_READ(cast, sk, sk_user_data) & ~(__u64)ST_PSOCK_MASK;
}

static __always_inline int st_queue_is_empty(const int cast, __u64 psock)
{
	struct sk_psock *queue = ST_CAST(cast, struct sk_psock, psock);

	return (__u64)ST_READ(cast, queue, ingress_msg.next) ==
	       psock + bpf_core_field_offset(struct sk_psock, ingress_msg);
}

static __always_inline int st_counter_is_low(const int cast, struct page_counter *counter,
					     __u64 pages)
{
	int i;

	for (i = 0; i < ST_MEMORY_LEVELS && counter; i++) {
		__u64 used = ST_READ(cast, counter, usage.counter);

		if (used + pages + ST_MEMORY_MARGIN > ST_READ(cast, counter, max))
			return 1;
		counter = ST_READ(cast, counter, parent);
	}
	return 0;
}

/* Would taking `size` bytes more be refused? The sender would see ENOMEM where TCP waits. */
static __always_inline int st_memory_is_low(const int cast, struct sock *sk, __u32 size)
{
	int ready = ST_READ(cast, sk, sk_forward_alloc);
	__u64 pages = (size >> ST_PAGE_SHIFT) + 1;
	atomic_long_t *allocated;
	struct mem_cgroup *group;
	struct proto *proto;
	__s64 limit = 0;

	if (ready >= 0 && (__u32)ready >= size)
		return 0;
	proto = ST_READ(cast, sk, __sk_common.skc_prot);
	bpf_probe_read_kernel(&limit, sizeof(limit),
			      (void *)((__u64)ST_READ(cast, proto, sysctl_mem) + sizeof(long)));
	allocated = ST_READ(cast, proto, memory_allocated);
	/* Signed: what CPUs hold back can make it negative. */
	if (ST_READ(cast, allocated, counter) + (__s64)pages > limit)
		return 1;
	group = ST_READ(cast, sk, sk_memcg);
	if (!group)
		return 0;
	if (st_counter_is_low(cast, &group->memory, pages))
		return 1;
	return bpf_core_field_exists(group->tcpmem) && ST_READ(cast, group, tcpmem_active) &&
	       st_counter_is_low(cast, &group->tcpmem, pages);
}

/* Waits until no thread is inside a call on the reader and it has read all of TCP. That pays: for a
 * large message some microseconds here are less than the way of its bytes through TCP, which those
 * behind it must take, too, until the reader has caught up with them; and a message that went by
 * TCP behind others that wait past it would not be seen by a reader that peeks. At most about as
 * long as TCP takes for so many bytes: a reader may page-fault in its call. */
static __always_inline void st_wait_for_reader(const int cast, __u64 address, __u32 size,
					       __u32 write_seq)
{
	struct tcp_sock *tp = ST_CAST(cast, struct tcp_sock, address);
	struct sock *sk = ST_CAST(cast, struct sock, address);
	__u64 psock = st_psock_of(cast, sk);
	__u64 until;
	int i;

	if (!psock || (size < ST_PATIENT_BYTES && st_queue_is_empty(cast, psock)))
		return;
	if (ST_READ(cast, tp, rcv_nxt) != write_seq)
		return; /* not all of TCP is there to be read */
	until = bpf_ktime_get_ns() + ST_PATIENT_NS + size / ST_PATIENT_BYTES_PER_NS;
	for (i = 0; i < ST_PATIENT_LOOKS; i++) {
		if (!(ST_READ(cast, sk, sk_lock.owned) |
		      (ST_READ(cast, tp, copied_seq) ^ write_seq)))
			return;
		if (bpf_ktime_get_ns() > until)
			return;
	}
}

static __always_inline int st_has_flag(unsigned long flags, __u64 bit)
{
	return (flags >> (bit & 63)) & 1;
}

/* What recvmsg() tells beside the bytes, it tells of TCP's queue only. */
static __always_inline int st_asks_for_timestamps(const int cast, struct sock *sk)
{
	return st_has_flag(ST_READ(cast, sk, __sk_common.skc_flags),
			   bpf_core_enum_value(enum sock_flags, SOCK_RCVTSTAMP)) ||
	       ST_READ(cast, sk, sk_tsflags) != 0;
}

static __always_inline int st_asks_for_inq(const int cast, struct tcp_sock *tp)
{
	if (!bpf_core_field_exists(tp->recvmsg_inq))
		return 0;
	return cast ? BPF_CORE_READ_BITFIELD(tp, recvmsg_inq)
		    : BPF_CORE_READ_BITFIELD_PROBED(tp, recvmsg_inq);
}

static __always_inline __u8 st_user_locks(const int cast, struct sock *sk)
{
	return cast ? BPF_CORE_READ_BITFIELD(sk, sk_userlocks)
		    : BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks);
}

/* The most memory that what a socket has sent by TCP may take until it is acknowledged. */
static __always_inline __u32 st_send_memory(const int cast, struct sock *sk)
{
	struct net *net = ST_READ(cast, sk, __sk_common.skc_net.net);
	__u32 most = ST_READ(cast, sk, sk_sndbuf);
	__u32 grown = ST_READ(cast, net, ipv4.sysctl_tcp_wmem[2]);

	if (!(st_user_locks(cast, sk) & ST_SOCK_SNDBUF_LOCK) && grown > most)
		most = grown;
	return most + ST_SEND_EXCESS;
}

/* `send_memory`: of whose TCP the reader reads. */
static __always_inline void st_look_at_reader(const int cast, __u64 address, __u32 size,
					      __u32 send_memory, struct st_reader *reader)
{
	struct tcp_sock *tp = ST_CAST(cast, struct tcp_sock, address);
	struct sock *sk = ST_CAST(cast, struct sock, address);
	struct socket *socket;
	struct file *file;
	__u32 offered;
	__u64 psock;

	reader->cookie = ST_READ(cast, sk, __sk_common.skc_cookie.counter);
	reader->copied_seq = ST_READ(cast, tp, copied_seq);
	reader->queued = ST_READ(cast, sk, sk_backlog.rmem_alloc.counter);
	reader->receive_buffer = ST_READ(cast, sk, sk_rcvbuf);
	offered = ST_READ(cast, tp, rcv_wup) + ST_READ(cast, tp, rcv_wnd) -
		  ST_READ(cast, tp, rcv_nxt);
	reader->behind = st_memory_behind((__s32)offered > 0 ? offered : 0, send_memory);
	reader->state = ST_READ(cast, sk, __sk_common.skc_state);
	reader->shut_down = ST_READ(cast, sk, sk_shutdown);
	psock = st_psock_of(cast, sk);
	reader->adopted = psock != 0;
	reader->queue_empty = psock && st_queue_is_empty(cast, psock);
	reader->locked = ST_READ(cast, sk, sk_lock.owned) != 0;
	socket = ST_READ(cast, sk, sk_socket);
	file = ST_READ(cast, socket, file);
	reader->nonblocking = (ST_READ(cast, file, f_flags) & ST_O_NONBLOCK) != 0;
	reader->ulp = ST_READ(cast, tp, inet_conn.icsk_ulp_ops) != 0;
	reader->low_water = ST_READ(cast, sk, sk_rcvlowat) > 1;
	reader->peek_off = ST_READ(cast, sk, sk_peek_off) >= 0;
	reader->timestamps = st_asks_for_timestamps(cast, sk);
	reader->inq = st_asks_for_inq(cast, tp);
	reader->memory_low = st_memory_is_low(cast, sk, size);
}

/* `tp` is the sending socket of a program that runs under its lock. */
static __always_inline void st_look_at_sender(const struct tcp_sock *tp, struct st_sender *sender)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	sender->write_seq = tp->write_seq;
	sender->state = sk->__sk_common.skc_state;
	sender->error = sk->sk_err != 0;
	sender->shut_down = sk->sk_shutdown != 0;
	sender->ulp = tp->inet_conn.icsk_ulp_ops != 0;
	sender->zerocopy = st_has_flag(sk->__sk_common.skc_flags,
				       bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY));
}

#endif
