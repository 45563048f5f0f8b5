// SPDX-License-Identifier: Apache-2.0
// The agent itself behind the fault proxy: what the kernel enforces for a pod stays in force
// whatever becomes of the API server, and changes again as soon as that is well.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <ostream>
#include <string>
#include <utility>

#include "tests/kubernetes/agent_on_node.h"
#include "tests/kubernetes/source_canned.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using lab::Clock;
using nlohmann::json;

// What fails is tried again after 0.8 to 1.6 s, then 1.6 to 3.2 s, 3.2 to 6.4 s and at least 6.4 s
// (docs/kubernetes-source.md): of one resource that is twice at least in this time.
constexpr auto kTrouble = 10s;
constexpr int kMostTries = 4;  // 401 is tried again at once, once
constexpr auto kRecovery = 30s;

struct Trouble {
  const char* name;
  FaultProxy::Rule (*rule)(const FaultProxy&);  // null: nobody listens
  std::chrono::milliseconds time = kTrouble;
  int tries = 2;         // at least, of one resource
  int lists = 0;         // at most, of all five
  bool arrives = false;  // changes get through all the same
};

// A stream and two lists of each resource.
constexpr int kSlowLists = 15;

FaultProxy::Rule no_streamed_lists(FaultProxy::Rule watches) {
  return [watches = std::move(watches)](const HttpRequest& request, Answer& answer) {
    return verb_of(request) == "stream" ? answer_with(422, "Invalid")(request, answer)
                                        : for_watches(watches)(request, answer);
  };
}

FaultProxy::Rule expired_versions(const FaultProxy&) {
  return no_streamed_lists(answer_with(410, "Expired"));
}

FaultProxy::Rule expired_streams(const FaultProxy&) {
  return no_streamed_lists([](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk(
        R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}})"
        "\n");
    return answer.write_chunk("");
  });
}

FaultProxy::Rule expired_token(const FaultProxy&) {
  return answer_with(401, "Unauthorized");
}

FaultProxy::Rule garbage(const FaultProxy&) {
  return for_watches([](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk("{\"type\":\"ADDED\",\"object\":{\"metadata\":}}\n\0\xff[[[\n"s);
    return answer.write_chunk("");
  });
}

// What the server says, up to the middle of a watch's first event.
FaultProxy::Rule cut(const FaultProxy& proxy) {
  return for_watches([&proxy](const HttpRequest& request, Answer& answer) {
    static constexpr std::size_t kBeginning = 100;
    std::string said;
    proxy.pass(request, answer, [&said](std::string_view bytes, Answer& out) {
      said += bytes;
      const std::size_t head = said.find("\r\n\r\n");
      const std::size_t rest = head == said.npos ? 0 : said.size() - head - 4;
      const std::size_t beyond = rest - std::min(rest, kBeginning);
      return out.write(bytes.substr(0, bytes.size() - beyond)) && beyond == 0;
    });
    return true;
  });
}

FaultProxy::Rule silence(const FaultProxy&) {
  return no_answer();
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
  // The kernel's row stays as it is, though the objects ask for another, unless that gets through.
  void expect_in_force(const Trouble& trouble) const {
    const auto end = Clock::now() + trouble.time;
    const auto left = [end] { return std::chrono::ceil<lab::milliseconds>(end - Clock::now()); };
    std::string before = row();
    const int failed = failures();
    exclude("7");
    if (trouble.arrives) {
      ASSERT_TRUE(lab::eventually(left(), [&] { return row() != before; })) << row();
      before = row();
    }
    EXPECT_FALSE(lab::eventually(left(), [&] { return row() != before; })) << row();
    expect_redirected();
    const int tries =
        trouble.rule != nullptr ? proxy_->requests()["watch namespaces"] : failures() - failed;
    EXPECT_GE(tries, trouble.tries);
    EXPECT_LE(tries, kMostTries);
    EXPECT_LE(proxy_->lists(), trouble.lists);
  }
  // Requests of namespaces that failed so far, by the agent's own count.
  [[nodiscard]] int failures() const {
    const auto answer = sidetrack_->get("/v1/status");
    for (const json& resource : answer ? answer->at("kubernetes").at("resources") : json::array()) {
      if (resource["resource"] == "namespaces") {
        return resource["failures"];
      }
    }
    return 0;
  }
  // That gets through once it is over, and is taken back. Either may wait for the next try.
  void expect_recovery() const {
    const auto patience = lab::scaled(kRecovery);
    ASSERT_TRUE(lab::eventually(patience, [&] { return excluded() == "7"; })) << row();
    exclude("");
    ASSERT_TRUE(lab::eventually(patience, [&] { return excluded().empty(); })) << row();
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

void PrintTo(const Trouble& trouble, std::ostream* out) {
  *out << trouble.name;
}

class AgentInTrouble : public AgentFaultsTest, public testing::WithParamInterface<Trouble> {};

TEST_P(AgentInTrouble, what_is_in_force_stays_in_force) {
  const pid_t agent = sidetrack_->agent().pid();
  proxy_->reset();
  if (GetParam().rule != nullptr) {
    proxy_->set_rule(GetParam().rule(*proxy_));
    proxy_->server().drop_all();
  } else {
    proxy_->server().go_away();
  }
  ASSERT_NO_FATAL_FAILURE(expect_in_force(GetParam()));
  if (GetParam().rule != nullptr) {
    proxy_->set_rule(nullptr);
    proxy_->server().drop_all();
  } else {
    ST_ASSERT_OK(proxy_->server().come_back());
  }
  ASSERT_NO_FATAL_FAILURE(expect_recovery());
  if (GetParam().rule == nullptr) {
    EXPECT_EQ(proxy_->lists(), 0) << "the watches go on from where they were";
  }
  EXPECT_TRUE(sidetrack_->agent().running());
  EXPECT_EQ(sidetrack_->agent().pid(), agent);
}

INSTANTIATE_TEST_SUITE_P(
    All, AgentInTrouble,
    testing::Values(Trouble{.name = "outage", .rule = nullptr},
                    Trouble{.name = "expired_versions",
                            .rule = expired_versions,
                            .lists = kSlowLists,
                            .arrives = true},
                    Trouble{.name = "expired_streams",
                            .rule = expired_streams,
                            .lists = kSlowLists,
                            .arrives = true},
                    Trouble{.name = "expired_token", .rule = expired_token},
                    Trouble{.name = "garbage", .rule = garbage},
                    Trouble{.name = "cut", .rule = cut},
                    Trouble{.name = "slow", .rule = byte_by_byte, .tries = 1, .arrives = true},
                    // Left after 30 s.
                    Trouble{.name = "no_answer", .rule = silence, .time = 40s}),
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
