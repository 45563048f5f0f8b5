// SPDX-License-Identifier: Apache-2.0
// What an agent reads again while it runs: its objects, and on SIGHUP its options.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/dataplane/agent_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class AgentReload : public AgentNode {};

TEST_F(AgentReload, a_file_that_breaks_under_it_changes_nothing_and_is_named) {
  const std::string good =
      "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n"
      "  labels: {sidetrack.io/mode: redirect}\n"
      "  annotations: {sidetrack.io/exclude-outbound-ports: \"7001\"}\n";
  ST_ASSERT_OK(objects_->remove(Kind::kNamespace, "shop"));
  ST_ASSERT_OK(objects_->put_text("namespaces.yaml", good));
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const st_pod before = row();
  const auto expect_as_before = [&] {
    const st_pod now = row();
    EXPECT_EQ(std::memcmp(&before, &now, sizeof(before)), 0);
    expect_connections(3, "redirected");
    expect_connections(3, "excluded_port", 7001);
  };
  // What `sidetrackctl status` says of the file; null: nothing.
  const auto told = [&]() -> json {
    const auto answer = sidetrack_->ctl({"-o", "json", "status"});
    const json status = answer ? json::parse(answer->standard_output, nullptr, false) : json();
    for (const json& problem : status.value("problems", json::array())) {
      if (problem.value("object", "") == "file " + folder_->file("namespaces.yaml")) {
        return problem;
      }
    }
    return nullptr;
  };
  expect_as_before();
  EXPECT_EQ(told(), json());

  ST_ASSERT_OK(objects_->put_text("namespaces.yaml", good + "  uid: [\n"));
  json problem;
  ASSERT_TRUE(eventually(kPatience, [&] { return !(problem = told()).is_null(); }));
  EXPECT_EQ(problem["severity"], "error");
  EXPECT_EQ(problem["key"], "line 8") << problem;
  EXPECT_NE(problem.value("reason", "").find("its 1 last good objects stay in use"),
            std::string::npos)
      << problem;
  expect_as_before();

  ST_ASSERT_OK(objects_->put_text("namespaces.yaml", good));
  EXPECT_TRUE(eventually(kPatience, [&] { return told().is_null(); })) << told();
  expect_as_before();
  EXPECT_EQ(repairs(), 0U);
}

TEST_F(AgentReload, sighup_reads_the_objects_again) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const std::size_t before = applied();
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGHUP));
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=reload"));
  EXPECT_TRUE(eventually(kPatience, [&] { return applied() > before; })) << sidetrack_->logs();
  EXPECT_TRUE(sidetrack_->agent().running());
  expect_connections(5, "redirected");
}

TEST_F(AgentReload, sighup_reads_the_nodes_lists_again_and_no_other_option) {
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("config"));
  const std::string file = folder.file("agent.conf");
  ST_ASSERT_OK(write_atomically(file, "log-level = info\n"));
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.agent_arguments = {"--config", file}}));
  expect_connections(3, "redirected");
  ST_ASSERT_OK(write_atomically(
      file, fmt::format("exclude-outbound-ports = {}\nnamespace = shop\n", kEcho)));
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGHUP));
  EXPECT_TRUE(eventually_explains("excluded_port")) << explain() << sidetrack_->logs();
  expect_connections(3, "excluded_port");
  ST_ASSERT_OK(write_atomically(file, "exclude-outbound-ports = many\n"));
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGHUP));
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=reload_refused"));
  expect_connections(3, "excluded_port");
}

TEST_F(AgentReload, sighup_reads_every_list_compat_and_the_log_level_again) {
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("config"));
  const std::string file = folder.file("agent.conf");
  ST_ASSERT_OK(write_atomically(file, ""));
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop",
                                        "traffic.sidecar.istio.io/excludeOutboundPorts",
                                        std::to_string(kEcho)));
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.agent_arguments = {"--config", file}}));
  EXPECT_EQ(explain(), "redirected");
  const auto reload = [&](const std::string& options) {
    ST_ASSERT_OK(write_atomically(file, options));
    ST_ASSERT_OK(sidetrack_->agent().signal(SIGHUP));
  };
  const std::pair<std::string, std::string> reasons[] = {
      {"compat = istio\n", "excluded_port"},
      {"compat = linkerd\n", "redirected"},
      {fmt::format("exclude-outbound-cidrs = {}\n", api_v4_), "excluded_cidr"},
      {"", "redirected"},
      {"include-outbound-ports = 1\n", "not_included"},
      {fmt::format("include-outbound-ports = {}\n", kEcho), "redirected"},
      {"include-outbound-cidrs = 192.0.2.0/24\n", "not_included"},
      {fmt::format("include-outbound-cidrs = {}\n", api_v4_), "redirected"}};
  for (const auto& [options, reason] : reasons) {
    ASSERT_NO_FATAL_FAILURE(reload(options));
    EXPECT_TRUE(eventually_explains(reason)) << options << explain() << sidetrack_->logs();
  }
  ASSERT_NO_FATAL_FAILURE(reload("log-level = warn\nexclude-outbound-cidrs = " + api_v4_ + "\n"));
  ASSERT_TRUE(eventually_explains("excluded_cidr"));
  ASSERT_NO_FATAL_FAILURE(reload("log-level = warn\n"));
  ASSERT_TRUE(eventually_explains("redirected"));
  ASSERT_NO_FATAL_FAILURE(reload("log-level = info\nexclude-outbound-cidrs = " + api_v4_ + "\n"));
  ASSERT_TRUE(eventually_explains("excluded_cidr"));
  // An error, said at every level, and after all else: of the three changes it has told the third.
  ASSERT_NO_FATAL_FAILURE(reload("log-level = loud\n"));
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=reload_refused"));
  EXPECT_EQ(said("event=reloaded", "event=reload_refused"), std::size(reasons) + 1)
      << sidetrack_->logs();
}

TEST_F(AgentReload, sighup_while_it_starts_ends_nothing_and_is_not_lost) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack());
  ST_ASSERT_VALUE(auto agent, Process::start(sidetrack_->agent_spec()));
  // It has only begun: programs are to be loaded yet.
  const std::string lock = sidetrack_->state_dir() + "/agent.lock";
  ASSERT_TRUE(eventually(kPatience, [&] { return ::access(lock.c_str(), F_OK) == 0; }))
      << agent->output();
  ST_ASSERT_OK(agent->signal(SIGHUP));
  ST_ASSERT_OK(agent->wait_for_output("event=reloaded"));
  EXPECT_TRUE(agent->running()) << agent->output();
  ST_ASSERT_VALUE(const int status, agent->terminate());
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace sidetrack::lab
