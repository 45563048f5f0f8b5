// SPDX-License-Identifier: Apache-2.0
// An agent that is told to end asks whether its DaemonSet is still there: only where the API server
// says that it is not does it take everything back. That nobody answers is no reason to.
#include <cstring>
#include <filesystem>
#include <map>
#include <ostream>
#include <string>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/kubernetes/agent_with_plugin.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using lab::Clock;

// The question has 2 s (agent/kube/kubernetes_source.h); what waits for runtimes to load the
// configuration takes 3 s more (docs/cni.md).
const auto kEnds = lab::scaled(6s);
const auto kEndsWithAll = lab::scaled(15s);

struct Silence {
  const char* name;
  FaultProxy::Rule (*rule)();  // null: nobody listens
};

void PrintTo(const Silence& silence, std::ostream* out) {
  *out << silence.name;
}

class AgentEndTest : public AgentWithPlugin {
 protected:
  AgentEndTest() { agent_arguments_ = {"--daemonset", "sidetrack", "--namespace", "sidetrack"}; }

  // SIGTERM; `within`: how long it may take.
  void end_agent(lab::milliseconds within) {
    const auto asked = Clock::now();
    ST_ASSERT_VALUE(const int status, sidetrack_->agent().terminate(lab::scaled(60s)));
    EXPECT_EQ(status, 0) << sidetrack_->agent().output();
    EXPECT_LE(Clock::now() - asked, within) << sidetrack_->agent().output();
  }

  // What there is of ours.
  struct Node {
    std::string configuration;
    std::string plugin;
    std::string row;  // of the pod, as the kernel has it
    std::map<std::string, std::uint64_t> links;
    bool operator==(const Node&) const = default;
  };
  [[nodiscard]] Node look() const {
    const lab::KernelView kernel(sidetrack_->pin_dir());
    const auto row = kernel.pod(*pod_->netns.cookie());
    EXPECT_TRUE(row) << row.error().message;
    Node node{.configuration = configuration(),
              .plugin = files::read_file(plugin(), files::kMaxBinaryBytes).value_or({}).text,
              .row = std::string(sizeof(st_pod), '\0'),
              .links = kernel.links().value_or({})};
    if (row) {
      std::memcpy(node.row.data(), &*row, sizeof(st_pod));
    }
    return node;
  }
  void expect_unchanged_by(lab::milliseconds within) {
    const Node before = look();
    EXPECT_FALSE(before.plugin.empty());
    EXPECT_FALSE(before.links.empty());
    ASSERT_NO_FATAL_FAILURE(end_agent(within));
    const Node after = look();
    EXPECT_EQ(after.configuration, before.configuration);
    EXPECT_TRUE(after.plugin == before.plugin);
    EXPECT_TRUE(after.row == before.row);
    EXPECT_EQ(after.links, before.links);
  }
};

TEST_F(AgentEndTest, leaves_everything_where_another_agent_follows) {
  expect_unchanged_by(kEnds);
}

TEST_F(AgentEndTest, takes_everything_back_when_its_daemonset_is_gone) {
  remove_daemonset();
  ASSERT_NO_FATAL_FAILURE(end_agent(kEndsWithAll));
  EXPECT_EQ(configuration(), kMain);
  EXPECT_FALSE(std::filesystem::exists(plugin()));
  EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir()));
}

class AgentEndInSilence : public AgentEndTest, public testing::WithParamInterface<Silence> {
 protected:
  void silence() const {
    if (GetParam().rule == nullptr) {
      proxy_->server().go_away();
      return;
    }
    proxy_->set_rule(GetParam().rule());
    proxy_->server().drop_all();
  }
};

TEST_P(AgentEndInSilence, leaves_everything) {
  silence();
  expect_unchanged_by(kEnds);
}

INSTANTIATE_TEST_SUITE_P(
    All, AgentEndInSilence,
    testing::Values(
        Silence{.name = "away", .rule = nullptr}, Silence{.name = "hanging", .rule = no_answer},
        Silence{.name = "not_allowed", .rule = [] { return answer_with(403, "Forbidden"); }},
        Silence{.name = "not_known", .rule = [] { return answer_with(401, "Unauthorized"); }},
        Silence{.name = "of_another", .rule = [] { return answer_with(404, ""); }},
        Silence{.name = "broken", .rule = [] { return answer_with(500, "InternalError"); }},
        Silence{.name = "no_daemonset", .rule = [] { return answer_with(200, ""); }}),
    [](const auto& silence) { return std::string(silence.param.name); });

}  // namespace
}  // namespace sidetrack::tests
