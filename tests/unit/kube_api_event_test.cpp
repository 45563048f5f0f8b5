// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "agent/kube/api_event.h"

namespace sidetrack::kube {
namespace {

using namespace std::chrono_literals;

ClusterEvent on_pod(const std::string& name = "web") {
  return {.kind = "Pod",
          .namespace_name = "shop",
          .name = name,
          .uid = "u1",
          .reason = "SidetrackNotCaptured",
          .message = "no netns"};
}

TEST(EventLimiter, lets_one_pass_in_five_minutes) {
  EventLimiter limiter;
  const TimePoint start(1000h);
  EXPECT_TRUE(limiter.allow(on_pod(), start));
  EXPECT_FALSE(limiter.allow(on_pod(), start + 299s));
  EXPECT_TRUE(limiter.allow(on_pod(), start + 300s));
  EXPECT_FALSE(limiter.allow(on_pod(), start + 301s));
}

TEST(EventLimiter, tells_objects_and_reasons_apart) {
  EventLimiter limiter;
  const TimePoint now(1000h);
  EXPECT_TRUE(limiter.allow(on_pod("a"), now));
  EXPECT_TRUE(limiter.allow(on_pod("b"), now));
  ClusterEvent other = on_pod("a");
  other.reason = "SidetrackPolicyInvalid";
  EXPECT_TRUE(limiter.allow(other, now));
  ClusterEvent again = on_pod("a");  // a pod of the same name after it
  again.uid = "u2";
  EXPECT_TRUE(limiter.allow(again, now));
}

// Two mistakes in one object, at once or one after the other.
TEST(EventLimiter, tells_keys_of_one_object_apart) {
  EventLimiter limiter;
  const TimePoint now(1000h);
  ClusterEvent mistake = on_pod();
  mistake.about = "sidetrack.io/fastpath";
  EXPECT_TRUE(limiter.allow(mistake, now));
  EXPECT_FALSE(limiter.allow(mistake, now + 1s));
  mistake.about = "sidetrack.io/exclude-outbound-ports";
  EXPECT_TRUE(limiter.allow(mistake, now + 2s));
}

TEST(EventLimiter, remembers_no_more_than_its_limit) {
  EventLimiter limiter;
  const TimePoint start(1000h);
  for (std::size_t i = 0; i < EventLimiter::kMaxRemembered; ++i) {
    ASSERT_TRUE(limiter.allow(on_pod("p" + std::to_string(i)), start));
  }
  EXPECT_FALSE(limiter.allow(on_pod("more"), start + 1s));
  EXPECT_TRUE(limiter.allow(on_pod("more"), start + 300s)) << "the others are forgotten";
}

TEST(Event, is_a_core_event_on_its_object) {
  EXPECT_EQ(event_target(on_pod()), "/api/v1/namespaces/shop/events");
  const auto value = nlohmann::json::parse(event_text(on_pod(), "worker-1", 1'700'000'000'123));
  EXPECT_EQ(value["involvedObject"]["name"], "web");
  EXPECT_EQ(value["involvedObject"]["uid"], "u1");
  EXPECT_EQ(value["metadata"]["namespace"], "shop");
  EXPECT_EQ(value["type"], "Warning");
  EXPECT_EQ(value["firstTimestamp"], "1970-01-01T00:28:20Z");
}

TEST(Event, on_a_node_is_in_default) {
  const ClusterEvent event{.kind = "Node", .namespace_name = "", .name = "worker-1"};
  EXPECT_EQ(event_target(event), "/api/v1/namespaces/default/events");
  const auto value = nlohmann::json::parse(event_text(event, "worker-1", 0));
  EXPECT_FALSE(value["involvedObject"].contains("namespace"));
}

TEST(Event, cuts_long_messages_between_characters) {
  ClusterEvent event = on_pod(std::string(250, 'n'));
  event.message = std::string(999, 'x') + "\xc3\xa9\xc3\xa9";
  const auto value = nlohmann::json::parse(event_text(event, "worker-1", 1));
  EXPECT_EQ(value["message"].get<std::string>(), std::string(999, 'x'));
  EXPECT_LE(value["metadata"]["name"].get<std::string>().size(), 253U);
}

}  // namespace
}  // namespace sidetrack::kube
