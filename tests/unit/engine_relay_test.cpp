// SPDX-License-Identifier: Apache-2.0
// The relay over real sockets: bytes, FIN, RST, slow readers, many connections.
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {
namespace {

class EngineRelay : public EngineLab {
 protected:
  void SetUp() override {
    EngineLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    server_address_ = v4("127.0.0.1", 0);
    server_listener_ = listen_at(server_address_);
  }

  struct Pair {
    UniqueFd client;
    UniqueFd server;
  };
  Pair connect_pair() {
    Pair pair;
    pair.client = client_of(server_address_);
    pair.server = accept_from(server_listener_);
    return pair;
  }

  SocketAddress server_address_;
  UniqueFd server_listener_;
};

std::string random_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 generator(seed);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto word = generator();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

// Sends in pieces of random size, then FIN.
void send_in_pieces(const UniqueFd& socket, const std::string& bytes, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<std::size_t> sizes(1, 100'000);
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t size = std::min(sizes(generator), bytes.size() - done);
    send_text(socket, bytes.substr(done, size));
    done += size;
  }
  ::shutdown(socket.get(), SHUT_WR);
}

TEST_F(EngineRelay, carries_both_directions_unchanged) {
  const Pair pair = connect_pair();
  const std::string request = random_bytes(20'000'000, 1);
  const std::string response = random_bytes(20'000'003, 2);
  std::thread client_sender([&] { send_in_pieces(pair.client, request, 3); });
  std::thread server_sender([&] { send_in_pieces(pair.server, response, 4); });
  ReadResult at_server;
  std::thread server_reader([&] { at_server = read_all(pair.server); });
  const ReadResult at_client = read_all(pair.client);
  client_sender.join();
  server_sender.join();
  server_reader.join();
  EXPECT_TRUE(at_server.eof);
  EXPECT_TRUE(at_server.text == request);
  EXPECT_TRUE(at_client.eof);
  EXPECT_TRUE(at_client.text == response);
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == 0; }));
  EXPECT_EQ(engine_->totals().buffered, 0U);
  EXPECT_EQ(engine_->totals().resets, 0U);
}

TEST_F(EngineRelay, answers_after_the_client_half_closed) {
  const Pair pair = connect_pair();
  send_text(pair.client, "question");
  ::shutdown(pair.client.get(), SHUT_WR);
  const ReadResult question = read_all(pair.server);
  EXPECT_EQ(question.text, "question");
  EXPECT_TRUE(question.eof);
  send_text(pair.server, "answer");
  EXPECT_EQ(read_all(pair.client, 6).text, "answer");
  EXPECT_EQ(engine_->totals().connections, 1U);
}

TEST_F(EngineRelay, sends_on_after_the_server_half_closed) {
  const Pair pair = connect_pair();
  ::shutdown(pair.server.get(), SHUT_WR);
  EXPECT_TRUE(read_all(pair.client).eof);
  send_text(pair.client, "late");
  EXPECT_EQ(read_all(pair.server, 4).text, "late");
}

TEST_F(EngineRelay, passes_on_a_reset_of_the_server) {
  Pair pair = connect_pair();
  abort_socket(pair.server);
  EXPECT_EQ(read_all(pair.client).error_number, ECONNRESET);
}

TEST_F(EngineRelay, passes_on_a_reset_of_the_client) {
  Pair pair = connect_pair();
  abort_socket(pair.client);
  EXPECT_EQ(read_all(pair.server).error_number, ECONNRESET);
}

TEST_F(EngineRelay, passes_on_a_reset_after_a_half_close) {
  Pair pair = connect_pair();
  ::shutdown(pair.client.get(), SHUT_WR);
  EXPECT_TRUE(read_all(pair.server).eof);
  abort_socket(pair.client);
  EXPECT_TRUE(eventually([&] { return ::send(pair.server.get(), "x", 1, MSG_NOSIGNAL) < 0; }));
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == 0; }));
}

TEST_F(EngineRelay, delivers_what_came_before_a_reset) {
  Pair pair = connect_pair();
  const std::string answer = random_bytes(40'000, 5);
  send_text(pair.client, "unread");  // makes close() of the server a reset
  EXPECT_TRUE(eventually([&] { return engine_->totals().bytes_out == 6; }));
  send_text(pair.server, answer);
  pair.server.reset();
  const ReadResult at_client = read_all(pair.client);
  EXPECT_TRUE(at_client.text == answer);
  EXPECT_EQ(at_client.error_number, ECONNRESET);
}

TEST_F(EngineRelay, resets_the_client_when_the_upstream_refuses) {
  const UniqueFd client = client_of(closed_port());
  ASSERT_TRUE(client.valid());
  EXPECT_EQ(read_all(client).error_number, ECONNRESET);
  EXPECT_EQ(engine_->totals().connect_failed, 1U);
}

TEST_F(EngineRelay, refuses_connections_that_were_not_redirected) {
  destination_.set(std::nullopt);
  const UniqueFd client = connect_to(listener_);
  EXPECT_EQ(read_all(client).error_number, ECONNRESET);
  EXPECT_EQ(engine_->totals().not_redirected, 1U);
}

TEST_F(EngineRelay, refuses_to_connect_to_itself) {
  const UniqueFd client = client_of(listener_);
  EXPECT_EQ(read_all(client).error_number, ECONNRESET);
  EXPECT_EQ(engine_->totals().not_redirected, 1U);
}

TEST_F(EngineRelay, serves_ipv6) {
  SocketAddress address = v6("::1", 0);
  const UniqueFd listener = listen_at(address);
  destination_.set(address);
  const UniqueFd client = connect_to(v6("::1", 15900));
  const UniqueFd server = accept_from(listener);
  send_text(client, "six");
  EXPECT_EQ(read_all(server, 3).text, "six");
}

TEST_F(EngineRelay, holds_little_for_a_slow_reader) {
  const Pair pair = connect_pair();
  const std::string flood = random_bytes(30'000'000, 6);
  std::thread sender([&] { send_in_pieces(pair.server, flood, 7); });
  std::uint64_t most = 0;
  for (int i = 0; i < 50; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    most = std::max(most, engine_->totals().buffered);
  }
  EXPECT_GT(most, 0U);
  EXPECT_LE(most, 128U * 1024U);
  const ReadResult at_client = read_all(pair.client);
  sender.join();
  EXPECT_TRUE(at_client.text == flood);
}

// Both ends send, finish, and read only when the engine has closed its sockets: what is still to be
// sent is then the kernel's to deliver.
TEST_F(EngineRelay, loses_nothing_of_what_waits_for_a_slow_reader_when_both_have_finished) {
  const Pair pair = connect_pair();
  const std::string request = random_bytes(1'000'000, 8);
  const std::string response = random_bytes(1'000'003, 9);
  send_in_pieces(pair.server, response, 10);
  send_in_pieces(pair.client, request, 11);
  ASSERT_TRUE(eventually([&] { return engine_->totals().connections == 0; }));
  EXPECT_EQ(engine_->totals().resets, 0U);
  const ReadResult at_client = read_all(pair.client);
  const ReadResult at_server = read_all(pair.server);
  EXPECT_TRUE(at_client.eof) << at_client.error_number;
  EXPECT_TRUE(at_client.text == response) << at_client.text.size();
  EXPECT_TRUE(at_server.eof) << at_server.error_number;
  EXPECT_TRUE(at_server.text == request) << at_server.text.size();
}

TEST_F(EngineRelay, cuts_the_connections_of_a_removed_pod) {
  const Pair pair = connect_pair();
  engine_->remove_pod(kCookie, Cut::kYes);
  EXPECT_EQ(read_all(pair.client).error_number, ECONNRESET);
  EXPECT_EQ(read_all(pair.server).error_number, ECONNRESET);
  EXPECT_TRUE(eventually([&] { return !connect_to(listener_).valid(); }));
}

TEST_F(EngineRelay, keeps_connections_when_listeners_go) {
  const Pair pair = connect_pair();
  engine_->remove_pod(kCookie, Cut::kNo);
  EXPECT_TRUE(eventually([&] { return !connect_to(listener_).valid(); }));
  send_text(pair.client, "still here");
  EXPECT_EQ(read_all(pair.server, 10).text, "still here");
  engine_->remove_pod(kCookie, Cut::kYes);
  EXPECT_EQ(read_all(pair.client).error_number, ECONNRESET);
}

}  // namespace
}  // namespace sidetrack::engine
