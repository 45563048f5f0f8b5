// SPDX-License-Identifier: Apache-2.0
// One end of a connection of the soak: sends its stream, checks every byte of the other's, notes
// when nothing moves. It never blocks; its owner tells it what epoll said and calls work() often.
// Thread rule: one owner.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/lab/pattern.h"
#include "tests/soak/script.h"

namespace sidetrack::soak {

constexpr std::size_t kMostBytes = 131072;  // in one call

// `awake_ms` stands still while this process got no CPU: a busy machine is no stall.
struct Now {
  std::int64_t ms = 0;  // CLOCK_MONOTONIC
  std::int64_t awake_ms = 0;
};

class Endpoint {
 public:
  using Tell = std::function<void(const nlohmann::json&)>;

  // A client's socket, connecting; `hello` is what it is to do.
  // A server's: no hello, it comes first.
  Endpoint(UniqueFd fd, std::optional<Hello> hello, std::uint64_t style, Manner manner, Now now,
           Tell tell);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // What to ask epoll for now.
  [[nodiscard]] std::uint32_t interest(Now now) const;
  void on_events(std::uint32_t events);
  // Goes as far as it can for now. True: could go on at once.
  bool work(Now now);
  // It has ended, and has told how.
  [[nodiscard]] bool is_over() const { return !fd_.valid(); }
  // Ends as soon as its script lets it.
  void hurry() { hurried_ = true; }

 private:
  enum class Reader : std::uint8_t { kLevel, kDrain, kShortRead };

  static std::string name_of_errno(int number);
  // When an accepted connection began.
  static std::int64_t established_ms(int fd, Now now);

  void choose_style(std::uint64_t style);
  void start(const Hello& hello);
  bool take_hello(std::span<const char> bytes);
  bool finish_connect(Now now);
  [[nodiscard]] bool may_read(Now now) const;
  [[nodiscard]] bool may_send(Now now) const;
  bool read_some(Now now);
  // Up to `size` bytes in the manner of this application; what recv() would return.
  ssize_t take(std::span<char> buffer, std::size_t size, Now now);
  ssize_t take_after_asking(std::span<char> buffer, std::size_t size, Now now);
  ssize_t take_by_splice(std::span<char> buffer, std::size_t size);
  void check(std::span<const char> bytes, Now now);
  void after_read(std::size_t got, std::size_t asked, Now now);
  bool send_some(Now now);
  void make_bytes();
  void advance(Now now);
  void advance_rounds(Now now);
  void on_eof(Now now);
  void finish_sending(Now now);
  [[nodiscard]] bool time_is_up(Now now) const;
  void moved(Now now);
  void watch(Now now);
  [[nodiscard]] nlohmann::json describe(Now now) const;
  void tell(const char* what, nlohmann::json told) const;
  // `error`: "" = as the script wants it, "EOF", an errno's name.
  void end(const std::string& error, Now now);

  UniqueFd fd_;
  Side side_;
  std::optional<Hello> hello_;
  Tell tell_;
  std::mt19937_64 random_;
  Manner manner_;
  Reader reader_ = Reader::kLevel;
  std::size_t read_size_ = 65536;
  bool peeks_ = false;   // MSG_PEEK before each read
  bool greedy_ = false;  // sends more than any window holds, then pauses
  bool connecting_;
  bool hurried_ = false;

  lab::Pattern sends_{0};
  lab::Pattern expects_{0};
  Rounds rounds_{0};
  std::vector<char> hello_bytes_;
  std::vector<char> out_;
  std::size_t out_begin_ = 0;
  std::uint64_t made_ = 0;      // bytes put into out_ ever; the first of a client's are its hello
  std::uint64_t sent_ = 0;      // accepted by send()
  std::uint64_t received_ = 0;  // without the hello
  std::uint64_t goal_ = 0;      // may send so far
  std::uint64_t awaits_ = 0;    // then comes the next round
  std::uint32_t request_ = 0;   // a server's: of the round that is awaited
  std::uint32_t response_ = 0;
  bool last_round_ = false;
  bool finish_ = false;  // FIN once all is sent
  bool fin_sent_ = false;
  bool eof_ = false;

  bool readable_ = false;
  bool writable_ = false;
  bool hang_up_ = false;  // EPOLLRDHUP was seen: a short read is not the end
  std::int64_t read_after_ms_ = 0;
  std::int64_t send_after_ms_ = 0;
  std::int64_t begin_ms_;
  std::int64_t moved_ms_;
  std::int64_t moved_awake_ms_;
  std::int64_t longest_gap_ms_ = 0;
  std::string in_gap_;            // as it was in the middle of the gap; empty = none
  std::int64_t stalls_told_ = 0;  // of this gap: one a second
};

}  // namespace sidetrack::soak
