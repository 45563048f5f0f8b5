// SPDX-License-Identifier: Apache-2.0
// NetnsTable against an in-memory node: files stand for namespaces, by their inodes.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/pods/addresses.h"
#include "agent/pods/netns_table.h"

namespace sidetrack::pods {
namespace {

using namespace std::chrono_literals;

constexpr const char* kWeb = "11111111-0000-0000-0000-000000000000";
constexpr const char* kDb = "22222222-0000-0000-0000-000000000000";

ino_t inode_of(int fd) {
  struct stat status {};
  fstat(fd, &status);
  return status.st_ino;
}

class Table : public testing::Test {
 protected:
  // A namespace with one address; its inode.
  ino_t make_netns(const std::string& address) {
    files_.emplace_back(memfd_create("netns", MFD_CLOEXEC));
    const ino_t inode = inode_of(files_.back().get());
    addresses_[inode] = address;
    by_inode_[inode] = files_.back().get();
    return inode;
  }
  [[nodiscard]] UniqueFd open(ino_t inode) const { return UniqueFd(dup(by_inode_.at(inode))); }
  void add_process(const std::string& uid, std::int64_t pid, ino_t netns,
                   const std::string& command = "app", Clock::duration started = 59min) {
    processes_.of_pods[uid].push_back({.pid = pid,
                                       .container_id = "c",
                                       .netns = netns,
                                       .command_line = command,
                                       .started = Clock::time_point{started}});
  }
  // The namespace that a path of place() leads to now; 0 = none.
  [[nodiscard]] ino_t netns_of(const std::string& uid) const {
    struct stat status {};
    const std::string path = table_.place(uid).path;
    return !path.empty() && stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
  }
  bool look(Clock::duration at) { return table_.look(pods_, Clock::time_point{1h} + at); }

  std::vector<UniqueFd> files_;
  std::map<ino_t, int> by_inode_;
  std::map<ino_t, std::string> addresses_;
  NodeProcesses processes_;
  int scans_ = 0;
  const ino_t node_ = make_netns("192.0.2.1");
  std::vector<KnownPod> pods_{{.uid = kWeb, .addresses = {"10.0.0.5"}}};
  NetnsTable table_{{.list_processes = [this]() -> Result<NodeProcesses> {
                       ++scans_;
                       return processes_;
                     },
                     .open_netns = [this](std::int64_t pid) -> Result<UniqueFd> {
                       for (const auto& [uid, all] : processes_.of_pods) {
                         for (const PodProcess& process : all) {
                           if (process.pid == pid) {
                             return open(process.netns);
                           }
                         }
                       }
                       return make_error(ErrorCode::kNotFound, "no such process");
                     },
                     .list_addresses = [this](int fd) -> Result<std::vector<std::string>> {
                       return std::vector{addresses_.at(inode_of(fd))};
                     },
                     .node_netns = node_}};
};

TEST_F(Table, finds_a_pod_by_its_processes_and_its_address) {
  const ino_t web = make_netns("10.0.0.5");
  add_process(kWeb, 100, web);
  EXPECT_TRUE(look(0s));
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, does_not_take_a_namespace_without_the_pods_address) {
  add_process(kWeb, 100, make_netns("10.0.0.6"));
  look(0s);
  EXPECT_EQ(netns_of(kWeb), 0U);
  EXPECT_NE(table_.place(kWeb).problem.find("10.0.0.5"), std::string::npos);
}

TEST_F(Table, passes_by_the_nodes_own_namespace) {
  addresses_[node_] = "10.0.0.5";
  add_process(kWeb, 100, node_);
  look(0s);
  EXPECT_EQ(netns_of(kWeb), 0U);
  EXPECT_NE(table_.place(kWeb).problem.find("node's"), std::string::npos);
}

TEST_F(Table, chooses_among_nested_namespaces_the_one_with_the_address) {
  const ino_t web = make_netns("10.0.0.5");
  add_process(kWeb, 100, make_netns("172.17.0.1"));
  add_process(kWeb, 101, web);
  look(0s);
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, waits_for_the_address_and_the_process) {
  pods_[0].addresses.clear();
  look(0s);
  EXPECT_NE(table_.place(kWeb).problem.find("runs"), std::string::npos);
  const ino_t web = make_netns("10.0.0.5");
  add_process(kWeb, 100, web);
  look(1s);
  EXPECT_NE(table_.place(kWeb).problem.find("address"), std::string::npos);
  pods_[0].addresses = {"10.0.0.5"};
  EXPECT_TRUE(look(2s));
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, knows_the_addresses_that_the_plugin_told_of_until_that_sandbox_goes) {
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.5")), Clock::time_point{1h},
                {"10.0.0.5", "fd00::5"});
  EXPECT_EQ(table_.place(kWeb).addresses, (std::vector<std::string>{"10.0.0.5", "fd00::5"}));
  table_.attach("sandbox2", kWeb, open(make_netns("10.0.0.9")), Clock::time_point{1h},
                {"10.0.0.9"});
  EXPECT_EQ(table_.place(kWeb).addresses, std::vector<std::string>{"10.0.0.9"});
  table_.detach("sandbox2");
  table_.detach("sandbox1");
  EXPECT_TRUE(table_.place(kWeb).addresses.empty());
}

TEST_F(Table, believes_the_plugin_before_there_is_a_process) {
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  EXPECT_EQ(netns_of(kWeb), web);
  look(1s);
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, takes_the_newest_sandbox) {
  const ino_t second = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.4")), Clock::time_point{1h});
  table_.attach("sandbox2", kWeb, open(second), Clock::time_point{1h});
  EXPECT_EQ(netns_of(kWeb), second);
  table_.detach("sandbox1");
  EXPECT_EQ(netns_of(kWeb), second);
  EXPECT_FALSE(table_.has("sandbox1"));
}

TEST_F(Table, lets_go_when_the_plugin_says_so) {
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.5")), Clock::time_point{1h});
  table_.detach("sandbox1");
  EXPECT_EQ(netns_of(kWeb), 0U);
}

TEST_F(Table, lets_go_of_a_found_pod_too_when_the_plugin_says_so) {
  add_process(kWeb, 100, make_netns("10.0.0.5"));  // in container "c"
  look(0s);
  EXPECT_TRUE(table_.has("c/eth0"));
  EXPECT_FALSE(table_.has("d/eth0"));
  table_.detach("c/eth0");
  EXPECT_EQ(netns_of(kWeb), 0U);
}

TEST_F(Table, keeps_only_what_the_runtime_still_has) {
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.5")), Clock::time_point{1h});
  table_.attach("sandbox2", kDb, open(make_netns("10.0.0.6")), Clock::time_point{1h});
  table_.keep_only({"sandbox2"});
  EXPECT_EQ(netns_of(kWeb), 0U);
  EXPECT_NE(netns_of(kDb), 0U);
}

TEST_F(Table, lets_go_of_a_found_pod_when_its_object_goes) {
  add_process(kWeb, 100, make_netns("10.0.0.5"));
  look(0s);
  pods_.clear();
  EXPECT_TRUE(look(1ms));
  EXPECT_EQ(netns_of(kWeb), 0U);
}

TEST_F(Table, holds_what_the_plugin_told_before_the_api_but_not_for_ever) {
  pods_.clear();
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  look(59s);
  EXPECT_EQ(netns_of(kWeb), web);
  EXPECT_TRUE(look(61s));
  EXPECT_EQ(netns_of(kWeb), 0U);
}

TEST_F(Table, finds_the_new_namespace_of_a_pod_whose_sandbox_was_made_again) {
  add_process(kWeb, 100, make_netns("10.0.0.5"));
  look(0s);
  processes_.of_pods.clear();
  addresses_.begin()->second = "10.0.0.1";
  const ino_t second = make_netns("10.0.0.7");
  add_process(kWeb, 200, second);
  pods_[0].addresses = {"10.0.0.7"};
  EXPECT_TRUE(look(40s));
  EXPECT_EQ(netns_of(kWeb), second);
}

TEST_F(Table, does_not_doubt_a_sandbox_that_has_just_been_made) {
  const ino_t second = make_netns("10.0.0.7");
  add_process(kWeb, 100, make_netns("10.0.0.5"));  // of the sandbox before, still ending
  table_.attach("sandbox2", kWeb, open(second), Clock::time_point{1h});
  look(11s);
  EXPECT_EQ(netns_of(kWeb), second);
}

TEST_F(Table, keeps_the_plugins_word_where_it_cannot_see_the_nodes_processes) {
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  look(300s);
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, keeps_a_pod_that_has_no_process_for_a_while) {
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  add_process(kDb, 300, make_netns("10.0.0.9"));  // the node's processes are seen
  look(300s);
  EXPECT_EQ(netns_of(kWeb), web);
}

TEST_F(Table, knows_the_oldest_process_but_for_the_sandboxs_own) {
  const ino_t web = make_netns("10.0.0.5");
  add_process(kWeb, 100, web, std::string("/pause\0", 7), 40min);
  look(0s);
  EXPECT_FALSE(table_.place(kWeb).running_since.has_value());
  add_process(kWeb, 101, web, "app", 58min);
  add_process(kWeb, 102, web, "helper", 57min);
  add_process(kWeb, 103, make_netns("10.0.0.9"), "nested", 50min);
  look(300s);
  EXPECT_EQ(table_.place(kWeb).running_since, Clock::time_point{57min});
}

TEST_F(Table, tells_of_a_runtime_with_sockets_of_its_own) {
  add_process(kWeb, 100, make_netns("10.0.0.5"), std::string("runsc-sandbox\0boot", 18));
  EXPECT_TRUE(look(0s));
  EXPECT_EQ(table_.place(kWeb).sandbox, "gvisor");
  EXPECT_TRUE(table_.place(kWeb).has_run);
}

TEST_F(Table, tells_of_a_sandbox_that_is_in_the_pods_namespace_but_not_in_its_cgroup) {
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  processes_.outside = {
      {.pid = 400, .netns = make_netns("10.0.0.7"), .command_line = "cloud-hypervisor"},
      {.pid = 401, .netns = web, .command_line = "/opt/kata/bin/qemu-system-x86_64"}};
  EXPECT_TRUE(look(0s));
  EXPECT_EQ(table_.place(kWeb).sandbox, "kata");
  EXPECT_TRUE(table_.place(kWeb).has_run);
  EXPECT_EQ(netns_of(kWeb), web);
  processes_.outside.pop_back();
  EXPECT_TRUE(look(300s));
  EXPECT_EQ(table_.place(kWeb).sandbox, "") << "that is another pod's";
}

// The plugin told of it before anything of it runs.
TEST_F(Table, looks_soon_for_the_first_process_of_a_pod_with_a_runtime_class) {
  pods_[0].has_runtime_class = true;
  const ino_t web = make_netns("10.0.0.5");
  table_.attach("sandbox1", kWeb, open(web), Clock::time_point{1h});
  add_process(kWeb, 100, node_, "runc");
  add_process(kWeb, 101, web, "containerd-shim-kata-v2");
  look(0s);
  EXPECT_FALSE(table_.place(kWeb).has_run);
  add_process(kWeb, 102, web, std::string("/pause\0", 7));
  EXPECT_TRUE(look(250ms));
  EXPECT_TRUE(table_.place(kWeb).has_run);
  EXPECT_EQ(scans_, 2);
  processes_.of_pods.clear();  // between two containers
  look(20s);
  EXPECT_EQ(scans_, 3);
  EXPECT_TRUE(table_.place(kWeb).has_run);
  table_.attach("sandbox2", kWeb, open(make_netns("10.0.0.6")), Clock::time_point{1h});
  EXPECT_FALSE(table_.place(kWeb).has_run);
}

TEST_F(Table, does_not_look_more_often_for_a_process_that_cannot_be_seen) {
  pods_[0].has_runtime_class = true;
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.5")), Clock::time_point{1h});
  processes_.unseen[kWeb] = "permission denied";
  EXPECT_TRUE(look(0s));
  EXPECT_EQ(table_.place(kWeb).unseen, "permission denied");
  EXPECT_FALSE(look(9s));
  EXPECT_EQ(scans_, 1);
  processes_.unseen.clear();
  EXPECT_TRUE(look(10s)) << "it has ended";
  EXPECT_EQ(table_.place(kWeb).unseen, "");
}

TEST_F(Table, says_of_a_pod_without_namespace_that_its_processes_cannot_be_seen) {
  processes_.unseen[kWeb] = "permission denied";
  EXPECT_TRUE(look(0s));
  EXPECT_EQ(table_.place(kWeb).problem, "permission denied");
}

TEST_F(Table, takes_its_time_for_the_first_process_of_any_other_pod) {
  table_.attach("sandbox1", kWeb, open(make_netns("10.0.0.5")), Clock::time_point{1h});
  look(0s);
  look(9s);
  EXPECT_EQ(scans_, 1);
}

TEST_F(Table, does_not_list_processes_at_every_look) {
  for (int i = 0; i < 400; ++i) {
    look(i * 250ms);  // 100 s of a pod that never comes
  }
  EXPECT_LT(scans_, 40);
  EXPECT_GT(scans_, 10);
}

TEST_F(Table, looks_at_once_for_a_pod_that_is_new) {
  for (int i = 0; i < 400; ++i) {
    look(i * 250ms);
  }
  const ino_t db = make_netns("10.0.0.9");
  pods_.push_back({.uid = kDb, .addresses = {"10.0.0.9"}});
  add_process(kDb, 300, db);
  EXPECT_TRUE(look(100001ms));
  EXPECT_EQ(netns_of(kDb), db);
}

TEST(Addresses, are_the_same_however_they_are_written) {
  EXPECT_TRUE(same_address("fd00::1", "fd00:0:0:0::0001"));
  EXPECT_TRUE(same_address("10.0.0.1", "10.0.0.1"));
  EXPECT_FALSE(same_address("10.0.0.1", "10.0.0.2"));
  EXPECT_FALSE(same_address("", ""));
  EXPECT_FALSE(same_address("web", "web"));
}

}  // namespace
}  // namespace sidetrack::pods
