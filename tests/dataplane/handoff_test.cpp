// SPDX-License-Identifier: Apache-2.0
// Handoff: applications of two pods talk through the engine, which steps out of the middle. Every
// byte is checked by its position.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_node.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

const milliseconds kHandedOff = scaled(milliseconds(20'000));
constexpr std::uint64_t kMuch = 64'000'000;
constexpr std::uint64_t kSome = 8'000'000;

// An application: sends the stream of one seed in pieces of random size, checks that of another.
class Talker {
 public:
  Talker(int fd, std::uint64_t sends, std::uint64_t expects)
      : fd_(fd), sends_(sends), expects_(expects), random_(static_cast<unsigned>(sends)) {
    thread_ = std::thread([this] { run(); });
  }
  ~Talker() {
    finish();
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
  }
  Talker(const Talker&) = delete;
  Talker& operator=(const Talker&) = delete;

  // Sends FIN where it is now; goes on reading.
  void finish() { finish_ = true; }
  // It has read to the end.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] bool intact() const { return intact_; }
  // errno of the end, whichever call it came to first; 0 = FIN.
  [[nodiscard]] int error_number() const { return error_number_; }

 private:
  void run() {
    while (!ended_ || !finished_) {
      if (finish_ && begin_ == end_ && !std::exchange(finished_, true)) {
        ::shutdown(fd_, SHUT_WR);
      }
      pollfd wanted{fd_, static_cast<short>((ended_ ? 0 : POLLIN) | (finished_ ? 0 : POLLOUT)), 0};
      (void)::poll(&wanted, 1, 20);
      if (!ended_ && (wanted.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        read_some();
      }
      if ((wanted.revents & POLLOUT) != 0 && !finished_) {
        send_some();
      }
    }
  }
  void read_some() {
    const std::size_t size = 1 + random_() % in_.size();
    const ssize_t count = ::recv(fd_, in_.data(), size, 0);
    if (count <= 0) {
      if (count == 0 || errno != EAGAIN) {
        note_error(count == 0 ? 0 : errno);
        ended_ = true;
        finished_ = finished_ || count < 0;
      }
      return;
    }
    const auto got = static_cast<std::size_t>(count);
    expects_.fill(std::span(wanted_.data(), got));
    intact_ = intact_ && std::memcmp(wanted_.data(), in_.data(), got) == 0;
    received_ += got;
  }
  void send_some() {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = 1 + random_() % (random_() % 4 == 0 ? out_.size() : 2000);
      sends_.fill(std::span(out_.data(), end_));
    }
    const ssize_t count = ::send(fd_, out_.data() + begin_, end_ - begin_, MSG_NOSIGNAL);
    if (count > 0) {
      begin_ += static_cast<std::size_t>(count);
      sent_ += static_cast<std::uint64_t>(count);
    } else if (errno != EAGAIN) {
      note_error(errno);
      finished_ = true;
      finish_ = true;
    }
  }

  void note_error(int error_number) {
    if (error_number_ == 0) {
      error_number_ = error_number;
    }
  }

  int fd_;
  Pattern sends_;
  Pattern expects_;
  std::mt19937 random_;
  std::array<char, 65536> in_{};
  std::array<char, 65536> wanted_{};
  std::array<char, 65536> out_{};
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool finished_ = false;
  std::atomic<bool> finish_{false};
  std::atomic<bool> ended_{false};
  std::atomic<bool> intact_{true};
  std::atomic<int> error_number_{0};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
  std::thread thread_;
};

class Handoff : public FastNode {
 protected:
  void SetUp() override {
    FastNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ST_ASSERT_OK(sidetrack_->start_engine());
    redirect_shop();
  }

  static std::string source_of(const UniqueFd& client) {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ::getsockname(client.get(), reinterpret_cast<sockaddr*>(&address), &size);
    std::array<char, INET_ADDRSTRLEN> text{};
    ::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
    return std::string(text.data()) + ":" + std::to_string(ntohs(address.sin_port));
  }

  // The newest flow from there: open or closed.
  nlohmann::json flow(const std::string& source, bool open) const {
    const auto flows = sidetrack_->get("/v1/flows?namespace=shop");
    auto found = nlohmann::json::object();  // not seen yet
    for (const auto& one : flows ? (*flows)["flows"] : nlohmann::json::array()) {
      if (one["source"] == source && (one["end"] == 0) == open) {
        found = one;
      }
    }
    return found;
  }
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

  static bool both_receive(const Talker& a, const Talker& b, std::uint64_t more) {
    const std::uint64_t a_then = a.received() + more;
    const std::uint64_t b_then = b.received() + more;
    return eventually(kHandedOff, [&] { return a.received() >= a_then && b.received() >= b_then; });
  }
  static void expect_all_arrived(const Talker& client, const Talker& server) {
    EXPECT_TRUE(eventually(kPatience, [&] { return client.ended() && server.ended(); }));
    EXPECT_TRUE(client.intact());
    EXPECT_TRUE(server.intact());
    EXPECT_EQ(client.error_number(), 0);
    EXPECT_EQ(server.error_number(), 0);
    EXPECT_EQ(server.received(), client.sent());
    EXPECT_EQ(client.received(), server.sent());
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
