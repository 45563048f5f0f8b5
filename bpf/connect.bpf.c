// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* cgroup/connect4, cgroup/connect6: the verdict on each connect() and, for `redirected`, the
 * rewrite to the engine. */
#include "lib/choose.h"
#include "lib/flow_ring.h"
#include "lib/rules.h"

/* What the hook does; the first two are its return values. */
enum st_connect_answer { ST_CONNECT_REFUSE, ST_CONNECT_ALLOW, ST_CONNECT_REWRITE };

static __always_inline void st_read_rules(void *context, struct st_rules *rules)
{
	struct st_attempt *attempt = context;

	st_find_rules(attempt->pod, &attempt->connect.destination, attempt->port, rules);
}

/* Reports a netns that has no row to the agent, once. */
static __always_inline void st_report_unknown(__u64 netns_cookie)
{
	__u8 seen = 1;

	if (bpf_map_lookup_elem(&st_seen, &netns_cookie))
		return;
	if (!bpf_map_update_elem(&st_seen, &netns_cookie, &seen, BPF_NOEXIST))
		st_send_event(ST_EVENT_UNKNOWN_NETNS, netns_cookie, 0);
}

static __always_inline void st_describe(const struct st_attempt *attempt, __u8 reason,
					struct st_client *client)
{
	client->destination = attempt->connect.destination;
	client->port_be = bpf_htons(attempt->port);
	client->netns_cookie = attempt->netns_cookie;
	client->start_ns = bpf_ktime_get_ns();
	client->namespace_slot = attempt->pod->namespace_slot;
	client->fast_path = attempt->pod->fast_path;
	client->reason = reason;
}

/* Remembers what the application asked for. 0 = no storage to be had. */
static __always_inline int st_remember_redirected(struct st_attempt *attempt)
{
	const struct st_pod *pod = attempt->pod;
	struct st_socket *state =
		bpf_sk_storage_get(&st_sockets, attempt->ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!state)
		return 0;
	__builtin_memset(state, 0, sizeof(*state));
	st_describe(attempt, ST_REASON_REDIRECTED, &state->client);
	state->own = st_addr_is_v4(&attempt->connect.destination) ? pod->own_v4 : pod->own_v6;
	state->budget_index = attempt->choice.budget_index;
	state->record_scope = pod->external ? 0 : attempt->netns_cookie;
	state->client_cookie = bpf_get_socket_cookie(attempt->ctx);
	state->role = ST_ROLE_REDIRECTED;
	return 1;
}

static __always_inline void st_remember_observed(struct st_attempt *attempt, __u8 reason)
{
	__u64 cookie = bpf_get_socket_cookie(attempt->ctx);
	struct st_observed row = {};

	st_describe(attempt, reason, &row.client);
	bpf_map_update_elem(&st_observed, &cookie, &row, BPF_ANY);
}

/* What an earlier connect() of this socket left would be taken for this one's. Written over, it
 * would count as used: who connects twice in vain could evict rows of live connections. */
static __always_inline void st_forget_observed(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	__u64 cookie = tp ? st_known_cookie(tp) : 0;

	if (cookie)
		bpf_map_delete_elem(&st_observed, &cookie);
}

/* The facts that only a pod in mode redirect needs: each costs a read of the socket. */
static __always_inline void st_read_socket(struct st_attempt *attempt)
{
	struct bpf_sock *sk = attempt->ctx->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : 0;

	if (!tp)
		return;
	attempt->connect.bound_device = sk->bound_dev_if != 0;
	attempt->connect.transparent = st_is_transparent(tp);
	attempt->connect.mptcp = st_is_mptcp(tp);
	attempt->connect.shared_port = st_has_shared_port(tp);
	if (sk->family == ST_AF_INET) {
		if (sk->src_ip4)
			st_addr_from_v4(&attempt->connect.bound_source, sk->src_ip4);
	} else {
		__u32 words[4] = {sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]};

		__builtin_memcpy(&attempt->connect.bound_source, words, sizeof(words));
	}
}

static __always_inline enum st_reason st_settle(struct st_attempt *attempt, enum st_reason reason)
{
	const struct st_pod *pod = attempt->pod;
	struct st_counters *counters;

	st_forget_observed(attempt->ctx->sk);
	if (pod && st_is_observed(reason, &attempt->connect, pod, st_read_rules, attempt))
		st_remember_observed(attempt, reason);
	if (reason == ST_REASON_REDIRECTED) {
		if (st_remember_redirected(attempt))
			return reason;
		counters = st_get_counters(pod->namespace_slot);
		if (counters)
			counters->storage_full++;
		return pod->on_engine_loss == ST_ON_ENGINE_LOSS_CLOSED
			       ? ST_REASON_ENGINE_DOWN_CLOSED
			       : ST_REASON_INTERNAL_ERROR;
	}
	bpf_sk_storage_delete(&st_sockets, attempt->ctx->sk);
	return reason;
}

/* The verdict for `attempt->connect.destination` and `port`, counted. */
static __always_inline enum st_reason st_on_connect(struct st_attempt *attempt)
{
	struct bpf_sock_addr *ctx = attempt->ctx;
	volatile __u32 protocol = ctx->protocol;
	enum st_reason reason;
	__u32 zero = 0;
	__u32 *bypass;

	if (protocol != ST_IPPROTO_TCP || !ctx->sk) {
		st_count(st_slot_of(bpf_get_netns_cookie(ctx)), ST_REASON_NOT_TCP);
		return ST_REASON_NOT_TCP;
	}
	bypass = bpf_map_lookup_elem(&st_bypass, &zero);
	attempt->connect.tcp = 1;
	attempt->connect.bypass = bypass && *bypass;
	attempt->netns_cookie = bpf_get_netns_cookie(ctx);
	attempt->pod = bpf_map_lookup_elem(&st_pods, &attempt->netns_cookie);
	attempt->config = st_get_config();
	if (!attempt->config)
		return ST_REASON_INTERNAL_ERROR;
	if (attempt->pod && attempt->pod->mode != ST_MODE_DISABLED) {
		attempt->connect.engine_socket =
			st_is_engine_cgroup(attempt->config, bpf_get_current_cgroup_id());
		attempt->connect.engine_address = st_is_engine_at(
			attempt->config, &attempt->connect.destination, bpf_htons(attempt->port));
		if (attempt->pod->mode == ST_MODE_REDIRECT && !attempt->connect.engine_socket)
			st_read_socket(attempt);
	}
	reason = st_settle(attempt, st_decide(&attempt->connect, attempt->pod, st_read_rules,
					      st_read_engine, attempt));
	if (reason == ST_REASON_UNKNOWN_NETNS)
		st_report_unknown(attempt->netns_cookie);
	st_count(attempt->pod ? attempt->pod->namespace_slot : 0, reason);
	return reason;
}

/* The kernel's own answer to a refused hook is EPERM; an application knows ECONNREFUSED. Before
 * bpf_set_retval (5.18) the pod itself has to say so: nobody listens on port 0 of its loopback.
 * Returns whether that is where the connection is to go. */
static __always_inline int st_refuse(struct st_attempt *attempt)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_set_retval)) {
		bpf_set_retval(-ST_ECONNREFUSED);
		return 0;
	}
	st_aim_at_loopback(attempt);
	attempt->target.port_be = 0;
	return 1;
}

/* The flow record of a connection that is refused here: it never gets as far as sockops. One
 * thread can be refused as fast as it asks: that is not to take the room of the others. */
static __always_inline void st_tell_refused(const struct st_attempt *attempt, __u8 reason)
{
	struct st_flow *flow;

	if (!attempt->pod)
		return;
	if (st_many_flows_wait()) {
		st_drop_flow(attempt->pod->namespace_slot);
		return;
	}
	flow = st_reserve_flow(attempt->pod->namespace_slot);
	if (!flow)
		return;
	flow->netns_cookie = attempt->netns_cookie;
	flow->start_ns = bpf_ktime_get_ns();
	flow->end_ns = flow->start_ns;
	flow->destination = attempt->connect.destination;
	flow->destination_port_be = bpf_htons(attempt->port);
	flow->reason = reason;
	flow->close = ST_CLOSE_REFUSED;
	st_end_flow(flow);
}

static __always_inline enum st_connect_answer st_answer(struct st_attempt *attempt)
{
	enum st_reason reason = st_on_connect(attempt);

	if (st_verdict_of(reason) == ST_VERDICT_refused) {
		st_tell_refused(attempt, reason);
		return st_refuse(attempt) ? ST_CONNECT_REWRITE : ST_CONNECT_REFUSE;
	}
	return reason == ST_REASON_REDIRECTED ? ST_CONNECT_REWRITE : ST_CONNECT_ALLOW;
}

SEC("cgroup/connect4")
int st_connect4(struct bpf_sock_addr *ctx)
{
	volatile __u32 port_be = ctx->user_port;
	struct st_attempt attempt = {.ctx = ctx, .port = bpf_ntohs(port_be)};
	enum st_connect_answer answer;

	st_addr_from_v4(&attempt.connect.destination, ctx->user_ip4);
	answer = st_answer(&attempt);
	if (answer == ST_CONNECT_REWRITE) {
		ctx->user_ip4 = st_addr_to_v4(&attempt.target.addr);
		ctx->user_port = attempt.target.port_be;
	}
	return answer != ST_CONNECT_REFUSE;
}

SEC("cgroup/connect6")
int st_connect6(struct bpf_sock_addr *ctx)
{
	volatile __u32 port_be = ctx->user_port;
	struct st_attempt attempt = {.ctx = ctx, .port = bpf_ntohs(port_be)};
	enum st_connect_answer answer;
	__u32 words[4];

	/* One word at a time: the compiler must not merge the reads, the verifier refuses wider
	 * ones. */
	words[0] = ctx->user_ip6[0];
	barrier();
	words[1] = ctx->user_ip6[1];
	barrier();
	words[2] = ctx->user_ip6[2];
	barrier();
	words[3] = ctx->user_ip6[3];
	__builtin_memcpy(&attempt.connect.destination, words, sizeof(words));
	answer = st_answer(&attempt);
	if (answer == ST_CONNECT_REWRITE) {
		__builtin_memcpy(words, &attempt.target.addr, sizeof(words));
		ctx->user_ip6[0] = words[0];
		barrier();
		ctx->user_ip6[1] = words[1];
		barrier();
		ctx->user_ip6[2] = words[2];
		barrier();
		ctx->user_ip6[3] = words[3];
		ctx->user_port = attempt.target.port_be;
	}
	return answer != ST_CONNECT_REFUSE;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
