// SPDX-License-Identifier: Apache-2.0
// The decisions of a Reflector, with a clock and random numbers of the test's own.
#include <gtest/gtest.h>

#include <string>

#include "agent/kube/reflector.h"

namespace sidetrack::kube {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using Kind = ListWatchRequest::Kind;

Failure status(int code, std::string reason = "") {
  return Failure{.status = {.code = code, .reason = std::move(reason)}};
}
Failure broken() {
  return Failure{.status = {.message = "connection refused"}};
}
Failure garbage() {
  return Failure{.status = {}, .garbage = true};
}

class ReflectorTest : public testing::Test {
 protected:
  // A reflector that does not try the streaming list, at random 0: delays are 800 ms, 1600 ms, ...
  Reflector make(const std::string& version = "", bool knows = false, bool stream = false) {
    ReflectorSettings settings;
    settings.try_watch_list = stream;
    return Reflector(
        settings, [this] { return random_; }, version, knows);
  }
  // One that has listed at `version` and watches.
  Reflector watching(const std::string& version) {
    Reflector reflector = make();
    static_cast<void>(reflector.list());
    static_cast<void>(reflector.on_listed(now_, {version, ""}, 3));
    return reflector;
  }

  double random_ = 0;
  TimePoint now_ = TimePoint(1000h);
};

TEST_F(ReflectorTest, lists_from_the_cache_and_watches_from_there) {
  Reflector reflector = make();
  const Step list = reflector.list();
  EXPECT_EQ(list.request.kind, Kind::kList);
  EXPECT_EQ(list.request.resource_version, "0");
  EXPECT_EQ(list.delay, 0ms);
  const Step watch = reflector.on_listed(now_, {"42", ""}, 3);
  EXPECT_TRUE(reflector.list_is_whole());
  EXPECT_EQ(watch.request.kind, Kind::kWatch);
  EXPECT_EQ(watch.request.resource_version, "42");
  EXPECT_EQ(watch.request.timeout, 300s);
  EXPECT_EQ(watch.delay, 0ms);
}

TEST_F(ReflectorTest, asks_the_server_for_a_random_end_of_a_watch) {
  random_ = 0.5;
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  EXPECT_EQ(reflector.on_listed(now_, {"42", ""}, 1).request.timeout, 450s);
}

TEST_F(ReflectorTest, first_list_is_never_older_than_what_is_on_disk) {
  const Step list = make("77", true).list();
  EXPECT_EQ(list.request.resource_version, "77");
  EXPECT_EQ(list.request.limit, 0U) << "a limit would bypass the watch cache";
}

TEST_F(ReflectorTest, goes_on_from_the_version_of_the_last_event) {
  Reflector reflector = watching("42");
  reflector.on_version("57");
  const Step watch = reflector.on_watch_end(now_, 400s, 9);
  EXPECT_EQ(watch.request.kind, Kind::kWatch);
  EXPECT_EQ(watch.request.resource_version, "57");
  EXPECT_EQ(watch.delay, 0ms) << "a watch that ends in time is normal";
}

TEST_F(ReflectorTest, refused_connection_waits_and_watches_again_without_a_list) {
  Reflector reflector = watching("42");
  const milliseconds expected[] = {800ms,   1600ms,  3200ms,  6400ms,
                                   12800ms, 25600ms, 30000ms, 30000ms};
  for (const milliseconds delay : expected) {
    const Step step = reflector.on_failure(now_, broken());
    EXPECT_EQ(step.request.kind, Kind::kWatch);
    EXPECT_EQ(step.request.resource_version, "42");
    EXPECT_EQ(step.delay, delay);
    now_ += delay;
  }
}

TEST_F(ReflectorTest, jitter_at_most_doubles_a_delay) {
  random_ = 0.999;
  Reflector reflector = watching("42");
  const Step step = reflector.on_failure(now_, broken());
  EXPECT_GE(step.delay, 1500ms);
  EXPECT_LT(step.delay, 1600ms);
}

TEST_F(ReflectorTest, backoff_starts_over_after_two_minutes_without_trouble) {
  Reflector reflector = watching("42");
  static_cast<void>(reflector.on_failure(now_, broken()));
  static_cast<void>(reflector.on_failure(now_, broken()));
  now_ += 119s;
  EXPECT_EQ(reflector.on_failure(now_, broken()).delay, 3200ms);
  now_ += 3200ms + 121s;
  EXPECT_EQ(reflector.on_failure(now_, broken()).delay, 800ms);
}

TEST_F(ReflectorTest, too_many_requests_obeys_the_server) {
  Reflector reflector = watching("42");
  Failure failure = status(429);
  failure.status.retry_after = 17s;
  const Step step = reflector.on_failure(now_, failure);
  EXPECT_EQ(step.request.kind, Kind::kWatch);
  EXPECT_EQ(step.request.resource_version, "42");
  EXPECT_EQ(step.delay, 17s);
}

TEST_F(ReflectorTest, unauthorized_is_tried_once_at_once_then_waits) {
  Reflector reflector = watching("42");
  EXPECT_EQ(reflector.on_failure(now_, status(401)).delay, 0ms);
  EXPECT_EQ(reflector.on_failure(now_, status(401)).delay, 800ms);
  EXPECT_EQ(reflector.on_failure(now_, status(401)).delay, 1600ms);
  reflector.on_version("43");
  EXPECT_EQ(reflector.on_failure(now_, status(401)).delay, 0ms) << "the next expiry is a new one";
}

TEST_F(ReflectorTest, forbidden_waits) {
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  const Step step = reflector.on_failure(now_, status(403));
  EXPECT_EQ(step.request.kind, Kind::kList);
  EXPECT_EQ(step.delay, 800ms);
}

TEST_F(ReflectorTest, gone_lists_from_the_last_version_then_the_most_recent) {
  Reflector reflector = watching("42");
  const Step list = reflector.on_failure(now_, status(410, "Expired"));
  EXPECT_EQ(list.request.kind, Kind::kList);
  EXPECT_EQ(list.request.resource_version, "42");
  EXPECT_EQ(list.delay, 800ms) << "a server that says 410 to everything gets no burst of lists";
  const Step recent = reflector.on_failure(now_, status(410, "Expired"));
  EXPECT_EQ(recent.request.resource_version, "");
  EXPECT_EQ(recent.request.limit, 500U);
  EXPECT_EQ(recent.delay, 0ms);
  const Step slower = reflector.on_failure(now_, status(410, "Expired"));
  EXPECT_EQ(slower.request.resource_version, "");
  EXPECT_EQ(slower.delay, 1600ms);
}

TEST_F(ReflectorTest, storm_of_410_on_watches_is_slowed_down) {
  Reflector reflector = watching("42");
  milliseconds waited{0};
  for (int round = 0; round < 10; ++round) {
    const Step list = reflector.on_failure(now_, status(410));
    waited += list.delay;
    now_ += list.delay;
    static_cast<void>(reflector.on_listed(now_, {"43", ""}, 3));
  }
  EXPECT_EQ(waited, 800ms + 1600ms + 3200ms + 6400ms + 12800ms + 25600ms + 4 * 30000ms);
}

TEST_F(ReflectorTest, version_that_is_too_large_is_read_most_recent) {
  Reflector reflector = make("9000", true);
  static_cast<void>(reflector.list());
  Failure failure = status(504, "Timeout");
  failure.status.version_too_large = true;
  EXPECT_EQ(reflector.on_failure(now_, failure).request.resource_version, "");
}

TEST_F(ReflectorTest, follows_the_pages_of_a_list) {
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  const Step second = reflector.on_listed(now_, {"42", "token"}, 500);
  EXPECT_FALSE(reflector.list_is_whole());
  EXPECT_EQ(second.request.kind, Kind::kList);
  EXPECT_EQ(second.request.continue_token, "token");
  EXPECT_EQ(second.request.resource_version, "");
  EXPECT_EQ(reflector.on_listed(now_, {"42", ""}, 700).request.kind, Kind::kWatch);
}

TEST_F(ReflectorTest, expired_token_of_a_page_reads_the_list_in_one_piece) {
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  static_cast<void>(reflector.on_listed(now_, {"42", "token"}, 500));
  const Step step = reflector.on_failure(now_, status(410, "Expired"));
  EXPECT_EQ(step.request.kind, Kind::kList);
  EXPECT_EQ(step.request.continue_token, "");
  EXPECT_EQ(step.request.resource_version, "");
  EXPECT_EQ(step.request.limit, 0U);
}

TEST_F(ReflectorTest, broken_page_starts_the_list_over) {
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  static_cast<void>(reflector.on_listed(now_, {"42", "token"}, 500));
  const Step step = reflector.on_failure(now_, broken());
  EXPECT_EQ(step.request.continue_token, "");
  EXPECT_EQ(step.request.resource_version, "0");
}

TEST_F(ReflectorTest, watch_that_ends_at_once_is_an_error) {
  Reflector reflector = watching("42");
  EXPECT_EQ(reflector.on_watch_end(now_, 100ms, 0).delay, 800ms);
  EXPECT_EQ(reflector.on_watch_end(now_, 100ms, 0).delay, 1600ms);
}

TEST_F(ReflectorTest, short_watches_with_events_are_slowed_down_from_the_second_on) {
  Reflector reflector = watching("42");
  EXPECT_EQ(reflector.on_watch_end(now_, 100ms, 5).delay, 0ms);
  EXPECT_EQ(reflector.on_watch_end(now_, 100ms, 5).delay, 800ms);
  EXPECT_EQ(reflector.on_watch_end(now_, 5s, 0).delay, 0ms);
}

TEST_F(ReflectorTest, garbage_watches_again_and_lists_the_third_time) {
  Reflector reflector = watching("42");
  EXPECT_EQ(reflector.on_failure(now_, garbage()).request.kind, Kind::kWatch);
  EXPECT_EQ(reflector.on_failure(now_, garbage()).request.kind, Kind::kWatch);
  const Step step = reflector.on_failure(now_, garbage());
  EXPECT_EQ(step.request.kind, Kind::kList);
  EXPECT_EQ(step.delay, 3200ms);
}

TEST_F(ReflectorTest, server_errors_watch_again_and_list_after_two_minutes) {
  Reflector reflector = watching("42");
  EXPECT_EQ(reflector.on_failure(now_, status(500)).request.kind, Kind::kWatch);
  now_ += 119s;
  EXPECT_EQ(reflector.on_failure(now_, status(503)).request.kind, Kind::kWatch);
  now_ += 2s;
  EXPECT_EQ(reflector.on_failure(now_, status(500)).request.kind, Kind::kList);
}

TEST_F(ReflectorTest, empty_list_over_known_objects_is_asked_for_again) {
  Reflector reflector = make("77", true);
  static_cast<void>(reflector.list());
  const Step confirm = reflector.on_listed(now_, {"80", ""}, 0);
  EXPECT_FALSE(reflector.list_is_whole());
  EXPECT_EQ(confirm.request.kind, Kind::kList);
  EXPECT_EQ(confirm.request.resource_version, "");
  EXPECT_EQ(confirm.delay, 800ms);
  const Step watch = reflector.on_listed(now_, {"81", ""}, 0);
  EXPECT_TRUE(reflector.list_is_whole()) << "the most recent state is believed";
  EXPECT_EQ(watch.request.kind, Kind::kWatch);
}

TEST_F(ReflectorTest, empty_list_of_what_is_never_empty_is_not_believed) {
  ReflectorSettings settings;
  settings.try_watch_list = false;
  settings.never_empty = true;
  Reflector reflector(
      settings, [] { return 0.0; }, "", false);
  static_cast<void>(reflector.list());
  static_cast<void>(reflector.on_listed(now_, {"80", ""}, 0));
  EXPECT_EQ(reflector.on_listed(now_, {"80", ""}, 0).request.kind, Kind::kList);
  EXPECT_FALSE(reflector.list_is_whole());
}

TEST_F(ReflectorTest, empty_list_over_nothing_is_fine) {
  Reflector reflector = make();
  static_cast<void>(reflector.list());
  EXPECT_EQ(reflector.on_listed(now_, {"80", ""}, 0).request.kind, Kind::kWatch);
}

TEST_F(ReflectorTest, streams_the_first_list_where_the_server_can) {
  Reflector reflector = make("", false, true);
  const Step step = reflector.list();
  EXPECT_EQ(step.request.kind, Kind::kWatchList);
  EXPECT_EQ(step.request.resource_version, "");
  reflector.on_version("12");
  EXPECT_EQ(reflector.version(), "") << "the initial events are no state yet";
  static_cast<void>(reflector.on_listed(now_, {"50", ""}, 4));
  EXPECT_TRUE(reflector.list_is_whole());
  reflector.on_version("51");
  EXPECT_EQ(reflector.on_watch_end(now_, 300s, 5).request.resource_version, "51");
}

TEST_F(ReflectorTest, streaming_list_that_is_rejected_falls_back_for_good) {
  for (const int code : {400, 405, 422, 500}) {
    Reflector reflector = make("", false, true);
    static_cast<void>(reflector.list());
    const Step step = reflector.on_failure(now_, status(code, "Invalid"));
    EXPECT_EQ(step.request.kind, Kind::kList) << code;
    EXPECT_EQ(step.delay, 0ms) << code;
    EXPECT_EQ(reflector.list().request.kind, Kind::kList) << code;
  }
}

TEST_F(ReflectorTest, streaming_list_that_never_ends_falls_back) {
  Reflector reflector = make("", false, true);
  static_cast<void>(reflector.list());
  EXPECT_EQ(reflector.on_initial_timeout(now_).request.kind, Kind::kList);
}

TEST_F(ReflectorTest, streaming_list_that_breaks_off_three_times_falls_back) {
  Reflector reflector = make("", false, true);
  static_cast<void>(reflector.list());
  EXPECT_EQ(reflector.on_failure(now_, broken()).request.kind, Kind::kWatchList);
  EXPECT_EQ(reflector.on_watch_end(now_, 5s, 100).request.kind, Kind::kWatchList);
  EXPECT_EQ(reflector.on_failure(now_, garbage()).request.kind, Kind::kList);
}

TEST_F(ReflectorTest, streaming_list_of_an_expired_version_is_read_most_recent) {
  Reflector reflector = make("77", true, true);
  EXPECT_EQ(reflector.list().request.resource_version, "77");
  const Step step = reflector.on_failure(now_, status(410));
  EXPECT_EQ(step.request.kind, Kind::kWatchList);
  EXPECT_EQ(step.request.resource_version, "");
}

TEST(Targets, name_selector_version_and_bookmarks) {
  const ListWatchRequest watch{.kind = Kind::kWatch,
                               .resource_version = "42",
                               .continue_token = {},
                               .limit = 0,
                               .timeout = 300s};
  EXPECT_EQ(target_of(Resource::kPods, "worker-1", watch),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1&watch=1&allowWatchBookmarks=true&"
            "timeoutSeconds=300&resourceVersion=42");
  const ListWatchRequest page{.kind = Kind::kList,
                              .resource_version = "",
                              .continue_token = "a+/=",
                              .limit = 500,
                              .timeout = 0s};
  EXPECT_EQ(target_of(Resource::kEndpointSlices, "worker-1", page),
            "/apis/discovery.k8s.io/v1/endpointslices?limit=500&continue=a%2B%2F%3D");
}

TEST(Targets, a_list_of_a_version_says_not_older) {
  ListWatchRequest list{.resource_version = "42"};
  EXPECT_EQ(target_of(Resource::kNamespaces, "n", list),
            "/api/v1/namespaces?resourceVersion=42&resourceVersionMatch=NotOlderThan");
  list.resource_version = "0";
  EXPECT_EQ(target_of(Resource::kNamespaces, "n", list), "/api/v1/namespaces?resourceVersion=0");
}

TEST(Targets, a_node_name_cannot_add_parameters) {
  EXPECT_EQ(target_of(Resource::kNodes, "a&b=c", {}),
            "/api/v1/nodes?fieldSelector=metadata.name%3Da%26b%3Dc");
}

}  // namespace
}  // namespace sidetrack::kube
