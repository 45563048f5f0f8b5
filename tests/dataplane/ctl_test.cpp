// SPDX-License-Identifier: Apache-2.0
// sidetrackctl against a real agent: what it shows is the kernel's, and its exit code says whether
// that is as it should be.
#include <fmt/format.h>

#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr const char* kExcluded = "sidetrack.io/exclude-outbound-ports";
constexpr const char* kExcludedCidrs = "sidetrack.io/exclude-outbound-cidrs";
constexpr int kTries = 5;
constexpr std::uint16_t kLow = 17000;  // where listeners may be
constexpr std::uint16_t kHigh = 17009;

class Ctl : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_sidetrack({.agent_arguments = {"--listener-ports", fmt::format("{}-{}", kLow, kHigh)}});
  }
  void exclude_echo() {
    ST_ASSERT_OK(
        objects_->set_annotation(Kind::kNamespace, "shop", kExcluded, std::to_string(kEcho)));
    ASSERT_TRUE(eventually_explains("excluded_port")) << sidetrack_->logs();
  }
  // A command that answers in JSON.
  [[nodiscard]] json shown(std::vector<std::string> arguments, int exit_status) const {
    arguments.insert(arguments.begin(), {"-o", "json"});
    const auto result = sidetrack_->ctl(arguments);
    if (!result) {
      ADD_FAILURE() << result.error().message;
      return {};
    }
    EXPECT_EQ(result->exit_status, exit_status) << result->output;
    return json::parse(result->standard_output, nullptr, false);
  }
  // Does damage and asks at once, again if the agent has repaired it in between.
  template <typename Damage, typename Ask>
  void ask_before_it_is_repaired(Damage damage, Ask ask) {
    for (int i = 0; i < kTries; ++i) {
      const std::uint64_t before = repairs();
      damage();
      const std::optional<std::string> wrong = ask();
      ASSERT_TRUE(eventually(kPatience, [&] { return repairs() > before; })) << sidetrack_->logs();
      if (!wrong) {
        return;
      }
      ASSERT_LT(i, kTries - 1) << *wrong;
    }
  }
  [[nodiscard]] Result<CommandResult> doctor() const {
    return sidetrack_->ctl({"--pin-dir", sidetrack_->pin_dir(), "doctor"});
  }
};

TEST_F(Ctl, explain_says_when_the_kernel_holds_another_policy) {
  ASSERT_NO_FATAL_FAILURE(exclude_echo());
  const std::string destination = fmt::format("{}:{}", api_v4_, kEcho);
  const std::vector<std::string> question = {"explain", "shop/web", destination};
  EXPECT_TRUE(shown(question, 0).value("agrees_with_kernel", false));
  const std::uint32_t policy = row().policy_id;
  ASSERT_NE(policy, 0U);
  ask_before_it_is_repaired(
      [&] { ST_ASSERT_OK(kernel().set_policy(cookie_, 0)); },
      [&]() -> std::optional<std::string> {
        const auto answer = sidetrack_->ctl({"-o", "json", "explain", "shop/web", destination});
        const json view = answer ? json::parse(answer->standard_output, nullptr, false) : json();
        const bool tells = view.is_object() && !view.value("agrees_with_kernel", true) &&
                           view.value("reason", "") == "redirected" &&
                           view.value("policy_id", 1U) == 0 && answer->exit_status == 1;
        return tells ? std::nullopt : std::optional(view.dump());
      });
  EXPECT_EQ(row().policy_id, policy);
  const json after = shown(question, 0);
  EXPECT_TRUE(after.value("agrees_with_kernel", false)) << after;
  EXPECT_EQ(after.value("reason", ""), "excluded_port");
}

TEST_F(Ctl, pods_shows_the_kernels_row) {
  const auto web = [&]() -> std::optional<json> {
    const auto pod = sidetrack_->pod("shop/web");
    return pod ? std::optional(*pod) : std::nullopt;
  };
  ST_ASSERT_VALUE(const json whole, sidetrack_->pod("shop/web"));
  EXPECT_EQ(whole.value("state", ""), "enrolled");
  for (const char* family : {"engine_ports", "engine_ports_v6"}) {
    EXPECT_EQ(whole[family].size(), 4U) << whole;
    for (const json& port : whole[family]) {
      EXPECT_TRUE(port.get<int>() >= kLow && port.get<int>() <= kHigh) << whole;
    }
  }
  ask_before_it_is_repaired([&] { ST_ASSERT_OK(kernel().set_policy(cookie_, 4711)); },
                            [&]() -> std::optional<std::string> {
                              const auto pod = web();
                              const bool tells = pod && pod->value("reason", "") == "row_differs" &&
                                                 pod->value("state", "") == "drift" &&
                                                 pod->value("policy_id", 0U) == 4711;
                              return tells ? std::nullopt
                                           : std::optional(pod ? pod->dump() : "no pod");
                            });
  ask_before_it_is_repaired([&] { ST_ASSERT_OK(kernel().delete_pod(cookie_)); },
                            [&]() -> std::optional<std::string> {
                              const auto pod = web();
                              const bool tells = pod && pod->value("reason", "") == "row_missing";
                              return tells ? std::nullopt
                                           : std::optional(pod ? pod->dump() : "no pod");
                            });
  ask_before_it_is_repaired([&] { ST_ASSERT_OK(kernel().detach_link("st_connect4")); },
                            [&]() -> std::optional<std::string> {
                              const auto pod = web();
                              const bool tells = pod && pod->value("reason", "") == "not_attached";
                              return tells ? std::nullopt
                                           : std::optional(pod ? pod->dump() : "no pod");
                            });
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
}

TEST_F(Ctl, pods_counts_open_connections_redirected_or_observed) {
  constexpr int kRedirected = 3;
  constexpr int kObserved = 2;
  start_echo();
  const auto shown_by_pods = [&] {
    const json pods = shown({"pods", "-n", "shop"}, 0);
    return pods.at("pods").at(0).value("connections", -1);
  };
  EXPECT_EQ(shown_by_pods(), 0);
  ST_ASSERT_VALUE(const auto redirected, shell_->hold(api_v4_, kEcho, kRedirected));
  EXPECT_EQ(redirected, kRedirected);
  EXPECT_EQ(shown_by_pods(), kRedirected);
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/mode", "passthrough"));
  ASSERT_TRUE(eventually_explains("passthrough"));
  const auto second = shell_in(*web_);
  ST_ASSERT_VALUE(const auto observed, second->hold(api_v4_, kEcho, kObserved));
  EXPECT_EQ(observed, kObserved);
  EXPECT_EQ(shown_by_pods(), kRedirected + kObserved);
  ST_ASSERT_OK(shell_->release());
  EXPECT_TRUE(eventually(kPatience, [&] { return shown_by_pods() == kObserved; }));
  ST_ASSERT_OK(second->release());
  EXPECT_TRUE(eventually(kPatience, [&] { return shown_by_pods() == 0; }));
}

TEST_F(Ctl, following_flows_goes_on_with_the_next_agent) {
  start_echo();
  ST_ASSERT_VALUE(
      auto following,
      Process::start({.arguments = {built_program("sidetrackctl"), "--state-dir",
                                    sidetrack_->state_dir(), "-o", "json", "flows", "-f"}}));
  const auto connect_and_see = [&] {
    ST_ASSERT_VALUE(const auto socket, shell_->connect(api_v4_, kEcho));
    ST_ASSERT_VALUE(const auto own, shell_->socket_name(socket.id));
    const std::string source = fmt::format(R"("source":"{}:{}")", own.address, own.port);
    ST_ASSERT_OK(shell_->close(socket.id));
    ST_ASSERT_OK(following->wait_for_output(source));
  };
  ASSERT_NO_FATAL_FAILURE(connect_and_see());
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  ST_ASSERT_OK(following->wait_for_output("waits until it answers again"));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  ST_ASSERT_OK(following->wait_for_output("the agent answers again"));
  ASSERT_NO_FATAL_FAILURE(connect_and_see());
  EXPECT_EQ(following->standard_output().find("waits until"), std::string::npos);
  ST_ASSERT_OK(following->signal(SIGINT));
  ST_ASSERT_VALUE(const int status, following->wait());
  EXPECT_EQ(status, 0);
}

TEST_F(Ctl, policy_shows_each_value_with_its_origin) {
  ST_ASSERT_OK(
      objects_->set_annotation(Kind::kPod, "shop/web", kExcludedCidrs, "192.0.2.0/24:443"));
  ASSERT_NO_FATAL_FAILURE(exclude_echo());
  const json policy = shown({"policy", "shop/web"}, 0);
  EXPECT_EQ(policy.value("namespace", ""), "shop");
  EXPECT_EQ(policy.value("pod", ""), "web");
  EXPECT_EQ(policy.value("policy_id", 0U), row().policy_id);
  std::map<std::string, json> entries;
  for (const json& entry : policy.value("entries", json::array())) {
    entries[entry.value("name", "")] = entry;
  }
  const auto expect_entry = [&](const char* name, const std::string& value,
                                const std::string& object, const std::string& key) {
    const json wanted = {{"name", name},
                         {"value", value},
                         {"origin", {{"object", object}, {"key", key}, {"value", value}}}};
    EXPECT_EQ(entries[name], wanted);
  };
  expect_entry("mode", "redirect", "Namespace/shop", "sidetrack.io/mode");
  expect_entry("on_engine_loss", "open", "default", "sidetrack.io/on-engine-loss");
  expect_entry("exclude_outbound_ports", std::to_string(kEcho), "Namespace/shop", kExcluded);
  expect_entry("exclude_outbound_cidrs", "192.0.2.0/24:443", "Pod/shop/web", kExcludedCidrs);
  ST_ASSERT_VALUE(const auto table, sidetrack_->ctl({"policy", "shop/web"}));
  EXPECT_EQ(table.exit_status, 0);
  for (const char* word : {kExcluded, kExcludedCidrs, "Namespace/shop", "Pod/shop/web"}) {
    EXPECT_NE(table.output.find(word), std::string::npos) << word << "\n" << table.output;
  }
}

TEST_F(Ctl, pods_flows_and_counters_are_of_the_namespace_that_is_asked_for) {
  ST_ASSERT_OK(
      objects_->put(NamespaceSpec{.name = "depot", .labels = {{"sidetrack.io/mode", "redirect"}}}));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "depot",
                                     .name = "api",
                                     .netns_path = api_->netns.path(),
                                     .addresses = {api_->v4, api_->v6}}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/api", "enrolled", "redirect"));
  start_echo();
  expect_connections(3, "redirected");
  ST_ASSERT_VALUE(const auto echo_in_web, EchoServer::start(place(*web_), {"echo:7000"}));
  ST_ASSERT_VALUE(const auto back, shell_in(*api_)->burst(web_->v4, kEcho, {.count = 2}));
  expect_clean(back, 2, sidetrack_->logs());

  // How many of what a command shows each namespace has.
  using Found = std::map<std::string, std::size_t>;
  const auto namespaces = [&](const std::vector<std::string>& words) {
    Found found;
    for (const json& item : shown(words, 0).value(words.front(), json::array())) {
      ++found[item.value("namespace", "?")];
    }
    return found;
  };
  EXPECT_EQ(namespaces({"pods"}), (Found{{"depot", 1}, {"shop", 1}}));
  EXPECT_EQ(namespaces({"pods", "-n", "depot"}), (Found{{"depot", 1}}));
  EXPECT_EQ(shown({"pods", "-n", "nowhere"}, 1), (json{{"pods", json::array()}}));
  EXPECT_TRUE(eventually(kPatience, [&] {
    return namespaces({"flows", "--since", "1h"}) == Found{{"depot", 2}, {"shop", 3}};
  }));
  EXPECT_EQ(namespaces({"flows", "-n", "shop"}), (Found{{"shop", 3}}));
  EXPECT_EQ(namespaces({"flows", "--since", "1ms"}), Found{}) << "the program takes longer";
  const auto redirected = [&](const std::vector<std::string>& words) {
    Counts found;
    for (const json& row : shown(words, 0).value("counters", json::array())) {
      found[row.value("namespace", "?")] = row.at("connections").value("redirected", 0U);
    }
    return found;
  };
  EXPECT_EQ(redirected({"counters", "-n", "depot"}), (Counts{{"depot", 2}}));
  Counts all = redirected({"counters"});
  EXPECT_EQ(all["shop"], 3U);
  EXPECT_EQ(all["depot"], 2U);
}

TEST_F(Ctl, policy_of_a_pod_that_is_not_here_is_an_error) {
  ST_ASSERT_VALUE(const auto answer, sidetrack_->ctl({"policy", "shop/nobody"}));
  EXPECT_EQ(answer.exit_status, 1) << answer.output;
}

TEST_F(Ctl, doctor_does_not_take_the_pins_of_a_dead_agent_for_anothers) {
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  const std::string pins = sidetrack_->pin_dir();
  // Asks with the pins' folder, and without: it is not the default.
  ST_ASSERT_VALUE(const auto told, doctor());
  EXPECT_EQ(told.output.find("another Sidetrack"), std::string::npos) << told.output;
  EXPECT_NE(told.output.find("are pinned at " + pins), std::string::npos) << told.output;
  ST_ASSERT_VALUE(const auto untold, sidetrack_->ctl({"doctor"}));
  EXPECT_EQ(untold.output.find("another Sidetrack"), std::string::npos) << untold.output;
  EXPECT_EQ(untold.output.find("all traffic goes direct"), std::string::npos) << untold.output;
}

TEST_F(Ctl, doctor_looks_at_the_hooks_of_the_root_where_it_cannot_find_the_cgroup) {
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  const auto without_right = [&](const std::string& right) {
    return run_command({.arguments = {"setpriv", "--bounding-set", "-" + right, "--inh-caps",
                                      "-" + right, built_program("sidetrackctl"), "--pin-dir",
                                      sidetrack_->pin_dir(), "doctor"}});
  };
  ST_ASSERT_VALUE(const auto told, without_right("dac_read_search"));
  EXPECT_NE(told.output.find("are pinned at"), std::string::npos) << told.output;
  EXPECT_EQ(told.output.find("run doctor as root"), std::string::npos) << told.output;
  EXPECT_EQ(told.output.find("with id"), std::string::npos) << told.output;
}

// An engine that starts again is to listen where the pod's connections were given all ports.
TEST_F(Ctl, doctor_warns_where_connections_may_take_the_engines_ports) {
  const std::string warning =
      fmt::format("Pod/shop/web ip_local_port_range \"{}-{}\"", kLow, kHigh);
  const auto warns = [&] {
    const auto told = doctor();
    return told && told->exit_status == 1 && told->output.find(warning) != std::string::npos;
  };
  const auto is_content = [&] {
    const auto told = doctor();
    return told && told->exit_status == 0;
  };
  ST_ASSERT_OK(Lab::set_port_range(*web_, kLow, kHigh));
  EXPECT_TRUE(eventually(kPatience, warns)) << doctor()->output;
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output(
      "event=problem object=Pod/shop/web key=ip_local_port_range"));
  EXPECT_EQ(sidetrack_->metric("sidetrack_policy_rejected"), 0.0);
  ST_ASSERT_OK(web_->netns.write_sysctl("ipv4/ip_local_reserved_ports",
                                        fmt::format("{}-{}", kLow, kLow + 7)));
  EXPECT_TRUE(eventually(kPatience, is_content)) << doctor()->output;
  ST_ASSERT_OK(web_->netns.write_sysctl("ipv4/ip_local_reserved_ports", "\n"));
  EXPECT_TRUE(eventually(kPatience, warns)) << doctor()->output;
  ST_ASSERT_OK(Lab::set_port_range(*web_, kLow + 8, 32767));
  EXPECT_TRUE(eventually(kPatience, is_content)) << doctor()->output;
}

TEST_F(Ctl, doctor_has_one_error_for_an_engine_that_is_dead) {
  sidetrack_->engine().kill_hard();
  const auto waits = [&] {
    const auto told = doctor();
    return told && told->output.find("pods that wait for it: 1\n") != std::string::npos;
  };
  EXPECT_TRUE(eventually(kPatience, waits)) << doctor()->output;
  ST_ASSERT_VALUE(const auto told, doctor());
  EXPECT_EQ(told.exit_status, 1);
  EXPECT_NE(told.output.find("\n1 error, 0 warnings\n"), std::string::npos) << told.output;
}

TEST_F(Ctl, doctor_is_content_with_a_healthy_node_and_not_with_a_detached_program) {
  ST_ASSERT_VALUE(const auto healthy, doctor());
  EXPECT_EQ(healthy.exit_status, 0) << healthy.output;
  ask_before_it_is_repaired(
      [&] { ST_ASSERT_OK(kernel().detach_link("st_connect4")); },
      [&]() -> std::optional<std::string> {
        const auto answer = doctor();
        const bool tells = answer && answer->exit_status == 1 &&
                           answer->output.find("st_connect4 is not attached") != std::string::npos;
        return tells ? std::nullopt : std::optional(answer ? answer->output : "");
      });
}

}  // namespace
}  // namespace sidetrack::lab
