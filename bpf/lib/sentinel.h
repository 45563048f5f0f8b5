/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sentinel: sees, before the call runs, an application that looks closer at its socket than the
 * fast path can answer. FIONREAD and splice demote the pod; O_NONBLOCK cleared marks the socket;
 * io_uring, whose operations reach sockets by other ways, demotes the pod. Two ways to see the
 * calls: sentinel.bpf.c at the entry of system calls, where 32-bit tasks are not seen and every
 * system call of the node becomes a little slower; sentinel_fentry.bpf.c at the functions behind
 * them, where the kernel allows that.
 */
#ifndef SIDETRACK_BPF_SENTINEL_H
#define SIDETRACK_BPF_SENTINEL_H

#include "lib/netns.h"
#include "lib/peek.h"

struct nsproxy {
	struct net *net_ns;
} __attribute__((preserve_access_index));

struct files_struct;

struct task_struct {
	struct files_struct *files;
	struct nsproxy *nsproxy;
} __attribute__((preserve_access_index));

enum {
	ST_FIONREAD = 0x541b,
	ST_FIONBIO = 0x5421,
	ST_F_SETFL = 4,
	ST_S_IFMT = 0170000,
	ST_S_IFSOCK = 0140000,
};

/* The TCP socket behind an open file, or 0. */
static __always_inline struct sock *st_sock_of_file(struct file *file)
{
	struct socket *socket;
	struct sock *sk;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & ST_S_IFMT) != ST_S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	return sk && BPF_CORE_READ(sk, sk_protocol) == ST_IPPROTO_TCP ? sk : 0;
}

static __always_inline struct st_pod_state *st_state_of(__u64 netns_cookie)
{
	return bpf_map_lookup_elem(&st_pod_state, &netns_cookie);
}

/* From now on no socket of the pod is adopted, and none is sent to past TCP. */
static __always_inline void st_demote(__u64 netns_cookie, __u32 reason)
{
	struct st_pod_state *state = st_state_of(netns_cookie);

	if (!state || state->demoted)
		return;
	state->demoted = reason;
	st_raise_generation();
	st_send_event(ST_EVENT_DEMOTED, netns_cookie, reason);
}

/* The mark comes first: adoption looks for one after it has put the socket in (adopt.bpf.c), so one
 * of both sees the other. */
static __always_inline void st_mark(__u64 netns_cookie, struct sock *sk, __u32 reason)
{
	__u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	struct st_mark mark = {.reason = reason};
	struct st_mark *earlier;

	if (!cookie)
		return; /* nobody has seen it yet */
	/* The first one has told all: a pod that does it over and over must not keep others busy.
	 * And a conflict stays one, whatever is done to the socket. */
	earlier = bpf_map_lookup_elem(&st_marks, &cookie);
	if (earlier && (earlier->reason == reason || earlier->reason == ST_FAST_CONFLICT))
		return;
	bpf_map_update_elem(&st_marks, &cookie, &mark, BPF_ANY);
	if (!st_psock_of(0, sk))
		return;
	bpf_map_update_elem(&st_kept_marks, &cookie, &mark,
			    reason == ST_FAST_CONFLICT ? BPF_ANY : BPF_NOEXIST);
	st_raise_generation();
	st_send_event(reason == ST_FAST_CONFLICT ? ST_EVENT_CONFLICT : ST_EVENT_MARKED,
		      netns_cookie, cookie);
}

static __always_inline __u64 st_netns_of(struct sock *sk)
{
	return st_probe_cookie_of_net(BPF_CORE_READ(sk, __sk_common.skc_net.net));
}

static __always_inline void st_on_splice(struct sock *sk)
{
	__u64 netns_cookie = st_netns_of(sk);
	__u64 psock;

	if (!st_state_of(netns_cookie))
		return;
	psock = st_psock_of(0, sk);
	/* splice reads the queue of TCP only: nothing may go there before what waits here. */
	if (psock && !st_queue_is_empty(0, psock))
		st_mark(netns_cookie, sk, ST_FAST_CONFLICT);
	st_demote(netns_cookie, ST_FAST_SPLICE);
}

/* Whether an ioctl() is one of those that matter, before its socket is looked for. */
static __always_inline int st_ioctl_matters(unsigned int command, unsigned long argument)
{
	int on = 1;

	if (command != ST_FIONBIO)
		return command == ST_FIONREAD;
	bpf_probe_read_user(&on, sizeof(on), (void *)argument);
	return !on;
}

static __always_inline int st_fcntl_matters(unsigned int command, unsigned long argument)
{
	return command == ST_F_SETFL && !(argument & ST_O_NONBLOCK);
}

static __always_inline void st_on_blocking(struct sock *sk)
{
	__u64 netns_cookie = st_netns_of(sk);

	if (st_state_of(netns_cookie))
		st_mark(netns_cookie, sk, ST_FAST_MARKED);
}

static __always_inline void st_on_ioctl(struct sock *sk, unsigned int command)
{
	if (command == ST_FIONBIO)
		st_on_blocking(sk);
	else
		st_demote(st_netns_of(sk), ST_FAST_FIONREAD);
}

static __always_inline void st_on_io_uring(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	st_demote(st_probe_cookie_of_net(BPF_CORE_READ(task, nsproxy, net_ns)), ST_FAST_IO_URING);
}

#endif
