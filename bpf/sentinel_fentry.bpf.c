// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The sentinel at the functions behind the calls (lib/sentinel.h): security_file_ioctl and
 * security_file_fcntl (include/linux/security.h) come before what an ioctl() or fcntl() does,
 * tcp_splice_read (include/net/tcp.h) is what splices from a TCP socket, io_uring_create
 * (include/trace/events/io_uring.h) tells of a ring before the task has its descriptor.
 */
#include "lib/sentinel.h"

#include <bpf/bpf_tracing.h>

static __always_inline int st_watch_any_ioctl(struct file *file, unsigned int command,
					      unsigned long argument)
{
	struct sock *sk;

	if (!st_ioctl_matters(command, argument))
		return 0;
	sk = st_sock_of_file(file);
	if (sk)
		st_on_ioctl(sk, command);
	return 0;
}

SEC("fentry/security_file_ioctl")
int BPF_PROG(st_watch_ioctl, struct file *file, unsigned int command, unsigned long argument)
{
	return st_watch_any_ioctl(file, command, argument);
}

/* Of 32-bit tasks, since 6.8; before, the other one is called for them, too. */
SEC("fentry/security_file_ioctl_compat")
int BPF_PROG(st_watch_ioctl_compat, struct file *file, unsigned int command, unsigned long argument)
{
	return st_watch_any_ioctl(file, command, argument);
}

SEC("fentry/security_file_fcntl")
int BPF_PROG(st_watch_fcntl, struct file *file, unsigned int command, unsigned long argument)
{
	struct sock *sk;

	if (!st_fcntl_matters(command, argument))
		return 0;
	sk = st_sock_of_file(file);
	if (sk)
		st_on_blocking(sk);
	return 0;
}

SEC("fentry/tcp_splice_read")
int BPF_PROG(st_watch_splice, struct socket *socket)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);

	if (sk)
		st_on_splice(sk);
	return 0;
}

SEC("raw_tp/io_uring_create")
int st_watch_io_uring(void *ctx)
{
	st_on_io_uring();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
