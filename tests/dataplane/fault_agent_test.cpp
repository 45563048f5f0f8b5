// SPDX-License-Identifier: Apache-2.0
// The agent dies, comes back, meets a second one.
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <set>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/dataplane/agent_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr int kStreams = 1000;
constexpr const char* kExcluded = "sidetrack.io/exclude-outbound-ports";

class AgentFault : public AgentNode {
 protected:
  void wait_for_engine() const {
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto status = sidetrack_->get("/v1/status");
      return status && status->value("/engines/0/state"_json_pointer, "") == "up";
    })) << sidetrack_->logs();
  }
  std::vector<int> open_streams(int count) {
    std::vector<int> ids;
    for (int i = 0; i < count; ++i) {
      const auto socket = shell_->connect(api_v4_, kEcho);
      if (!socket || socket->error_number != 0) {
        ADD_FAILURE() << "stream " << i << ": "
                      << (socket ? socket->errno_name : socket.error().message);
        break;
      }
      ids.push_back(socket->id);
    }
    return ids;
  }
  void expect_all_alive(const std::vector<int>& ids) {
    for (const int id : ids) {
      ASSERT_NO_FATAL_FAILURE(expect_alive(*shell_, id, 2000));
      ASSERT_FALSE(HasFailure()) << sidetrack_->logs();
    }
  }
  [[nodiscard]] std::int64_t live() const {
    const auto count = kernel().live(cookie_);
    return count ? *count : -1;
  }
  // Ends the agent as `end` does and starts it again under open streams and new connections.
  template <typename End>
  void expect_unnoticed_restart(End end);
  // What an agent that has no objects shows of web, by the kernel alone. `open`: streams.
  void expect_shown_without_names(std::size_t open);
};

template <typename End>
void AgentFault::expect_unnoticed_restart(End end) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const Counts before = counted();
  const std::vector<int> streams = open_streams(kStreams);
  ASSERT_EQ(streams.size(), static_cast<std::size_t>(kStreams));
  EXPECT_EQ(live(), kStreams);
  Traffic traffic(shell_in(*web_), {{api_v4_, kEcho}}, {.count = 20});
  ASSERT_TRUE(eventually(kPatience, [&] { return traffic.rounds() > 0; }));

  ASSERT_NO_FATAL_FAILURE(end());
  const std::uint64_t dead_rounds = traffic.rounds();
  expect_all_alive(streams);
  ASSERT_TRUE(eventually(kPatience, [&] { return traffic.rounds() > dead_rounds + 3; }));

  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  ASSERT_NO_FATAL_FAILURE(wait_for_engine());
  expect_all_alive(streams);
  const BurstResult burst = traffic.stop();
  expect_clean(burst, burst.ok, sidetrack_->logs());
  EXPECT_EQ(since(before), (Counts{{"redirected", kStreams + burst.ok}}));
  EXPECT_TRUE(eventually(kPatience, [&] { return live() == kStreams; })) << live();
}

TEST_F(AgentFault, nobody_notices_that_the_agent_was_killed_and_started_again) {
  expect_unnoticed_restart([&] { sidetrack_->agent().kill_hard(); });
}

TEST_F(AgentFault, nobody_notices_that_the_agent_was_stopped_and_started_again) {
  expect_unnoticed_restart([&] {
    ST_ASSERT_VALUE(const int status, sidetrack_->agent().terminate());
    EXPECT_EQ(status, 0);
  });
}

TEST_F(AgentFault, flows_that_ended_without_an_agent_have_their_pod) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const std::vector<int> streams = open_streams(20);
  sidetrack_->agent().kill_hard();
  for (const int id : streams) {
    ST_ASSERT_OK(shell_->close(id));
  }
  // It reads the records before it can know the pods.
  ST_ASSERT_OK(objects_->put_text("zz-garbage.yaml", "x: ["));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=held"));
  ST_ASSERT_OK(sidetrack_->get("/v1/flows"));
  ST_ASSERT_OK(objects_->put_text("zz-garbage.yaml", "# none"));
  std::size_t known = 0;
  EXPECT_TRUE(eventually(kPatience, [&] {
    const auto page = sidetrack_->get("/v1/flows");
    known = 0;
    for (const json& flow : page ? page->at("flows") : json::array()) {
      known += flow.at("namespace") == "shop" && flow.at("pod") == "web" ? 1 : 0;
    }
    return known == streams.size();
  })) << known;
}

void AgentFault::expect_shown_without_names(std::size_t open) {
  // Connections that were closed just before may be there a moment longer.
  EXPECT_TRUE(eventually(kPatience, [&] {
    const auto shown = sidetrack_->get("/v1/pods?namespace=shop");
    return shown && shown->value("/pods/0/connections"_json_pointer, std::size_t{0}) == open;
  }));
  ST_ASSERT_VALUE(const auto pods, sidetrack_->get("/v1/pods?namespace=shop"));
  ASSERT_EQ(pods.at("pods").size(), 1U) << pods.dump(2);
  const json& pod = pods.at("pods").front();
  EXPECT_EQ(pod.at("pod"), "");
  EXPECT_EQ(pod.at("state"), "enrolled");
  EXPECT_EQ(pod.at("reason"), "held");
  EXPECT_EQ(pod.at("mode"), "redirect");
  EXPECT_EQ(pod.at("netns_cookie"), cookie_);
  EXPECT_EQ(pod.at("addresses").front(), web_->v4);
  EXPECT_EQ(pod.at("connections"), open) << pod.dump(2);

  ST_ASSERT_VALUE(const auto page, sidetrack_->get("/v1/flows?namespace=shop"));
  std::size_t shown = 0;
  for (const json& flow : page.at("flows")) {
    shown +=
        flow.at("end") == 0 && flow.at("source").get<std::string>().starts_with(web_->v4 + ":");
  }
  EXPECT_EQ(shown, open) << page.dump(2);

  ST_ASSERT_VALUE(const auto status, sidetrack_->ctl({"status"}));
  EXPECT_NE(status.output.find("-> correct the object; until all can be read, what the earlier "),
            std::string::npos)
      << status.output;
  ST_ASSERT_VALUE(const auto table, sidetrack_->ctl({"pods"}));
  EXPECT_NE(table.standard_output.find("(" + web_->v4 + ")"), std::string::npos)
      << table.standard_output;
  ST_ASSERT_VALUE(const auto explain, sidetrack_->ctl({"explain", "shop/web", api_v4_ + ":7000"}));
  EXPECT_EQ(explain.exit_status, 1) << explain.output;
  EXPECT_NE(explain.output.find("before the objects can be read"), std::string::npos)
      << explain.output;
}

// Nothing is known of the pods then, and what is not known is not undone.
TEST_F(AgentFault, one_that_cannot_read_its_objects_leaves_all_in_force) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  expect_connections(3, "redirected");
  const st_pod before = row();
  const std::vector<int> streams = open_streams(3);
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(objects_->put_text("zz-garbage.yaml", "x: ["));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=held"));
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=problem"));
  EXPECT_NE(sidetrack_->agent().output().find("zz-garbage.yaml"), std::string::npos)
      << sidetrack_->agent().output();
  ST_ASSERT_VALUE(auto status, sidetrack_->get("/v1/status"));
  EXPECT_EQ(status["agent"]["state"], "starting");
  EXPECT_NE(status["problems"].dump().find("\"held\""), std::string::npos) << status.dump(2);
  EXPECT_EQ(status["pods"]["enrolled"], 1) << status.dump(2);
  EXPECT_FALSE(sidetrack_->get_http("/readyz").has_value());
  const st_pod held = row();
  EXPECT_EQ(std::memcmp(&before, &held, sizeof(before)), 0);
  expect_connections(3, "redirected");
  ASSERT_NO_FATAL_FAILURE(expect_shown_without_names(streams.size()));

  ST_ASSERT_OK(objects_->put_text("zz-garbage.yaml", "# none"));
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  EXPECT_TRUE(eventually(kPatience, [&] { return sidetrack_->get_http("/readyz").has_value(); }));
  expect_connections(3, "redirected");
  EXPECT_EQ(repairs(), 0U);
}

// It takes engines only when it knows its objects, and an engine asks every two seconds.
TEST_F(AgentFault, an_engine_that_has_not_come_back_to_it_is_shown_as_what_the_kernel_knows) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(objects_->put_text("zz-garbage.yaml", "x: ["));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
  ASSERT_EQ(status["engines"].size(), 1U) << status.dump(2);
  EXPECT_EQ(status["engines"][0]["state"], "up");
  EXPECT_EQ(status["engines"][0]["pid"], sidetrack_->engine().pid());
  EXPECT_EQ(status["problems"].dump().find("engine_down"), std::string::npos) << status.dump(2);
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto later, sidetrack_->get("/v1/status"));
  EXPECT_EQ(later["engines"][0]["state"], "down") << later.dump(2);
  EXPECT_NE(later["problems"].dump().find("engine_down"), std::string::npos) << later.dump(2);
}

TEST_F(AgentFault, a_second_agent_says_who_holds_the_folder_and_ends) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ST_ASSERT_VALUE(auto second, Process::start(sidetrack_->agent_spec()));
  ST_ASSERT_VALUE(const int status, second->wait());
  EXPECT_EQ(status, 1);
  EXPECT_NE(second->output().find(fmt::format("process {}", sidetrack_->agent().pid())),
            std::string::npos)
      << second->output();
  expect_connections(5, "redirected");
}

TEST_F(AgentFault, a_standby_agent_does_not_wait_for_what_it_could_not_take_over) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.emplace_back("--standby");
  const std::string path = sidetrack_->pin_dir() + "/v1/maps/st_bypass";
  ASSERT_EQ(::unlink(path.c_str()), 0);
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  const UniqueFd other(bpf_map_create(BPF_MAP_TYPE_ARRAY, "st_bypass", 4, 64, 1, &options));
  ASSERT_EQ(bpf_obj_pin(other.get(), path.c_str()), 0) << std::strerror(errno);
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_VALUE(const int status, standby->wait());
  EXPECT_EQ(status, 2);
  EXPECT_NE(standby->output().find("another version"), std::string::npos) << standby->output();
}

// An agent before this one made the map otherwise: what counts is what is in it.
TEST_F(AgentFault, takes_over_a_map_that_was_made_with_other_flags) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  sidetrack_->agent().kill_hard();
  const std::string path = sidetrack_->pin_dir() + "/v1/maps/st_pod_state";
  const UniqueFd map(bpf_obj_get(path.c_str()));
  ASSERT_EQ(::unlink(path.c_str()), 0);
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.map_flags = BPF_F_NO_PREALLOC;
  const UniqueFd other(bpf_map_create(BPF_MAP_TYPE_HASH, "st_pod_state", 8, sizeof(st_pod_state),
                                      ST_MAX_PODS, &options));
  std::uint64_t cookie = 0;
  for (const std::uint64_t* last = nullptr; bpf_map_get_next_key(map.get(), last, &cookie) == 0;
       last = &cookie) {
    st_pod_state state{};
    ASSERT_EQ(bpf_map_lookup_elem(map.get(), &cookie, &state), 0);
    ASSERT_EQ(bpf_map_update_elem(other.get(), &cookie, &state, BPF_ANY), 0);
  }
  ASSERT_EQ(bpf_obj_pin(other.get(), path.c_str()), 0) << std::strerror(errno);
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(wait_for_engine());
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  expect_connections(5, "redirected");
}

TEST_F(AgentFault, a_standby_agent_takes_over_without_a_gap) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.emplace_back("--standby");
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_OK(standby->wait_for_output("event=standby"));
  const Counts before = counted();
  Traffic traffic(shell_in(*web_), {{api_v4_, kEcho}}, {.count = 20});
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(standby->wait_for_output("event=started"));
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto status = sidetrack_->get("/v1/status");
    return status && status->value("/agent/pid"_json_pointer, 0) == standby->pid() &&
           status->value("/engines/0/state"_json_pointer, "") == "up";
  })) << standby->output();
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  const BurstResult burst = traffic.stop();
  expect_clean(burst, burst.ok, standby->output());
  EXPECT_EQ(since(before), (Counts{{"redirected", burst.ok}}));
  ST_ASSERT_VALUE(const int status, standby->terminate());
  EXPECT_EQ(status, 0);
}

TEST_F(AgentFault, bypass_works_without_an_agent_and_cuts_nothing) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const std::vector<int> streams = open_streams(20);
  sidetrack_->agent().kill_hard();
  ST_ASSERT_VALUE(const auto on,
                  sidetrack_->ctl({"--pin-dir", sidetrack_->pin_dir(), "bypass", "on"}));
  ASSERT_EQ(on.exit_status, 0) << on.output;
  expect_connections(20, "bypass");
  expect_all_alive(streams);
  ST_ASSERT_VALUE(const auto off,
                  sidetrack_->ctl({"--pin-dir", sidetrack_->pin_dir(), "bypass", "off"}));
  ASSERT_EQ(off.exit_status, 0) << off.output;
  expect_connections(20, "redirected");
  expect_all_alive(streams);
}

TEST_F(AgentFault, sockets_of_a_killed_agent_are_replaced) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  sidetrack_->agent().kill_hard();
  struct stat left {};
  ASSERT_EQ(::stat((sidetrack_->state_dir() + "/admin.sock").c_str(), &left), 0);
  ST_ASSERT_OK(sidetrack_->start_agent());
  struct stat made {};
  ASSERT_EQ(::stat((sidetrack_->state_dir() + "/admin.sock").c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 0777U, 0600U);
  for (const char* folder : {"", "/v1", "/v1/maps", "/v1/links"}) {
    struct stat pins {};
    ASSERT_EQ(::stat((sidetrack_->pin_dir() + folder).c_str(), &pins), 0) << folder;
    EXPECT_EQ(pins.st_mode & 0777U, 0700U) << folder;
  }
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
}

TEST_F(AgentFault, an_engine_that_was_there_first_waits_for_the_agent) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack());
  ST_ASSERT_VALUE(auto engine, Process::start(sidetrack_->engine_spec()));
  ST_ASSERT_OK(engine->wait_for_output("agent_away"));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  shell_ = shell_in(*web_);
  expect_connections(5, "redirected");
  sidetrack_->agent().kill_hard();
  expect_connections(5, "redirected");
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto status = sidetrack_->get("/v1/status");
    return status && status->value("/engines/0/pid"_json_pointer, 0) == engine->pid();
  })) << engine->output();
  expect_connections(5, "redirected");
  ST_ASSERT_VALUE(const int status, engine->terminate());
  EXPECT_EQ(status, 0);
}

TEST_F(AgentFault, sigint_ends_agent_and_engine_in_order) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const std::vector<int> streams = open_streams(3);
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGINT));
  ST_ASSERT_VALUE(const int agent_status, sidetrack_->agent().wait());
  EXPECT_EQ(agent_status, 0) << sidetrack_->logs();
  // Pins stay, and an engine does without an agent.
  expect_connections(5, "redirected");
  expect_all_alive(streams);
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGINT));
  ST_ASSERT_OK(sidetrack_->engine().wait_for_output("draining"));
  expect_all_alive(streams);
  for (const int id : streams) {
    ST_ASSERT_OK(shell_->close(id));
  }
  ST_ASSERT_VALUE(const int engine_status, sidetrack_->engine().wait());
  EXPECT_EQ(engine_status, 0) << sidetrack_->logs();
  EXPECT_NE(sidetrack_->engine().output().find("connections_cut=0"), std::string::npos)
      << sidetrack_->logs();
  expect_connections(5, "engine_down");
}

TEST_F(AgentFault, answers_health_readiness_and_metrics) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  expect_connections(7, "redirected");
  ST_ASSERT_OK(sidetrack_->get_http("/healthz"));
  ST_ASSERT_OK(sidetrack_->get_http("/readyz"));
  ST_ASSERT_VALUE(const std::string metrics, sidetrack_->get_http("/metrics"));
  constexpr std::uint64_t kBytes = 7 * 32;  // of the burst, each way
  for (const char* line : {"sidetrack_build_info{", "sidetrack_pods{state=\"enrolled\"} 1",
                           "{namespace=\"shop\",verdict=\"redirected\",reason=\"redirected\"} 7",
                           "sidetrack_engine_up"}) {
    EXPECT_NE(metrics.find(line), std::string::npos) << line << "\n" << metrics;
  }
  for (const char* direction : {"out", "in"}) {
    const std::string series = fmt::format(
        "sidetrack_flow_bytes_total{{namespace=\"shop\",path=\"engine\",direction=\"{}\"}}",
        direction);
    EXPECT_TRUE(eventually(kPatience, [&] { return sidetrack_->metric(series) == kBytes; }))
        << series;
  }
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kExcluded, "1-3,600"));
  ASSERT_TRUE(eventually(kPatience, [&] { return row().policy_id != 0; }));
  for (const auto& [map, capacity] :
       Counts{{"st_pods", ST_MAX_PODS}, {"st_port_pages", ST_MAX_PORT_PAGES}}) {
    ST_ASSERT_VALUE(const json rows, sidetrack_->dump_map(map));
    EXPECT_EQ(rows.size(), 2U) << map << ": the node and web; two pages";
    const std::string label = fmt::format("{{map=\"{}\"}}", map);
    EXPECT_EQ(sidetrack_->metric("sidetrack_map_entries" + label), rows.size());
    EXPECT_EQ(sidetrack_->metric("sidetrack_map_capacity" + label), capacity);
  }
  // Each time that it put objects into force, whatever they were.
  EXPECT_TRUE(eventually(kPatience, [&] {
    return sidetrack_->metric("sidetrack_policy_apply_seconds_count") == applied();
  })) << sidetrack_->logs();
  const auto seconds = sidetrack_->metric("sidetrack_policy_apply_seconds_sum");
  EXPECT_GT(seconds.value_or(0), 0);
}

}  // namespace
}  // namespace sidetrack::lab
