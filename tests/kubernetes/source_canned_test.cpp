// SPDX-License-Identifier: Apache-2.0
// KubernetesSource against an API server that answers as the test says.
#include "tests/kubernetes/source_canned.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "tests/kubernetes/source_loop.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

std::string pod(const std::string& name, const std::string& version = "10") {
  return R"({"metadata":{"name":")" + name + R"(","namespace":"shop","resourceVersion":")" +
         version + R"("},"spec":{"nodeName":"worker-1"},"status":{"podIP":"10.1.0.1"}})";
}

class CannedTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = lab::TempDir::create("source");
    ASSERT_TRUE(folder);
    folder_.emplace(std::move(*folder));
    auto api = CannedApi::start(folder_->path());
    if (!api && api.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << api.error().message;
    }
    ASSERT_TRUE(api) << api.error().message;
    api_ = std::move(*api);
    api_->set("pods", {pod("web"), pod("api")});
  }

  kube::KubernetesSettings settings() {
    auto settings = quick_settings(api_->kubeconfig());
    settings.cache_dir = folder_->path() / "cache";
    return settings;
  }
  std::filesystem::path cached(const std::string& resource) const {
    return folder_->path() / "cache" / "kubernetes" / (resource + ".json");
  }
  // Lets a source write its cache, and ends it.
  void fill_cache() {
    SourceLoop loop(settings());
    ASSERT_TRUE(loop.run_until_complete());
    loop.source().stop();
  }

  std::optional<lab::TempDir> folder_;
  std::unique_ptr<CannedApi> api_;
};

TEST_F(CannedTest, delivers_once_everything_was_listed) {
  SourceLoop loop(settings());
  ASSERT_EQ(loop.error(), "");
  ASSERT_TRUE(loop.run_until_complete());
  EXPECT_EQ(loop.deliveries(), 1) << "nothing in part";
  EXPECT_EQ(loop.last().objects.pods.size(), 2U);
  EXPECT_EQ(loop.problems(), "");
  EXPECT_EQ(loop.source().status().resources[1].failures, 0U)
      << "a list that is not streamed is no failure";
}

TEST_F(CannedTest, asks_for_the_pods_of_this_node_and_this_node_only) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  for (const HttpRequest& request : api_->log()) {
    const std::string selector = parameter(request, "fieldSelector");
    const std::string resource = resource_of(request);
    EXPECT_EQ(selector, resource == "pods"    ? "spec.nodeName%3Dworker-1"
                        : resource == "nodes" ? "metadata.name%3Dworker-1"
                                              : "")
        << request.target;
    EXPECT_EQ(request.headers.at("authorization"), "Bearer t");
  }
}

TEST_F(CannedTest, follows_events_and_goes_on_from_their_version) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 1; }));
  api_->send("pods", "ADDED", pod("new", "120"));
  api_->send("pods", "DELETED", pod("web", "121"));
  ASSERT_TRUE(
      loop.run_until([&] { return loop.has_pod("shop/new") && !loop.has_pod("shop/web"); }));
  api_->send("pods", "BOOKMARK", R"({"metadata":{"resourceVersion":"150"}})");
  ASSERT_TRUE(loop.run_until([&] { return loop.source().status().resources[1].events == 3; }));
  api_->server().drop_all();
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 2; }));
  std::string last_version;
  for (const HttpRequest& request : api_->log()) {
    if (resource_of(request) == "pods" && is_watch(request)) {
      last_version = parameter(request, "resourceVersion");
    }
  }
  EXPECT_EQ(last_version, "150");
  EXPECT_EQ(api_->requests()["list pods"], 1) << "no list after a broken watch";
}

TEST_F(CannedTest, a_change_reaches_the_listener_within_its_time) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  api_->send("pods", "ADDED", pod("new", "120"));
  ASSERT_TRUE(loop.run_until([&] { return loop.has_pod("shop/new"); }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, lab::scaled(500ms));
}

TEST_F(CannedTest, many_changes_at_once_are_few_deliveries) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 1; }));
  for (int i = 0; i < 500; ++i) {
    api_->send("pods", "ADDED", pod("p" + std::to_string(i), std::to_string(200 + i)));
  }
  ASSERT_TRUE(loop.run_until([&] { return loop.last().objects.pods.size() == 502; }));
  EXPECT_LT(loop.deliveries(), 50);
}

TEST_F(CannedTest, last_good_state_is_delivered_while_the_server_is_away) {
  fill_cache();
  api_->server().go_away();
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until([&] { return loop.has_pod("shop/web"); }));
  EXPECT_FALSE(loop.last().complete);
  EXPECT_EQ(loop.last().objects.pods.size(), 2U);
  EXPECT_THAT(loop.problems(), HasSubstr("pods: not read yet"));
  EXPECT_THAT(loop.problems(), HasSubstr("what was last read, at 20"));

  api_->set("pods", {pod("web"), pod("later")});
  ST_ASSERT_OK(api_->server().come_back());
  ASSERT_TRUE(loop.run_until_complete());
  EXPECT_TRUE(loop.has_pod("shop/later"));
  EXPECT_FALSE(loop.has_pod("shop/api"));
  EXPECT_EQ(loop.problems(), "");
}

TEST_F(CannedTest, what_is_on_disk_is_not_delivered_where_the_server_answers) {
  fill_cache();
  api_->set("pods", {pod("web")});
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  EXPECT_EQ(loop.deliveries(), 1);
  EXPECT_EQ(loop.last().objects.pods.size(), 1U);
}

TEST_F(CannedTest, first_list_after_a_restart_is_never_older_than_what_was_known) {
  fill_cache();
  const std::size_t before = api_->log().size();
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  const auto log = api_->log();
  for (std::size_t i = before; i < log.size(); ++i) {
    EXPECT_EQ(parameter(log[i], "resourceVersion"), "100") << log[i].target;
  }
}

TEST_F(CannedTest, broken_file_is_named_and_not_used) {
  fill_cache();
  std::ofstream(cached("pods"), std::ios::app) << "x";
  api_->server().go_away();
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until([&] { return loop.delivered(); }));
  EXPECT_TRUE(loop.last().objects.pods.empty());
  EXPECT_EQ(loop.last().objects.namespaces.size(), 1U);
  EXPECT_THAT(loop.problems(), HasSubstr("pods.json"));
  for (const kube::Problem& problem : loop.last().problems) {
    EXPECT_TRUE(problem.of_source) << problem.object << " " << problem.key;
  }
}

TEST_F(CannedTest, file_of_another_node_is_not_used) {
  fill_cache();
  api_->server().go_away();
  auto other = settings();
  other.node_name = "worker-2";
  SourceLoop loop(std::move(other));
  ASSERT_TRUE(loop.run_until([&] { return loop.delivered(); }));
  EXPECT_TRUE(loop.last().objects.pods.empty());
  EXPECT_THAT(loop.problems(), HasSubstr("is of node worker-1"));
}

TEST_F(CannedTest, a_change_is_on_disk_soon_without_a_stop) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 1; }));
  api_->send("pods", "ADDED", pod("new", "120"));
  const auto is_saved = [&] {
    std::ifstream file(cached("pods"));
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return text.find("\"new\"") != std::string::npos;
  };
  EXPECT_TRUE(loop.run_until(is_saved));
}

TEST_F(CannedTest, empty_list_is_asked_for_again_before_anything_is_forgotten) {
  fill_cache();
  std::atomic<int> lists = 0;
  api_->set_override([&](const HttpRequest& request, Answer& answer) {
    if (is_watch(request) || resource_of(request) != "pods" || lists++ > 0) {
      return false;
    }
    return answer.respond(200,
                          R"({"kind":"PodList","metadata":{"resourceVersion":"101"},"items":[]})");
  });
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  EXPECT_EQ(loop.last().objects.pods.size(), 2U);
  EXPECT_EQ(api_->requests()["list pods"], 3) << "one to fill the cache, the empty one, one more";
}

TEST_F(CannedTest, expired_token_is_retried_once_at_once) {
  std::mutex mutex;
  std::set<std::string> refused;  // each resource once
  api_->set_override([&](const HttpRequest& request, Answer& answer) {
    const std::lock_guard lock(mutex);
    return refused.insert(resource_of(request)).second &&
           answer.respond(401, R"({"kind":"Status","reason":"Unauthorized"})");
  });
  auto slow = settings();
  slow.times.reflector.backoff = {.first = 60s, .cap = 60s, .reset = 120s};
  slow.times.head_limit = 30s;
  SourceLoop loop(std::move(slow));
  EXPECT_TRUE(loop.run_until_complete()) << "the second try must not wait";
}

TEST_F(CannedTest, unauthorized_for_good_is_told_and_asks_slowly) {
  api_->set_override([&](const HttpRequest&, Answer& answer) {
    return answer.respond(401, R"({"kind":"Status","reason":"Unauthorized","message":"no"})");
  });
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until([&] { return loop.source().status().resources[1].failures >= 4; }));
  EXPECT_THAT(loop.problems(), HasSubstr("401 Unauthorized"));
  EXPECT_FALSE(loop.last().complete);
  EXPECT_LT(api_->log().size(), 60U);
}

TEST_F(CannedTest, stops_for_good_while_requests_are_open) {
  auto loop = std::make_unique<SourceLoop>(settings());
  ASSERT_TRUE(loop->run_until_complete());
  const int deliveries = loop->deliveries();
  loop->source().stop();
  EXPECT_FALSE(loop->run_until([&] { return loop->deliveries() != deliveries; }, 200ms));
  loop.reset();
}

TEST_F(CannedTest, refresh_lists_everything_again) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  ASSERT_TRUE(loop.run_until([&] { return api_->requests()["watch pods"] == 1; }));
  loop.source().refresh();
  EXPECT_TRUE(loop.run_until([&] {
    const auto counts = api_->requests();
    return counts.contains("list nodes") && counts.at("list nodes") == 2 &&
           counts.at("list pods") == 2;
  }));
}

TEST(KubernetesSource, refuses_a_configuration_that_cannot_be_used) {
  EXPECT_THAT(SourceLoop(quick_settings("/nonexistent/kubeconfig")).error(),
              HasSubstr("/nonexistent/kubeconfig"));
}

}  // namespace
}  // namespace sidetrack::tests
