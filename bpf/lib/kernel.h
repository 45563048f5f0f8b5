/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few fields of kernel structures that we read; CO-RE moves them to where the running kernel
 * has them. */
#ifndef SIDETRACK_BPF_KERNEL_H
#define SIDETRACK_BPF_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
/* order matters: bpf_helpers.h needs the types above */
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} st_atomic64;
typedef struct {
	int counter;
} st_atomic;
/* The kernel's own name: what is read through a pointer is found by the name of its type. */
typedef struct {
	__s64 counter;
} atomic_long_t;

struct list_head {
	struct list_head *next;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct netns_ipv4 {
	int sysctl_tcp_wmem[3];
	__u8 sysctl_tcp_orphan_retries; /* an int in older kernels: its first byte */
	__u8 sysctl_tcp_retries2;	/* likewise */
	int sysctl_tcp_rto_max_ms;	/* since 6.15 */
};

struct net {
	__u64 net_cookie; /* since 5.12 */
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct inode {
	unsigned short i_mode;
};

struct file {
	unsigned int f_flags;
	struct inode *f_inode;
	void *private_data;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct wait_queue_entry {
	void *private;
	void *func;
	struct list_head entry;
};

struct wait_queue_head {
	struct list_head head;
};

struct socket_wq {
	struct wait_queue_head wait;
};

struct page_counter {
	atomic_long_t usage; /* pages */
	unsigned long max;
	struct page_counter *parent;
};

struct mem_cgroup {
	struct page_counter memory;
	struct page_counter tcpmem; /* cgroup v1 */
	bool tcpmem_active;
};

struct proto {
	atomic_long_t *memory_allocated; /* pages */
	long *sysctl_mem;		 /* tcp_mem: low, pressure, high */
};

struct refcount_struct {
	st_atomic refs;
};
typedef struct refcount_struct refcount_t;

struct bpf_prog_aux {
	char name[16];
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct sk_psock_progs {
	struct bpf_prog *msg_parser;
};

struct sk_psock {
	struct sk_psock_progs progs;
	struct list_head ingress_msg;
	refcount_t refcnt;
};

typedef struct {
	volatile int owned;
} socket_lock_t;

struct sock_common {
	st_atomic64 skc_cookie;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	unsigned short skc_family;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	__u16 skc_num;
	__u32 skc_rcv_saddr;
	__u32 skc_daddr;
	__u16 skc_dport;
	struct {
		__u8 bytes[16];
	} skc_v6_rcv_saddr;
	struct {
		__u8 bytes[16];
	} skc_v6_daddr;
	possible_net_t skc_net;
	struct proto *skc_prot;
};

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	int sk_rcvbuf;
	int sk_sndbuf;
	int sk_rcvlowat;
	int sk_peek_off;
	int sk_forward_alloc;
	__u16 sk_protocol;
	__u8 sk_shutdown;
	__u8 sk_kern_sock : 1;
	__u32 sk_tsflags;
	void *sk_user_data;
	struct socket *sk_socket;
	struct socket_wq *sk_wq;
	struct mem_cgroup *sk_memcg;
	struct sock_cgroup_data sk_cgrp_data;
	socket_lock_t sk_lock;
	struct {
		st_atomic rmem_alloc;
	} sk_backlog;
	__u8 sk_userlocks : 4; /* a byte of its own since 6.18 */
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
};

struct inet_sock {
	struct sock sk;
	unsigned long inet_flags; /* since 6.6 */
};

/* Before 6.6 the flags were bits of their own. */
struct inet_sock___bits {
	struct sock sk;
	__u8 transparent : 1;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const void *icsk_ulp_ops;
	__u32 icsk_user_timeout; /* ms; 0 = none */
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u32 segs_in;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;
	bool is_mptcp;
	__u8 nonagle : 4;
	__u8 bpf_sock_ops_cb_flags;
	__u8 repair : 1;
	__u8 recvmsg_inq : 1; /* a byte of its own before 6.8 */
};

/* Flags of sk_flags (include/net/sock.h); the running kernel's numbers are looked up. */
enum sock_flags {
	SOCK_RCVTSTAMP = 11,
	SOCK_ZEROCOPY = 18,
};

#pragma clang attribute pop

enum {
	ST_AF_INET = 2,
	ST_AF_INET6 = 10,
	ST_SOL_IP = 0,
	ST_SOL_SOCKET = 1,
	ST_IPPROTO_TCP = 6,
	ST_SOL_IPV6 = 41,
	ST_ECONNREFUSED = 111,
	ST_ECONNABORTED = 103,
	ST_ETIMEDOUT = 110,
	ST_SOCK_BINDPORT_LOCK = 8, /* include/net/sock.h: bind() named the port */
	ST_SOCK_DONE_BIT = 1,	   /* enum sock_flags in include/net/sock.h: a FIN was received */
	ST_INET_FLAGS_TRANSPARENT_BIT = 15, /* include/net/inet_sock.h */
};

static __always_inline bool st_is_transparent(const struct tcp_sock *tp)
{
	const struct inet_sock *inet = &tp->inet_conn.icsk_inet;

	if (bpf_core_field_exists(inet->inet_flags))
		return inet->inet_flags & (1UL << ST_INET_FLAGS_TRANSPARENT_BIT);
	return BPF_CORE_READ_BITFIELD_PROBED((const struct inet_sock___bits *)inet, transparent);
}

static __always_inline bool st_has_shared_port(const struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	return (BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & ST_SOCK_BINDPORT_LOCK) &&
	       (BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuse) ||
		BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport));
}

static __always_inline bool st_is_mptcp(const struct tcp_sock *tp)
{
	return bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp;
}

#endif
