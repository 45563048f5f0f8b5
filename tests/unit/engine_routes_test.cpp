// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>
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

// A client that would go to `wanted` if nothing were remembered of it.
std::uint64_t client_of(const RouteSpec& of, const SocketAddress& wanted) {
  std::uint64_t client = 1;
  while (Route(of, nullptr).choose(client, 0, 0, {})->address != wanted) {
    ++client;
  }
  return client;
}

TEST(Route, sends_a_client_to_the_same_endpoint_within_its_affinity) {
  const RouteSpec both = spec({address(1), address(2)}, 10);
  const std::uint64_t client = client_of(both, address(2));
  Route before(spec({address(1)}, 10), nullptr);
  ASSERT_EQ(before.choose(client, 0, 0, {})->address, address(1));
  Route route(both, &before);
  EXPECT_EQ(route.choose(client, 9 * kSecond, 1, {})->address, address(1));
  EXPECT_EQ(route.choose(client, 18 * kSecond, 1, {})->address, address(1));  // each renews it
  EXPECT_EQ(route.choose(client, 28 * kSecond, 1, {})->address, address(2));
}

TEST(Route, chooses_for_a_client_what_another_engine_would) {
  Route one(spec({address(1), address(2), address(3), address(4)}, 10), nullptr);
  Route other(spec({address(3), address(1), address(4), address(2)}, 10), nullptr);
  std::map<const Endpoint*, int> clients;
  for (std::uint64_t client = 1; client <= 1000; ++client) {
    const auto chosen = one.choose(client, 0, 0, {});
    chosen->connections = 100;  // how many it has does not matter
    ++clients[chosen.get()];
    ASSERT_EQ(other.choose(client, 0, 1, {})->address, chosen->address) << client;
  }
  ASSERT_EQ(clients.size(), 4U);
  for (const auto& [endpoint, count] : clients) {
    EXPECT_NEAR(count, 250, 60);
  }
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
  const RouteSpec both = spec({address(1), address(2)}, 10);
  const std::uint64_t client = client_of(both, address(2));
  routes.set(spec({address(1)}, 10));
  const auto kept = routes.find(address(200))->choose(client, 0, 0, {});
  kept->connections = 5;
  routes.set(both);
  const auto route = routes.find(address(200));
  EXPECT_EQ(route->choose(client, kSecond, 0, {}), kept);
  EXPECT_EQ(kept->connections, 5U);
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
