// SPDX-License-Identifier: Apache-2.0
// Connections that a proxy which is not ours relays, with the fast path on: applications send past
// TCP to it, and all end as those of namespace plain do, which it relays without the fast path.
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/proxies.h"
#include "tests/dataplane/talker.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

enum class Proxy { kHaproxy, kSplicingHaproxy, kEnvoy };

// For failure messages and names of tests.
void PrintTo(Proxy proxy, std::ostream* out) {
  *out << (proxy == Proxy::kHaproxy ? "haproxy"
           : proxy == Proxy::kEnvoy ? "envoy"
                                    : "splicing_haproxy");
}
std::string name_of(const testing::TestParamInfo<Proxy>& proxy) {
  return testing::PrintToString(proxy.param);
}

class FastListExternal : public FastList, public testing::WithParamInterface<Proxy> {
 protected:
  FastListExternal() { clients_only_ = true; }
  void SetUp() override {
    set_up_pods();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    find_proxy();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ST_ASSERT_VALUE(engine_cgroup_, cgroup_->child("engine"));
    ST_ASSERT_VALUE(
        sidetrack_,
        Sidetrack::create(
            *cgroup_, {.objects_folder = objects_->folder().string(),
                       .engine = engine_option(),
                       .netns_path = lab_->node().path(),
                       .fast_path = true,
                       .agent_arguments = {"--fast-path-probation", "0s", "--fast-path-round-trips",
                                           "4", "--engine-cgroup", engine_cgroup_}}));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ST_ASSERT_OK(cgroup_->add(::getpid()));
    ASSERT_NO_FATAL_FAILURE(redirect("shop"));
    ASSERT_NO_FATAL_FAILURE(redirect("plain"));
    ASSERT_NO_FATAL_FAILURE(start_proxy());
  }

  [[nodiscard]] static bool is_envoy() { return GetParam() == Proxy::kEnvoy; }
  [[nodiscard]] std::vector<std::string> addresses() const {
    return is_envoy() ? std::vector{lab_->node_v4(), lab_->node_v6()}
                      : std::vector{lab_->node_v4()};
  }
  [[nodiscard]] std::string engine_option() const {
    const std::string v4 = fmt::format("external={}:{}", lab_->node_v4(), kProxyPort);
    return is_envoy() ? fmt::format("{},[{}]:{}", v4, lab_->node_v6(), kProxyPort) : v4;
  }
  // IPv6 where the proxy asks for the original destination there.
  [[nodiscard]] static std::vector<Road> roads() {
    std::vector<Road> roads{{Where::kVeth, Ip::kV4}, {Where::kVeth, Ip::kMapped}};
    if (is_envoy()) {
      roads.push_back({Where::kVeth, Ip::kV6});
    }
    return roads;
  }

  void find_proxy() {
    if (!is_envoy()) {
      return;
    }
    const auto envoy = find_envoy();
    if (!envoy && envoy.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << "the package registry cannot be reached: " << envoy.error().message;
    }
    ST_ASSERT_VALUE(envoy_, envoy);
  }

  void start_proxy() {
    const Place place{lab_->node().path(), engine_cgroup_};
    if (is_envoy()) {
      ST_ASSERT_VALUE(proxy_, start_envoy(envoy_, place, *folder_, addresses()));
    } else {
      ST_ASSERT_VALUE(proxy_,
                      start_haproxy(place, *folder_, addresses(),
                                    GetParam() == Proxy::kSplicingHaproxy ? HaproxyKind::kSplicing
                                                                          : HaproxyKind::kPlain));
    }
    for (const auto& [name, world] : {std::pair{"shop", &shop_}, std::pair{"plain", &plain_}}) {
      ASSERT_NO_FATAL_FAILURE(wait_until_redirected(name, world->server->v4));
      if (is_envoy()) {
        ASSERT_NO_FATAL_FAILURE(
            wait_until_redirected(name, fmt::format("[{}]", world->server->v6)));
      }
    }
  }

  void wait_until_redirected(const std::string& name, const std::string& address) {
    std::string last;
    ASSERT_TRUE(
        eventually(kPatience,
                   [&] {
                     const auto verdict = sidetrack_->get(fmt::format(
                         "/v1/explain?namespace={}&pod=client&destination={}:80", name, address));
                     last = verdict ? verdict->dump() : verdict.error().message;
                     return verdict && (*verdict)["verdict"] == "redirected";
                   }))
        << last << proxy_->output();
  }

  std::string envoy_;  // its path
  std::string engine_cgroup_;
  std::unique_ptr<Process> proxy_;
};

// endings(), as they are where nothing but what clients send to the proxy can skip TCP.
class FastListProxy : public FastListExternal {
 protected:
  [[nodiscard]] static std::vector<Case> endings_of_proxy() {
    std::vector<Case> cases = endings();
    for (Case& one : cases) {
      const std::string_view name = one.name;
      if (name == "stream after a half-close" || name == "SO_LINGER 0 with unread bytes") {
        one.by_tcp = "fp_engine_sends";
      }
      if (name == "close with unread bytes") {
        one.fast.reset();
        one.tcp = is_envoy() ? "sent ECONNRESET over" : "sent EOF over";
      }
    }
    return cases;
  }
};

TEST_P(FastListProxy, ends_as_without_the_fast_path) {
  expect_all(endings_of_proxy(), roads());
}

// The proxy is killed under connections of both namespaces.
class FastListProxyDies : public FastListExternal {
 protected:
  struct Pair {
    Road road;
    Ends slow, fast;
  };
  [[nodiscard]] std::vector<Pair> connect() {
    std::vector<Pair> pairs;
    for (const Road& road : roads()) {
      pairs.push_back({road, open_on(plain_, road), open_on(shop_, road)});
    }
    std::vector<Ends*> all;
    for (Pair& pair : pairs) {
      all.push_back(&pair.fast);
    }
    make_fast(all);
    return pairs;
  }
  // Both ends say something, and it has arrived; the client of namespace shop says it past TCP.
  static void say_last_words(const Pair& pair) {
    const std::uint64_t before = sent_by_tcp(pair.fast.client);
    for (const Ends* ends : {&pair.slow, &pair.fast}) {
      EXPECT_EQ(send_text(ends->client, "last words"), "sent");
      EXPECT_EQ(send_text(ends->server, "back"), "sent");
      EXPECT_EQ(receive_text(ends->server, 1, MSG_PEEK), "'l'");
      EXPECT_EQ(receive_text(ends->client, 1, MSG_PEEK), "'b'");
    }
    EXPECT_EQ(sent_by_tcp(pair.fast.client), before);
  }
  // A proxy that is stopped reads nothing.
  static void say_what_is_lost(const Pair& pair) {
    const std::uint64_t before = sent_by_tcp(pair.fast.client);
    for (const Ends* ends : {&pair.slow, &pair.fast}) {
      EXPECT_EQ(send_text(ends->client, "lost"), "sent");
      EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends->client); }));
    }
    EXPECT_EQ(sent_by_tcp(pair.fast.client), before);
  }
  static void expect_rest(const Ends& ends, const std::string& client_end) {
    EXPECT_EQ(words({receive_text(ends.client, 99), receive_text(ends.client, 99)}),
              "'back' " + client_end);
    EXPECT_EQ(words({receive_text(ends.server, 99), receive_text(ends.server, 99)}),
              "'last words' EOF");
  }
  using Talkers = std::vector<std::unique_ptr<Talker>>;
  [[nodiscard]] Talkers stream_on(const std::vector<Pair>& pairs) const {
    constexpr std::uint64_t kSome = 4'000'000;
    Talkers talkers;
    for (const Pair& pair : pairs) {
      for (const Ends* ends : {&pair.slow, &pair.fast}) {
        talkers.push_back(std::make_unique<Talker>(ends->client.get(), 1, 2));
        talkers.push_back(std::make_unique<Talker>(ends->server.get(), 2, 1));
      }
    }
    for (std::size_t i = 0; i < talkers.size(); i += 2) {
      EXPECT_TRUE(both_receive(*talkers[i], *talkers[i + 1], kSome));
    }
    EXPECT_GT(past_tcp().applications, kSome);
    EXPECT_EQ(past_tcp().engines, 0U);
    return talkers;
  }
};

// Bytes that it had passed on are read, with or without the fast path, and then the end. Of bytes
// that it had not read TCP tells with RST; past TCP that is deviation 17. What had come of streams
// is in order, and both ends are told.
TEST_P(FastListProxyDies, as_without_the_fast_path) {
  const std::vector<Pair> passed_on = connect();
  const std::vector<Pair> unread = connect();
  const std::vector<Pair> streams = connect();
  ASSERT_FALSE(HasFailure());
  const Talkers talkers = stream_on(streams);
  for (const auto* pairs : {&passed_on, &unread}) {
    for (const Pair& pair : *pairs) {
      say_last_words(pair);
    }
  }
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  for (const Pair& pair : unread) {
    say_what_is_lost(pair);
  }
  proxy_->kill_hard();
  for (std::size_t i = 0; i < unread.size(); ++i) {
    SCOPED_TRACE(lab::name_of(unread[i].road));
    expect_rest(passed_on[i].slow, "EOF");
    expect_rest(passed_on[i].fast, "EOF");
    expect_rest(unread[i].slow, "ECONNRESET");
    expect_rest(unread[i].fast, "EOF");
  }
  for (const auto& talker : talkers) {
    EXPECT_TRUE(eventually(kPatience, [&] { return talker->ended(); }));
    EXPECT_TRUE(talker->intact());
    const int error = talker->error_number();
    EXPECT_TRUE(error == 0 || error == ECONNRESET || error == EPIPE) << error;
  }
}

class FastListSplicing : public FastListExternal {};

TEST_P(FastListSplicing, a_proxy_that_splices_is_sent_to_by_tcp) {
  Ends ends = open_on(shop_, {});
  EXPECT_TRUE(eventually(kPatience, [&] {
    pass(ends.client, ends.server, "question");
    pass(ends.server, ends.client, "answer");
    return refused("fp_splice") > 0;
  }));
  EXPECT_EQ(words({stream(ends.client, ends.server, {}), stream(ends.server, ends.client, {})}),
            words({whole(Pace{}.length), whole(Pace{}.length)}));
  EXPECT_EQ(past_tcp().applications, 0U);
  EXPECT_EQ(past_tcp().engines, 0U);
  ends.client.reset();
  EXPECT_EQ(read_to_end(ends.server), fmt::format("0 {} EOF", pattern_digest(kStreamSeed, 0)));
}

INSTANTIATE_TEST_SUITE_P(Of, FastListProxy, testing::Values(Proxy::kHaproxy, Proxy::kEnvoy),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Of, FastListProxyDies, testing::Values(Proxy::kHaproxy, Proxy::kEnvoy),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Of, FastListSplicing, testing::Values(Proxy::kSplicingHaproxy), name_of);

}  // namespace
}  // namespace sidetrack::lab
