/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict on one connect(): which way it goes and why. One pure function for the BPF programs,
 * `sidetrackctl explain` and the unit tests. No I/O: the caller gathers the facts; rules and engine
 * state are asked for through callbacks. The order is docs/policy.md, "The order of a verdict".
 */
#ifndef SIDETRACK_DECIDE_H
#define SIDETRACK_DECIDE_H

#include "sidetrack/abi/types.h"
#include "sidetrack/addr.h"

/* What is asked of the pod's policy for one destination. */
struct st_rules {
	__u8 excluded_port;
	__u8 excluded_cidr;
	__u8 has_include; /* an include list is present */
	__u8 included;	  /* and the destination is on one */
};

/* The facts about one connect(). */
struct st_connect {
	struct st_addr destination;
	struct st_addr bound_source; /* what bind() chose, zero = nothing */
	__u8 tcp;
	__u8 bypass;
	__u8 engine_socket;
	__u8 bound_device;
	__u8 transparent;
	__u8 mptcp;
	__u8 shared_port;    /* bound to a port of its own choice that others may share */
	__u8 engine_address; /* st_is_engine_at() of the destination */
};

/* The state of the engine for one connect(). */
enum st_engine_state {
	ST_ENGINE_READY,
	ST_ENGINE_DOWN,
	ST_ENGINE_FULL,
	ST_ENGINE_PORTS_USED, /* the pod's port budget is used up */
	ST_ENGINE_NO_RECORD,  /* no room to remember the original destination */
};

/* Where an external engine listens: redirected, it would be its own original destination. */
static inline int st_is_engine_at(const struct st_config *c, const struct st_addr *a, __u16 port_be)
{
	return (port_be == c->external_v4_port_be && st_addr_equal(a, &c->external_v4)) ||
	       (port_be == c->external_v6_port_be && st_addr_equal(a, &c->external_v6));
}

/* Destinations that a pod reaches without its network, and the engine itself. */
static inline __attribute__((always_inline)) int st_is_near(const struct st_connect *connect,
							    const struct st_pod *pod)
{
	return st_addr_is_local(&connect->destination) ||
	       st_addr_equal(&connect->destination, &pod->own_v4) ||
	       st_addr_equal(&connect->destination, &pod->own_v6) || connect->engine_address;
}

/* Steps 1 to 5: everything that needs neither rules nor engine. ST_REASON_COUNT = not decided.
 * `pod` is 0 for a netns without a row. */
static inline enum st_reason st_decide_early(const struct st_connect *connect,
					     const struct st_pod *pod)
{
	if (!connect->tcp)
		return ST_REASON_NOT_TCP;
	if (connect->bypass)
		return ST_REASON_BYPASS;
	if (!pod)
		return ST_REASON_UNKNOWN_NETNS;
	if (pod->mode == ST_MODE_DISABLED)
		return ST_REASON_NOT_ENROLLED;
	if (connect->engine_socket)
		return ST_REASON_ENGINE_SOCKET;
	if (pod->mode == ST_MODE_PASSTHROUGH)
		return ST_REASON_PASSTHROUGH;
	/* A source bound to loopback cannot leave the pod: without us connect() fails, and so it
	 * does with us. */
	if (st_is_near(connect, pod) || st_addr_is_loopback(&connect->bound_source))
		return ST_REASON_LOCAL_DESTINATION;
	if (connect->bound_device)
		return ST_REASON_BOUND_DEVICE;
	if (connect->transparent)
		return ST_REASON_TRANSPARENT;
	if (connect->mptcp)
		return ST_REASON_MPTCP;
	/* Two such sockets may connect to two destinations from one port; on one listener the
	 * second would get EADDRNOTAVAIL. */
	if (connect->shared_port)
		return ST_REASON_BOUND_PORT;
	return ST_REASON_COUNT;
}

/* Step 6. Excludes win over includes; a connection on either include list is in. */
static inline enum st_reason st_decide_rules(const struct st_rules *rules)
{
	if (rules->excluded_port)
		return ST_REASON_EXCLUDED_PORT;
	if (rules->excluded_cidr)
		return ST_REASON_EXCLUDED_CIDR;
	if (rules->has_include && !rules->included)
		return ST_REASON_NOT_INCLUDED;
	return ST_REASON_COUNT;
}

/* Steps 7 and 8. The port budget always falls back to direct: the engine is well, only the ports
 * are used. */
static inline enum st_reason st_decide_engine(const struct st_pod *pod, enum st_engine_state state)
{
	if (state == ST_ENGINE_READY)
		return ST_REASON_REDIRECTED;
	if (state == ST_ENGINE_PORTS_USED)
		return ST_REASON_PORT_BUDGET;
	if (pod->on_engine_loss == ST_ON_ENGINE_LOSS_CLOSED)
		return ST_REASON_ENGINE_DOWN_CLOSED;
	if (state == ST_ENGINE_DOWN)
		return ST_REASON_ENGINE_DOWN;
	return state == ST_ENGINE_FULL ? ST_REASON_ENGINE_FULL : ST_REASON_INTERNAL_ERROR;
}

typedef void (*st_rules_reader)(void *context, struct st_rules *rules);
typedef enum st_engine_state (*st_engine_reader)(void *context);

/* The whole order. The callbacks run at most once each, and only if the verdict needs them. */
static inline __attribute__((always_inline)) enum st_reason
st_decide(const struct st_connect *connect, const struct st_pod *pod, st_rules_reader read_rules,
	  st_engine_reader read_engine, void *context)
{
	struct st_rules rules = {0, 0, 0, 0};
	enum st_reason reason = st_decide_early(connect, pod);

	if (reason != ST_REASON_COUNT)
		return reason;
	read_rules(context, &rules);
	reason = st_decide_rules(&rules);
	if (reason != ST_REASON_COUNT)
		return reason;
	return st_decide_engine(pod, read_engine(context));
}

/* Direct connections that take part in the fast path and get a flow record: the mode says that the
 * pod takes part, and no rule excludes them. `reason`: as decided. */
static inline __attribute__((always_inline)) int
st_is_observed(enum st_reason reason, const struct st_connect *connect, const struct st_pod *pod,
	       st_rules_reader read_rules, void *context)
{
	struct st_rules rules = {0, 0, 0, 0};

	if (reason != ST_REASON_PASSTHROUGH)
		return reason == ST_REASON_ENGINE_DOWN || reason == ST_REASON_ENGINE_FULL ||
		       reason == ST_REASON_PORT_BUDGET;
	if (st_is_near(connect, pod))
		return 0;
	read_rules(context, &rules);
	return st_decide_rules(&rules) == ST_REASON_COUNT;
}

/* Is an engine that beat at `beat_ns` to be taken for alive at `now_ns` (both CLOCK_MONOTONIC)? */
static inline int st_beat_is_fresh(__u64 beat_ns, __u64 now_ns)
{
	return beat_ns && now_ns < beat_ns + ST_HEARTBEAT_STALE_NS;
}

static inline enum st_verdict st_verdict_of(enum st_reason reason)
{
	switch (reason) {
#define ST_REASON(NAME, name, verdict)                                                             \
	case ST_REASON_##NAME:                                                                     \
		return ST_VERDICT_##verdict;
#include "sidetrack/abi/counters.def"
#undef ST_REASON
	case ST_REASON_COUNT:
		break;
	}
	return ST_VERDICT_direct;
}

#endif
