// SPDX-License-Identifier: Apache-2.0
// Handoff: applications of two pods talk through the engine, which steps out of the middle. Every
// byte is checked by its position.
#include <sys/socket.h>

#include <array>
#include <csignal>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_node.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/talker.h"

namespace sidetrack::lab {
namespace {

const milliseconds kHandedOff = scaled(milliseconds(20'000));
constexpr std::uint64_t kMuch = 64'000'000;
constexpr std::uint64_t kSome = 8'000'000;

class Handoff : public FastNode {
 protected:
  Handoff() { redirected_ = {"shop"}; }

  bool is_handed_off(const std::string& source) const {
    return eventually(kHandedOff,
                      [&] { return flow(source, true).value("path", "") == "handoff"; });
  }

  // Bytes past the engine from clients and from servers, of all open connections.
  using Handed = std::array<std::uint64_t, 2>;
  Handed handed() const {
    Handed sum{};
    const auto rows = sidetrack_->dump_map("st_pairs");
    for (const auto& row : rows ? *rows : nlohmann::json::array()) {
      const auto& bytes = row.at("formatted").at("value").at("handoff_bytes");
      sum[0] += bytes.at(0).get<std::uint64_t>();
      sum[1] += bytes.at(1).get<std::uint64_t>();
    }
    return sum;
  }
};

TEST_F(Handoff, begins_under_streams_and_a_half_close_ends_it) {
  Ends ends = open(true);
  const std::string source = source_of(ends.client);
  std::uint64_t out = 0;
  std::uint64_t in = 0;
  {
    Talker client(ends.client.get(), 11, 22);
    Talker server(ends.server.get(), 22, 11);
    ASSERT_TRUE(is_handed_off(source)) << flow(source, true) << sidetrack_->logs();
    EXPECT_TRUE(both_receive(client, server, kMuch));
    // Which part of it skips TCP depends on how often a reader is there; the streams go on.
    EXPECT_TRUE(eventually(kPatience, [&] { return past_tcp().applications > kMuch; }));
    EXPECT_EQ(past_tcp().engines, 0U);
    client.finish();
    EXPECT_TRUE(eventually(kPatience, [&] { return server.ended(); }));
    const std::uint64_t then = client.received();
    EXPECT_TRUE(eventually(kPatience, [&] { return client.received() >= then + kSome; }));
    server.finish();
    expect_all_arrived(client, server);
    out = client.sent();
    in = server.sent();
  }
  ends.client.reset();
  ends.server.reset();
  ASSERT_TRUE(eventually(kPatience, [&] { return !flow(source, false).empty(); }));
  const auto closed = flow(source, false);
  EXPECT_EQ(closed["path"], "handoff") << closed;
  EXPECT_EQ(closed["bytes_out"], out) << closed;
  EXPECT_EQ(closed["bytes_in"], in) << closed;
}

// Both pairs of the relay are in, and the server's application is the last that sends by TCP.
TEST_F(Handoff, what_keeps_the_servers_messages_on_tcp_is_told_of_the_clients_connection) {
  Ends ends = open(true);
  const std::string source = source_of(ends.client);
  use(ends);
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto client = adopted(ends.client);
    const auto server = adopted(ends.server);
    return client && client->linked != 0 && server && server->linked != 0;
  })) << sidetrack_->logs();
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  set_option(ends.server, SOL_SOCKET, SO_ZEROCOPY, 1);
  EXPECT_EQ(flow(source, true).value("fast_path_reason", ""), "fp_unarmed");
  pass(ends.server, ends.client, "by TCP");
  EXPECT_EQ(flow(source, true).value("fast_path_reason", ""), "fp_zerocopy");
}

// The engine is stopped with a byte inside it, and then while the server's half-close waits for it.
TEST_F(Handoff, a_message_waits_for_what_the_engine_has_and_goes_round_a_leg_that_ends) {
  handoff_ = true;
  Ends ends = open_fast();
  const auto counted = [this](const char* reason) {
    return KernelView(sidetrack_->pin_dir()).fast_counts().value().refused[reason];
  };
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);  // by TCP
  EXPECT_EQ(send_text(ends.client, "inside"), "sent");
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 0);
  std::uint64_t before = counted("fp_relay_busy");
  EXPECT_EQ(send_text(ends.client, " behind"), "sent");
  EXPECT_EQ(counted("fp_relay_busy"), before + 1);
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  std::string got;
  EXPECT_TRUE(eventually(kPatience, [&] {
    const std::string part = receive_text(ends.server, 13, 0, milliseconds(100));
    got += part == "EAGAIN" ? "" : part.substr(1, part.size() - 2);
    return got.size() == 13;
  }));
  EXPECT_EQ(got, "inside behind");

  make_fast({&ends});
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
  EXPECT_EQ(::shutdown(ends.server.get(), SHUT_WR), 0);
  before = counted("fp_relay_gone");
  EXPECT_EQ(send_text(ends.client, "last"), "sent");
  EXPECT_EQ(counted("fp_relay_gone"), before + 1);
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  EXPECT_EQ(receive_text(ends.server, 4), "'last'");
  EXPECT_EQ(receive_text(ends.client, 4), "EOF");
}

// "past" went past the engine; what is inside that would come by TCP.
TEST_F(Handoff, what_the_engine_has_does_not_come_before_what_splice_has_not_seen) {
  handoff_ = true;
  Ends ends = open_fast();
  EXPECT_EQ(send_text(ends.client, "past"), "sent");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'p'");
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);  // by TCP
  EXPECT_EQ(send_text(ends.client, "inside"), "sent");
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));  // it would end the connection
  EXPECT_EQ(scenarios::splice_some(ends.server), "EAGAIN");
  EXPECT_EQ(send_text(ends.client, "then"), "EACCES");
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  EXPECT_EQ(receive_text(ends.client, 9), "ECONNRESET");
  EXPECT_EQ(receive_text(ends.server, 99), "'past'");
  EXPECT_EQ(receive_text(ends.server, 99), "ECONNRESET");
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
}

TEST_F(Handoff, is_reset_at_both_ends_when_the_engine_is_killed) {
  Ends ends = open(true);
  Talker client(ends.client.get(), 33, 44);
  Talker server(ends.server.get(), 44, 33);
  ASSERT_TRUE(is_handed_off(source_of(ends.client))) << sidetrack_->logs();
  EXPECT_TRUE(both_receive(client, server, kSome));
  sidetrack_->engine().kill_hard();
  EXPECT_TRUE(eventually(kPatience, [&] { return client.ended() && server.ended(); }));
  EXPECT_TRUE(client.intact());
  EXPECT_TRUE(server.intact());
  for (const Talker* talker : {&client, &server}) {
    const int error = talker->error_number();
    EXPECT_TRUE(error == ECONNRESET || error == EPIPE) << error;
  }
}

TEST_F(Handoff, what_is_in_the_queue_of_the_reader_survives_the_engine) {
  Ends ends = open(true);
  const std::string source = source_of(ends.client);
  ASSERT_TRUE(eventually(kHandedOff, [&] {
    EXPECT_EQ(send_text(ends.client, "x"), "sent");
    EXPECT_EQ(receive_text(ends.server, 1), "'x'");
    EXPECT_EQ(send_text(ends.server, "y"), "sent");
    EXPECT_EQ(receive_text(ends.client, 1), "'y'");
    return flow(source, true).value("path", "") == "handoff";
  })) << sidetrack_->logs();
  const std::uint64_t by_tcp = sent_by_tcp(ends.client);
  EXPECT_EQ(send_text(ends.client, "last words"), "sent");
  EXPECT_EQ(sent_by_tcp(ends.client), by_tcp);
  sidetrack_->engine().kill_hard();
  EXPECT_EQ(receive_text(ends.server, 100), "'last words'");
  EXPECT_EQ(receive_text(ends.server, 100), "ECONNRESET");
  EXPECT_EQ(receive_text(ends.client, 100), "ECONNRESET");
}

// What was redirected to the engine before counts: its slots do.
TEST_F(Handoff, comes_back_after_the_fast_path_was_off) {
  Ends ends = open(true);
  Talker client(ends.client.get(), 77, 88);
  Talker server(ends.server.get(), 88, 77);
  ASSERT_TRUE(is_handed_off(source_of(ends.client))) << sidetrack_->logs();
  for (int round = 0; round < 3; ++round) {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "off"));
    EXPECT_TRUE(eventually(kHandedOff, [&] {
      const Handed before = handed();
      return both_receive(client, server, kSome) && handed() == before;
    })) << "off, and bytes go past the engine";
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "auto"));
    const Handed before = handed();
    EXPECT_TRUE(eventually(kHandedOff,
                           [&] {
                             const Handed now = handed();
                             return now[0] > before[0] + kSome && now[1] > before[1] + kSome;
                           }))
        << "round " << round << ": " << sidetrack_->logs();
  }
  EXPECT_TRUE(both_receive(client, server, kMuch));
  client.finish();
  server.finish();
  expect_all_arrived(client, server);
}

TEST_F(Handoff, goes_on_while_the_engine_drains_and_while_the_agent_restarts) {
  Ends ends = open(true);
  Talker client(ends.client.get(), 55, 66);
  Talker server(ends.server.get(), 66, 55);
  ASSERT_TRUE(is_handed_off(source_of(ends.client))) << sidetrack_->logs();
  ST_ASSERT_OK(sidetrack_->start_engine());
  ST_ASSERT_OK(sidetrack_->old_engine().signal(SIGTERM));
  EXPECT_TRUE(both_receive(client, server, kSome));
  sidetrack_->agent().kill_hard();
  EXPECT_TRUE(both_receive(client, server, kSome));
  ST_ASSERT_OK(sidetrack_->start_agent());
  EXPECT_TRUE(both_receive(client, server, kSome));
  client.finish();
  server.finish();
  expect_all_arrived(client, server);
  ST_ASSERT_VALUE(const int status, sidetrack_->old_engine().wait());
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace sidetrack::lab
