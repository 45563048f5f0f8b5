/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* All maps. Above each: who writes, who reads, how long a row lives, what happens when it is full.
 * Keys and values: abi/types.h. */
#ifndef SIDETRACK_BPF_MAPS_H
#define SIDETRACK_BPF_MAPS_H

#include "lib/kernel.h"
#include "sidetrack/abi/types.h"

/* Agent writes, every program reads. One cell. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct st_config);
} st_config __weak SEC(".maps");

/* `sidetrackctl bypass` writes, the connect hook reads. One cell: not 0 = all new connections of
 * the node go direct. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} st_bypass __weak SEC(".maps");

/* Each engine writes its own cell through a mapping; sockops writes the cell of an external engine.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ST_MAX_ENGINES);
	__type(key, __u32);
	__type(value, struct st_engine);
} st_engines __weak SEC(".maps");

/* Agent writes rows, sockops clears ports of lost listeners. Full: the pod is not enrolled (drift,
 * `pods_full`). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ST_MAX_PODS);
	__type(key, __u64);
	__type(value, struct st_pod);
} st_pods __weak SEC(".maps");

/* Agent makes and deletes the rows with those of st_pods, the programs count in them. All rows are
 * made at once: before 6.1 the kernel warns of tracepoints that use another map. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ST_MAX_PODS);
	__type(key, __u64);
	__type(value, struct st_pod_state);
} st_pod_state __weak SEC(".maps");

/* Agent writes, sockops reads where st_has_tunings. Only pods that ask for it have a row. Full: the
 * pod's connections stay as they are (drift, `map_full`). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ST_MAX_PODS);
	__type(key, __u64);
	__type(value, struct st_tuning);
} st_tunings __weak SEC(".maps");

/* Agent writes; rows are never changed, only made and, when no pod names them any more, deleted.
 * Full: the pod keeps its old policy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ST_MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct st_policy);
} st_policies __weak SEC(".maps");

/* As st_policies. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ST_MAX_CIDRS);
	__type(key, struct st_cidr_key);
	__type(value, struct st_cidr);
} st_cidrs __weak SEC(".maps");

/* As st_policies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ST_MAX_PORT_PAGES);
	__type(key, struct st_port_page_key);
	__type(value, struct st_port_page);
} st_port_pages __weak SEC(".maps");

/* What the flow record of a connection that goes direct needs, by its client's cookie. The connect
 * hook writes, the close removes. Not SK_STORAGE, which costs three times as much per connection
 * (docs/adr/0011-observed-rows.md). Full: the oldest row goes, and its connection has no flow
 * record and no fast path. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ST_MAX_OBSERVED);
	__type(key, __u64);
	__type(value, struct st_observed);
} st_observed __weak SEC(".maps");

/* What is shown of an open connection that was redirected, by its client's cookie. sockops writes
 * when it is established and removes at the close; nothing decides by it. Full: the oldest row
 * goes, and its connection is not shown while it is open. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ST_MAX_REDIRECTED);
	__type(key, __u64);
	__type(value, struct st_redirected);
} st_redirected __weak SEC(".maps");

/* What we know of one socket; dies with it. Not to be had (optmem used up): direct or refused,
 * counted in storage_full. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct st_socket);
} st_sockets __weak SEC(".maps");

/* Written when the client's side is established, removed when the engine's side is, or when the
 * client closes. Full: see st_engine_state. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ST_MAX_RECORDS);
	__type(key, struct st_record_key);
	__type(value, struct st_record);
} st_records __weak SEC(".maps");

/* How many rows st_records has: connect() leaves ST_RECORD_HEADROOM of them free. One cell. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __s64);
} st_record_count __weak SEC(".maps");

/* The engine's reports, for flow records only: a cache, so an LRU. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct st_report);
} st_endpoints __weak SEC(".maps");

/* Netns cookies without a row that were reported to the agent: a cache, so an LRU (an evicted one
 * is reported again). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} st_seen __weak SEC(".maps");

/* The programs count, the agent reads. One cell per namespace slot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ST_MAX_NAMESPACES);
	__type(key, __u32);
	__type(value, struct st_counters);
} st_counters __weak SEC(".maps");

/* Agent writes: which namespace a slot counts for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ST_MAX_NAMESPACES);
	__type(key, __u32);
	__type(value, struct st_namespace);
} st_namespaces __weak SEC(".maps");

/* Flow records to the agent. Full: the record is lost and counted in flows_dropped; so are those of
 * refused connects while a quarter is in use. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ST_FLOW_RING_BYTES);
} st_flows __weak SEC(".maps");

/* Rare events to the agent. Full: lost; the agent's own reconciliation finds the same. What it
 * finds only by looking closer is looked for when st_fast_generation rises. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ST_EVENT_RING_BYTES);
} st_events __weak SEC(".maps");

#endif
