// SPDX-License-Identifier: Apache-2.0
// The agent itself behind the fault proxy: what the kernel enforces for a pod stays in force
// whatever becomes of the API server, and changes again as soon as that is well.
#include <fmt/format.h>

#include <filesystem>
#include <functional>

#include "tests/kubernetes/agent_on_node.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using lab::Clock;
using nlohmann::json;

constexpr auto kTrouble = 1500ms;
// Lists of five resources, begun at once and again after 0.5 to 1.5 s (docs/kubernetes-source.md).
constexpr int kCalm = 20;

struct Trouble {
  const char* name;
  FaultProxy::Rule rule;
};

bool expired_event(const HttpRequest&, Answer& answer) {
  answer.begin_chunks();
  answer.write_chunk(R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}})"
                     "\n");
  return answer.write_chunk("");
}

bool garbage(const HttpRequest&, Answer& answer) {
  answer.begin_chunks();
  answer.write_chunk("{\"type\":\"ADDED\",\"object\":{\"metadata\":}}\n\0\xff[[[\n"s);
  return answer.write_chunk("");
}

bool hang(const HttpRequest&, Answer& answer) {
  answer.hang();
  return true;
}

class AgentFaultsTest : public AgentOnNode {
 protected:
  AgentFaultsTest() { engine_ = "embedded"; }

  void SetUp() override {
    AgentOnNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ASSERT_NO_FATAL_FAILURE(run_pod());
    ST_ASSERT_OK(sidetrack_->start());
    ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "redirect"));
  }

  // Connections of the pod's namespace that the kernel redirected so far.
  [[nodiscard]] std::uint64_t redirected() const {
    const auto answer = sidetrack_->get("/v1/counters");
    for (const json& row : answer ? answer->at("counters") : json::array()) {
      if (row["namespace"] == namespace_) {
        return row["connections"].value("redirected", std::uint64_t{0});
      }
    }
    return 0;
  }
  // A connection of the pod, to where nobody listens: whoever took it, the kernel has counted it.
  void expect_redirected() const {
    const std::uint64_t before = redirected();
    ST_ASSERT_OK(lab::run_command(
        {.arguments = {"bash", "-c", fmt::format("exec 3<>/dev/tcp/{}/9", lab_->node_v4())},
         .netns_path = pod_->netns.path(),
         .cgroup_path = process_cgroup_}));
    EXPECT_EQ(redirected(), before + 1);
  }
  // What the kernel has for the pod.
  [[nodiscard]] std::string row() const {
    const json shown = pod();
    return fmt::format("{} {} {} {}", shown.value("state", ""), shown.value("mode", ""),
                       shown.value("policy_id", 0), shown.value("netns_cookie", std::uint64_t{0}));
  }
  void exclude(const std::string& ports) const {
    const auto outcome = api_->call(
        "PATCH", "/api/v1/namespaces/" + namespace_,
        json{{"metadata",
              {{"annotations",
                {{"sidetrack.io/exclude-outbound-ports", ports.empty() ? json() : json(ports)}}}}}}
            .dump());
    ASSERT_TRUE(outcome.ok()) << outcome.body;
  }
  // The kernel's row stays as it is, though the objects ask for another.
  void expect_in_force() const {
    const std::string before = row();
    exclude("7");
    EXPECT_FALSE(lab::eventually(kTrouble, [&] { return row() != before; })) << row();
    expect_redirected();
    EXPECT_LE(proxy_->lists(), kCalm);
  }
  // That gets through once it is over, and is taken back.
  void expect_recovery() const {
    ASSERT_TRUE(lab::eventually(lab::kPatience, [&] { return excluded() == "7"; })) << row();
    exclude("");
    ASSERT_TRUE(lab::eventually(lab::kPatience, [&] { return excluded().empty(); })) << row();
  }
  [[nodiscard]] std::string excluded() const {
    const auto view = sidetrack_->get("/v1/policy?namespace=" + namespace_ + "&pod=web");
    for (const json& entry : view ? view->at("entries") : json::array()) {
      if (entry["name"] == "exclude_outbound_ports") {
        return entry.value("value", "");
      }
    }
    return "";
  }
};

class AgentInTrouble : public AgentFaultsTest, public testing::WithParamInterface<Trouble> {};

TEST_P(AgentInTrouble, what_is_in_force_stays_in_force) {
  const pid_t agent = sidetrack_->agent().pid();
  proxy_->reset();
  if (GetParam().rule) {
    proxy_->set_rule(GetParam().rule);
    proxy_->server().drop_all();
  } else {
    proxy_->server().go_away();
  }
  expect_in_force();
  if (GetParam().rule) {
    proxy_->set_rule(nullptr);
    proxy_->server().drop_all();
  } else {
    ST_ASSERT_OK(proxy_->server().come_back());
  }
  ASSERT_NO_FATAL_FAILURE(expect_recovery());
  EXPECT_TRUE(sidetrack_->agent().running());
  EXPECT_EQ(sidetrack_->agent().pid(), agent);
}

INSTANTIATE_TEST_SUITE_P(
    All, AgentInTrouble,
    testing::Values(Trouble{"outage", nullptr},
                    Trouble{"expired_versions", for_watches(answer_with(410, "Expired"))},
                    Trouble{"expired_streams", for_watches(expired_event)},
                    Trouble{"expired_token", answer_with(401, "Unauthorized")},
                    Trouble{"garbage", for_watches(garbage)}, Trouble{"no_answer", hang}),
    [](const auto& trouble) { return std::string(trouble.param.name); });

// A reboot, as far as the agent can tell: nothing of ours is in the kernel.
TEST_F(AgentFaultsTest, what_was_last_read_is_put_in_force_without_an_api_server) {
  for (const char* kind : {"namespaces", "nodes", "pods", "services", "endpointslices"}) {
    ASSERT_TRUE(lab::eventually(lab::kPatience, [&] {
      return std::filesystem::exists(
          fmt::format("{}/kubernetes/{}.json", sidetrack_->cache_dir(), kind));
    })) << kind;
  }
  sidetrack_->agent().kill_hard();
  sidetrack_->engine().kill_hard();
  std::filesystem::remove_all(sidetrack_->pin_dir());
  proxy_->server().go_away();
  ST_ASSERT_OK(sidetrack_->start());
  ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "redirect"));
  expect_redirected();
  ST_ASSERT_OK(proxy_->server().come_back());
  exclude("7");
  ASSERT_NO_FATAL_FAILURE(expect_recovery());
}

}  // namespace
}  // namespace sidetrack::tests
