// SPDX-License-Identifier: Apache-2.0
// Readers that look with MSG_PEEK until a record is whole.
#include <poll.h>
#include <sys/socket.h>

#include <thread>
#include <utility>

#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

// What a reader of records does: looks until one is whole, whenever the socket is readable. False
// if for `within` nothing more came though nothing was under way. TCP itself may take longer: of
// many small segments a receiver drops what finds no room, and its peer sends again by its timer.
bool peek_until(const Ends& ends, std::size_t length, milliseconds within) {
  std::vector<char> in(length);
  const auto start = Clock::now();
  auto moved = start;
  ssize_t seen = 0;
  while (Clock::now() - moved < within && Clock::now() - start < kPatience) {
    pollfd wanted{ends.server.get(), POLLIN, 0};
    (void)::poll(&wanted, 1, static_cast<int>(within.count()));
    const ssize_t now = ::recv(ends.server.get(), in.data(), length, MSG_PEEK);
    if (now == static_cast<ssize_t>(length)) {
      return true;
    }
    if (now != std::exchange(seen, now) || !is_acknowledged(ends.client)) {
      moved = Clock::now();
    }
  }
  return false;
}

// Requests in lock step, each in three parts.
std::string peeks_until_whole(Ends& ends) {
  constexpr int kRequests = 400;
  std::thread client([&] {
    for (int i = 0; i < kRequests; ++i) {
      for (const char* part : {"head", "er of", " a request\n"}) {
        EXPECT_EQ(send_text(ends.client, part), "sent");
      }
      if (receive_text(ends.client, 9) != "'ok'") {
        break;
      }
    }
  });
  std::string said = "whole";
  for (int i = 0; i < kRequests && said == "whole"; ++i) {
    if (!peek_until(ends, 20, scaled(milliseconds(2000)))) {
      said = "stands still";
      // Whoever reads gets it, in order.
      EXPECT_EQ(scenarios::receive_all(ends.server, 20), "header of a request\n");
    } else if (receive_text(ends.server, 20) != "'header of a request\n'") {
      said = "other bytes";
    }
    if (said == "whole") {
      EXPECT_EQ(send_text(ends.server, "ok"), "sent");
    } else {
      ::shutdown(ends.server.get(), SHUT_RDWR);
    }
  }
  client.join();
  return said;
}

// Records in three parts, more of them under way than fit past TCP.
std::string peeks_at_records(Ends& ends) {
  constexpr int kRecords = 2000;
  std::thread client([&] {
    for (int i = 0; i < kRecords * 3; ++i) {
      pollfd wanted{ends.client.get(), POLLOUT, 0};
      (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
      if (send_text(ends.client, std::string(30, 'r')) != "sent") {
        return;
      }
    }
  });
  std::string said = "whole";
  for (int i = 0; i < kRecords && said == "whole"; ++i) {
    if (!peek_until(ends, 90, scaled(milliseconds(1500)))) {
      said = "stands still";
      ::shutdown(ends.server.get(), SHUT_RDWR);
    } else {
      EXPECT_EQ(receive_text(ends.server, 90), "'" + std::string(90, 'r') + "'");
    }
  }
  client.join();
  return said;
}

}  // namespace

// The machine may take a CPU away from a thread that is inside of a call.
FastList::Case peeks_at_requests() {
  return {"MSG_PEEK until it is whole", peeks_until_whole, "whole", "stands still", 1, {}, true};
}

FastList::Case peeks_at_a_pipeline() {
  return {"MSG_PEEK at a pipeline", peeks_at_records, "whole", "stands still", 2};
}

}  // namespace sidetrack::lab
