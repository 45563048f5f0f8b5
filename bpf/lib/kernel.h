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

struct sock_common {
	st_atomic64 skc_cookie;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	unsigned short skc_family;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	__u16 skc_num;
	__u32 skc_rcv_saddr;
	struct {
		__u8 bytes[16];
	} skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	int sk_err;
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
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	bool is_mptcp;
};

#pragma clang attribute pop

enum {
	ST_AF_INET = 2,
	ST_AF_INET6 = 10,
	ST_SOL_IP = 0,
	ST_IPPROTO_TCP = 6,
	ST_SOL_IPV6 = 41,
	ST_ECONNREFUSED = 111,
	ST_ECONNABORTED = 103,
	ST_ECONNRESET = 104,
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
