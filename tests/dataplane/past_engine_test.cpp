// SPDX-License-Identifier: Apache-2.0
// Whatever way a connection goes instead of the engine, nothing is left of an earlier redirected
// connect of the same socket.
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <map>
#include <utility>

#include "tests/dataplane/names.h"

namespace sidetrack::lab {
namespace {

// Second connects of sockets that were redirected once and now go another way.
class PastTheEngine : public NamesTest {
 protected:
  struct Way {
    const char* reason;
    std::string v4;  // where to
    std::string v6;
    std::uint16_t port = kEcho;
    const char* role = "none";
    const char* own_port = "port";
  };

  void SetUp() override {
    NamesTest::SetUp();
    if (!HasFatalFailure() && !IsSkipped()) {
      ST_ASSERT_VALUE(netns_, web_->netns.cookie());
    }
  }
  // Of the pod's namespace, or of all netns without a row, from the kernel: the agent may be dead.
  // Without the engine's own connects, which come after those that it serves.
  [[nodiscard]] Counts counted() const {
    const auto row = kernel().pod(netns_);
    const auto counts = kernel().counted(row ? row->namespace_slot : 0);
    EXPECT_TRUE(counts.has_value()) << counts.error().message;
    Counts others = counts ? *counts : Counts();
    others.erase("engine_socket");
    return others;
  }

  int disconnected(const std::string& address) {
    const int id = connected(*shell_, address, kEcho);
    EXPECT_TRUE(shell_->send(id, "ping").has_value());
    EXPECT_EQ(shell_->receive(id, 4)->text, "ping") << "the engine has made its connection";
    EXPECT_EQ(shell_->disconnect(id)->error_number, 0);
    return id;
  }

  void goes_past(int id, const Way& way, const std::string& to, const std::string& own) {
    SCOPED_TRACE(std::string(way.reason) + " " + to);
    const Counts before = counted();
    ST_ASSERT_VALUE(auto again, shell_->connect_again(id, to, way.port));
    EXPECT_EQ(again.errno_name, "");
    EXPECT_EQ(counted(), plus_one(before, way.reason));
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, id));
    EXPECT_EQ(role.empty() ? "none" : role, way.role);
    EXPECT_EQ(names(*shell_, *web_, id), (Names{fmt::format("{} {}", to, way.port), own}));
    ST_ASSERT_VALUE(auto original, shell_->original_destination(id));
    EXPECT_NE(original.error_number, 0);
    ST_ASSERT_VALUE(auto done, shell_->exchange(id, 1000));
    EXPECT_EQ(done.digest, done.expected_digest);
    const std::string source = source_of(*shell_, id);
    ST_ASSERT_OK(shell_->close(id));
    if (way.role == std::string("observed")) {
      is_told(way, source, to);
    }
  }

  // The flow record of the connection, when it is closed.
  void is_told(const Way& way, const std::string& source, const std::string& to) {
    const std::string destination = endpoint_text(to, way.port);
    nlohmann::json flow;
    // The redirected one before it may have had the same port.
    ASSERT_TRUE(eventually(kPatience, [&] {
      for (const nlohmann::json& other : flows_from(source)) {
        if (other["close"] != "" && other["reason"] == way.reason) {
          flow = other;
        }
      }
      return !flow.is_null();
    })) << nlohmann::json(flows_from(source));
    EXPECT_EQ(flow.value("verdict", ""), "direct") << flow;
    EXPECT_EQ(flow.value("path", ""), "direct") << flow;
    EXPECT_EQ(flow.value("destination", ""), destination) << flow;
    EXPECT_EQ(flow.value("endpoint", ""), destination) << flow;
    EXPECT_EQ(flow.value("pod", ""), "web") << flow;
    EXPECT_EQ(flow.value("bytes_out", 0), 1000) << flow;
    EXPECT_EQ(flow.value("bytes_in", 0), 1000) << flow;
    EXPECT_EQ(flow.value("close", ""), "fin") << flow;
  }

  // One socket of each family; `change` comes between their two connects and is given both.
  template <typename Change>
  void both_go_past(const Way& way, Change change) {
    const int v4 = disconnected(api_->v4);
    const int v6 = disconnected(api_->v6);
    ASSERT_NO_FATAL_FAILURE(change(v4, v6));
    const auto own = [&](const char* address) {
      return fmt::format("{} {}", address, way.own_port);
    };
    goes_past(v4, way, way.v4, own(way.v4 == "127.0.0.1" ? "127.0.0.1" : "POD4"));
    goes_past(v6, way, way.v6, own(way.v6 == "::1" ? "::1" : "POD6"));
  }
  void both_go_past(const Way& way) {
    both_go_past(way, [](int, int) {});
  }

  void bypass(const char* value) {
    ST_ASSERT_VALUE(auto said,
                    sidetrack_->ctl({"bypass", "--pin-dir", sidetrack_->pin_dir(), value}));
    EXPECT_EQ(said.exit_status, 0) << said.output;
  }
  void set_option(int id, int level, int option) {
    ST_ASSERT_VALUE(const UniqueFd socket, take(*shell_, id));
    const int on = 1;
    EXPECT_EQ(::setsockopt(socket.get(), level, option, &on, sizeof(on)), 0);
  }
  void bind_any(int id, int family, std::uint16_t port) {
    ST_ASSERT_VALUE(const UniqueFd socket, take(*shell_, id));
    sockaddr_in6 any{};
    any.sin6_family = static_cast<sa_family_t>(family);
    any.sin6_port = htons(port);  // at the same place in a sockaddr_in, and the rest is 0 as well
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)), 0)
        << std::strerror(errno);
  }
  void set_mode(const char* value, const char* state) {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kMode, value));
    ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", state, value));
  }
  void past_every_rule();
  void past_every_kind_of_socket();
  void past_every_state_of_the_engine();
  void past_every_state_of_the_pod();

  std::uint64_t netns_ = 0;
};

void PastTheEngine::past_every_rule() {
  ST_ASSERT_VALUE(spare_echo_, EchoServer::start(place(*spare_), {"echo:7000"}));
  annotate(kExcludePorts, std::to_string(kEchoToo));
  annotate(kExcludeCidrs, spare_->v4 + "," + spare_->v6);
  annotate(kIncludePorts, std::to_string(kEcho));
  both_go_past({"excluded_port", api_->v4, api_->v6, kEchoToo});
  both_go_past({"excluded_cidr", spare_->v4, spare_->v6});
  both_go_past({"not_included", api_->v4, api_->v6, kHttps});
}

void PastTheEngine::past_every_kind_of_socket() {
  ST_ASSERT_VALUE(const auto web_echo, EchoServer::start(place(*web_), {"echo:7000"}));
  both_go_past({"local_destination", "127.0.0.1", "::1"});
  both_go_past({"bound_device", api_->v4, api_->v6}, [&](int v4, int v6) {
    for (const int id : {v4, v6}) {
      ST_ASSERT_VALUE(const UniqueFd socket, take(*shell_, id));
      EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, "eth0", 4), 0);
    }
  });
  both_go_past({"transparent", api_->v4, api_->v6}, [&](int v4, int v6) {
    set_option(v4, SOL_IP, IP_TRANSPARENT);
    set_option(v6, SOL_IPV6, IPV6_TRANSPARENT);
  });
  both_go_past({.reason = "bound_port", .v4 = api_->v4, .v6 = api_->v6, .own_port = "4325"},
               [&](int v4, int v6) {
                 for (const int id : {v4, v6}) {
                   set_option(id, SOL_SOCKET, SO_REUSEADDR);
                   bind_any(id, id == v4 ? AF_INET : AF_INET6, 4325);
                 }
               });
}

void PastTheEngine::past_every_state_of_the_pod() {
  both_go_past({"bypass", api_->v4, api_->v6}, [&](int, int) { bypass("on"); });
  bypass("off");
  both_go_past({"not_enrolled", api_->v4, api_->v6},
               [&](int, int) { set_mode("disabled", "skipped"); });
  set_mode("redirect", "enrolled");
  both_go_past({"passthrough", api_->v4, api_->v6, kEcho, "observed"},
               [&](int, int) { set_mode("passthrough", "enrolled"); });
  set_mode("redirect", "enrolled");
  // Until an agent writes it again.
  both_go_past({"unknown_netns", api_->v4, api_->v6}, [&](int, int) {
    sidetrack_->agent().kill_hard();
    ST_ASSERT_OK(kernel().delete_pod(netns_));
  });
}

void PastTheEngine::past_every_state_of_the_engine() {
  constexpr std::int64_t kRoom = ST_MAX_RECORDS - ST_RECORD_HEADROOM;
  both_go_past({"internal_error", api_->v4, api_->v6},
               [&](int, int) { ST_ASSERT_OK(kernel().add_records(kRoom)); });
  ST_ASSERT_OK(kernel().add_records(-kRoom));
  both_go_past({"engine_down", api_->v4, api_->v6, kEcho, "observed"},
               [&](int, int) { sidetrack_->engine().kill_hard(); });
  ST_ASSERT_OK(sidetrack_->start_engine());
  ASSERT_TRUE(eventually(kPatience, [&] {
    return explain(api_->v4, kEcho).value("reason", "") == "redirected" &&
           explain(api_->v6, kEcho).value("reason", "") == "redirected";
  })) << sidetrack_->logs();
}

TEST_F(PastTheEngine, every_way_forgets_what_was_asked_for_before) {
  ASSERT_NO_FATAL_FAILURE(past_every_rule());
  ASSERT_NO_FATAL_FAILURE(past_every_kind_of_socket());
  ASSERT_NO_FATAL_FAILURE(past_every_state_of_the_engine());
  ASSERT_NO_FATAL_FAILURE(past_every_state_of_the_pod());
}

TEST_F(PastTheEngine, one_that_is_refused_forgets_what_was_asked_for_before) {
  label(kOnEngineLoss, "closed");
  std::map<std::string, std::pair<int, int>> sockets;  // by destination: ours, plain TCP's
  for (const std::string& address : {api_->v4, api_->v6}) {
    const int plain = connected(*control_, address, kEcho);
    EXPECT_EQ(control_->disconnect(plain)->error_number, 0);
    sockets[address] = {disconnected(address), plain};
  }
  sidetrack_->engine().kill_hard();
  for (const auto& [address, both] : sockets) {
    SCOPED_TRACE(address);
    const auto [id, plain] = both;
    const Counts before = counted();
    ST_ASSERT_VALUE(const auto again, shell_->connect_again(id, address, kEcho));
    ST_ASSERT_VALUE(const auto expected, control_->connect_again(plain, address, kClosed));
    EXPECT_EQ(again.errno_name, "ECONNREFUSED");
    EXPECT_EQ(again.errno_name, expected.errno_name);
    EXPECT_EQ(counted(), plus_one(before, "engine_down_closed"));
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, id));
    EXPECT_EQ(role, "");
    EXPECT_EQ(names(*shell_, *web_, id), names(*control_, *plain_, plain));
    ST_ASSERT_VALUE(const auto original, shell_->original_destination(id));
    EXPECT_NE(original.error_number, 0);
  }
}

// An engine that has few files.
class PastAFullEngine : public PastTheEngine {
 protected:
  void start_sidetrack() override {
    options_.engine_launcher = {"prlimit", "--nofile=200"};
    PastTheEngine::start_sidetrack();
  }
};

TEST_F(PastAFullEngine, forgets_what_was_asked_for_before_and_is_told) {
  ST_ASSERT_VALUE(const auto holder, PodShell::start(place(*web_)));
  both_go_past({"engine_full", api_->v4, api_->v6, kEcho, "observed"}, [&](int, int) {
    ASSERT_TRUE(eventually(kPatience, [&] {
      return explain(api_->v4, kEcho).value("reason", "") == "engine_full" ||
             !holder->hold(api_->v4, kEchoToo, 5);
    })) << sidetrack_->logs();
  });
}

// A pod whose only listener takes 80 connections of each family.
class PastUsedPorts : public PastTheEngine {
 protected:
  static constexpr std::uint64_t kBudget = 80;
  void start_sidetrack() override {
    ST_ASSERT_OK(Lab::set_port_range(*web_, 40'000, 40'099));
    options_.agent_arguments = {"--listeners-per-pod", "1"};
    PastTheEngine::start_sidetrack();
  }
};

TEST_F(PastUsedPorts, forgets_what_was_asked_for_before_and_is_told) {
  ST_ASSERT_VALUE(const auto holder, PodShell::start(place(*web_)));
  both_go_past({"port_budget", api_->v4, api_->v6, kEcho, "observed"}, [&](int, int) {
    for (const std::string& address : {api_->v4, api_->v6}) {
      ST_ASSERT_VALUE(const auto held, holder->hold(address, kEchoToo, kBudget));
      ASSERT_EQ(held, kBudget);
    }
  });
}

}  // namespace
}  // namespace sidetrack::lab
