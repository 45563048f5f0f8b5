// SPDX-License-Identifier: Apache-2.0
// To which cgroup each program is attached, as the kernel says it, and that it is so once.
#include <fcntl.h>
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

}  // namespace
}  // namespace sidetrack::lab
