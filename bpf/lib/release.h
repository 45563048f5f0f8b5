/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* When a reader may leave the SOCKHASH while its connection lives: nothing waits in it, and nothing
 * is on its way (docs/adr/0009). */
#ifndef SIDETRACK_BPF_RELEASE_H
#define SIDETRACK_BPF_RELEASE_H

#include "lib/fin.h"

enum { ST_PSOCK_IDLE = 1 /* references on the psock of an adopted socket in no call */ };

static __always_inline int st_is_sock(const struct st_far *far)
{
	const struct sock *sk = (struct sock *)far->sock;

	return far->cookie &&
	       (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == far->cookie;
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

static __always_inline __u64 st_drain_look(const struct st_fast *fast, __u64 psock,
					   enum st_drain_fact fact)
{
	switch (fact) {
	case ST_DRAIN_SENDING:
		return st_has_senders(fast);
	case ST_DRAIN_WAITING:
		return psock && !st_queue_is_empty(0, psock);
	default:
		return st_brought(fast);
	}
}

/* Whether a reader may leave: see sidetrack/fast_rules.h. */
static __always_inline int st_is_drained(const struct st_fast *fast, __u64 psock)
{
	__u64 brought = st_drain_look(fast, psock, st_drain_asks(0));
	int step;

#pragma unroll
	for (step = 1; step < ST_DRAIN_STEPS; step++) {
		barrier();
		if (!st_drain_passes(step, st_drain_look(fast, psock, st_drain_asks(step)),
				     brought))
			return 0;
	}
	return 1;
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

#endif
