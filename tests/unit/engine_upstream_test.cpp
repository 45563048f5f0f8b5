// SPDX-License-Identifier: Apache-2.0
// Services over real sockets: endpoints that refuse, none at all.
#include <set>

#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {
namespace {

class EngineUpstream : public EngineLab {
 protected:
  void route(std::vector<SocketAddress> endpoints) {
    engine_->routes().set(
        RouteSpec{.front = front_, .service = "shop/cart:80", .endpoints = std::move(endpoints)});
  }

  const SocketAddress front_ = v4("10.96.0.10", 80);
};

TEST_F(EngineUpstream, tries_another_endpoint_when_one_refuses) {
  SocketAddress good = v4("127.0.0.1", 0);
  const UniqueFd listener = listen_at(good);
  route({closed_port(), good, closed_port()});
  for (int i = 0; i < 10; ++i) {
    const UniqueFd client = client_of(front_);
    send_text(client, "hello");
    const UniqueFd server = accept_from(listener);
    EXPECT_EQ(read_all(server, 5).text, "hello");
  }
  EXPECT_EQ(engine_->totals().connect_failed, 0U);
  EXPECT_LE(engine_->totals().endpoint_failures, 2U);  // those that failed are avoided
}

TEST_F(EngineUpstream, resets_the_client_when_all_endpoints_refuse) {
  route({closed_port(), closed_port()});
  EXPECT_EQ(read_all(client_of(front_)).error_number, ECONNRESET);
  EXPECT_EQ(engine_->totals().endpoint_failures, 2U);
}

TEST_F(EngineUpstream, resets_the_client_when_there_are_no_endpoints) {
  route({});
  EXPECT_EQ(read_all(client_of(front_)).error_number, ECONNRESET);
  EXPECT_EQ(engine_->totals().no_endpoints, 1U);
}

TEST_F(EngineUpstream, tries_another_endpoint_when_one_does_not_answer) {
  SocketAddress full = v4("127.0.0.1", 0);
  const UniqueFd full_listener =
      listen_at(full, 0);  // its queue takes one; further SYNs are dropped
  const UniqueFd filler = connect_to(full);
  SocketAddress good = v4("127.0.0.1", 0);
  const UniqueFd listener = listen_at(good);
  route({full, good});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(client_of(front_));
    send_text(clients.back(), "hello");
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(read_all(accept_from(listener), 5).text, "hello");
  }
  EXPECT_GE(engine_->totals().endpoint_failures, 1U);
}

TEST_F(EngineUpstream, spreads_over_endpoints_by_least_connections) {
  SocketAddress first = v4("127.0.0.1", 0);
  SocketAddress second = v4("127.0.0.1", 0);
  const UniqueFd first_listener = listen_at(first);
  const UniqueFd second_listener = listen_at(second);
  route({first, second});
  std::vector<UniqueFd> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(client_of(front_));
    held.push_back(client_of(front_));
    held.push_back(accept_from(first_listener));
    held.push_back(accept_from(second_listener));
    ASSERT_TRUE(held.back().valid());
  }
}

}  // namespace
}  // namespace sidetrack::engine
