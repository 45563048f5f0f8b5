// SPDX-License-Identifier: Apache-2.0
// Policy that is wrong, and policy that changes while connections are made and open.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iostream>
#include <thread>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class RulesTest : public Mesh {
 protected:
  // depot/plain becomes a second enrolled pod.
  void enrol_neighbour() {
    ST_ASSERT_OK(objects_->set_label(Kind::kPod, "depot/plain", kMode, "redirect"));
    ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/plain", "enrolled", "redirect"));
  }

  // The reason that the kernel gives a real connect of `shell`.
  [[nodiscard]] std::string role_of_connect(PodShell& shell, const std::string& address,
                                            std::uint16_t port) const {
    const auto socket = shell.connect(address, port);
    if (!socket || socket->error_number != 0) {
      return socket ? socket->errno_name : socket.error().message;
    }
    const auto role = remembered(shell, socket->id);
    const auto closed = shell.close(socket->id);
    if (!role || !closed) {
      return "error";
    }
    return role->empty() ? "none" : *role;
  }

  // Waits for a problem of `object` and `key` in `sidetrackctl status` and gives it.
  [[nodiscard]] json problem_of(const std::string& object, const std::string& key) const {
    json found;
    EXPECT_TRUE(eventually(kPatience,
                           [&] {
                             const auto status = sidetrack_->ctl({"-o", "json", "status"});
                             const json view =
                                 status ? json::parse(status->standard_output, nullptr, false)
                                        : json();
                             if (!view.is_object()) {
                               return false;
                             }
                             for (const json& problem : view.value("problems", json::array())) {
                               if (problem["object"] == object && problem["key"] == key) {
                                 found = problem;
                                 return true;
                               }
                             }
                             return false;
                           }))
        << object << " " << key;
    return found;
  }
};

TEST_F(RulesTest, unknown_mode_counts_as_passthrough) {
  enrol_neighbour();
  label(kMode, "redirct");
  const json problem = problem_of("Namespace/shop", kMode);
  EXPECT_EQ(problem["value"], "redirct");
  EXPECT_EQ(problem["severity"], "error");
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "invalid_mode") << pod;
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  ST_ASSERT_VALUE(auto table, sidetrack_->ctl({"status"}));
  EXPECT_NE(table.output.find("redirct"), std::string::npos) << table.output;
}

TEST_F(RulesTest, bad_list_keeps_its_last_good_value_and_the_other_keys_apply) {
  enrol_neighbour();
  annotate(kExcludePorts, "7000");
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kExcludePorts, "7000,http"));
  const json problem = problem_of("Namespace/shop", kExcludePorts);
  EXPECT_NE(problem["value"].get<std::string>().find("http"), std::string::npos);
  EXPECT_NE(problem["reason"].get<std::string>().find("last good value"), std::string::npos)
      << problem;
  annotate(kExcludeCidrs, "10.244.0.0/16:443");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none") << "last good value";
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kHttps), "none") << "another key of the object";
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "redirected");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  const json view = explain(api_->v4, kEcho);
  EXPECT_EQ(view["reason"], "excluded_port");
  EXPECT_EQ(view["rule"]["value"], "7000") << view;
}

TEST_F(RulesTest, bad_list_without_a_last_good_value_makes_the_pod_passthrough) {
  enrol_neighbour();
  annotate(kExcludePorts, "7000-6000");
  const json problem = problem_of("Namespace/shop", kExcludePorts);
  EXPECT_EQ(problem["value"], "7000-6000");
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "invalid_annotation");
  EXPECT_NE(pod["reason_detail"].get<std::string>().find(kExcludePorts), std::string::npos) << pod;
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  // Corrected, all is as it should be, and the problem is gone.
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kExcludePorts, "7000"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "redirected");
  ST_ASSERT_VALUE(auto status, sidetrack_->get("/v1/status"));
  EXPECT_TRUE(status["problems"].empty()) << status["problems"];
}

TEST_F(RulesTest, misspelt_list_leaves_the_pod_alone_and_is_told) {
  enrol_neighbour();
  constexpr const char* kMisspelt = "sidetrack.io/exclude-outbound-port";
  annotate(kMisspelt, "7000");
  const json problem = problem_of("Namespace/shop", kMisspelt);
  EXPECT_NE(problem["reason"].get<std::string>().find(kExcludePorts), std::string::npos) << problem;
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "unknown_key");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
}

TEST_F(RulesTest, bad_value_of_one_pod_does_not_touch_its_neighbour_in_the_namespace) {
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "second",
                                     .netns_path = stranger_->netns.path(),
                                     .addresses = {stranger_->v4, stranger_->v6},
                                     .annotations = {{kExcludeCidrs, "10.0.0.0/33"}}}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/second", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto second, PodShell::start(place(*stranger_)));
  EXPECT_EQ(role_of_connect(*second, api_->v4, kEcho), "observed");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "redirected");
  EXPECT_EQ(problem_of("Pod/shop/second", kExcludeCidrs)["value"], "10.0.0.0/33");
}

TEST_F(RulesTest, pod_beats_namespace_and_excludes_add_up) {
  annotate(kExcludePorts, "7000");
  ST_ASSERT_OK(objects_->set_annotation(Kind::kPod, "shop/web", kExcludePorts, "7100"));
  ASSERT_TRUE(eventually(kPatience,
                         [&] { return explain(api_->v4, kEchoToo)["reason"] == "excluded_port"; }));
  EXPECT_EQ(explain(api_->v4, kEchoToo)["rule"]["object"], "Pod/shop/web");
  EXPECT_EQ(explain(api_->v4, kEcho)["rule"]["object"], "Namespace/shop");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "none");
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/web", kMode, "passthrough"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kHttps), "observed");
}

// A stream that is open all the time: bytes go round on it until told to stop, then it ends
// orderly.
class OpenStream {
 public:
  OpenStream(const Place& place, const std::string& address) {
    auto shell = PodShell::start(place);
    auto socket = shell ? (*shell)->connect(address, kEcho) : Result<SocketState>(shell.error());
    if (!socket || socket->error_number != 0) {
      ADD_FAILURE() << "no stream";
      return;
    }
    shell_ = std::move(*shell);
    id_ = socket->id;
    thread_ = std::jthread([this] { run(); });
  }
  // Megabytes that came back right; the failure, if there was one.
  std::pair<std::uint64_t, std::string> finish() {
    stop_ = true;
    if (thread_.joinable()) {
      thread_.join();
    }
    return {rounds_, failure_};
  }

 private:
  void run() {
    while (!stop_ && failure_.empty()) {
      check(shell_->command(fmt::format("exchange {} len=1000000 seed={} open", id_, rounds_)));
    }
    if (failure_.empty()) {
      check(shell_->command(fmt::format("exchange {} len=1000000 seed=9", id_)));
    }
  }
  void check(const Result<json>& answer) {
    if (!answer) {
      failure_ = answer.error().message;
    } else if ((*answer)["digest"] != (*answer)["expected_digest"] || (*answer)["errno"] != 0) {
      failure_ = answer->dump();
    } else {
      ++rounds_;
    }
  }

  std::unique_ptr<PodShell> shell_;
  int id_ = 0;
  std::atomic<bool> stop_ = false;
  std::uint64_t rounds_ = 0;
  std::string failure_;
  std::jthread thread_;
};

constexpr int kFlips = 20;
const milliseconds kFlipBound = scaled(milliseconds(100));  // emulated machines are slower

TEST_F(RulesTest, label_flip_takes_effect_at_once_and_cuts_nothing) {
  OpenStream redirected(place(*web_), api_->v4);
  label(kMode, "passthrough");
  OpenStream passed(place(*web_), api_->v6);
  std::vector<double> took_ms;
  for (int i = 0; i < kFlips; ++i) {
    const bool redirect = i % 2 == 0;
    const std::string wanted = redirect ? "redirected" : "observed";
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kMode,
                                     redirect ? "redirect" : "passthrough"));
    const Clock::time_point written = Clock::now();
    Clock::time_point began;
    ASSERT_TRUE(eventually(kPatience, [&] {
      began = Clock::now();
      return role_of_connect(*shell_, api_->v4, kEchoToo) == wanted;
    })) << sidetrack_->logs();
    took_ms.push_back(std::chrono::duration<double, std::milli>(began - written).count());
  }
  const auto [megabytes, failure] = redirected.finish();
  const auto [megabytes_passed, failure_passed] = passed.finish();
  EXPECT_EQ(failure, "");
  EXPECT_EQ(failure_passed, "");
  EXPECT_GT(megabytes, 1U);
  EXPECT_GT(megabytes_passed, 1U);
  std::sort(took_ms.begin(), took_ms.end());
  std::cout << fmt::format(
      "flips: {}, median {:.1f} ms, second longest {:.1f} ms, longest {:.1f} ms; {} and {} MB on "
      "the open streams\n",
      kFlips, took_ms[kFlips / 2], took_ms[kFlips - 2], took_ms[kFlips - 1], megabytes,
      megabytes_passed);
  EXPECT_LE(took_ms[kFlips / 2], kFlipBound.count());
  // One may be longer: the test's own shell waits for a CPU like everything else.
  EXPECT_LE(took_ms[kFlips - 2], kFlipBound.count());
}

TEST_F(RulesTest, unenrolling_cuts_nothing) {
  OpenStream redirected(place(*web_), api_->v4);
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kMode, "disabled"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "skipped", "disabled"));
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none");
  const auto [megabytes, failure] = redirected.finish();
  EXPECT_EQ(failure, "");
  EXPECT_GE(megabytes, 1U);
}

// TCP options of the policy, on the application's socket; excluded ones keep their own.
TEST_F(RulesTest, tcp_options_reach_enrolled_connections_only) {
  constexpr const char* kTcp = "sidetrack.io/tcp";
  const auto options_of = [&](std::uint16_t port) {
    std::string text;
    const auto connected = shell_->connect(api_->v4, port);
    EXPECT_TRUE(connected);
    const auto socket = take(*shell_, connected->id);
    EXPECT_TRUE(socket);
    constexpr std::array<std::pair<int, int>, 4> kOptions{{{SOL_SOCKET, SO_KEEPALIVE},
                                                           {IPPROTO_TCP, TCP_KEEPIDLE},
                                                           {IPPROTO_TCP, TCP_USER_TIMEOUT},
                                                           {IPPROTO_TCP, TCP_NODELAY}}};
    for (const auto& [level, option] : kOptions) {
      int value = 0;
      socklen_t size = sizeof(value);
      EXPECT_EQ(::getsockopt(socket->get(), level, option, &value, &size), 0);
      text += std::to_string(value) + " ";
    }
    std::array<char, 16> name{};
    socklen_t size = sizeof(name);
    EXPECT_EQ(::getsockopt(socket->get(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &size), 0);
    EXPECT_TRUE(shell_->close(connected->id));
    return text + name.data();
  };
  // Open sockets of the pod, the engine's to the server among them.
  const auto has_reno_sockets = [&](std::size_t wanted_count) {
    const auto connected = shell_->connect(api_->v4, kEcho);
    EXPECT_TRUE(connected);
    const bool found = eventually(kPatience, [&] {
      const auto listed = run_command(
          {.arguments = {"ss", "-Htin", "state", "established"}, .netns_path = web_->netns.path()});
      std::size_t count = 0;
      for (auto at = listed ? listed->output.find(" reno ") : std::string::npos;
           at != std::string::npos; at = listed->output.find(" reno ", at + 1)) {
        ++count;
      }
      return count == wanted_count;
    });
    EXPECT_TRUE(shell_->close(connected->id));
    return found;
  };
  const std::string own = options_of(kEcho);
  const std::string wanted = "1 61 29000 1 reno";
  EXPECT_NE(own, wanted);
  annotate(kExcludePorts, std::to_string(kEchoToo));
  for (const char* const mode : {"redirect", "passthrough"}) {
    if (std::string(mode) != "redirect") {
      label(kMode, mode);
    }
    ST_ASSERT_OK(objects_->set_annotation(
        Kind::kNamespace, "shop", kTcp, "keepalive=61s,user-timeout=29s,congestion=reno,nodelay"));
    std::string seen;
    EXPECT_TRUE(eventually(kPatience, [&] { return (seen = options_of(kEcho)) == wanted; }))
        << seen;
    EXPECT_EQ(options_of(kEchoToo), own) << mode;
    EXPECT_TRUE(has_reno_sockets(mode == std::string("redirect") ? 2 : 1)) << mode;
    ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kTcp, ""));
    EXPECT_TRUE(eventually(kPatience, [&] { return (seen = options_of(kEcho)) == own; })) << seen;
  }
}

}  // namespace
}  // namespace sidetrack::lab
