// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sockops: carries the original destination from the client's socket to the engine's accepted one,
 * counts live connections, writes a flow record when one closes, sees the engine's listeners come
 * and go, finds connections whose two ends are both here (lib/pair.h), and sets the TCP options
 * that a pod's policy asks for (lib/tuning.h).
 */
#include "lib/flow.h"
#include "lib/pair.h"
#include "lib/tuning.h"

enum { ST_SOCKOPS_DONE = 1 };

static __always_inline int st_is_listener_port(const struct st_config *config, __u32 port)
{
	return port >= config->listener_port_low && port <= config->listener_port_high;
}

static __always_inline int st_is_external_port(const struct st_config *config, __u32 port)
{
	__u16 port_be = bpf_htons(port);

	return port &&
	       (port_be == config->external_v4_port_be || port_be == config->external_v6_port_be);
}

static __always_inline void st_watch_states(struct bpf_sock_ops *ctx, int on)
{
	__u32 flags = ctx->bpf_sock_ops_cb_flags;

	bpf_sock_ops_cb_flags_set(ctx, on ? flags | BPF_SOCK_OPS_STATE_CB_FLAG
					  : flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void st_on_connecting_observed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct st_observed *row = tp ? st_find_observed(tp) : 0;

	if (!row)
		return;
	row->client.counted = 1;
	row->sock = (__u64)tp;
	st_watch_states(ctx, 1);
}

/* connect() is on its way: from here on the socket counts, and its close will be seen. */
static __always_inline void st_on_connecting(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct st_socket *socket = bpf_sk_storage_get(&st_sockets, sk, 0, 0);
	struct st_pod_state *state;
	__u64 netns_cookie;

	if (!socket) {
		st_on_connecting_observed(ctx, sk);
		return;
	}
	if (socket->client.counted || socket->role == ST_ROLE_ACCEPTED)
		return;
	st_watch_states(ctx, 1);
	netns_cookie = socket->client.netns_cookie;
	state = bpf_map_lookup_elem(&st_pod_state, &netns_cookie);
	if (!state)
		return;
	socket->client.counted = 1;
	__sync_fetch_and_add(&state->budget[socket->budget_index & (2 * ST_MAX_LISTENERS - 1)].live,
			     1);
}

/* The client's side is established: publish where it wanted to go, for the engine's side. */
static __always_inline void st_on_active(struct bpf_sock_ops *ctx, struct st_socket *socket)
{
	struct st_record_key key = {};
	struct st_record record = {};
	struct st_counters *counters;
	__u64 netns_cookie;

	if (!socket || socket->role != ST_ROLE_REDIRECTED)
		return;
	key.scope = socket->record_scope;
	/* Not snd_nxt: with data in its SYN (TCP Fast Open, not accepted by the engine) the client
	 * has counted that in already. */
	key.client_sequence = ctx->snd_una;
	key.server_sequence = ctx->rcv_nxt;
	record.destination = socket->client.destination;
	record.port_be = socket->client.port_be;
	record.netns_cookie = socket->client.netns_cookie;
	record.client_cookie = socket->client_cookie;
	record.namespace_slot = socket->client.namespace_slot;
	if (bpf_map_update_elem(&st_records, &key, &record, BPF_NOEXIST)) {
		/* The engine will refuse the connection; connect() makes this rare by looking at
		 * the room first. */
		counters = st_get_counters(socket->client.namespace_slot);
		if (counters)
			counters->records_full++;
		return;
	}
	socket->client_sequence = key.client_sequence;
	socket->server_sequence = key.server_sequence;
	socket->record_live = 1;
	netns_cookie = socket->client.netns_cookie;
	st_count_record(bpf_map_lookup_elem(&st_pod_state, &netns_cookie), 1);
}

static __always_inline void st_show_redirected(struct bpf_sock *sk, const struct st_socket *socket)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct st_redirected row = {};
	__u64 cookie;

	if (!tp || !socket || socket->role != ST_ROLE_REDIRECTED || !socket->client.counted)
		return;
	cookie = socket->client_cookie;
	row.client = socket->client;
	row.own = socket->own;
	row.sock = (__u64)tp;
	bpf_map_update_elem(&st_redirected, &cookie, &row, BPF_ANY);
}

/* A connection of an external engine waits for accept(). */
static __always_inline void st_count_arrival(void)
{
	__u32 slot = ST_EXTERNAL_ENGINE_SLOT;
	struct st_engine *engine = bpf_map_lookup_elem(&st_engines, &slot);

	if (engine)
		__sync_fetch_and_add(&engine->arrived, 1);
}

/* The engine's side is established: the record moves into its socket. */
static __always_inline void st_on_passive(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	const struct st_config *config = st_get_config();
	volatile __u32 port = ctx->local_port;
	struct st_record_key key = {};
	struct st_record *record;
	struct st_socket *socket;

	if (!config)
		return;
	if (st_is_listener_port(config, port))
		key.scope = st_sockops_netns(ctx);
	else if (st_is_external_port(config, port) &&
		 st_sockops_netns(ctx) == config->node_netns_cookie)
		st_count_arrival();
	else
		return;
	/* Children inherit the listener's flag; the end of an accepted socket is of no interest. */
	st_watch_states(ctx, 0);
	key.client_sequence = ctx->rcv_nxt;
	key.server_sequence = ctx->snd_nxt;
	record = bpf_map_lookup_elem(&st_records, &key);
	if (!record)
		return;
	socket = bpf_sk_storage_get(&st_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		return; /* getsockopt finds the record by the sequence numbers */
	socket->client.destination = record->destination;
	socket->client.port_be = record->port_be;
	socket->client.netns_cookie = record->netns_cookie;
	socket->client.namespace_slot = record->namespace_slot;
	socket->client_cookie = record->client_cookie;
	socket->role = ST_ROLE_ACCEPTED;
	st_record_drop(&key, socket->client.netns_cookie);
}

static __always_inline void st_on_listen(struct bpf_sock_ops *ctx)
{
	const struct st_config *config = st_get_config();
	volatile __u32 port = ctx->local_port;
	__u32 slot = ST_EXTERNAL_ENGINE_SLOT;
	struct st_engine *engine;
	__u64 cookie;

	if (!config)
		return;
	if (st_is_listener_port(config, port))
		st_watch_states(ctx, 1);
	if (!st_is_external_port(config, port) ||
	    st_sockops_netns(ctx) != config->node_netns_cookie)
		return;
	engine = bpf_map_lookup_elem(&st_engines, &slot);
	if (!engine)
		return;
	/* Whether address and process are the engine's is for the agent to check: it is told. */
	st_watch_states(ctx, 1);
	cookie = bpf_get_socket_cookie(ctx);
	st_note_watched(engine, cookie);
	st_send_event(ST_EVENT_LISTENER_BACK, config->node_netns_cookie, cookie);
}

/* Whether the listener was one of the pod's. */
static __always_inline int st_clear_ports(struct st_pod *pod, __u64 cookie)
{
	int found = 0;
	int i;

	for (i = 0; i < ST_MAX_LISTENERS; i++) {
		if (pod->listener_cookie_v4[i] == cookie) {
			pod->port_v4_be[i] = 0;
			found = 1;
		}
		if (pod->listener_cookie_v6[i] == cookie) {
			pod->port_v6_be[i] = 0;
			found = 1;
		}
	}
	return found;
}

/* Whether the listener was a watched one of the external engine. */
static __always_inline int st_clear_engine(struct st_engine *engine, __u64 cookie)
{
	int found = 0;
	int i;

	for (i = 0; i < ST_MAX_WATCHED; i++) {
		if (engine->watched[i] == cookie) {
			engine->watched[i] = 0;
			found = 1;
		}
	}
	/* The agent writes a cookie, and then looks whether it is still watched: with a full fence
	 * on either side (this one is the addition), one of the two sees the other. */
	if (found)
		__sync_fetch_and_add(&engine->closed, 1);
	if (engine->listener_cookie_v4 == cookie) {
		engine->listener_cookie_v4 = 0;
		found = 1;
	}
	if (engine->listener_cookie_v6 == cookie) {
		engine->listener_cookie_v6 = 0;
		found = 1;
	}
	return found;
}

static __always_inline void st_on_listener_closed(struct bpf_sock_ops *ctx)
{
	__u64 netns_cookie = st_sockops_netns(ctx);
	struct st_pod *pod = bpf_map_lookup_elem(&st_pods, &netns_cookie);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	__u32 slot = ST_EXTERNAL_ENGINE_SLOT;
	struct st_engine *engine = bpf_map_lookup_elem(&st_engines, &slot);

	int found = 0;

	if (pod)
		found = st_clear_ports(pod, cookie);
	if (engine)
		found |= st_clear_engine(engine, cookie);
	/* Applications may listen on such ports, too: theirs are not worth a word, however often
	 * they close them. */
	if (found)
		st_send_event(ST_EVENT_LISTENER_LOST, netns_cookie, cookie);
}

static __always_inline void st_tell_redirected(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					       const struct st_socket *socket, __u32 old)
{
	struct st_flow *flow = st_begin_flow(ctx, sk, &socket->client, ST_PATH_ENGINE, old);
	__u64 client_cookie = socket->client_cookie;
	struct st_report *report;

	if (!flow)
		return;
	if (!st_addr_is_zero(&socket->own))
		flow->source = socket->own;
	report = bpf_map_lookup_elem(&st_endpoints, &client_cookie);
	if (report) {
		flow->endpoint = report->endpoint;
		flow->endpoint_port_be = report->port_be;
		if (report->close != ST_CLOSE_OPEN)
			flow->close = report->close;
	}
	st_end_flow(flow);
	if (report)
		bpf_map_delete_elem(&st_endpoints, &client_cookie);
}

/* The record goes, the budget is given back, the flow is told. */
static __always_inline void st_on_closed_redirected(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						    struct st_socket *socket, __u32 old)
{
	__u64 netns_cookie = socket->client.netns_cookie;
	__u64 cookie = socket->client_cookie;
	struct st_record_key key = {};
	struct st_pod_state *state;
	struct st_pod *pod;

	if (socket->record_live) {
		socket->record_live = 0;
		key.scope = socket->record_scope;
		key.client_sequence = socket->client_sequence;
		key.server_sequence = socket->server_sequence;
		st_record_drop(&key, netns_cookie);
	}
	if (!socket->client.counted)
		return;
	socket->client.counted = 0;
	bpf_map_delete_elem(&st_redirected, &cookie);
	state = bpf_map_lookup_elem(&st_pod_state, &netns_cookie);
	if (state) {
		pod = bpf_map_lookup_elem(&st_pods, &netns_cookie);
		st_budget_close(&state->budget[socket->budget_index & (2 * ST_MAX_LISTENERS - 1)],
				pod ? st_budget_epoch(pod, bpf_ktime_get_ns()) : 0);
	}
	st_tell_redirected(ctx, sk, socket, old);
}

/* A socket that is watched is closed. Returns whether a row of st_pairs may name it. */
static __always_inline int st_on_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u32 old)
{
	struct st_socket *socket = bpf_sk_storage_get(&st_sockets, sk, 0, 0);
	struct st_observed *row;
	struct tcp_sock *tp;
	struct st_flow *flow;
	__u64 cookie;
	int paired;

	if (socket) {
		if (socket->role == ST_ROLE_REDIRECTED)
			st_on_closed_redirected(ctx, sk, socket, old);
		return socket->role != ST_ROLE_REDIRECTED || socket->client.paired;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	row = tp ? st_find_observed(tp) : 0;
	if (!row)
		return 1;
	cookie = st_known_cookie(tp);
	paired = row->client.paired;
	flow = st_begin_flow(ctx, sk, &row->client, ST_PATH_DIRECT, old);
	if (flow)
		st_end_flow(flow);
	bpf_map_delete_elem(&st_observed, &cookie);
	return paired;
}

SEC("sockops")
int st_sockops(struct bpf_sock_ops *ctx)
{
	volatile __u32 op = ctx->op;
	struct bpf_sock *sk = ctx->sk;
	struct st_socket *socket;
	__u32 old;

	if (!sk)
		return ST_SOCKOPS_DONE;
	switch (op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		st_leave_fast_path(ctx, sk);
		st_on_connecting(ctx, sk);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		socket = bpf_sk_storage_get(&st_sockets, sk, 0, 0);
		st_on_active(ctx, socket);
		st_pair_active(ctx, sk, socket);
		st_show_redirected(sk, socket);
		st_tune(ctx, sk, socket);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		st_on_passive(ctx, sk);
		st_pair_passive(ctx, sk);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		st_leave_fast_path(ctx, sk);
		st_on_listen(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		old = ctx->args[0];
		if (ctx->args[1] != BPF_TCP_CLOSE)
			break;
		if (old == BPF_TCP_LISTEN) {
			st_on_listener_closed(ctx);
			break;
		}
		if (st_on_closed(ctx, sk, old))
			st_pair_closed(ctx, sk, old);
		break;
	default:
		break;
	}
	return ST_SOCKOPS_DONE;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
