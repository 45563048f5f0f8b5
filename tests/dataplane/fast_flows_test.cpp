// SPDX-License-Identifier: Apache-2.0
// What sidetrackctl shows of connections that skip TCP: that they do, and every byte.
#include <fmt/format.h>

#include <map>

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
  const std::string pods = said({"pods"});
  EXPECT_NE(pods.find("auto, 3 fast"), std::string::npos) << pods;
  EXPECT_EQ(pods.find("not on the fast path"), std::string::npos) << pods;
  const std::string explained = said({"explain", "shop/client", server_->v4 + ":7000"});
  EXPECT_NE(explained.find(GetParam().verdict), std::string::npos) << explained;

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
  }
  const std::string flows = said({"flows"});
  EXPECT_NE(flows.find(GetParam().path), std::string::npos) << flows;
}

INSTANTIATE_TEST_SUITE_P(Ways, FastFlows,
                         testing::Values(Way{"passthrough", "fast", "direct"},
                                         Way{"redirect", "handoff", "redirected"}),
                         [](const auto& way) { return std::string(way.param.mode); });

}  // namespace
}  // namespace sidetrack::lab
