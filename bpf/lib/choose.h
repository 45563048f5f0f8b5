/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Facts for st_choose(): which engine takes a connection, at which listener, and whether it can.
 * Called by the connect hook only. */
#ifndef SIDETRACK_BPF_CHOOSE_H
#define SIDETRACK_BPF_CHOOSE_H

#include "lib/common.h"

/* Where a redirected connection goes. */
struct st_target {
	struct st_addr addr;
	__u16 port_be;
};

/* One connect() while it is being decided; the callbacks of st_decide() read and fill it. */
struct st_attempt {
	struct bpf_sock_addr *ctx;
	const struct st_config *config;
	const struct st_pod *pod;
	struct st_connect connect;
	struct st_target target;
	__u64 netns_cookie;
	__u32 port; /* asked for */
	struct st_choice choice;
};

/* The loopback address of the destination's family. */
static __always_inline void st_aim_at_loopback(struct st_attempt *attempt)
{
	__u32 words[4] = {};

	words[3] = bpf_htonl(1);
	__builtin_memcpy(&attempt->target.addr, words, sizeof(words));
	if (st_addr_is_v4(&attempt->connect.destination))
		st_addr_from_v4(&attempt->target.addr, bpf_htonl(0x7f000001));
}

/* Kernel truth about the listener in this netns: there, ours, and with room in its accept queue (a
 * full one drops SYNs: 1 s stall). */
static __always_inline enum st_engine_state
st_look_at_listener(struct bpf_sock_addr *ctx, const struct st_target *target, __u64 cookie)
{
	enum st_engine_state state = ST_ENGINE_DOWN;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;
	struct tcp_sock *listener;
	const struct sock *sk;

	if (st_addr_is_v4(&target->addr)) {
		tuple.ipv4.daddr = st_addr_to_v4(&target->addr);
		tuple.ipv4.dport = target->port_be;
		found = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, &target->addr, sizeof(target->addr));
		tuple.ipv6.dport = target->port_be;
		found = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!found)
		return ST_ENGINE_DOWN;
	listener = bpf_skc_to_tcp_sock(found);
	if (listener) {
		sk = &listener->inet_conn.icsk_inet.sk;
		if (sk->__sk_common.skc_state == BPF_TCP_LISTEN &&
		    (__u64)sk->__sk_common.skc_cookie.counter == cookie)
			state = sk->sk_ack_backlog >
						sk->sk_max_ack_backlog - sk->sk_max_ack_backlog / 4
					? ST_ENGINE_FULL
					: ST_ENGINE_READY;
	}
	bpf_sk_release(found);
	return state;
}

/* Aims at listener `index` of the pod, or at the external engine's, and looks at it. */
static __always_inline enum st_engine_state st_aim(void *context, int v4, __u32 index)
{
	struct st_attempt *attempt = context;
	const struct st_config *config = attempt->config;
	const struct st_pod *pod = attempt->pod;

	if (pod->external) {
		attempt->target.addr = v4 ? config->external_v4 : config->external_v6;
		attempt->target.port_be =
			v4 ? config->external_v4_port_be : config->external_v6_port_be;
		return attempt->target.port_be ? ST_ENGINE_READY : ST_ENGINE_DOWN;
	}
	attempt->target.port_be = v4 ? pod->port_v4_be[index] : pod->port_v6_be[index];
	if (!attempt->target.port_be)
		return ST_ENGINE_DOWN;
	st_aim_at_loopback(attempt);
	return st_look_at_listener(attempt->ctx, &attempt->target,
				   v4 ? pod->listener_cookie_v4[index]
				      : pod->listener_cookie_v6[index]);
}

static __always_inline enum st_engine_state st_read_engine(void *context)
{
	struct st_attempt *attempt = context;
	__u32 slot = attempt->pod->engine_slot;
	__u32 zero = 0;
	struct st_engine_facts facts = {
		.pod = attempt->pod,
		.engine = bpf_map_lookup_elem(&st_engines, &slot),
		.pod_state = bpf_map_lookup_elem(&st_pod_state, &attempt->netns_cookie),
		.records = bpf_map_lookup_elem(&st_record_count, &zero),
		.destination = &attempt->connect.destination,
		.now_ns = bpf_ktime_get_ns(),
		.port = attempt->port,
	};

	return st_choose(&facts, &attempt->choice, st_aim, attempt);
}

#endif
