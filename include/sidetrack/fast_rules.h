/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rules of the fast path: when bytes may skip TCP. Pure functions for the BPF programs, the
 * unit tests and the model check (tests/unit/fast_model_test.cpp); the caller gathers the facts.
 * Why each rule is there: docs/fast-path.md.
 */
#ifndef SIDETRACK_FAST_RULES_H
#define SIDETRACK_FAST_RULES_H

#include "sidetrack/abi/fast.h"

/* TCP states (include/net/tcp_states.h). */
enum { ST_TCP_ESTABLISHED = 1, ST_TCP_CLOSE = 7, ST_TCP_CLOSE_WAIT = 8 };

/* What a look at the sending socket found. */
struct st_sender {
  __u32 write_seq;
  __u8 state;
  __u8 error;     /* sk_err is set */
  __u8 shut_down; /* in any direction */
  __u8 ulp;
  __u8 zerocopy;
};

/* What a look at a reading socket found. */
struct st_reader {
  __u64 cookie;
  __u32 copied_seq;
  __u32 queued; /* bytes of memory: sk_rmem_alloc */
  __u32 receive_buffer;
  __u32 behind; /* the same, that bytes of TCP may need which it has promised to take */
  __u8 state;
  __u8 shut_down;
  __u8 adopted; /* it has a queue for redirected bytes */
  __u8 queue_empty;
  __u8 locked; /* a thread is inside a call on it */
  __u8 nonblocking;
  __u8 ulp;
  __u8 low_water;  /* SO_RCVLOWAT above 1 */
  __u8 peek_off;   /* SO_PEEK_OFF */
  __u8 timestamps; /* SO_TIMESTAMP and its kind */
  __u8 inq;        /* TCP_INQ */
  __u8 memory_low; /* its memory cgroup, or tcp_mem, is nearly used up */
};

/* TCP -> FAST: every byte that was ever queued on TCP has been read. Asked on each message, also
 * while FAST. */
static inline int st_all_read(__u32 write_seq, __u32 copied_seq) {
  return write_seq == copied_seq;
}

/* The way to a reader is armed by the first message that comes late enough after both insertions
 * (`arm_ns`, 0 = one is missing) and finds that the reader has read since: a recv() that chose TCP
 * before has ended then. */
static inline int st_may_arm(__u64 arm_ns, __u64 now_ns, __u32 copied_then, __u32 copied_seq) {
  return arm_ns && now_ns >= arm_ns && copied_seq != copied_then;
}

/* A disarmed sender goes on past TCP until it finds the queue empty. So a reader may leave only if
 * the queue was seen empty at a moment when no sender had anything to bring: none in a call before
 * it, none after it, and none that came and went between. Each step asks for one fact, in this
 * order, and all must pass. */
enum st_drain_fact {
  ST_DRAIN_BROUGHT, /* bytes that its senders have decided to bring past TCP, ever */
  ST_DRAIN_SENDING, /* a sender is in a call */
  ST_DRAIN_WAITING, /* bytes wait past TCP */
};
enum { ST_DRAIN_STEPS = 5 };

static inline enum st_drain_fact st_drain_asks(int step) {
  if (step == 2)
    return ST_DRAIN_WAITING;
  return step == 1 || step == 3 ? ST_DRAIN_SENDING : ST_DRAIN_BROUGHT;
}

/* `brought`: what the first step was told. */
static inline int st_drain_passes(int step, __u64 fact, __u64 brought) {
  return st_drain_asks(step) == ST_DRAIN_BROUGHT ? fact == brought : !fact;
}

/* Handoff: everything that the sender ever gave to the engine has left it again. `forwarded` is
 * counted by the engine after send() returned; `first` is the sender's first sequence number,
 * `redirected` what it sent to the engine past TCP. */
static inline int st_relay_empty(__u32 forwarded, __u32 write_seq, __u32 first, __u32 redirected) {
  return forwarded == write_seq - first + redirected;
}

/* The memory for what TCP can still be sent: at most what the reader has offered, a byte of which
 * may cost two, and at most what the sender of it can hold: skbs keep their size on their way. */
static inline __u32 st_memory_behind(__u32 offered, __u32 send_memory) {
  return offered < send_memory / 2 ? 2 * offered : send_memory;
}

/* What waits past TCP counts in the reader's buffer, too. It leaves room for what TCP has promised
 * to take: a segment that finds none is dropped, and comes again only by the sender's timer. And it
 * takes half at most: else TCP's window closes, and no read of what skipped TCP would open it. The
 * agent makes the buffers of adopted readers large enough, unless the application has set its size
 * (docs/adr/0014). */
static inline __u32 st_window_of(__u32 configured, int charges_reader,
                                 const struct st_reader* reader) {
  __u32 behind = reader->behind;
  __u32 room = reader->receive_buffer > behind ? reader->receive_buffer - behind : 0;

  if (!charges_reader)
    return configured;
  if (room > reader->receive_buffer / 2)
    room = reader->receive_buffer / 2;
  return room < configured ? room : configured;
}

/* What waits for the reader, with one message more: `messages` and `bytes` were redirected since
 * its queue was last seen empty. */
static inline enum st_fast_reason st_room(const struct st_reader* reader, __u32 size, __u32 window,
                                          int charges_reader, __u32 messages, __u32 bytes) {
  __u32 waiting = charges_reader ? reader->queued : (reader->queue_empty ? 0 : bytes);

  if (size > window || waiting > window - size)
    return ST_FAST_WINDOW;
  if (!reader->queue_empty && messages >= ST_FAST_MESSAGES)
    return ST_FAST_TOO_MANY;
  return reader->memory_low ? ST_FAST_MEMORY : ST_FAST_NONE;
}

/* Errors and EPIPE must come from TCP, and so must what only TCP can do. */
static inline enum st_fast_reason st_sender_allows(const struct st_sender* sender) {
  if (sender->state != ST_TCP_ESTABLISHED || sender->error || sender->shut_down)
    return ST_FAST_STATE;
  if (sender->ulp)
    return ST_FAST_ULP;
  return sender->zerocopy ? ST_FAST_ZEROCOPY : ST_FAST_NONE;
}

static inline enum st_fast_reason st_reader_allows(const struct st_reader* reader, __u64 cookie) {
  if (reader->cookie != cookie || !reader->adopted)
    return ST_FAST_PEER_GONE;
  if (reader->state != ST_TCP_ESTABLISHED || reader->shut_down)
    return ST_FAST_STATE;
  if (!reader->nonblocking)
    return ST_FAST_BLOCKING;
  if (reader->ulp)
    return ST_FAST_ULP;
  if (reader->low_water)
    return ST_FAST_LOWAT;
  if (reader->peek_off)
    return ST_FAST_PEEK_OFF;
  if (reader->timestamps)
    return ST_FAST_TIMESTAMPS;
  if (reader->inq)
    return ST_FAST_INQ;
  /* Redirecting takes the reader's lock: a reader that page-faults would hold the sender. */
  return reader->locked ? ST_FAST_READER_BUSY : ST_FAST_NONE;
}

/* After splice met bytes past TCP: no byte may come by TCP behind them. Where none would come, TCP
 * says why. */
static inline int st_tcp_would_send(const struct st_sender* sender) {
  return !sender->error &&
         (sender->state == ST_TCP_ESTABLISHED || sender->state == ST_TCP_CLOSE_WAIT);
}

static inline int st_may_read_on(__u8 state) {
  return state != ST_TCP_CLOSE;
}

/* A switch by policy waits until the reader's queue is empty: with bytes in both queues a MSG_PEEK
 * reader never sees the second. */
static inline int st_denied_now(__u8 denied, const struct st_reader* reader) {
  return denied == ST_FAST_CONFLICT || (denied != ST_FAST_NONE && reader->queue_empty);
}

/* A FIN waits as long as bytes of both kinds wait at its reader: some past TCP, and behind them
 * some of TCP, which end at the FIN's own number. The reader gets them with two calls, and must not
 * know of the end at the first. */
static inline int st_fin_waits(int queue_empty, __u32 fin_seq, __u32 copied_seq) {
  return !queue_empty && fin_seq != copied_seq;
}

/* What limits how often TCP tries to send a FIN that is refused (tcp_probe_timer() and
 * tcp_orphan_retries() in net/ipv4/tcp_timer.c). */
struct st_fin_limits {
  __u32 orphan_retries;  /* sysctl tcp_orphan_retries; 0 = 8 */
  __u32 retries;         /* tcp_retries2 */
  __u32 rto_max_ms;      /* tcp_rto_max_ms; 0 = older kernels: two minutes */
  __u32 user_timeout_ms; /* TCP_USER_TIMEOUT; 0 = none */
};

/* How long a FIN may wait, in ns. TCP tries after 200 ms at least, then after twice the time of the
 * last, and gives up, which nobody is told, after so many tries, when they are as far apart as they
 * may be, or when TCP_USER_TIMEOUT is over. The last one must pass, also for a reader that does not
 * read at all. */
static inline __u64 st_fin_patience(const struct st_fin_limits* limits) {
  __u32 tries = 8;
  __u64 patience_ms;

  if (limits->orphan_retries && limits->orphan_retries < tries)
    tries = limits->orphan_retries;
  if (limits->retries < tries)
    tries = limits->retries;
  while (tries && limits->rto_max_ms && (200U << tries) >= limits->rto_max_ms)
    tries--;
  /* The last try is not before 200 * (2^tries - 1). */
  patience_ms = 95 * ((1U << tries) - 1);
  if (limits->user_timeout_ms && limits->user_timeout_ms / 2 < patience_ms)
    patience_ms = limits->user_timeout_ms / 2;
  return patience_ms * 1000000;
}

static inline int st_pod_takes_part(const struct st_pod* pod) {
  return pod && pod->mode != ST_MODE_DISABLED && pod->fast_path != ST_FAST_PATH_OFF;
}

/* May a socket of pod `a` send past TCP to one of pod `b`? */
static inline enum st_fast_reason st_pods_allow(const struct st_pod* a, const struct st_pod* b) {
  if (!st_pod_takes_part(a) || !st_pod_takes_part(b))
    return ST_FAST_POD_OFF;
  if (a->namespace_slot && a->namespace_slot == b->namespace_slot)
    return ST_FAST_NONE;
  return a->fast_path == ST_FAST_PATH_NODE && b->fast_path == ST_FAST_PATH_NODE
             ? ST_FAST_NONE
             : ST_FAST_OTHER_NAMESPACE;
}

/* Why nothing of an established connection has skipped TCP (enum st_fast_reason). `pair`: its row,
 * 0 = none. */
static inline __u8 st_why_on_tcp(const struct st_client* client, const struct st_pair* pair) {
  if (client->paired) {
    if (!pair || !pair->end[ST_SIDE_SERVER].cookie)
      return ST_FAST_NO_PEER;
    if (pair->against)
      return pair->against;
    return ST_FAST_YOUNG;
  }
  if (client->fast_path == ST_FAST_PATH_OFF)
    return ST_FAST_POD_OFF;
  if (client->unpaired)
    return client->unpaired;
  return ST_FAST_NODE_OFF;
}

/* Whether it says why a connection is on TCP: that it closes does not, nor that an engine sends. */
static inline int st_is_why_on_tcp(enum st_fast_reason reason) {
  return reason != ST_FAST_NONE && reason != ST_FAST_GONE && reason != ST_FAST_STATE &&
         reason != ST_FAST_ENGINE_SENDS;
}

/* Whether this end of a pair is an engine's socket. */
static inline int st_is_engine_end(__u8 kind, __u8 side) {
  return kind == ST_PAIR_TO_ENGINE ? side == ST_SIDE_SERVER
                                   : kind == ST_PAIR_FROM_ENGINE && side == ST_SIDE_CLIENT;
}

#endif
