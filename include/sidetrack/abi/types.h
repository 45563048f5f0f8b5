/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of the pinned maps, shared by the BPF programs and the agent. Plain C, fixed
 * width, no hidden padding. Within a major version layouts are append-only: programs of two
 * versions read the same maps during an upgrade. Byte order: host order, except fields whose name
 * ends in _be and the bytes of an address (network order).
 */
#ifndef SIDETRACK_ABI_TYPES_H
#define SIDETRACK_ABI_TYPES_H

#include <linux/types.h>

#ifdef __cplusplus
#define ST_STATIC_ASSERT static_assert
extern "C" {
#else
#define ST_STATIC_ASSERT _Static_assert
#endif

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d. */
struct st_addr {
	__u8 bytes[16];
};

enum st_reason {
#define ST_REASON(NAME, name, verdict) ST_REASON_##NAME,
#include "sidetrack/abi/counters.def"
#undef ST_REASON
	ST_REASON_COUNT
};

enum st_verdict { ST_VERDICT_redirected, ST_VERDICT_direct, ST_VERDICT_refused };
enum st_mode { ST_MODE_DISABLED, ST_MODE_PASSTHROUGH, ST_MODE_REDIRECT };
enum st_on_engine_loss { ST_ON_ENGINE_LOSS_OPEN, ST_ON_ENGINE_LOSS_CLOSED };
enum st_fast_path { ST_FAST_PATH_OFF, ST_FAST_PATH_AUTO, ST_FAST_PATH_NODE };
/* Which way the bytes of a connection took. */
enum st_path { ST_PATH_DIRECT, ST_PATH_ENGINE, ST_PATH_FAST, ST_PATH_HANDOFF, ST_PATH_COUNT };
/* How a connection ended, as its client saw it. */
enum st_close {
	ST_CLOSE_OPEN, /* still alive */
	ST_CLOSE_FIN,
	ST_CLOSE_RST_LOCAL,
	ST_CLOSE_RST_REMOTE,
	ST_CLOSE_REFUSED,
	ST_CLOSE_TIMEOUT,
	ST_CLOSE_KILLED,
	ST_CLOSE_COUNT
};

enum {
	ST_MAX_LISTENERS = 8, /* per pod and family */
	ST_MAX_PODS = 4096,   /* rows of st_pods */
	ST_MAX_NAMESPACES =
		2048, /* slots of st_counters and st_namespaces; slot 0 = not a namespace of ours */
	ST_MAX_ENGINES = 8,    /* cells of st_engines */
	ST_ENGINE_CGROUPS = 4, /* st_is_engine_cgroup() names each */
	ST_EXTERNAL_ENGINE_SLOT =
		0,		   /* the cell of an external engine; embedded ones get 1 and up */
	ST_MAX_POLICIES = 4096,	   /* rows of st_policies */
	ST_MAX_CIDRS = 262144,	   /* rows of st_cidrs, all policies together */
	ST_MAX_PORT_PAGES = 65536, /* rows of st_port_pages, all port sets together */
	ST_MAX_RECORDS = 65536,	   /* rows of st_records */
	ST_MAX_OBSERVED = 131072,  /* rows of st_observed */
	ST_MAX_REDIRECTED = 65536, /* rows of st_redirected */
	ST_LIVE_ROWS = 16,	   /* of st_live in one packet */
	ST_RUN_HEADER_BYTES = 14,  /* before what a program is run on */
	ST_RECORD_HEADROOM =
		1024, /* rows of st_records that connect() leaves free for what is on its way */
	ST_RECORD_QUOTA = 8192, /* rows of st_records that one netns may hold */
	ST_FLOW_RING_BYTES = 4194304,
	ST_EVENT_RING_BYTES = 262144,
	ST_PORTS_PER_PAGE = 512,
	ST_MAX_WATCHED = 8,	      /* listeners in st_engine.watched; a power of two */
	ST_NAMESPACE_NAME_BYTES = 64, /* a DNS label has at most 63 */
};

/* The age in nanoseconds from which an engine's heartbeat counts as stopped. */
#define ST_HEARTBEAT_STALE_NS 1000000000ULL

/* Ids of port sets that have no pages. */
#define ST_PORT_SET_NONE 0U
#define ST_PORT_SET_ALL 0xffffffffU

/* A heartbeat in the far future: never stale. */
#define ST_BEAT_NOT_NEEDED (1ULL << 62)

/* The cgroup id of the real cgroup2 root: kernfs numbers its root 1 (fs/kernfs/dir.c,
 * kernfs_create_root). */
#define ST_ROOT_CGROUP_ID 1ULL

/* st_pods: netns cookie -> what the connect hook needs to know of a pod. */
struct st_pod {
	__u32 policy_id; /* st_policies; 0 = no rules */
	__u32 namespace_slot;
	__u8 mode;
	__u8 on_engine_loss;
	__u8 fast_path;
	__u8 external; /* the engine listens on the node (st_config.external_*), not in the pod */
	__u8 listeners_v4; /* how many of the entries below are in use, 0 = this family goes direct
			    */
	__u8 listeners_v6;
	__u16 engine_slot;  /* st_engines */
	__u32 port_budget;  /* live connections per listener beyond which connect() goes direct */
	__u32 budget_shift; /* a closed connection counts against the budget for one to two spans of
			       2^budget_shift ns */
	struct st_addr own_v4; /* the pod's own addresses, zero = none */
	struct st_addr own_v6;
	__u16 port_v4_be[ST_MAX_LISTENERS]; /* 0 = lost: cleared by sockops when the listener closes
					     */
	__u16 port_v6_be[ST_MAX_LISTENERS];
	__u64 listener_cookie_v4[ST_MAX_LISTENERS]; /* socket cookies */
	__u64 listener_cookie_v6[ST_MAX_LISTENERS];
};
ST_STATIC_ASSERT(sizeof(struct st_pod) == 216, "st_pod");

/* st_tunings: netns cookie -> TCP options of the pod's enrolled connections; 0 = as the application
 * has it. */
#define ST_CONGESTION_BYTES 16 /* of a name with its end: TCP_CA_NAME_MAX */
struct st_tuning {
	__u32 keepalive_s;     /* idle time until the first probe */
	__u32 user_timeout_ms; /* TCP_USER_TIMEOUT */
	__u8 nodelay;
	__u8 reserved[7];
	char congestion[ST_CONGESTION_BYTES];
};
ST_STATIC_ASSERT(sizeof(struct st_tuning) == 32, "st_tuning");

/* st_pod_state: netns cookie -> what only the kernel writes. */
struct st_budget {
	__s64 live;	     /* redirected connections of this listener now */
	__u32 epoch;	     /* ktime >> budget_shift of `closed` */
	__u32 closed;	     /* closed in this epoch */
	__u32 closed_before; /* and in the one before */
	__u32 reserved;
};
struct st_pod_state {
	__s64 records; /* rows of st_records that this netns holds */
	struct st_budget budget[2 * ST_MAX_LISTENERS]; /* IPv4 listeners, then IPv6 */
	__s64 pairs;				       /* rows of st_pairs that this netns holds */
	__u32 demoted; /* enum st_fast_reason: why none of its sockets may skip TCP */
	__u32 reserved;
};
ST_STATIC_ASSERT(sizeof(struct st_pod_state) == 24 + 24 * 16, "st_pod_state");

/* st_policies: policy id -> the sets that it is made of. A policy never changes: an edit makes a
 * new id. */
struct st_policy {
	__u32 exclude_ports; /* port set id */
	__u32 include_ports; /* port set id */
	__u8 has_include;    /* an include list is present: only what matches one is redirected */
	__u8 has_cidrs;	     /* st_cidrs has rows for this policy */
	__u16 reserved;
};
ST_STATIC_ASSERT(sizeof(struct st_policy) == 12, "st_policy");

/* st_cidrs (LPM trie): prefix_bits = 32 + length of the prefix in 128 bits. */
struct st_cidr_key {
	__u32 prefix_bits;
	__u32 policy_id; /* matched as bytes, whole */
	struct st_addr addr;
};
ST_STATIC_ASSERT(sizeof(struct st_cidr_key) == 24, "st_cidr_key");
struct st_cidr {
	__u32 exclude_ports; /* port set id; the ports of all covering prefixes are folded in */
	__u32 include_ports;
};

/* st_port_pages: 512 ports of a set; a page that is missing is empty. */
struct st_port_page_key {
	__u32 set_id;
	__u32 page; /* port / 512 */
};
struct st_port_page {
	__u64 bits[ST_PORTS_PER_PAGE / 64]; /* bit (port % 512) */
};

/* st_config: one cell, written by the agent before anything is attached. */
struct st_config {
	/* Sockets made in these cgroups are an engine's; 0 = none. Several at once while one engine
	 * hands over to the next, each in its own container. */
	__u64 engine_cgroup_ids[ST_ENGINE_CGROUPS];
	__u64 node_netns_cookie;
	struct st_addr external_v4; /* zero = the external engine has none */
	struct st_addr external_v6;
	__u16 external_v4_port_be;
	__u16 external_v6_port_be;
	__u16 listener_port_low; /* where in-pod listeners may be */
	__u16 listener_port_high;
};
ST_STATIC_ASSERT(sizeof(struct st_config) == 80, "st_config");

/* st_engines: one cell per engine process, mapped into it, so that it can beat without a system
 * call. */
struct st_engine {
	__u64 beat_ns; /* CLOCK_MONOTONIC; 0 = lost; ST_BEAT_NOT_NEEDED = its listeners are watched
			  instead */
	__u32 full;    /* not 0: it has used 90 % of its files, or its accept queue is filling up */
	__u32 watch_next;	  /* index of `watched` that is written next */
	__u64 listener_cookie_v4; /* external engines: written by the agent, cleared by sockops at
				     close */
	__u64 listener_cookie_v6;
	__u64 pid; /* embedded engines: written by the agent, so that an engine keeps its cell when
		      the agent restarts */
	__u64 watched[ST_MAX_WATCHED]; /* external engines: cookies of the latest listeners whose
					  close sockops will see; it takes them out then */
	__u64 arrived; /* external engines: connections that ever entered their accept queues */
	__u64 closed;  /* external engines: listeners that sockops took out of `watched` */
	__u64 reserved;
};
ST_STATIC_ASSERT(sizeof(struct st_engine) == 128, "st_engine");

/* st_records: the original destination, on its way from connect() to the engine's accepted socket.
 */
struct st_record_key {
	__u64 scope;	       /* netns cookie, or 0 when the engine is external */
	__u32 client_sequence; /* the client's next sequence number when the connection became
				  established */
	__u32 server_sequence;
};
struct st_record {
	struct st_addr destination;
	__u64 netns_cookie;
	__u64 client_cookie;
	__u32 namespace_slot;
	__u16 port_be;
	__u16 reserved;
};
ST_STATIC_ASSERT(sizeof(struct st_record) == 40, "st_record");

/* The first sequence numbers of a connection's data (abi/fast.h). */
struct st_pair_key {
	__u32 client_first;
	__u32 server_first;
};

/* What is known of the client's socket of a connection that gets a flow record. */
struct st_client {
	struct st_addr destination; /* what the application asked for */
	__u64 netns_cookie;
	__u64 start_ns;
	__u32 namespace_slot;
	__u16 port_be;
	__u8 reason;
	__u8 fast_path; /* enum st_fast_path of its pod when it connected */
	__u8 counted;	/* it is connecting or connected: its close will be told */
	__u8 paired;	/* `pair` holds */
	__u8 unpaired;	/* enum st_fast_reason: why it does not; NONE = nobody tried */
	__u8 reserved[5];
	struct st_pair_key pair; /* the row of st_pairs that may name this socket */
};
ST_STATIC_ASSERT(sizeof(struct st_client) == 56, "st_client");

/* st_observed: cookie of a client's socket whose connection goes direct -> what its flow record
 * needs. */
struct st_observed {
	struct st_client client;
	__u64 sock; /* its kernel address, to look at while its cookie is the key */
};
ST_STATIC_ASSERT(sizeof(struct st_observed) == 64, "st_observed");

enum st_role {
	ST_ROLE_NONE,
	ST_ROLE_REDIRECTED, /* the client socket of a redirected connection */
	ST_ROLE_ACCEPTED,   /* the engine's accepted socket of a redirected connection */
};

/* st_sockets (SK_STORAGE): what we know of one socket; dies with it. */
struct st_socket {
	struct st_client
		client;	     /* an accepted socket has destination, port, netns and slot of it */
	struct st_addr own;  /* what getsockname() shows; zero = leave it */
	__u64 client_cookie; /* of the client socket */
	__u64 record_scope;
	__u32 client_sequence; /* key of the record, see `record_live` */
	__u32 server_sequence;
	__u8 role;
	__u8 budget_index;
	__u8 record_live; /* a record of this socket may still be in st_records */
	__u8 reserved[5];
};
ST_STATIC_ASSERT(sizeof(struct st_socket) == 104, "st_socket");

/* st_redirected: cookie of a client's socket whose connection is redirected and established -> what
 * is shown of it. */
struct st_redirected {
	struct st_client client;
	__u64 sock;	    /* as in st_observed */
	struct st_addr own; /* as in st_socket */
};
ST_STATIC_ASSERT(sizeof(struct st_redirected) == 80, "st_redirected");

/* One connection of a client that is open now: a row of the packet that st_look is run on
 * (bpf/look.bpf.c), ST_LIVE_ROWS of them at most, after ST_RUN_HEADER_BYTES of Ethernet header. */
struct st_live {
	struct st_client client; /* this and the next three: the agent says */
	__u64 cookie;
	__u64 sock;
	struct st_addr source; /* zero: the program fills in the socket's own */
	__u64 bytes_out;       /* over TCP */
	__u64 bytes_in;
	__u64 fast_out; /* past TCP */
	__u64 fast_in;
	__u64 handoff_out; /* past the engine */
	__u64 handoff_in;
	__u16 source_port; /* host order */
	__u8 redirected;   /* the agent says */
	__u8 open;	   /* it was the socket of `cookie` all the while */
	__u8 fast_reason;  /* as in st_flow */
	__u8 reserved[3];
};
ST_STATIC_ASSERT(sizeof(struct st_live) == 144, "st_live");
/* A packet of a run is one page, of which the kernel keeps some. */
#define ST_RUN_BYTES 3584
ST_STATIC_ASSERT(ST_RUN_HEADER_BYTES + ST_LIVE_ROWS * sizeof(struct st_live) <= ST_RUN_BYTES,
		 "st_live");

/* st_endpoints: client socket cookie -> what the engine said of the connection. Only shown, never
 * decided on. */
struct st_report {
	struct st_addr endpoint;
	__u16 port_be;
	__u8 close; /* enum st_close: how the upstream connect ended, ST_CLOSE_OPEN = well */
	__u8 reserved[5];
};
ST_STATIC_ASSERT(sizeof(struct st_report) == 24, "st_report");

/* The engine reports with setsockopt(accepted, SOL_IP or SOL_IPV6, ST_SO_REPORT, &st_report):
 * answered by our program, never by the kernel. */
#define ST_SO_REPORT 0x5d7c
/* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h,
 * linux/netfilter_ipv6/ip6_tables.h). */
#define ST_SO_ORIGINAL_DST 80

/* st_flows (ring buffer): one per closed connection that was redirected or observed. */
struct st_flow {
	__u64 netns_cookie;
	__u64 start_ns; /* CLOCK_MONOTONIC */
	__u64 end_ns;
	__u64 bytes_out; /* payload that the client sent */
	__u64 bytes_in;
	struct st_addr source;
	struct st_addr destination;
	struct st_addr endpoint; /* zero = not known */
	__u16 source_port_be;
	__u16 destination_port_be;
	__u16 endpoint_port_be;
	__u8 path;
	__u8 reason;
	__u32 namespace_slot;
	__u8 close;
	__u8 fast_reason; /* enum st_fast_reason: why nothing has skipped TCP, if nothing has */
	__u8 reserved[2];
};
ST_STATIC_ASSERT(sizeof(struct st_flow) == 104, "st_flow");

/* st_events (ring buffer): things that happen rarely. */
enum st_event_kind {
	ST_EVENT_UNKNOWN_NETNS = 1,
	ST_EVENT_LISTENER_LOST = 2,
	ST_EVENT_LISTENER_BACK = 3,
	ST_EVENT_DEMOTED = 4,  /* the sentinel demoted this pod */
	ST_EVENT_MARKED = 5,   /* an adopted socket became unsuitable: to be taken out */
	ST_EVENT_OWED = 7,     /* a reader has bytes in both queues: see st_pair.owed */
	ST_EVENT_CONFLICT = 6, /* splice met redirected bytes: the connection is to be destroyed */
};
struct st_event {
	__u32 kind;
	__u32 reserved;
	__u64 netns_cookie;
	__u64 socket_cookie;
};

/* st_counters (per-CPU array): one cell per namespace slot. */
struct st_counters {
	__u64 connections[32]; /* by enum st_reason */
	__u64 bytes_out[ST_PATH_COUNT];
	__u64 bytes_in[ST_PATH_COUNT];
	__u64 flows_dropped;   /* flow records that found no room in the ring */
	__u64 records_full;    /* established ones that found no room for their record */
	__u64 storage_full;    /* connects that got no socket storage */
	__u64 record_fallback; /* the engine asked before its socket's callback had run */
};
ST_STATIC_ASSERT(ST_REASON_COUNT <= 32, "st_counters.connections");

/* st_namespaces: slot -> name, so that the counters can be read without the agent. */
struct st_namespace {
	char name[ST_NAMESPACE_NAME_BYTES]; /* zero-terminated; empty = free slot */
};

#ifdef __cplusplus
}
#endif

#endif
