// SPDX-License-Identifier: Apache-2.0
// To which cgroup each program is attached, as the kernel says it, and that it is so once.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <iterator>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

constexpr bpf_attach_type kOfAll[] = {BPF_CGROUP_INET4_CONNECT,     BPF_CGROUP_INET6_CONNECT,
                                      BPF_CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET6_GETPEERNAME,
                                      BPF_CGROUP_INET4_GETSOCKNAME, BPF_CGROUP_INET6_GETSOCKNAME,
                                      BPF_CGROUP_SOCK_OPS};
constexpr bpf_attach_type kOfEngine[] = {BPF_CGROUP_GETSOCKOPT, BPF_CGROUP_SETSOCKOPT};
constexpr std::uint64_t kLinks = std::size(kOfAll) + std::size(kOfEngine);

class Links : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      start_sidetrack();
    }
  }
  // How many programs of this kind a cgroup has; -1: it does not say.
  static int attached(const std::string& cgroup, bpf_attach_type type) {
    const UniqueFd fd(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bpf_attr attributes{};
    attributes.query.target_fd = static_cast<std::uint32_t>(fd.get());
    attributes.query.attach_type = type;
    return ::syscall(SYS_bpf, BPF_PROG_QUERY, &attributes, sizeof(attributes)) == 0
               ? static_cast<int>(attributes.query.prog_cnt)
               : -1;
  }
  // SO_ORIGINAL_DST (getsockopt) and the engine's reports (setsockopt): no other process of the
  // node meets these programs. All others see every pod.
  void expect_each_where_it_belongs() {
    const std::string& engine = sidetrack_->engine_cgroup();
    ST_ASSERT_VALUE(const std::uint64_t engine_id, cgroup_id(engine));
    ST_ASSERT_VALUE(const auto links, kernel().links());
    std::map<std::string, int> options;
    for (const auto& [name, cgroup] : links) {
      const std::string program = name.substr(0, name.find("sockopt") + 7);
      if (program == "st_getsockopt" || program == "st_setsockopt") {
        EXPECT_EQ(cgroup, engine_id) << name;
        ++options[program];
      } else {
        EXPECT_EQ(cgroup, cgroup_->id()) << name;
      }
    }
    EXPECT_EQ(options, (std::map<std::string, int>{{"st_getsockopt", 1}, {"st_setsockopt", 1}}));
    EXPECT_TRUE(links.contains("st_connect4") && links.contains("st_sockops"));
    EXPECT_EQ(links.size(), kLinks);
    // A second one that no pin names would go unseen above.
    for (const bpf_attach_type type : kOfAll) {
      EXPECT_EQ(attached(cgroup_->path(), type), 1) << "attach type " << type;
      EXPECT_EQ(attached(engine, type), 0) << "attach type " << type;
    }
    for (const bpf_attach_type type : kOfEngine) {
      EXPECT_EQ(attached(engine, type), 1) << "attach type " << type;
      EXPECT_EQ(attached(cgroup_->path(), type), 0) << "attach type " << type;
    }
  }
  static int bpf(bpf_cmd command, bpf_attr& attributes) {
    return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
  }
  // The program of an open link, as a descriptor.
  static UniqueFd program_of(const UniqueFd& link) {
    bpf_link_info info{};
    bpf_attr question{};
    question.info.bpf_fd = static_cast<std::uint32_t>(link.get());
    question.info.info_len = sizeof(info);
    question.info.info = reinterpret_cast<std::uint64_t>(&info);
    EXPECT_EQ(bpf(BPF_OBJ_GET_INFO_BY_FD, question), 0);
    bpf_attr wanted{};
    wanted.prog_id = info.prog_id;
    return UniqueFd(bpf(BPF_PROG_GET_FD_BY_ID, wanted));
  }
  // In place of a pinned link one of the same program on another cgroup.
  void move_link(const std::string& name, bpf_attach_type type, const std::string& cgroup) {
    const std::string path = sidetrack_->pin_dir() + "/v1/links/" + name;
    bpf_attr pin{};
    pin.pathname = reinterpret_cast<std::uint64_t>(path.c_str());
    const UniqueFd old(bpf(BPF_OBJ_GET, pin));
    ASSERT_TRUE(old.valid()) << path;
    const UniqueFd program = program_of(old);
    const UniqueFd folder(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bpf_attr made{};
    made.link_create.prog_fd = static_cast<std::uint32_t>(program.get());
    made.link_create.target_fd = static_cast<std::uint32_t>(folder.get());
    made.link_create.attach_type = type;
    const UniqueFd link(bpf(BPF_LINK_CREATE, made));
    ASSERT_TRUE(link.valid()) << path;
    ASSERT_EQ(::unlink(path.c_str()), 0) << path;
    pin.bpf_fd = static_cast<std::uint32_t>(link.get());
    ASSERT_EQ(bpf(BPF_OBJ_PIN, pin), 0) << path;
  }
  // ... of every pod's and of the engine's programs.
  void move_two(const std::string& cgroup) {
    ST_ASSERT_VALUE(const std::uint64_t engine, cgroup_id(sidetrack_->engine_cgroup()));
    ASSERT_NO_FATAL_FAILURE(move_link("st_connect4", BPF_CGROUP_INET4_CONNECT, cgroup));
    ASSERT_NO_FATAL_FAILURE(
        move_link(fmt::format("st_getsockopt_{}", engine), BPF_CGROUP_GETSOCKOPT, cgroup));
  }
  void expect_two_are_back(const std::string& cgroup) {
    expect_each_where_it_belongs();
    EXPECT_EQ(attached(cgroup, BPF_CGROUP_INET4_CONNECT), 0);
    EXPECT_EQ(attached(cgroup, BPF_CGROUP_GETSOCKOPT), 0);
  }
  [[nodiscard]] bool repaired(std::uint64_t count) const {
    return eventually(kPatience, [&] {
      const auto status = sidetrack_->get("/v1/status");
      return status && status->value("repairs", std::uint64_t{0}) == count;
    });
  }
};

TEST_F(Links, original_destinations_are_told_in_the_engines_cgroup_only) {
  expect_each_where_it_belongs();
}

TEST_F(Links, are_where_they_were_after_agent_and_engine_came_again) {
  sidetrack_->agent().kill_hard();
  sidetrack_->engine().kill_hard();
  ST_ASSERT_OK(sidetrack_->start());
  wait_enrolled();
  expect_each_where_it_belongs();
}

TEST_F(Links, are_where_they_were_after_a_standby_agent_took_over) {
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.emplace_back("--standby");
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_OK(standby->wait_for_output("event=standby"));
  expect_each_where_it_belongs();
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(standby->wait_for_output("event=started"));
  ST_ASSERT_OK(sidetrack_->get("/v1/status"));
  expect_each_where_it_belongs();
  ST_ASSERT_OK(standby->terminate());
}

TEST_F(Links, are_where_they_were_after_each_was_put_right) {
  ST_ASSERT_VALUE(const auto links, kernel().links());
  for (const auto& [link, cgroup] : links) {
    ST_ASSERT_OK(kernel().detach_link(link));
  }
  ASSERT_TRUE(repaired(kLinks)) << sidetrack_->logs();
  expect_each_where_it_belongs();
  // A link that nobody has open goes with its pin.
  for (const auto& [link, cgroup] : links) {
    ASSERT_EQ(::unlink((sidetrack_->pin_dir() + "/v1/links/" + link).c_str()), 0) << link;
  }
  ASSERT_TRUE(repaired(2 * kLinks)) << sidetrack_->logs();
  expect_each_where_it_belongs();
}

// Pinned and alive, and yet on the wrong cgroup: the id tells it, to an agent that runs and to one
// that adopts the pins.
TEST_F(Links, that_are_on_another_cgroup_are_put_right) {
  ST_ASSERT_VALUE(const TestCgroup other, TestCgroup::create("other"));
  ASSERT_NO_FATAL_FAILURE(move_two(other.path()));
  ASSERT_TRUE(repaired(2)) << sidetrack_->logs();
  expect_two_are_back(other.path());
}

TEST_F(Links, that_are_on_another_cgroup_are_not_adopted_as_they_are) {
  ST_ASSERT_VALUE(const TestCgroup other, TestCgroup::create("other"));
  sidetrack_->agent().kill_hard();
  ASSERT_NO_FATAL_FAILURE(move_two(other.path()));
  ST_ASSERT_OK(sidetrack_->start_agent());
  wait_enrolled();
  expect_two_are_back(other.path());
}

}  // namespace
}  // namespace sidetrack::lab
