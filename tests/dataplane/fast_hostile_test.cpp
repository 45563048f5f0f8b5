// SPDX-License-Identifier: Apache-2.0
// What a pod does to the kernel or to its neighbours, or what it may be kept from: memory that
// bytes past TCP take, and pairs that are none.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr const char* kMemoryRoot = "/sys/fs/cgroup/memory";
constexpr const char* kSocketLimit = "memory.kmem.tcp.limit_in_bytes";

// A memory cgroup with little room for sockets; a process that is in it makes its sockets there.
class MemoryGroup {
 public:
  explicit MemoryGroup(std::uint64_t socket_bytes)
      : path_(std::string(kMemoryRoot) + "/st-" + std::to_string(::getpid()) + "-memory") {
    EXPECT_EQ(::mkdir(path_.c_str(), 0755), 0) << path_;
    write(path_ + "/" + kSocketLimit, std::to_string(socket_bytes));
  }
  ~MemoryGroup() {
    for (const pid_t pid : inside_) {
      write(std::string(kMemoryRoot) + "/cgroup.procs", std::to_string(pid));
    }
    EXPECT_EQ(::rmdir(path_.c_str()), 0) << path_;
  }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  void add(pid_t pid) {
    write(path_ + "/cgroup.procs", std::to_string(pid));
    inside_.push_back(pid);
  }

 private:
  static void write(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    EXPECT_TRUE(file.good()) << path << ": " << text;
  }

  std::string path_;
  std::vector<pid_t> inside_;
};

// Connects with a sequence number of its own choosing.
constexpr const char* kRepair = R"(
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, 19, 1)           # TCP_REPAIR
for queue, sequence in ((2, 0x11111111), (1, 0x22222222)):
    s.setsockopt(socket.IPPROTO_TCP, 20, queue)   # TCP_REPAIR_QUEUE
    s.setsockopt(socket.IPPROTO_TCP, 21, sequence)  # TCP_QUEUE_SEQ
s.connect(('127.0.0.1', 80))
print('connected', s.getsockopt(socket.IPPROTO_TCP, 11, 1)[0])  # TCP_INFO: the state
input()
)";

class FastHostile : public SharedFastNode {
 protected:
  [[nodiscard]] std::size_t pairs() const {
    const auto rows = sidetrack_->dump_map("st_pairs");
    EXPECT_TRUE(rows.has_value());
    return rows ? rows->size() : 0;
  }
  // A connection that claims to be established, in a namespace of `launcher`'s making or the pod's.
  [[nodiscard]] std::unique_ptr<Process> repair(std::vector<std::string> launcher) const {
    launcher.insert(launcher.end(), {"python3", "-u", "-c", kRepair});
    auto process = Process::start({.arguments = std::move(launcher),
                                   .netns_path = shop_.client->netns.path(),
                                   .cgroup_path = cgroup_->path()});
    EXPECT_TRUE(process.has_value());
    EXPECT_TRUE(process && (*process)->wait_for_output("connected 1"))
        << (process ? (*process)->output() : "");
    return process ? std::move(*process) : nullptr;
  }
};

TEST_F(FastHostile, few_short_messages_wait_past_tcp) {  // onebyte
  expect_same(scenarios::send_many_short_messages);
}

// memcg: TCP waits where redirecting fails.
TEST_F(FastHostile, a_reader_whose_memory_is_limited_stops_its_sender) {
  if (!std::filesystem::exists(std::string(kMemoryRoot) + "/" + kSocketLimit)) {
    GTEST_SKIP() << "no memory controller of cgroup v1";
  }
  MemoryGroup memory(1U << 20U);
  memory.add(plain_.server_shell->process().pid());
  memory.add(shop_.server_shell->process().pid());
  expect_same([](Ends& ends) {
    const std::string end = scenarios::fill_a_sleeping_reader(ends, 8192, 64U << 20U);
    EXPECT_EQ(end, "EAGAIN");
    return end;
  });
}

// repair, fill: whoever may choose sequence numbers must not publish a pair under those of others.
TEST_F(FastHostile, a_connection_under_repair_is_no_pair) {
  const std::size_t before = pairs();
  const auto privileged = repair({});
  const auto anybody = repair({"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                               "unshare", "--user", "--map-root-user", "--net", "sh", "-c",
                               "ip link set lo up && exec \"$0\" \"$@\""});
  EXPECT_EQ(pairs(), before);
  const Ends control = open(true);
  EXPECT_EQ(pairs(), before + 1);
}

}  // namespace
}  // namespace sidetrack::lab
