/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ring of flow records: room for one, and telling it. */
#ifndef SIDETRACK_BPF_FLOW_RING_H
#define SIDETRACK_BPF_FLOW_RING_H

#include "lib/common.h"

/* From here on the agent is woken, and connects that are refused find no room. */
static __always_inline int st_many_flows_wait(void)
{
	return bpf_ringbuf_query(&st_flows, BPF_RB_AVAIL_DATA) > ST_FLOW_RING_BYTES / 4;
}

static __always_inline void st_drop_flow(__u32 namespace_slot)
{
	struct st_counters *counters = st_get_counters(namespace_slot);

	if (counters)
		counters->flows_dropped++;
}

/* An empty record, for st_end_flow(); 0 = the ring is full, counted. */
static __always_inline struct st_flow *st_reserve_flow(__u32 namespace_slot)
{
	struct st_flow *flow = bpf_ringbuf_reserve(&st_flows, sizeof(*flow), 0);

	if (!flow) {
		st_drop_flow(namespace_slot);
		return 0;
	}
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->namespace_slot = namespace_slot;
	return flow;
}

/* The agent looks several times a second. Only a ring that fills wakes it: an interrupt for each
 * connection is what the connection would pay. */
static __always_inline void st_end_flow(struct st_flow *flow)
{
	bpf_ringbuf_submit(flow, st_many_flows_wait() ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

#endif
