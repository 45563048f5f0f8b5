// SPDX-License-Identifier: Apache-2.0
// The checks of fast_attacks_test.cpp see what they are to see: with a program that has no guards
// (naive/naive.bpf.c) each of them finds a difference from TCP.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "naive_bpf.skel.h"
#include "tests/dataplane/fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr milliseconds kNothingComes{100};

class FastNaive : public FastNode {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(FastNode::SetUp());
    if (IsSkipped()) {
      return;
    }
    naive_ = naive_bpf__open_and_load();
    ASSERT_NE(naive_, nullptr);
    ASSERT_EQ(bpf_prog_attach(bpf_program__fd(naive_->progs.naive_msg),
                              bpf_map__fd(naive_->maps.naive_sockets), BPF_SK_MSG_VERDICT, 0),
              0);
  }
  void TearDown() override {
    if (naive_ != nullptr) {
      bpf_prog_detach(bpf_map__fd(naive_->maps.naive_sockets), BPF_SK_MSG_VERDICT);
      naive_bpf__destroy(naive_);
    }
  }

  // The scenario on plain TCP and with the naive program must not say the same.
  void expect_different(const Scenario& scenario) {
    Ends slow = open(false);
    const std::string expected = scenario(slow);
    const UniqueFd cgroup(::open(cgroup_->path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bpf_link* link = bpf_program__attach_cgroup(naive_->progs.naive_sockops, cgroup.get());
    ASSERT_NE(link, nullptr);
    Ends fast = open(false);
    bpf_link__destroy(link);
    EXPECT_NE(scenario(fast), expected);
  }

  naive_bpf* naive_ = nullptr;
};

TEST_F(FastNaive, nothing_stops_the_sender) {
  expect_different([](Ends& ends) {
    const std::string bytes(16384, 'b');
    std::uint64_t sent = 0;
    while (sent < (64U << 20U)) {
      const ssize_t count = ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0) {
        return std::string(::strerrorname_np(errno));
      }
      sent += static_cast<std::uint64_t>(count);
    }
    return std::string("no end");
  });
}

TEST_F(FastNaive, a_connection_made_anew_reads_the_old_ones_bytes) {
  expect_different([](Ends& ends) {
    EXPECT_EQ(send_text(ends.server, "OLDSECRET"), "sent");
    EXPECT_EQ(receive_text(ends.client, 1, MSG_PEEK), "'O'");
    const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
    EXPECT_EQ(::connect(ends.client.get(), &nowhere, sizeof(nowhere)), 0);
    return receive_text(ends.client, 99, 0, kNothingComes);
  });
}

TEST_F(FastNaive, options_set_late_do_nothing) {
  expect_different([](Ends& ends) {
    const int least = 100;
    ::setsockopt(ends.server.get(), SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
    EXPECT_EQ(send_text(ends.client, "01234"), "sent");
    pollfd wanted{ends.server.get(), POLLIN, 0};
    return std::to_string(::poll(&wanted, 1, static_cast<int>(kNothingComes.count())));
  });
  expect_different([](Ends& ends) {
    const int start = 0;
    ::setsockopt(ends.server.get(), SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start));
    EXPECT_EQ(send_text(ends.client, "abcdef"), "sent");
    return receive_text(ends.server, 3, MSG_PEEK) + receive_text(ends.server, 3, MSG_PEEK);
  });
}

}  // namespace
}  // namespace sidetrack::lab
