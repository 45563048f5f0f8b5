// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sk_msg: where one send() of an adopted socket goes: to its peer past TCP, past the engine to the
 * far end of a relay, or over TCP. Runs under the sender's lock. Two programs, the same code: the
 * agent loads the one that this kernel can run.
 */
#include "lib/peek.h"

/* One message while it is decided. */
struct st_sending {
	struct sk_msg_md *msg;
	struct st_fast *fast;
	const struct st_fast_config *config;
	struct st_sender sender;
	struct st_reader reader;
};

/* May `a` send fast to `b`, by what the agent and the sentinel say? */
static __always_inline __u8 st_ask_policy(const struct st_fast_config *config,
					  const struct st_fast *fast, __u64 reader_netns,
					  __u64 reader_cookie, int reader_is_engine)
{
	__u64 own_netns = fast->netns_cookie;
	struct st_pod_state *state;
	struct st_mark *mark;
	enum st_fast_reason reason;
	struct st_pod *own, *peer;

	/* First: a conflict must not be taken for the demotion that comes with it. */
	mark = bpf_map_lookup_elem(&st_kept_marks, &reader_cookie);
	if (!mark)
		mark = bpf_map_lookup_elem(&st_marks, &reader_cookie);
	if (mark)
		return mark->reason;
	if (!config->enabled)
		return ST_FAST_NODE_OFF;
	own = bpf_map_lookup_elem(&st_pods, &own_netns);
	peer = reader_is_engine ? own : bpf_map_lookup_elem(&st_pods, &reader_netns);
	reason = st_pods_allow(own, peer);
	if (reason)
		return reason;
	state = bpf_map_lookup_elem(&st_pod_state, &own_netns);
	if (state && state->demoted)
		return state->demoted;
	state = bpf_map_lookup_elem(&st_pod_state, &reader_netns);
	return state ? state->demoted : ST_FAST_NONE;
}

/* Policy is asked again only when something has changed since. The generation is read first: a
 * change during the look raises it again. */
static __always_inline int st_refresh_policy(struct st_sending *sending)
{
	struct st_fast_generation *generation = st_get_generation();
	struct st_fast *fast = sending->fast;
	__u64 now;

	if (!generation)
		return 0;
	now = *(volatile __u64 *)&generation->value;
	if (fast->generation == now)
		return 1;
	fast->denied = st_ask_policy(sending->config, fast, fast->peer_netns_cookie,
				     fast->peer.cookie, st_is_engine_end(fast->kind, !fast->side));
	if (fast->linked)
		fast->far_denied = st_ask_policy(sending->config, fast, fast->far_netns_cookie,
						 fast->far.cookie, 0);
	fast->generation = now;
	return 1;
}

static __always_inline int st_is_armed(__u8 *armed, __u64 arm_ns, __u32 copied_then,
				       const struct st_reader *reader)
{
	if (*armed)
		return 1;
	if (!st_may_arm(arm_ns, bpf_ktime_get_ns(), copied_then, reader->copied_seq))
		return 0;
	*armed = 1;
	return 1;
}

/* One message in a while goes by TCP, and all do while the agent is away. */
static __always_inline enum st_fast_reason st_check_clocks(struct st_fast *fast)
{
	struct st_fast_generation *cell = st_get_generation();
	__u64 now = bpf_ktime_get_coarse_ns();

	if (cell && cell->beat_ns && now > cell->beat_ns + ST_FAST_AWAY_NS)
		return ST_FAST_AGENT_AWAY;
	if (now - fast->tcp_ns < ST_FAST_REFRESH_NS)
		return ST_FAST_NONE;
	fast->tcp_ns = now;
	return ST_FAST_REFRESH;
}

static __always_inline enum st_fast_reason st_check_reader(struct st_sending *sending, __u64 cookie,
							   __u8 denied, __u32 write_seq)
{
	const struct st_reader *reader = &sending->reader;
	struct st_fast *fast = sending->fast;
	enum st_fast_reason reason;

	reason = st_reader_allows(reader, cookie);
	if (reason)
		return reason;
	if (fast->released && reader->queue_empty)
		return ST_FAST_UNARMED;
	if (st_denied_now(denied, reader))
		return denied;
	if (!st_all_read(write_seq, reader->copied_seq))
		return ST_FAST_UNREAD;
	if (reader->queue_empty) {
		reason = st_check_clocks(fast);
		if (reason)
			return reason;
	}
	if (reader->queue_empty) {
		fast->messages = 0;
		fast->bytes = 0;
	}
	return st_room(
		reader, sending->msg->size,
		st_window_of(sending->config->window, sending->config->charges_reader, reader),
		sending->config->charges_reader, fast->messages, fast->bytes);
}

/* The message goes by TCP, for whatever reason. If others wait past it for the same reader, one
 * that watches edges and takes a short read for "drained" would not come back for it: the agent
 * looks after that. */
static __always_inline void st_owe(const int cast, const struct st_fast *fast)
{
	struct sock *reader = ST_CAST(cast, struct sock, fast->peer.sock);
	struct st_pair_key key = fast->key;
	__u32 side = fast->side & 1;
	struct st_pair *pair;
	__u64 psock;

	if ((__u64)ST_READ(cast, reader, __sk_common.skc_cookie.counter) != fast->peer.cookie)
		return;
	psock = st_psock_of(cast, reader);
	if (!psock || st_queue_is_empty(cast, psock))
		return;
	pair = bpf_map_lookup_elem(&st_pairs, &key);
	if (!pair || pair->owed[side])
		return;
	pair->owed[side] = 1;
	if (!st_send_event(ST_EVENT_OWED, fast->peer_netns_cookie, fast->peer.cookie))
		st_raise_generation(); /* the agent then looks for debts itself */
}

/* Why, for whoever asks: as long as nothing has skipped TCP. */
static __always_inline void st_note_refused(const struct st_fast *fast, enum st_fast_reason reason)
{
	struct st_pair_key key = fast->linked ? fast->client_key : fast->key;
	struct st_pair *pair;

	if (fast->sent || !st_is_why_on_tcp(reason))
		return;
	pair = bpf_map_lookup_elem(&st_pairs, &key);
	if (pair && pair->against != reason)
		pair->against = reason;
}

static __always_inline int st_redirect(struct st_sending *sending, __u64 cookie)
{
	if (bpf_msg_redirect_hash(sending->msg, &st_adopted, &cookie, BPF_F_INGRESS) != SK_PASS)
		return 0;
	sending->fast->messages++;
	sending->fast->bytes += sending->msg->size;
	return 1;
}

/* Counts bytes in the pair whose client's flow record will tell them. */
static __always_inline void st_count_bytes(const struct st_fast *fast, struct st_pair_key key,
					   __u32 size, int handoff)
{
	struct st_fast_counters *counters = st_get_fast_counters();
	struct st_pair *pair = bpf_map_lookup_elem(&st_pairs, &key);
	__u32 side = fast->side & 1;

	if (pair && handoff)
		__sync_fetch_and_add(&pair->handoff_bytes[side], size);
	else if (pair)
		__sync_fetch_and_add(&pair->fast_bytes[side], size);
	if (!counters)
		return;
	if (handoff)
		counters->handoffs++;
	else
		counters->messages++;
}

/* The first sequence number of what it has sent. */
static __always_inline __u32 st_first_of(const struct st_fast *fast)
{
	return fast->side == ST_SIDE_CLIENT ? fast->key.client_first : fast->key.server_first;
}

/* Past the engine, if nothing of this sender is inside it. */
static __always_inline enum st_fast_reason st_try_handoff(const int cast,
							  struct st_sending *sending)
{
	struct st_fast *fast = sending->fast;
	const struct st_sender *sender = &sending->sender;
	__u32 slot = fast->slot;
	struct tcp_sock *leg_tp;
	struct sock *leg;
	__u32 leg_write_seq;
	enum st_fast_reason reason;
	volatile __u64 *forwarded;

	/* First of all: what else is read is then newer than this. */
	forwarded = bpf_map_lookup_elem(&st_slots, &slot);
	if (!forwarded)
		return ST_FAST_INTERNAL;
	if (!st_relay_empty(*forwarded, sender->write_seq, st_first_of(fast), fast->sent))
		return ST_FAST_RELAY_BUSY;
	barrier();
	leg = ST_CAST(cast, struct sock, fast->leg.sock);
	leg_tp = ST_CAST(cast, struct tcp_sock, fast->leg.sock);
	leg_write_seq = ST_READ(cast, leg_tp, write_seq);
	if (ST_READ(cast, leg, __sk_common.skc_state) != ST_TCP_ESTABLISHED ||
	    (__u64)ST_READ(cast, leg, __sk_common.skc_cookie.counter) != fast->leg.cookie)
		return ST_FAST_RELAY_GONE;
	st_look_at_reader(cast, fast->far.sock, sending->msg->size, st_send_memory(cast, leg),
			  &sending->reader);
	if (!st_is_armed(&fast->far_armed, fast->far_arm_ns, fast->far_copied, &sending->reader))
		return ST_FAST_UNARMED;
	reason = st_check_reader(sending, fast->far.cookie, fast->far_denied, leg_write_seq);
	if (reason)
		return reason;
	return st_redirect(sending, fast->far.cookie) ? ST_FAST_NONE : ST_FAST_PEER_GONE;
}

static __always_inline enum st_fast_reason st_try_peer(struct st_sending *sending)
{
	struct st_fast *fast = sending->fast;
	enum st_fast_reason reason;

	reason = st_check_reader(sending, fast->peer.cookie, fast->denied,
				 sending->sender.write_seq);
	if (reason)
		return reason;
	if (!st_redirect(sending, fast->peer.cookie))
		return ST_FAST_PEER_GONE;
	fast->sent += sending->msg->size;
	return ST_FAST_NONE;
}

/* Before all else that is asked of others: the answers must be as of now. */
static __always_inline void st_be_patient(const int cast, struct st_sending *sending)
{
	struct st_fast *fast = sending->fast;
	const struct st_sender *sender = &sending->sender;
	__u32 slot = fast->slot;
	__u64 reader = fast->peer.sock;
	__u32 write_seq = sender->write_seq;
	volatile __u64 *forwarded;
	struct tcp_sock *leg;

	if (fast->linked) {
		forwarded = bpf_map_lookup_elem(&st_slots, &slot);
		if (!fast->far_armed || !forwarded ||
		    !st_relay_empty(*forwarded, write_seq, st_first_of(fast), fast->sent))
			return;
		reader = fast->far.sock;
		leg = ST_CAST(cast, struct tcp_sock, fast->leg.sock);
		write_seq = ST_READ(cast, leg, write_seq);
	} else if (!fast->armed || fast->denied) {
		return;
	}
	st_wait_for_reader(cast, reader, sending->msg->size, write_seq);
}

static __always_inline int st_met_splice(const int cast, __u8 denied, const struct st_far *reader)
{
	struct sock *sk = ST_CAST(cast, struct sock, reader->sock);

	return denied == ST_FAST_CONFLICT &&
	       (__u64)ST_READ(cast, sk, __sk_common.skc_cookie.counter) == reader->cookie &&
	       st_may_read_on(ST_READ(cast, sk, __sk_common.skc_state));
}

/* Whether TCP would bring this message to a reader that splices past others. */
static __always_inline int st_is_in_conflict(const int cast, const struct st_sending *sending)
{
	const struct st_fast *fast = sending->fast;

	return st_tcp_would_send(&sending->sender) &&
	       (st_met_splice(cast, fast->denied, &fast->peer) ||
		(fast->linked && st_met_splice(cast, fast->far_denied, &fast->far)));
}

static __always_inline enum st_fast_reason st_decide_message(const int cast,
							     struct st_sending *sending)
{
	struct st_fast *fast = sending->fast;
	enum st_fast_reason reason;
	struct tcp_sock *tp;

	tp = bpf_skc_to_tcp_sock(sending->msg->sk);
	sending->config = st_get_fast_config();
	if (!tp || !sending->config)
		return ST_FAST_INTERNAL;
	st_look_at_sender(tp, &sending->sender);
	reason = st_is_engine_end(fast->kind, fast->side) ? ST_FAST_ENGINE_SENDS
							  : st_sender_allows(&sending->sender);
	if (!reason)
		st_be_patient(cast, sending);
	if (!st_refresh_policy(sending))
		return ST_FAST_INTERNAL;
	/* Before all that would send it by TCP. */
	if (st_is_in_conflict(cast, sending))
		return ST_FAST_CONFLICT;
	if (reason)
		return reason;
	if (fast->linked) {
		reason = st_try_handoff(cast, sending);
		if (!reason) {
			st_count_bytes(fast, fast->client_key, sending->msg->size, 1);
			return ST_FAST_NONE;
		}
		st_count_refused(reason);
	}
	st_look_at_reader(cast, fast->peer.sock, sending->msg->size,
			  st_send_memory(cast, &tp->inet_conn.icsk_inet.sk), &sending->reader);
	if (!st_is_armed(&fast->armed, fast->arm_ns, fast->peer_copied, &sending->reader))
		return ST_FAST_UNARMED;
	reason = st_try_peer(sending);
	if (!reason)
		st_count_bytes(fast, fast->key, sending->msg->size, 0);
	return reason;
}

static __always_inline int st_on_message(const int cast, struct sk_msg_md *msg)
{
	struct st_sending sending = {.msg = msg};
	enum st_fast_reason reason;

	if (!msg->sk)
		return SK_PASS;
	sending.fast = bpf_sk_storage_get(&st_fast_sockets, msg->sk, 0, 0);
	if (!sending.fast)
		return SK_PASS;
	reason = st_decide_message(cast, &sending);
	if (!reason)
		return SK_PASS;
	st_count_refused(reason);
	st_note_refused(sending.fast, reason);
	st_owe(cast, sending.fast);
	/* Over TCP these bytes would be spliced before older ones: see abi/fast_path.def. */
	return reason == ST_FAST_CONFLICT ? SK_DROP : SK_PASS;
}

SEC("sk_msg")
int st_msg(struct sk_msg_md *msg)
{
	return st_on_message(1, msg);
}

SEC("sk_msg")
int st_msg_probe(struct sk_msg_md *msg)
{
	return st_on_message(0, msg);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
