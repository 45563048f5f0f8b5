// SPDX-License-Identifier: Apache-2.0
// --fast-path-window: how much waits unread past TCP, in bytes and in the reader's memory.
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <array>

#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

struct Window {
  const char* option;  // nullptr: as it is if nobody sets it
  std::size_t bytes;
};

class FastWindow : public FastNode, public testing::WithParamInterface<Window> {
 protected:
  FastWindow() {
    if (GetParam().option != nullptr) {
      agent_arguments_.insert(agent_arguments_.end(), {"--fast-path-window", GetParam().option});
    }
  }
  // What waits past TCP when the first message of a sender has gone by TCP.
  struct Waiting {
    std::size_t bytes = 0;
    std::size_t memory = 0;
  };
  // All of it is read again.
  static Waiting fill(const Ends& ends) {
    const std::string message(4096, 'w');
    const std::uint64_t by_tcp = sent_by_tcp(ends.client);
    Waiting waiting;
    for (;;) {
      EXPECT_EQ(send_text(ends.client, message), "sent");
      if (sent_by_tcp(ends.client) != by_tcp || testing::Test::HasFailure()) {
        break;
      }
      waiting = {.bytes = waiting.bytes + message.size(), .memory = memory_of(ends.server)};
    }
    const std::size_t all = waiting.bytes + message.size();
    EXPECT_EQ(scenarios::receive_all(ends.server, all).size(), all);
    return waiting;
  }

 private:
  static std::size_t memory_of(const UniqueFd& fd) {
    std::array<std::uint32_t, SK_MEMINFO_VARS> info{};
    socklen_t size = sizeof(info);
    EXPECT_EQ(::getsockopt(fd.get(), SOL_SOCKET, SO_MEMINFO, info.data(), &size), 0);
    return info[SK_MEMINFO_RMEM_ALLOC];
  }
};

// Any message may go by TCP before the window is full, as when the agent gets no time.
TEST_P(FastWindow, bounds_what_waits_past_tcp) {
  const std::size_t window = GetParam().bytes;
  const Ends ends = open_fast();
  Waiting waiting;
  EXPECT_TRUE(eventually(kPatience, [&] {
    waiting = fill(ends);
    EXPECT_LE(waiting.bytes, window);
    EXPECT_LE(waiting.memory, window);
    return HasFailure() || waiting.bytes > window / 2;
  })) << waiting.bytes;
}

INSTANTIATE_TEST_SUITE_P(Sizes, FastWindow,
                         testing::Values(Window{"64KiB", 64U << 10U}, Window{nullptr, 1U << 20U}),
                         [](const auto& window) {
                           return std::string(window.param.option == nullptr ? "usual" : "small");
                         });

}  // namespace
}  // namespace sidetrack::lab
