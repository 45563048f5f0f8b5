// SPDX-License-Identifier: Apache-2.0
// What the chart refuses to change of an installed release: helm against a real API server without
// nodes, so nothing runs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/kubernetes/source_cluster.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr const char* kNoSurge =
    "updateStrategy.rollingUpdate.maxSurge=0,updateStrategy.rollingUpdate.maxUnavailable=1";

class ChartUpgrade : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto api = RealApi::start();
    if (!api && api.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << api.error().message;
    }
    ASSERT_TRUE(api) << api.error().message;
    api_ = std::move(*api);
    ST_ASSERT_VALUE(helm_, find_program("helm"));
    std::ofstream(kubeconfig()) << fmt::format(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: "
        "{{cluster: a, user: a}}\nclusters:\n- name: a\n  cluster: {{server: "
        "\"https://127.0.0.1:{}\", certificate-authority: \"{}\"}}\nusers:\n- name: a\n  user: "
        "{{client-certificate: \"{}\", client-key: \"{}\"}}\n",
        api_->port(), api_->pki().authority(), api_->pki().file("admin.crt"),
        api_->pki().file("admin.key"));
  }
  static void TearDownTestSuite() { api_.reset(); }

  void SetUp() override {
    if (!api_) {
      GTEST_SKIP() << "there is no API server: see above";
    }
    release_ = lab::unique_name("mesh");
    if (const std::string said = helm("install"); !said.empty()) {
      FAIL() << said;
    }
  }
  void TearDown() override {
    if (api_) {
      EXPECT_EQ(run({"uninstall", release_}), "");
    }
  }

  static std::string kubeconfig() { return (api_->folder() / "admin.kubeconfig").string(); }

  // What helm says if it fails, else nothing.
  static std::string run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), helm_);
    arguments.insert(arguments.end(), {"--namespace", "default", "--kubeconfig", kubeconfig()});
    const auto result = lab::run_command({.arguments = std::move(arguments), .within = 60s});
    return !result ? result.error().message : result->exit_status == 0 ? "" : result->output;
  }
  [[nodiscard]] std::string helm(const std::string& command, const std::string& set = "",
                                 const std::string& more = "") const {
    std::vector<std::string> arguments = {command, release_, ST_CHART};
    for (const std::string& values : {set, more}) {
      if (!values.empty()) {
        arguments.insert(arguments.end(), {"--set", values});
      }
    }
    return run(std::move(arguments));
  }
  [[nodiscard]] std::string upgrade(const std::string& set, const std::string& more = "") const {
    return helm("upgrade", set, more);
  }

  static inline std::unique_ptr<RealApi> api_;
  static inline std::string helm_;
  std::string release_;
};

TEST_F(ChartUpgrade, of_the_agents_http_address_is_refused_where_it_would_never_finish) {
  EXPECT_THAT(upgrade("agent.httpPort=15890"), HasSubstr("runs with 'http = 127.0.0.1:15880'"));
  EXPECT_THAT(upgrade("agent.httpAddress=0.0.0.0"), HasSubstr("maxSurge=0"));
  EXPECT_EQ(upgrade("agent.httpPort=15890", kNoSurge), "");
}

TEST_F(ChartUpgrade, of_what_nodes_find_their_state_by_is_refused) {
  EXPECT_THAT(upgrade("hostPaths.state=/run/mesh"), HasSubstr("state-dir = /run/sidetrack"));
  EXPECT_THAT(upgrade("hostPaths.cache=/var/lib/mesh", kNoSurge), HasSubstr("cache-dir"));
  EXPECT_THAT(upgrade("hostPaths.pinFolder=mesh", kNoSurge), HasSubstr("pin-dir"));
  EXPECT_THAT(upgrade("cni.confDir=/etc/cni/other"), HasSubstr("cni-conf-dir"));
}

TEST_F(ChartUpgrade, may_bring_the_plugin_but_not_leave_its_entry_behind) {
  EXPECT_THAT(upgrade("cni.enabled=false"), HasSubstr("cni-conf-dir = /etc/cni/net.d"));
  EXPECT_EQ(run({"uninstall", release_}), "");
  EXPECT_EQ(helm("install", "cni.enabled=false"), "");
  EXPECT_EQ(upgrade("cni.enabled=true"), "");
}

TEST_F(ChartUpgrade, of_anything_else_is_not_held_up) {
  EXPECT_EQ(upgrade("agent.logLevel=debug,engine.httpPort=15891,agent.excludeOutboundPorts=8500"),
            "");
}

}  // namespace
}  // namespace sidetrack::tests
