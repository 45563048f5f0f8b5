// SPDX-License-Identifier: Apache-2.0
// What sidetrackctl shows of connections that skip TCP: that they do, and every byte.
#include <fmt/format.h>

#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_talkers.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr std::uint64_t kConnections = 3;

struct Way {
  const char* mode;
  const char* path;
  const char* verdict;
};

class FastFlows : public FastTalkers, public testing::WithParamInterface<Way> {
 protected:
  // Flows that have ended, by path.
  [[nodiscard]] std::map<std::string, std::vector<json>> ended() const {
    std::map<std::string, std::vector<json>> found;
    const auto page = sidetrack_->get("/v1/flows");
    for (const json& flow : page ? page->at("flows") : json::array()) {
      if (flow.value("end", 0.0) != 0) {
        found[flow.value("path", "")].push_back(flow);
      }
    }
    return found;
  }
  // Why each open connection of the client is on TCP.
  [[nodiscard]] std::set<std::string> open_reasons() const {
    std::set<std::string> found;
    const auto page = sidetrack_->get("/v1/flows");
    for (const json& flow : page ? page->at("flows") : json::array()) {
      if (flow.value("end", 0.0) == 0 && flow.value("pod", "") == "client") {
        found.insert(flow.value("fast_path_reason", "none told"));
      }
    }
    return found;
  }
  // What explain says of the fast path of the client's connection to this address.
  [[nodiscard]] std::string explained(const std::string& destination) const {
    const auto view =
        sidetrack_->get("/v1/explain?namespace=shop&pod=client&destination=" + destination);
    return !view ? view.error().message
                 : fmt::format("{} {}", view->value("fast_path", ""),
                               view->value("fast_path_reason", ""));
  }
  [[nodiscard]] std::string said(const std::vector<std::string>& arguments) const {
    const auto answer = sidetrack_->ctl(arguments);
    return answer && answer->exit_status == 0 ? answer->output : "failed";
  }
};

TEST_P(FastFlows, have_their_path_and_every_byte) {
  ASSERT_NO_FATAL_FAILURE(start({.mode = GetParam().mode}));
  ASSERT_NO_FATAL_FAILURE(hold(kConnections));
  ASSERT_NO_FATAL_FAILURE(expect_all_adopted(kConnections));
  expect_all_fast(kConnections);
  EXPECT_EQ(sidetrack_->metric("sidetrack_fastpath_connections{namespace=\"shop\"}"), adopted());
  const std::string pods = said({"pods"});
  EXPECT_NE(pods.find("auto, 3 fast"), std::string::npos) << pods;
  EXPECT_EQ(pods.find("not on the fast path"), std::string::npos) << pods;
  const std::string words = said({"explain", "shop/client", server_->v4 + ":7000"});
  EXPECT_NE(words.find(GetParam().verdict), std::string::npos) << words;
  EXPECT_NE(words.find("fast path  possible\n"), std::string::npos) << words;
  EXPECT_EQ(open_reasons(), std::set<std::string>{""});

  ST_ASSERT_OK(shell_->release());
  EXPECT_TRUE(eventually(kPatience, [&] {
    return ended()[GetParam().path].size() == kConnections;
  })) << json(ended()).dump();
  const auto flows_by_path = ended();
  for (const json& flow : flows_by_path.at(GetParam().path)) {
    EXPECT_EQ(flow["bytes_out"], talked_bytes()) << flow;
    EXPECT_EQ(flow["bytes_in"], talked_bytes()) << flow;
    EXPECT_EQ(flow["pod"], "client") << flow;
    EXPECT_EQ(flow["close"], "fin") << flow;
    EXPECT_EQ(flow["fast_path_reason"], "") << flow;
  }
  const std::string flows = said({"flows"});
  EXPECT_NE(flows.find(GetParam().path), std::string::npos) << flows;
}

TEST_P(FastFlows, say_why_they_are_on_tcp) {
  ASSERT_NO_FATAL_FAILURE(start({.probation = "30m", .mode = GetParam().mode}));
  ASSERT_NO_FATAL_FAILURE(hold(1));
  EXPECT_TRUE(eventually(kPatience, [&] {
    return open_reasons() == std::set<std::string>{"fp_young"};
  })) << json(open_reasons());
  for (int i = 0; i < 8; ++i) {
    expect_exact(1);
  }
  const std::string server = server_->v4 + ":7000";
  const auto is_said = [&](const std::string& reason) {
    return eventually(kPatience, [&] {
      return open_reasons() == std::set{reason} && explained(server) == "no " + reason;
    });
  };
  EXPECT_TRUE(is_said("fp_probation")) << json(open_reasons()) << explained(server);
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/server", "sidetrack.io/fast-path", "off"));
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/client", "sidetrack.io/fast-path", "off"));
  EXPECT_TRUE(is_said("fp_off")) << json(open_reasons()) << explained(server);
  EXPECT_EQ(explained("127.0.0.1:7000"), "never ");
  ST_ASSERT_OK(
      objects_->set_label(Kind::kPod, "shop/client", "sidetrack.io/fast-path", std::nullopt));
  // Through an engine it can be past TCP as far as that; directly there is nobody.
  const std::string elsewhere =
      std::string(GetParam().mode) == "redirect" ? "no fp_probation" : "no fp_no_peer";
  EXPECT_TRUE(eventually(kPatience, [&] { return explained("192.0.2.1:7000") == elsewhere; }))
      << explained("192.0.2.1:7000");
  if (std::string(GetParam().mode) == "redirect") {
    // Without an engine it goes to the server itself, which is off.
    sidetrack_->engine().kill_hard();
    EXPECT_TRUE(eventually(kPatience, [&] { return explained(server) == "no fp_off"; }))
        << explained(server);
  }
}

TEST_P(FastFlows, say_why_they_were_on_tcp_after_their_end) {
  ASSERT_NO_FATAL_FAILURE(start({.probation = "30m", .mode = GetParam().mode}));
  std::vector<std::string> expected;
  const auto ends_with = [&](const std::string& reason) {
    ST_ASSERT_OK(shell_->release());
    expected.push_back(reason);
    std::vector<std::string> told;
    EXPECT_TRUE(eventually(kPatience, [&] {
      told.clear();
      for (const auto& [path, flows] : ended()) {
        for (const json& flow : flows) {
          told.push_back(flow.value("fast_path_reason", "none told"));
        }
      }
      return told == expected;
    })) << json(told);
  };
  ASSERT_NO_FATAL_FAILURE(hold(1));
  ends_with("fp_young");
  ASSERT_NO_FATAL_FAILURE(hold(1));
  EXPECT_TRUE(eventually(kPatience, [&] {
    expect_exact(1);
    return open_reasons() == std::set<std::string>{"fp_probation"};
  })) << json(open_reasons());
  ends_with("fp_probation");
  EXPECT_NE(said({"flows"}).find("fin, fp_probation"), std::string::npos) << said({"flows"});
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/client", "sidetrack.io/fast-path", "off"));
  EXPECT_TRUE(
      eventually(kPatience, [&] { return explained(server_->v4 + ":7000") == "no fp_off"; }));
  ASSERT_NO_FATAL_FAILURE(hold(1));
  ends_with("fp_off");
}

// Nobody tells the agent: what the kernel knows is enough.
TEST_P(FastFlows, that_end_while_no_agent_is_there_say_why_they_were_on_tcp) {
  ASSERT_NO_FATAL_FAILURE(start({.probation = "30m", .mode = GetParam().mode}));
  ASSERT_NO_FATAL_FAILURE(hold(1));
  EXPECT_TRUE(eventually(kPatience, [&] {
    expect_exact(1);
    return open_reasons() == std::set<std::string>{"fp_probation"};
  })) << json(open_reasons());
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(shell_->release());
  ST_ASSERT_OK(sidetrack_->start_agent());
  std::vector<json> told;
  EXPECT_TRUE(eventually(kPatience, [&] {
    const std::string path = std::string(GetParam().mode) == "redirect" ? "engine" : "direct";
    told = ended()[path];
    return told.size() == 1;
  }));
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0]["fast_path_reason"], "fp_probation") << told[0];
}

INSTANTIATE_TEST_SUITE_P(Ways, FastFlows,
                         testing::Values(Way{"passthrough", "fast", "direct"},
                                         Way{"redirect", "handoff", "redirected"}),
                         [](const auto& way) { return std::string(way.param.mode); });

}  // namespace
}  // namespace sidetrack::lab
