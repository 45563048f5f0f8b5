// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the fast path would be without its guards: both ends go in at the handshake and every
 * message skips TCP. For tests only: a check that this program passes proves nothing.
 */
#include "lib/kernel.h"

struct naive_key {
  __u32 local_port;
  __u32 remote_port;
};

struct {
  __uint(type, BPF_MAP_TYPE_SOCKHASH);
  __uint(max_entries, 1024);
  __type(key, struct naive_key);
  __type(value, __u64);
} naive_sockets SEC(".maps");

SEC("sockops")
int naive_sockops(struct bpf_sock_ops* ctx) {
  struct naive_key key = {.local_port = ctx->local_port,
                          .remote_port = bpf_ntohl(ctx->remote_port)};

  if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ||
      ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
    bpf_sock_hash_update(ctx, &naive_sockets, &key, BPF_NOEXIST);
  return 1;
}

/* Who is connected to whom, by the first sequence numbers that the client has and expects. */
struct naive_pair {
  __u32 client_first;
  __u32 server_first;
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 64);
  __type(key, struct naive_pair);
  __type(value, __u64); /* the client's cookie */
} naive_pairs SEC(".maps");

SEC("sockops")
int naive_pairing(struct bpf_sock_ops* ctx) {
  struct naive_pair pair = {.client_first = ctx->snd_nxt, .server_first = ctx->rcv_nxt};
  __u64 cookie = bpf_get_socket_cookie(ctx);

  if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
    bpf_map_update_elem(&naive_pairs, &pair, &cookie, BPF_ANY);
  return 1;
}

SEC("sk_msg")
int naive_msg(struct sk_msg_md* msg) {
  struct naive_key peer = {.local_port = bpf_ntohl(msg->remote_port),
                           .remote_port = msg->local_port};

  bpf_msg_redirect_hash(msg, &naive_sockets, &peer, BPF_F_INGRESS);
  return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
