/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of the maps of the fast path. Rules as in abi/types.h: append-only, no hidden
 * padding, host byte order.
 *
 * Words: a pair is the two sockets of one TCP connection when both are on this node, found by their
 * initial sequence numbers. An adopted socket is in the SOCKHASH st_adopted. A link is what an
 * engine declares of a connection that it relays byte for byte: client A -> (E_a, E_b) -> server B.
 */
#ifndef SIDETRACK_ABI_FAST_H
#define SIDETRACK_ABI_FAST_H

#include "sidetrack/abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ST_FAST_NONE: nothing is against it. */
enum st_fast_reason {
#define ST_FAST(NAME, name, text) ST_FAST_##NAME,
#include "sidetrack/abi/fast_path.def"
#undef ST_FAST
	ST_FAST_COUNT
};

enum {
	ST_MAX_PAIRS = 65536,	/* rows of st_pairs */
	ST_PAIR_QUOTA = 16384,	/* rows of st_pairs that one netns may hold */
	ST_MAX_ADOPTED = 65536, /* rows of st_adopted */
	ST_MAX_MARKS = 65536,	/* rows of st_marks */
	/* Redirected messages between two moments at which the reader's queue was empty: each costs
	 * about 1 KiB of kernel memory that no counter sees. */
	ST_FAST_MESSAGES = 512,
	ST_LINKS_PER_ENGINE = 8192,
};

/* From both insertions to the first byte that skips TCP: a recv() that chose TCP before has ended
 * by then. */
#define ST_FAST_ARM_NS 1000000000ULL
/* How often at least one message goes by TCP: traffic that skips it does not refresh conntrack. */
#define ST_FAST_REFRESH_NS 60000000000ULL

/* st_fast_config: one cell, written by the agent. */
struct st_fast_config {
	__u32 enabled;	     /* the node's switch: 0 = nothing new is redirected */
	__u32 window;	     /* bytes per direction */
	__u32 round_trips;   /* segments that each end must have received before it is adopted */
	__u8 loopback;	     /* pairs within one netns, too */
	__u8 charges_reader; /* this kernel counts redirected bytes in the reader's sk_rmem_alloc */
	__u8 reserved[2];
};
ST_STATIC_ASSERT(sizeof(struct st_fast_config) == 16, "st_fast_config");

/* st_fast_generation: one cell, mapped by the agent. Raised after each change of what may be
 * redirected (switch, label, demotion, mark); each sender then looks again. */
struct st_fast_generation {
	__u64 value;
	__u64 beat_ns; /* the agent's latest, CLOCK_MONOTONIC; 0 = nobody has ever beaten */
};
/* An agent that has not beaten for so long cannot look after readers (st_pair.owed): TCP until it
 * is back. */
#define ST_FAST_AWAY_NS 100000000ULL

/* st_pairs: st_pair_key (abi/types.h) -> the two ends. Both can work the key out at any time: what
 * is acknowledged minus how much that was. */
/* One end of a pair. `sock` is the kernel's address of it: it names a socket only together with the
 * cookie. */
struct st_pair_end {
	__u64 cookie;
	__u64 netns_cookie;
	__u64 sock;
};
enum st_pair_kind {
	ST_PAIR_DIRECT,	    /* application to application */
	ST_PAIR_TO_ENGINE,  /* the server's end is an engine's */
	ST_PAIR_FROM_ENGINE /* the client's end is an engine's */
};
enum st_pair_side { ST_SIDE_CLIENT, ST_SIDE_SERVER };
struct st_pair {
	struct st_pair_end end[2]; /* by enum st_pair_side; a server's cookie of 0 = not seen */
	__u64 fast_bytes[2];	   /* sent past TCP to the other end, by who sent */
	__u64 handoff_bytes[2];	   /* sent past the engine to the far end */
	__u8 kind;
	__u8 loopback; /* both ends are in one netns */
	__u8 owed[2];  /* by who sent: bytes went by TCP behind some that wait past it, and the
			  reader may  need to be told once more */
	__u8 against;  /* enum st_fast_reason: why nothing has skipped TCP, as the agent found, or
			  the latest message of an application; NONE = nobody has looked */
	__u8 held[2];  /* by who sent: its FIN waits until the reader has read what is past TCP */
	__u8 reserved;
};
ST_STATIC_ASSERT(sizeof(struct st_pair) == 88, "st_pair");

/* st_fast_sockets (SK_STORAGE): what an adopted socket needs to know of its peer. Written by the
 * adopting program before the socket is in st_adopted; after that by its own sender, under the
 * socket's lock, except for `released` and the link. */
struct st_far {
	__u64 cookie; /* 0 = none */
	__u64 sock;
};
struct st_fast {
	struct st_pair_key key;
	__u64 cookie;	    /* its own */
	__u64 netns_cookie; /* its own */
	struct st_far peer;
	__u64 peer_netns_cookie;
	__u64 generation;  /* `denied` is as of this one */
	__u64 arm_ns;	   /* CLOCK_MONOTONIC; 0 = its peer is not in yet */
	__u64 tcp_ns;	   /* when it last sent by TCP to refresh conntrack */
	__u64 sent;	   /* bytes redirected to `peer` (handed off ones are not in it), ever: from
			      st_pair.fast_bytes when it is put in again */
	__u32 peer_copied; /* the peer's copied_seq when both were in */
	__u32 messages;	   /* redirected since a reader's queue was seen empty */
	__u32 bytes;	   /* the same in bytes */
	__u8 side;	   /* enum st_pair_side */
	__u8 kind;	   /* enum st_pair_kind */
	__u8 armed;
	__u8 denied;   /* enum st_fast_reason: by policy */
	__u8 released; /* its readers are being taken out: it sends by TCP */
	__u8 linked;   /* the fields below hold */
	__u8 reserved[6];
	struct st_far leg; /* the engine's other socket */
	struct st_far far; /* who reads there */
	__u64 far_netns_cookie;
	struct st_pair_key client_key; /* of the link's client pair, where its bytes are counted */
	__u64 far_arm_ns;	       /* as arm_ns; 0 = the far end is not linked yet */
	__u32 far_copied;	       /* as peer_copied */
	__u32 slot;		       /* index into st_slots */
	__u8 far_armed;
	__u8 far_denied; /* enum st_fast_reason */
	__u8 reserved2[6];
};
ST_STATIC_ASSERT(sizeof(struct st_fast) == 176, "st_fast");

/* What st_nudge is told instead of a socket's cookie: this network namespace is about to go, and no
 * FIN in it waits any longer. */
#define ST_NUDGE_LET_GO (~0ULL)

/* st_slots (mapped by engines): bytes that the engine has forwarded in one direction, added after
 * its send() returned. Slot 2 * link = from the client, 2 * link + 1 = from the server. Links of
 * the engine in cell N of st_engines: N * ST_LINKS_PER_ENGINE and up. A link is used again only
 * after both sockets of its last one were closed. */
enum { ST_MAX_SLOTS = 2 * ST_MAX_ENGINES * ST_LINKS_PER_ENGINE };

/* st_fast_counters (per-CPU, one cell). */
struct st_fast_counters {
	__u64 refused[64]; /* by enum st_fast_reason: sockets that were looked at, and messages */
	__u64 messages;	   /* redirected to the peer */
	__u64 handoffs;	   /* redirected to the far end */
	__u64 paired;	   /* connections whose two ends were found */
	__u64 adopted;	   /* sockets */
	__u64 released;	   /* sockets that were taken out before their end */
};
ST_STATIC_ASSERT(ST_FAST_COUNT <= 64, "st_fast_counters.refused");

/* st_marks: socket cookie -> why it must not be a fast reader. */
struct st_mark {
	__u32 reason; /* enum st_fast_reason: MARKED, CONFLICT */
};

/* What the adopting program is asked for: the packet data of a BPF_PROG_TEST_RUN in the netns of
 * the socket, after ST_RUN_HEADER_BYTES. It returns an enum st_fast_reason. */
enum st_adopt_op {
	ST_ADOPT_FORGET,   /* its pair never found a server: the row goes */
	ST_ADOPT_LOOK,	   /* could it be adopted? */
	ST_ADOPT_INSERT,   /* put it in, unarmed */
	ST_ADOPT_ARM,	   /* both ends are in: it may send fast once its peer has read */
	ST_ADOPT_LINK,	   /* `leg`, `far` and `slot` are its link, unarmed */
	ST_ADOPT_ARM_LINK, /* both ends of the relay are linked: it may send to the far one once
			      that has read */
	ST_ADOPT_DISARM,   /* it sends by TCP from now on */
	ST_ADOPT_DRAINED, /* has it read all since it was owed a word? READER_BUSY = bytes wait past
			     TCP, FIN_WAITS = none do, and the sender's FIN can go, UNREAD = only
			     bytes of TCP do */
	ST_ADOPT_RELEASE, /* its senders are disarmed: take it out; READER_BUSY = bytes wait or are
			     on their way, ask again */
	ST_ADOPT_NOTE,	  /* `reason` is why its pair is not adopted: only shown */
};
struct st_adopt_request {
	__u32 op;
	__u32 slot;
	struct st_pair_key key;
	struct st_pair_key client_key;
	struct st_pair_end self;
	struct st_pair_end peer;
	struct st_far leg;
	struct st_pair_end far;
	__u8 side;
	__u8 kind;
	__u8 patient; /* RELEASE: READER_BUSY as well while others have not read what it sent */
	__u8 reason;  /* NOTE: enum st_fast_reason */
	__u8 if_none; /* NOTE: only where nobody has looked */
	__u8 reserved[3];
};
ST_STATIC_ASSERT(sizeof(struct st_adopt_request) == 120, "st_adopt_request");

/* An adopted socket: a row of the packet that st_look_fast is run on (bpf/look.bpf.c), as st_live.
 */
struct st_fast_live {
	struct st_fast state; /* the agent says its own cookie */
	__u64 sock;	      /* its kernel address; 0 = not adopted */
};
ST_STATIC_ASSERT(ST_RUN_HEADER_BYTES + ST_LIVE_ROWS * sizeof(struct st_fast_live) <= ST_RUN_BYTES,
		 "st_fast_live");

#ifdef __cplusplus
}
#endif

#endif
