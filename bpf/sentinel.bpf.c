// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The sentinel: sees, before the call runs, an application that looks closer at its socket than the
 * fast path can answer. FIONREAD and splice demote the pod; O_NONBLOCK cleared marks the socket.
 * Runs at the entry of four system calls of the whole node; what is not about a TCP socket of an
 * enrolled pod costs some comparisons. Not seen: 32-bit tasks, and io_uring, whose users are
 * demoted.
 */
#include "lib/peek.h"

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} __attribute__((preserve_access_index));

struct files_struct {
	struct fdtable *fdt;
} __attribute__((preserve_access_index));

struct nsproxy {
	struct net *net_ns;
} __attribute__((preserve_access_index));

struct task_struct {
	struct files_struct *files;
	struct nsproxy *nsproxy;
} __attribute__((preserve_access_index));

/* tracefs: events/syscalls/sys_enter_NAME/format. */
struct st_syscall {
	__u64 common;
	long number;
	unsigned long arguments[6];
};

enum {
	ST_FIONREAD = 0x541b,
	ST_FIONBIO = 0x5421,
	ST_F_SETFL = 4,
	ST_S_IFMT = 0170000,
	ST_S_IFSOCK = 0140000,
};

/* The TCP socket behind a descriptor of the calling task, or 0. */
static __always_inline struct sock *st_sock_of(unsigned long number)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = 0;
	struct socket *socket;
	struct sock *sk;

	if (number >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &files[number]);
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

static __always_inline void st_mark(__u64 netns_cookie, __u64 cookie, __u32 reason, int adopted)
{
	struct st_mark mark = {.reason = reason};

	bpf_map_update_elem(&st_marks, &cookie, &mark, BPF_ANY);
	if (!adopted)
		return;
	st_raise_generation();
	st_send_event(reason == ST_FAST_CONFLICT ? ST_EVENT_CONFLICT : ST_EVENT_MARKED,
		      netns_cookie, cookie);
}

static __always_inline __u64 st_netns_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
}

SEC("tp/syscalls/sys_enter_splice")
int st_sentinel_splice(struct st_syscall *call)
{
	struct sock *sk = st_sock_of(call->arguments[0]);
	__u64 netns_cookie, psock;

	if (!sk)
		return 0;
	netns_cookie = st_netns_of(sk);
	if (!st_state_of(netns_cookie))
		return 0;
	psock = st_psock_of(0, sk);
	/* splice reads the queue of TCP only: nothing may go there before what waits here. */
	if (psock && !st_queue_is_empty(0, psock))
		st_mark(netns_cookie, BPF_CORE_READ(sk, __sk_common.skc_cookie.counter),
			ST_FAST_CONFLICT, 1);
	st_demote(netns_cookie, ST_FAST_SPLICE);
	return 0;
}

static __always_inline int st_block(struct sock *sk)
{
	__u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	__u64 netns_cookie = st_netns_of(sk);

	/* Without a cookie nobody has seen it yet. */
	if (cookie && st_state_of(netns_cookie))
		st_mark(netns_cookie, cookie, ST_FAST_MARKED, st_psock_of(0, sk) != 0);
	return 0;
}

SEC("tp/syscalls/sys_enter_ioctl")
int st_sentinel_ioctl(struct st_syscall *call)
{
	unsigned long command = call->arguments[1];
	struct sock *sk;
	int on = 1;

	if (command != ST_FIONREAD && command != ST_FIONBIO)
		return 0;
	if (command == ST_FIONBIO)
		bpf_probe_read_user(&on, sizeof(on), (void *)call->arguments[2]);
	if (command == ST_FIONBIO && on)
		return 0;
	sk = st_sock_of(call->arguments[0]);
	if (!sk)
		return 0;
	if (command == ST_FIONBIO)
		return st_block(sk);
	st_demote(st_netns_of(sk), ST_FAST_FIONREAD);
	return 0;
}

SEC("tp/syscalls/sys_enter_fcntl")
int st_sentinel_fcntl(struct st_syscall *call)
{
	struct sock *sk;

	if (call->arguments[1] != ST_F_SETFL || (call->arguments[2] & ST_O_NONBLOCK))
		return 0;
	sk = st_sock_of(call->arguments[0]);
	return sk ? st_block(sk) : 0;
}

/* Its operations reach sockets by ways that the other programs do not see. */
SEC("tp/syscalls/sys_enter_io_uring_setup")
int st_sentinel_io_uring(struct st_syscall *call)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	st_demote(BPF_CORE_READ(task, nsproxy, net_ns, net_cookie), ST_FAST_IO_URING);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
