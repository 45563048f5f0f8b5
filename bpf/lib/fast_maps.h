/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the fast path. Above each: who writes, who reads, how long a row lives, what happens
 * when it is full. Keys and values: abi/fast.h. */
#ifndef SIDETRACK_BPF_FAST_MAPS_H
#define SIDETRACK_BPF_FAST_MAPS_H

#include "lib/common.h"
#include "sidetrack/fast_rules.h"

/* Agent writes, the programs read. One cell. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct st_fast_config);
} st_fast_config __weak SEC(".maps");

/* Agent and sentinel raise it, each sender compares it with what it saw last. One cell. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct st_fast_generation);
} st_fast_generation __weak SEC(".maps");

/* Written when the client's side is established, completed when the server's is, removed when the
 * client closes, or by the agent when it turns out to have no peer here. Full, or the netns' quota
 * used: the connection stays on TCP (fp_pairs_full). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ST_MAX_PAIRS);
	__type(key, struct st_pair_key);
	__type(value, struct st_pair);
} st_pairs __weak SEC(".maps");

/* Sockets that may be sent to past TCP, by their cookie. The adopting program inserts; a close
 * takes them out. Full: the socket stays on TCP (fp_map_full). */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, ST_MAX_ADOPTED);
	__type(key, __u64);
	__type(value, __u64);
} st_adopted __weak SEC(".maps");

/* What an adopted socket knows of its peer; dies with it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct st_fast);
} st_fast_sockets __weak SEC(".maps");

/* The sentinel writes which sockets were seen in a call that the fast path could change. An LRU: it
 * forgets the oldest, and the adopting program then relies on its own look. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ST_MAX_MARKS);
	__type(key, __u64);
	__type(value, struct st_mark);
} st_marks __weak SEC(".maps");

/* The marks of adopted sockets once more, where those of others push none out. The sentinel writes,
 * the agent deletes the rows of sockets that are adopted no longer. Full, which takes one row for
 * each adopted socket and more: only st_marks knows. Allocated at once: tracepoints write it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ST_MAX_ADOPTED);
	__type(key, __u64);
	__type(value, struct st_mark);
} st_kept_marks __weak SEC(".maps");

/* Engines write what they have forwarded through a mapping, sk_msg reads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ST_MAX_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} st_slots __weak SEC(".maps");

/* The programs count, the agent reads. One cell. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct st_fast_counters);
} st_fast_counters __weak SEC(".maps");

static __always_inline const struct st_fast_config *st_get_fast_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&st_fast_config, &zero);
}

static __always_inline struct st_fast_counters *st_get_fast_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&st_fast_counters, &zero);
}

static __always_inline struct st_fast_generation *st_get_generation(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&st_fast_generation, &zero);
}

static __always_inline void st_raise_generation(void)
{
	struct st_fast_generation *generation = st_get_generation();

	if (generation)
		__sync_fetch_and_add(&generation->value, 1);
}

static __always_inline void st_count_refused(__u32 reason)
{
	struct st_fast_counters *counters = st_get_fast_counters();

	if (counters)
		counters->refused[reason & 63]++;
}

static __always_inline struct st_pair *st_pair_of_client(const struct st_client *client)
{
	struct st_pair_key key = client->pair;

	return client->paired ? bpf_map_lookup_elem(&st_pairs, &key) : 0;
}

static __always_inline void st_drop_pair(const struct st_pair_key *key, __u64 netns_cookie)
{
	struct st_pod_state *state;

	if (bpf_map_delete_elem(&st_pairs, key))
		return;
	state = bpf_map_lookup_elem(&st_pod_state, &netns_cookie);
	if (state)
		__sync_fetch_and_add(&state->pairs, -1);
}

#endif
