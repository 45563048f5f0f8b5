/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What more than one hook family does: counting, addresses, events, the budget of local ports. */
#ifndef SIDETRACK_BPF_COMMON_H
#define SIDETRACK_BPF_COMMON_H

#include "lib/maps.h"
#include "sidetrack/choose.h"

static __always_inline const struct st_config *st_get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&st_config, &zero);
}

static __always_inline int st_is_engine_cgroup(const struct st_config *config, __u64 cgroup_id)
{
	return cgroup_id == config->engine_cgroup_ids[0] ||
	       cgroup_id == config->engine_cgroup_ids[1] ||
	       cgroup_id == config->engine_cgroup_ids[2] ||
	       cgroup_id == config->engine_cgroup_ids[3];
}

/* The counters of a namespace; an index out of range counts under slot 0. Never 0 in practice, but
 * the verifier asks. */
static __always_inline struct st_counters *st_get_counters(__u32 slot)
{
	__u32 key = slot < ST_MAX_NAMESPACES ? slot : 0;

	return bpf_map_lookup_elem(&st_counters, &key);
}

static __always_inline void st_count(__u32 slot, __u32 reason)
{
	struct st_counters *counters = st_get_counters(slot);

	if (counters && reason < 32)
		counters->connections[reason]++;
}

static __always_inline void st_addr_from_v4(struct st_addr *addr, __u32 v4_be)
{
	__u32 words[4] = {0, 0, bpf_htonl(0xffff), v4_be};

	__builtin_memcpy(addr, words, sizeof(*addr));
}

static __always_inline __u32 st_addr_to_v4(const struct st_addr *addr)
{
	__u32 v4_be;

	__builtin_memcpy(&v4_be, &addr->bytes[12], sizeof(v4_be));
	return v4_be;
}

/* Where the pod of a netns is counted; 0 without one. */
static __always_inline __u32 st_slot_of(__u64 netns_cookie)
{
	const struct st_pod *pod = bpf_map_lookup_elem(&st_pods, &netns_cookie);

	return pod ? pod->namespace_slot : 0;
}

/* The socket's cookie if it was ever asked for, else 0: then no row has it as its key. */
static __always_inline __u64 st_known_cookie(const struct tcp_sock *tp)
{
	return tp->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter;
}

/* sockops will see the close of this listener of an external engine. */
static __always_inline void st_note_watched(struct st_engine *engine, __u64 cookie)
{
	engine->watched[engine->watch_next++ & (ST_MAX_WATCHED - 1)] = cookie;
}

/* 0: the ring is full. */
static __always_inline int st_send_event(__u32 kind, __u64 netns_cookie, __u64 socket_cookie)
{
	struct st_event *event = bpf_ringbuf_reserve(&st_events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->kind = kind;
	event->reserved = 0;
	event->netns_cookie = netns_cookie;
	event->socket_cookie = socket_cookie;
	bpf_ringbuf_submit(event, 0);
	return 1;
}

/* One closed connection more. Two CPUs at the turn of an epoch may lose a few: the budget leaves 20
 * % of the ports free. */
static __always_inline void st_budget_close(struct st_budget *budget, __u32 epoch)
{
	if (budget->epoch != epoch) {
		budget->closed_before = budget->epoch + 1 == epoch ? budget->closed : 0;
		budget->closed = 0;
		budget->epoch = epoch;
	}
	__sync_fetch_and_add(&budget->closed, 1);
	__sync_fetch_and_add(&budget->live, -1);
}

/* One record more or less, in its netns and in all. */
static __always_inline void st_count_record(struct st_pod_state *state, __s64 change)
{
	__u32 zero = 0;
	__s64 *total = bpf_map_lookup_elem(&st_record_count, &zero);

	if (total)
		__sync_fetch_and_add(total, change);
	if (state)
		__sync_fetch_and_add(&state->records, change);
}

/* Removes a record if it is still there and gives its room back to the netns. Whoever deletes it,
 * once, counts. */
static __always_inline void st_record_drop(const struct st_record_key *key, __u64 netns_cookie)
{
	if (bpf_map_delete_elem(&st_records, key))
		return;
	st_count_record(bpf_map_lookup_elem(&st_pod_state, &netns_cookie), -1);
}

#endif
