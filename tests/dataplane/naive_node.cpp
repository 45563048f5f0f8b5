// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/naive_node.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "naive_bpf.skel.h"

namespace sidetrack::lab {
namespace {

// As naive.bpf.c has it.
struct Key {
  std::uint32_t local_port;
  std::uint32_t remote_port;
};

struct PairKey {
  std::uint32_t client_first;
  std::uint32_t server_first;
};

std::uint32_t port_of(const UniqueFd& fd, int (*name)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  EXPECT_EQ(name(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  // IPv4 and IPv6 have it in the same place.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

Key key_of(const UniqueFd& fd) {
  return {.local_port = port_of(fd, ::getsockname), .remote_port = port_of(fd, ::getpeername)};
}

}  // namespace

void NaiveNode::SetUp() {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  if (IsSkipped()) {
    return;
  }
  naive_ = naive_bpf__open_and_load();
  ASSERT_NE(naive_, nullptr);
  ASSERT_EQ(bpf_prog_attach(bpf_program__fd(naive_->progs.naive_msg),
                            bpf_map__fd(naive_->maps.naive_sockets), BPF_SK_MSG_VERDICT, 0),
            0);
}

void NaiveNode::TearDown() {
  if (naive_ != nullptr) {
    bpf_prog_detach(bpf_map__fd(naive_->maps.naive_sockets), BPF_SK_MSG_VERDICT);
    naive_bpf__destroy(naive_);
  }
}

void NaiveNode::run_with(bpf_program* program, const std::function<void()>& make) {
  const UniqueFd cgroup(::open(cgroup_->path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  bpf_link* link = bpf_program__attach_cgroup(program, cgroup.get());
  ASSERT_NE(link, nullptr);
  make();
  bpf_link__destroy(link);
}

void NaiveNode::watch(const std::function<void()>& make) {
  run_with(naive_->progs.naive_sockops, make);
}

NaiveNode::Pairs NaiveNode::noted(const std::function<void()>& make) {
  run_with(naive_->progs.naive_pairing, make);
  Pairs all;
  const int map = bpf_map__fd(naive_->maps.naive_pairs);
  PairKey pair{};
  for (const PairKey* before = nullptr; bpf_map_get_next_key(map, before, &pair) == 0;
       before = &pair) {
    EXPECT_EQ(bpf_map_lookup_elem(map, &pair, &all[{pair.client_first, pair.server_first}]), 0);
  }
  return all;
}

Ends NaiveNode::open_naive(Route route, Blocking blocking) {
  Ends ends;
  watch([&] { ends = open(false, route, blocking); });
  return ends;
}

void NaiveNode::put_in(const UniqueFd& fd) {
  const Key key = key_of(fd);
  const auto socket = static_cast<std::uint64_t>(fd.get());
  EXPECT_EQ(bpf_map_update_elem(bpf_map__fd(naive_->maps.naive_sockets), &key, &socket, BPF_ANY),
            0);
}

void NaiveNode::put_in(const Ends& ends) {
  put_in(ends.client);
  put_in(ends.server);
}

void NaiveNode::take_out(const UniqueFd& fd) {
  const Key key = key_of(fd);
  EXPECT_EQ(bpf_map_delete_elem(bpf_map__fd(naive_->maps.naive_sockets), &key), 0);
}

void NaiveNode::expect_different(const Scenario& scenario) {
  Ends slow = open(false);
  const std::string expected = scenario(slow);
  Ends fast = open_naive();
  EXPECT_NE(scenario(fast), expected);
}

}  // namespace sidetrack::lab
