// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "engine/routes.h"

namespace sidetrack::engine {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

SocketAddress address(std::uint8_t last) {
  SocketAddress value;
  value.address.bytes[10] = 0xff;
  value.address.bytes[11] = 0xff;
  value.address.bytes[12] = 10;
  value.address.bytes[15] = last;
  value.port = 8080;
  return value;
}

RouteSpec spec(std::vector<SocketAddress> endpoints, std::uint32_t affinity_s = 0) {
  return RouteSpec{.front = address(200),
                   .service = "shop/cart:80",
                   .endpoints = std::move(endpoints),
                   .affinity_timeout_s = affinity_s};
}

TEST(Route, has_nothing_to_choose_without_endpoints) {
  Route route(spec({}), nullptr);
  EXPECT_EQ(route.choose(1, 0, 0, {}), nullptr);
  EXPECT_FALSE(route.has_untried({}));
}

TEST(Route, prefers_the_endpoint_with_fewest_connections) {
  Route route(spec({address(1), address(2)}), nullptr);
  const auto busy = route.choose(1, 0, 0, {});
  busy->connections = 3;
  const auto other = route.choose(1, 0, 0, {});
  EXPECT_NE(busy, other);
  EXPECT_EQ(route.choose(1, 0, 1, {}), other);
}

TEST(Route, breaks_ties_by_the_random_number) {
  Route route(spec({address(1), address(2), address(3)}), nullptr);
  const std::set<std::shared_ptr<Endpoint>> seen{
      route.choose(1, 0, 0, {}), route.choose(1, 0, 1, {}), route.choose(1, 0, 2, {})};
  EXPECT_EQ(seen.size(), 3U);
}

TEST(Route, does_not_choose_what_was_tried) {
  Route route(spec({address(1), address(2)}), nullptr);
  const auto first = route.choose(1, 0, 0, {});
  const auto second = route.choose(1, 0, 0, {first.get()});
  EXPECT_NE(first, second);
  EXPECT_EQ(route.choose(1, 0, 0, {first.get(), second.get()}), nullptr);
}

TEST(Route, avoids_a_failed_endpoint_for_a_while) {
  Route route(spec({address(1), address(2)}), nullptr);
  const auto failed = route.choose(1, 0, 0, {});
  mark_failed(*failed, 0);
  EXPECT_NE(route.choose(1, 1, 0, {}), failed);
  EXPECT_NE(route.choose(1, 1, 1, {}), failed);
  EXPECT_EQ(route.choose(1, kEndpointAvoidNs, 0, {}), failed);
}

TEST(Route, takes_a_failed_endpoint_when_there_is_no_other) {
  Route route(spec({address(1)}), nullptr);
  mark_failed(*route.choose(1, 0, 0, {}), 0);
  EXPECT_NE(route.choose(1, 1, 0, {}), nullptr);
}

TEST(Route, sends_a_client_to_the_same_endpoint_within_its_affinity) {
  Route route(spec({address(1), address(2)}, 10), nullptr);
  const auto first = route.choose(1, 0, 0, {});
  first->connections = 100;
  EXPECT_EQ(route.choose(1, 9 * kSecond, 1, {}), first);
  EXPECT_EQ(route.choose(1, 18 * kSecond, 1, {}), first);  // every connection renews it
  EXPECT_NE(route.choose(1, 28 * kSecond, 1, {}), first);
  EXPECT_NE(route.choose(2, 0, 0, {}), first);  // another client
}

TEST(Route, moves_an_affinity_off_a_failed_endpoint) {
  Route route(spec({address(1), address(2)}, 10), nullptr);
  const auto first = route.choose(1, 0, 0, {});
  mark_failed(*first, 0);
  const auto second = route.choose(1, 1, 0, {first.get()});
  EXPECT_NE(second, first);
  EXPECT_EQ(route.choose(1, 6 * kSecond, 0, {}), second);
}

TEST(Routes, finds_only_exact_fronts) {
  Routes routes;
  routes.set(spec({address(1)}));
  SocketAddress other_port = address(200);
  other_port.port = 81;
  EXPECT_NE(routes.find(address(200)), nullptr);
  EXPECT_EQ(routes.find(other_port), nullptr);
}

TEST(Routes, keeps_counts_and_affinities_when_a_service_changes) {
  Routes routes;
  routes.set(spec({address(1)}, 10));
  const auto kept = routes.find(address(200))->choose(1, 0, 0, {});
  kept->connections = 5;
  routes.set(spec({address(1), address(2)}, 10));
  const auto route = routes.find(address(200));
  EXPECT_EQ(route->choose(1, kSecond, 0, {}), kept);
  EXPECT_EQ(route->choose(2, kSecond, 0, {})->address, address(2));
}

TEST(Routes, drops_what_a_snapshot_does_not_name) {
  Routes routes;
  routes.set(spec({address(1)}));
  routes.keep_only({address(201)});
  EXPECT_EQ(routes.find(address(200)), nullptr);
  EXPECT_EQ(routes.size(), 0U);
}

}  // namespace
}  // namespace sidetrack::engine
