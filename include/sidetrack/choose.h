/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which of an engine's listeners takes a connection, and whether the engine can take it: steps 7
 * and 8 of the verdict (decide.h). Pure, for the connect hook, `sidetrackctl explain` and the unit
 * tests: the caller gathers the facts, a callback looks at the listener.
 */
#ifndef SIDETRACK_CHOOSE_H
#define SIDETRACK_CHOOSE_H

#include "sidetrack/decide.h"

#define ST_CHOOSE static inline __attribute__((always_inline))

/* What the kernel holds of one connection's pod and engine. */
struct st_engine_facts {
	const struct st_pod *pod;
	const struct st_engine *engine;	      /* 0 = no cell */
	const struct st_pod_state *pod_state; /* 0 = no row */
	const __s64 *records;		      /* rows of st_records on the node, 0 = not known */
	const struct st_addr *destination;
	__u64 now_ns; /* CLOCK_MONOTONIC */
	__u32 port;
};

struct st_choice {
	__u32 budget_index; /* of st_pod_state.budget */
	int used_up;	    /* the local ports towards that listener */
};

/* Looks at listener `index` of the pod, or at the external engine's: READY, DOWN or FULL. */
typedef enum st_engine_state (*st_listener_reader)(void *context, int v4, __u32 index);

/* As in st_budget.epoch, which has 32 bits. */
ST_CHOOSE __u64 st_budget_epoch(const struct st_pod *pod, __u64 now_ns)
{
	return now_ns >> (pod->budget_shift & 63) & 0xffffffffU;
}

/* Local ports that a listener's connections hold: live ones, and those closed a moment ago
 * (TIME_WAIT). */
ST_CHOOSE __s64 st_budget_used(const struct st_budget *budget, __u64 epoch)
{
	__s64 used = budget->live > 0 ? budget->live : 0;

	if (budget->epoch == epoch)
		used += budget->closed + budget->closed_before;
	else if (budget->epoch + 1 == epoch)
		used += budget->closed;
	return used;
}

ST_CHOOSE int st_is_used_up(const struct st_engine_facts *facts, __u32 budget_index)
{
	/* Here the compiler knows the range and would drop the mask below; the verifiers of 5.10
	 * and 6.1 lose it at the 32-bit "or" that makes the index. */
	__asm__ volatile("" : "+r"(budget_index));
	return st_budget_used(&facts->pod_state->budget[budget_index & (2 * ST_MAX_LISTENERS - 1)],
			      st_budget_epoch(facts->pod, facts->now_ns)) >=
	       facts->pod->port_budget;
}

/* Whether a netns may hold one record more. */
ST_CHOOSE int st_record_fits(const struct st_engine_facts *facts)
{
	return facts->records && *facts->records < ST_MAX_RECORDS - ST_RECORD_HEADROOM &&
	       facts->pod_state->records < ST_RECORD_QUOTA;
}

/* Spreads destinations over the listeners: each has its own space of local ports. */
ST_CHOOSE __u32 st_pick(const struct st_addr *destination, __u32 port, __u32 count)
{
	__u32 words[4];
	__u32 hash;

	__builtin_memcpy(words, destination, sizeof(words));
	hash = words[0] ^ words[1] ^ words[2] ^ words[3] ^ port * 0x9e3779b1U;
	/* A product moves bits up only, and the last byte of an address is the highest: down first,
	 * again, and down. */
	hash = (hash ^ hash >> 16) * 0x85ebca6bU;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35U;
	hash ^= hash >> 16;
	return hash % count;
}

ST_CHOOSE enum st_engine_state st_choose_external(const struct st_engine_facts *facts, int v4,
						  struct st_choice *choice, st_listener_reader look,
						  void *context)
{
	const struct st_engine *engine = facts->engine;

	choice->budget_index = v4 ? 0 : ST_MAX_LISTENERS;
	choice->used_up = st_is_used_up(facts, choice->budget_index);
	if (!(v4 ? engine->listener_cookie_v4 : engine->listener_cookie_v6))
		return ST_ENGINE_DOWN;
	return look(context, v4, 0);
}

ST_CHOOSE enum st_engine_state st_choose_listener(const struct st_engine_facts *facts, int v4,
						  struct st_choice *choice, st_listener_reader look,
						  void *context)
{
	const struct st_pod *pod = facts->pod;
	__u32 count = v4 ? pod->listeners_v4 : pod->listeners_v6;
	__u32 first = v4 ? 0 : ST_MAX_LISTENERS;
	enum st_engine_state state;
	__u32 index;
	int is_second;

	if (!count)
		return ST_ENGINE_DOWN;
	index = st_pick(facts->destination, facts->port, count) & (ST_MAX_LISTENERS - 1);
	/* One destination alone may use up a listener: it has a second one, not all. */
	is_second = st_is_used_up(facts, first + index);
	if (is_second) {
		index = (index + 1) % count & (ST_MAX_LISTENERS - 1);
		choice->used_up = st_is_used_up(facts, first + index);
	}
	choice->budget_index = first + index;
	state = look(context, v4, index);
	/* The engine is well: what is missing are ports. */
	return is_second && state != ST_ENGINE_READY ? ST_ENGINE_PORTS_USED : state;
}

/* `choice` is zero before; it holds for READY. */
ST_CHOOSE enum st_engine_state st_choose(const struct st_engine_facts *facts,
					 struct st_choice *choice, st_listener_reader look,
					 void *context)
{
	int v4 = st_addr_is_v4(facts->destination);
	enum st_engine_state state;

	if (!facts->engine || !st_beat_is_fresh(facts->engine->beat_ns, facts->now_ns))
		return ST_ENGINE_DOWN;
	if (facts->engine->full)
		return ST_ENGINE_FULL;
	if (!facts->pod_state)
		return ST_ENGINE_NO_RECORD;
	state = facts->pod->external ? st_choose_external(facts, v4, choice, look, context)
				     : st_choose_listener(facts, v4, choice, look, context);
	if (state != ST_ENGINE_READY)
		return state;
	if (!st_record_fits(facts))
		return ST_ENGINE_NO_RECORD;
	return choice->used_up ? ST_ENGINE_PORTS_USED : ST_ENGINE_READY;
}

#undef ST_CHOOSE

#endif
