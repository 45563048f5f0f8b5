// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The sentinel at the entry of four system calls (lib/sentinel.h). */
#include "lib/sentinel.h"

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} __attribute__((preserve_access_index));

struct files_struct {
	struct fdtable *fdt;
} __attribute__((preserve_access_index));

/* tracefs: events/syscalls/sys_enter_NAME/format. */
struct st_syscall {
	__u64 common;
	long number;
	unsigned long arguments[6];
};

/* The TCP socket behind a descriptor of the calling task, or 0. */
static __always_inline struct sock *st_sock_of(unsigned long number)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = 0;

	if (number >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &files[number]);
	return st_sock_of_file(file);
}

SEC("tp/syscalls/sys_enter_splice")
int st_sentinel_splice(struct st_syscall *call)
{
	struct sock *sk = st_sock_of(call->arguments[0]);

	if (sk)
		st_on_splice(sk);
	return 0;
}

SEC("tp/syscalls/sys_enter_ioctl")
int st_sentinel_ioctl(struct st_syscall *call)
{
	struct sock *sk;

	if (!st_ioctl_matters(call->arguments[1], call->arguments[2]))
		return 0;
	sk = st_sock_of(call->arguments[0]);
	if (sk)
		st_on_ioctl(sk, call->arguments[1]);
	return 0;
}

SEC("tp/syscalls/sys_enter_fcntl")
int st_sentinel_fcntl(struct st_syscall *call)
{
	struct sock *sk;

	if (!st_fcntl_matters(call->arguments[1], call->arguments[2]))
		return 0;
	sk = st_sock_of(call->arguments[0]);
	if (sk)
		st_on_blocking(sk);
	return 0;
}

SEC("tp/syscalls/sys_enter_io_uring_setup")
int st_sentinel_io_uring(struct st_syscall *call)
{
	st_on_io_uring();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
