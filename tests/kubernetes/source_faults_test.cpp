// SPDX-License-Identifier: Apache-2.0
// KubernetesSource against a real API server behind the fault proxy: what was known stays in force,
// no burst of lists, and a change gets through once the fault is over. Backoff in these tests: 50
// ms, doubled up to 400 ms, plus jitter.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>

#include "tests/kubernetes/source_faults_fixture.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using testing::ContainsRegex;
using testing::HasSubstr;

// In 3 s of trouble one resource may ask about 3 s / 400 ms + 4 times; five do.
constexpr int kCalm = 80;

TEST_F(FaultsTest, streams_the_first_list_from_a_server_that_can) {
  std::string answer;
  api_->call("GET",
             "/api/v1/namespaces?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&"
             "allowWatchBookmarks=true&timeoutSeconds=1",
             "", &answer);
  if (answer.find("initial-events-end") == std::string::npos) {
    GTEST_SKIP() << "this API server cannot (etcd 3.4.31, 3.5.13 or later can): " << answer;
  }
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web")) << loop.problems();
  EXPECT_EQ(loop.problems(), "");
  EXPECT_EQ(loop.last().objects.pods.size(), 1U) << "only those of this node";
  EXPECT_EQ(proxy_->requests()["stream pods"], 1);
  EXPECT_EQ(proxy_->requests()["list pods"], 0);
  EXPECT_EQ(proxy_->requests()["watch pods"], 0) << "the same stream goes on";
  add_pod("next");
  EXPECT_TRUE(sees(loop, "next"));
  remove_pod("web");
  EXPECT_TRUE(loop.run_until([&] { return loop.last().objects.pods.size() == 1; }));
}

TEST_F(FaultsTest, lists_where_the_server_cannot_stream) {
  proxy_->set_rule([](const HttpRequest& request, Answer& answer) {
    return request.target.find("sendInitialEvents") != std::string::npos &&
           answer_with(422, "Invalid")(request, answer);
  });
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web")) << loop.problems();
  EXPECT_EQ(proxy_->requests()["stream pods"], 1);
  EXPECT_EQ(proxy_->requests()["list pods"], 1);
  add_pod("next");
  EXPECT_TRUE(sees(loop, "next"));
}

TEST_F(FaultsTest, outage_keeps_everything_and_resumes_without_a_list) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  proxy_->server().go_away();
  proxy_->reset();
  add_pod("meanwhile");
  const auto before = loop.last().objects;
  EXPECT_FALSE(loop.run_until([&] { return loop.last().objects != before; }, 3s));
  EXPECT_TRUE(loop.last().complete);
  EXPECT_THAT(loop.problems(), HasSubstr("pods: cannot be followed"));
  ST_ASSERT_OK(proxy_->server().come_back());
  EXPECT_TRUE(sees(loop, "meanwhile"));
  EXPECT_EQ(proxy_->lists(), 0) << "the watch goes on from the last version";
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, storm_of_410_answers_is_no_storm_of_lists) {
  add_pod("web");
  SourceLoop loop(listing());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(loop, "web", for_watches(answer_with(410, "Expired")), 3s);
  EXPECT_GE(proxy_->lists(), 5);
  EXPECT_LE(proxy_->lists(), kCalm);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, storm_of_410_events_is_no_storm_of_lists) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(
      loop, "web", for_watches([](const HttpRequest&, Answer& answer) {
        answer.begin_chunks();
        answer.write_chunk(R"({"type":"ERROR","object":{"kind":"Status","code":410,)"
                           R"("reason":"Expired","message":"too old resource version"}})"
                           "\n");
        return answer.write_chunk("");
      }),
      3s);
  EXPECT_GE(proxy_->lists(), 5);
  EXPECT_LE(proxy_->lists(), kCalm);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, everything_answered_with_410_is_asked_for_slowly) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(loop, "web", answer_with(410, "Expired"), 3s);
  EXPECT_LE(proxy_->lists(), kCalm);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, byte_by_byte_is_slow_but_whole) {
  add_pod("web");
  proxy_->set_rule(byte_by_byte(*proxy_));
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web")) << loop.problems();
  add_pod("next");
  EXPECT_TRUE(sees(loop, "next"));
}

TEST_F(FaultsTest, server_that_accepts_and_never_answers_is_left) {
  add_pod("web");
  auto impatient = settings();
  impatient.times.head_limit = 2s;
  SourceLoop loop(impatient);
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(
      loop, "web",
      [](const HttpRequest&, Answer& answer) {
        answer.hang();
        return true;
      },
      5s);
  EXPECT_GE(loop.source().status().resources[1].failures, 1U) << "the deadline of the head is 2 s";
  proxy_->set_rule(nullptr);
  proxy_->server().drop_all();
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, stream_that_stops_in_the_middle_is_left_at_its_deadline) {
  add_pod("web");
  auto short_watches = settings();
  short_watches.times.reflector.watch_min = 2s;
  short_watches.times.reflector.watch_max = 3s;
  SourceLoop loop(short_watches);
  ASSERT_TRUE(sees(loop, "web"));
  // The head and a part of an event, then nothing, though the connection stays.
  const auto stop = [](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk(R"({"type":"MODIFIED","object":{"metadata":{"na)");
    answer.hang();
    return true;
  };
  expect_unshaken(loop, "web", for_watches(stop), 6s);
  EXPECT_GE(loop.source().status().resources[1].failures, 1U) << "the deadline is 5 s";
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, list_that_stops_in_the_middle_removes_nothing) {
  for (const char* name : {"a", "b", "c"}) {
    add_pod(name);
  }
  SourceLoop loop(listing());
  ASSERT_TRUE(sees(loop, "c"));
  const auto cut = [this](const HttpRequest& request, Answer& answer) {
    if (request.target.find("watch=1") != std::string::npos) {
      return answer_with(410, "Expired")(request, answer);
    }
    std::size_t left = 1500;
    proxy_->pass(request, answer, [&left](std::string_view bytes, Answer& out) {
      out.write(bytes.substr(0, std::min(left, bytes.size())));
      left -= std::min(left, bytes.size());
      return left != 0;
    });
    return true;
  };
  expect_unshaken(loop, "a", for_pods(cut), 3s);
  EXPECT_EQ(loop.last().objects.pods.size(), 3U);
  EXPECT_GE(proxy_->requests()["list pods"], 2);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, garbage_is_left_and_costs_nothing_that_was_known) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  std::atomic<int> turn = 0;
  const auto garbage = [&turn](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    switch (turn++ % 4) {
      case 0:
        answer.write_chunk("{\"type\":\"ADDED\",\"object\":{\"metadata\":}}\n");
        break;
      case 1:  // an endless line
        for (int i = 0; i < 20 && answer.write_chunk(std::string(1 << 20, 'x')); ++i) {
        }
        break;
      case 2:  // a chunk that is cut off
        answer.write("100\r\n{\"type\":");
        answer.close_after();
        return true;
      default:
        answer.write_chunk(std::string("\0\xff\xfe\n[[[[[[[[[[[[\n", 16));
        break;
    }
    return answer.write_chunk("");
  };
  expect_unshaken(loop, "web", for_watches(garbage), 4s);
  EXPECT_GE(turn.load(), 8);
  EXPECT_LE(proxy_->lists(), kCalm);
  proxy_->set_rule(nullptr);
  add_pod("after");
  EXPECT_TRUE(sees(loop, "after"));
  // A resource is well again when something of use was heard of it; of the others that is a
  // bookmark, in a minute.
  EXPECT_TRUE(loop.run_until([&] { return loop.problems().find(" pods:") == std::string::npos; }))
      << loop.problems();
}

TEST_F(FaultsTest, garbage_lists_remove_nothing) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  std::atomic<int> turn = 0;
  expect_unshaken(
      loop, "web",
      [&turn](const HttpRequest& request, Answer& answer) {
        const char* const bodies[] = {
            R"({"kind":"PodList","metadata":{"resourceVersion":"9"},"items":[{]})",
            R"({"kind":"Status","items":[]})", "<html>login</html>", "", "{}"};
        return request.target.find("watch=1") != std::string::npos
                   ? answer_with(410, "Expired")(request, answer)
                   : answer.respond(200, bodies[turn++ % 5]);
      },
      4s);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, expired_token_is_told_and_a_new_one_is_used_at_once) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  write_token("expired");  // refused by the API server itself
  expect_unshaken(loop, "web", nullptr, 2s);
  EXPECT_THAT(loop.problems(), HasSubstr("401 Unauthorized"));
  EXPECT_EQ(proxy_->lists(), 0);
  write_token(token());
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, too_many_requests_are_not_answered_with_more) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(loop, "web", answer_with(429, "TooManyRequests", "Retry-After: 2\r\n"), 3s);
  EXPECT_LE(proxy_->requests()["watch pods"], 2);
  EXPECT_EQ(proxy_->lists(), 0);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, server_errors_are_waited_out_without_a_list) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(loop, "web", answer_with(500, "InternalError"), 3s);
  EXPECT_EQ(proxy_->lists(), 0);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, watches_that_end_at_once_are_slowed_down) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  expect_unshaken(loop, "web", for_watches([](const HttpRequest&, Answer& answer) {
                    return answer.begin_chunks() && answer.write_chunk("");
                  }),
                  3s);
  EXPECT_LE(proxy_->requests()["watch pods"], kCalm / 5);
  EXPECT_EQ(proxy_->lists(), 0);
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, list_in_pages_is_read_whole_and_over_when_its_token_expires) {
  constexpr int kPods = 1100;
  std::vector<std::pair<std::string, std::string>> pods;
  for (int i = 0; i < kPods; ++i) {
    pods.emplace_back("/api/v1/namespaces/shop/pods",
                      fmt::format(R"({{"metadata":{{"name":"p{}-{}"}},"spec":{{"nodeName":"{}",)"
                                  R"("containers":[{{"name":"c","image":"i"}}]}}}})",
                                  i, node_, node_));
  }
  ST_ASSERT_OK(api_->create_all(pods));
  std::atomic<int> refused = 0;
  // From "0" nothing is served, so that pages come; the token of the third page has expired once.
  proxy_->set_rule([&refused](const HttpRequest& request, Answer& answer) {
    const bool from_cache = request.target.find("resourceVersion=0") != std::string::npos;
    const bool second = request.target.find("continue=") != std::string::npos;
    return (from_cache || (second && refused++ == 1)) &&
           answer_with(410, "Expired")(request, answer);
  });
  SourceLoop loop(listing());
  ASSERT_TRUE(loop.run_until_complete()) << loop.problems();
  EXPECT_EQ(loop.last().objects.pods.size(), static_cast<std::size_t>(kPods));
  EXPECT_GE(refused.load(), 2);
}

TEST_F(FaultsTest, missing_right_is_named_and_holds_up_only_its_resource) {
  static bool made = false;
  if (!std::exchange(made, true)) {
    ST_ASSERT_OK(api_->make_account("less", "services"));
  }
  ST_ASSERT_VALUE(const std::string less, api_->make_token("less"));
  write_token(less);
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until([&] {
    return loop.delivered() && !loop.last().objects.pods.empty() &&
           loop.problems().find("403") != std::string::npos;
  }));
  EXPECT_FALSE(loop.last().complete);
  EXPECT_THAT(loop.problems(), HasSubstr("services: not read yet: 403 Forbidden"));
  write_token(token());
  ASSERT_TRUE(loop.run_until_complete());
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, first_start_without_a_server_knows_nothing_and_says_so) {
  add_pod("web");
  proxy_->server().go_away();
  SourceLoop loop(settings());
  EXPECT_FALSE(loop.run_until(
      [&] {
        return loop.delivered() &&
               (loop.last().complete || loop.last().objects != kube::ObjectSet());
      },
      3s));
  for (const char* resource : {"namespaces", "pods", "services", "endpointslices", "nodes"}) {
    EXPECT_THAT(loop.problems(),
                ContainsRegex(fmt::format("API server {} {}: not read yet: [^\n]+; in use: nothing",
                                          proxy_->server().url(), resource)));
  }
  ST_ASSERT_OK(proxy_->server().come_back());
  ASSERT_TRUE(loop.run_until_complete()) << loop.problems();
  EXPECT_TRUE(loop.has_pod("shop/web-" + node_));
  expect_recovery(loop, "after");
}

TEST_F(FaultsTest, restart_during_an_outage_delivers_what_was_last_read) {
  add_pod("web");
  {
    SourceLoop loop(settings());
    ASSERT_TRUE(sees(loop, "web"));
    loop.source().stop();
  }
  proxy_->server().go_away();
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until([&] { return loop.has_pod("shop/web-" + node_); }));
  EXPECT_FALSE(loop.last().complete);
  remove_pod("web");
  add_pod("next");
  ST_ASSERT_OK(proxy_->server().come_back());
  ASSERT_TRUE(sees(loop, "next"));
  EXPECT_FALSE(loop.has_pod("shop/web-" + node_));
}

}  // namespace
}  // namespace sidetrack::tests
