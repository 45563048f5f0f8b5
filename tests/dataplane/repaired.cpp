// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/repaired.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sidetrack::lab {
namespace {

// The last word: 1 is the state of an established connection.
constexpr const char* kScript = R"(
import socket, sys
held = []
for number in range(int(sys.argv[1])):
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, 19, 1)           # TCP_REPAIR
    for queue, sequence in ((2, sys.argv[2]), (1, sys.argv[3])):
        s.setsockopt(socket.IPPROTO_TCP, 20, queue)   # TCP_REPAIR_QUEUE
        s.setsockopt(socket.IPPROTO_TCP, 21, int(sequence) + number)  # TCP_QUEUE_SEQ
    s.connect(('127.0.0.1', 80))
    held.append(s)
print('connected', max(s.getsockopt(socket.IPPROTO_TCP, 11, 1)[0] for s in held))  # TCP_INFO
input()
)";

}  // namespace

std::unique_ptr<Process> connect_under_repair(const Place& place, Rights rights, int count) {
  std::vector<std::string> words;
  if (rights == Rights::kAnybody) {
    words = {"setpriv",
             "--reuid",
             "65534",
             "--regid",
             "65534",
             "--clear-groups",
             "unshare",
             "--user",
             "--map-root-user",
             "--net",
             "sh",
             "-c",
             "ip link set lo up && exec \"$0\" \"$@\""};
  }
  words.insert(words.end(), {"python3", "-u", "-c", kScript, std::to_string(count),
                             std::to_string(kChosenToSend), std::to_string(kChosenToExpect)});
  auto process = Process::start({.arguments = std::move(words),
                                 .netns_path = place.netns_path,
                                 .cgroup_path = place.cgroup_path});
  EXPECT_TRUE(process.has_value());
  EXPECT_TRUE(process && (*process)->wait_for_output("connected 1"))
      << (process ? (*process)->output() : "");
  return process ? std::move(*process) : nullptr;
}

}  // namespace sidetrack::lab
