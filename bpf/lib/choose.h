/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which engine takes a connection, at which listener, and whether it can. Called by the connect
 * hook only. */
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
	__u8 budget_index;
	__u8 used_up; /* the local ports towards the listener that `target` is */
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

/* Spreads destinations over the listeners: each has its own space of local ports. */
static __always_inline __u32 st_pick(const struct st_attempt *attempt, __u32 count)
{
	__u32 words[4];
	__u32 hash;

	__builtin_memcpy(words, &attempt->connect.destination, sizeof(words));
	hash = words[0] ^ words[1] ^ words[2] ^ words[3] ^ attempt->port * 0x9e3779b1U;
	/* A product moves bits up only, and the last byte of an address is the highest: down first,
	 * again, and down. */
	hash = (hash ^ hash >> 16) * 0x85ebca6bU;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35U;
	hash ^= hash >> 16;
	return hash % count;
}

static __always_inline int st_engine_beats(__u32 slot, struct st_engine **cell)
{
	struct st_engine *engine = bpf_map_lookup_elem(&st_engines, &slot);

	*cell = engine;
	return engine && st_beat_is_fresh(engine->beat_ns, bpf_ktime_get_ns());
}

static __always_inline int st_is_used_up(const struct st_pod *pod, struct st_pod_state *pod_state,
					 __u32 budget_index)
{
	/* Here the compiler knows the range and would drop the mask below; the verifiers of 5.10
	 * and 6.1 lose it at the 32-bit "or" that makes the index. */
	barrier_var(budget_index);
	return st_budget_used(&pod_state->budget[budget_index & (2 * ST_MAX_LISTENERS - 1)],
			      st_budget_epoch(pod)) >= pod->port_budget;
}

static __always_inline enum st_engine_state st_choose_external(struct st_attempt *attempt,
							       struct st_pod_state *pod_state,
							       struct st_engine *engine, int v4)
{
	const struct st_config *config = attempt->config;

	attempt->target.addr = v4 ? config->external_v4 : config->external_v6;
	attempt->target.port_be = v4 ? config->external_v4_port_be : config->external_v6_port_be;
	attempt->budget_index = v4 ? 0 : ST_MAX_LISTENERS;
	attempt->used_up = st_is_used_up(attempt->pod, pod_state, attempt->budget_index);
	if (!attempt->target.port_be ||
	    !(v4 ? engine->listener_cookie_v4 : engine->listener_cookie_v6))
		return ST_ENGINE_DOWN;
	return ST_ENGINE_READY;
}

static __always_inline enum st_engine_state
st_choose_listener(struct st_attempt *attempt, struct st_pod_state *pod_state, int v4)
{
	const struct st_pod *pod = attempt->pod;
	__u32 count = v4 ? pod->listeners_v4 : pod->listeners_v6;
	__u32 first = v4 ? 0 : ST_MAX_LISTENERS;
	enum st_engine_state state = ST_ENGINE_DOWN;
	__u32 index;
	int is_second;

	if (!count)
		return ST_ENGINE_DOWN;
	index = st_pick(attempt, count) & (ST_MAX_LISTENERS - 1);
	/* One destination alone may use up a listener: it has a second one, not all. */
	is_second = st_is_used_up(pod, pod_state, first + index);
	if (is_second) {
		index = (index + 1) % count & (ST_MAX_LISTENERS - 1);
		attempt->used_up = st_is_used_up(pod, pod_state, first + index);
	}
	attempt->budget_index = first + index;
	attempt->target.port_be = v4 ? pod->port_v4_be[index] : pod->port_v6_be[index];
	if (attempt->target.port_be) {
		st_aim_at_loopback(attempt);
		state = st_look_at_listener(attempt->ctx, &attempt->target,
					    v4 ? pod->listener_cookie_v4[index]
					       : pod->listener_cookie_v6[index]);
	}
	/* The engine is well: what is missing are ports. */
	return is_second && state != ST_ENGINE_READY ? ST_ENGINE_PORTS_USED : state;
}

static __always_inline enum st_engine_state st_read_engine(void *context)
{
	struct st_attempt *attempt = context;
	const struct st_pod *pod = attempt->pod;
	int v4 = st_addr_is_v4(&attempt->connect.destination);
	struct st_pod_state *pod_state;
	enum st_engine_state state;
	struct st_engine *engine;

	if (!st_engine_beats(pod->engine_slot, &engine))
		return ST_ENGINE_DOWN;
	if (engine->full)
		return ST_ENGINE_FULL;
	pod_state = bpf_map_lookup_elem(&st_pod_state, &attempt->netns_cookie);
	if (!pod_state)
		return ST_ENGINE_NO_RECORD;
	state = pod->external ? st_choose_external(attempt, pod_state, engine, v4)
			      : st_choose_listener(attempt, pod_state, v4);
	if (state != ST_ENGINE_READY)
		return state;
	if (!st_record_fits(pod_state))
		return ST_ENGINE_NO_RECORD;
	return attempt->used_up ? ST_ENGINE_PORTS_USED : ST_ENGINE_READY;
}

#endif
