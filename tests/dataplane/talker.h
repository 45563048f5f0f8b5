// SPDX-License-Identifier: Apache-2.0
// Talker: an application at one end of a connection, with a thread of its own. Thread rule: one
// owner.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <thread>

#include "tests/lab/pattern.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

// An application: sends the stream of one seed in pieces of random size, checks that of another.
class Talker {
 public:
  // `sends`, `expects`: seeds. `fd` stays the caller's.
  Talker(int fd, std::uint64_t sends, std::uint64_t expects);
  ~Talker();
  Talker(const Talker&) = delete;
  Talker& operator=(const Talker&) = delete;

  // Sends FIN where it is now; goes on reading.
  void finish() { finish_ = true; }
  // Does nothing more, wherever it is.
  void stop();
  // It has read to the end.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] bool intact() const { return intact_; }
  // errno of the end, whichever call it came to first; 0 = FIN.
  [[nodiscard]] int error_number() const { return error_number_; }

 private:
  void run();
  void read_some();
  void send_some();
  void note_error(int error_number);

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
  std::atomic<bool> stopped_{false};
  std::atomic<bool> ended_{false};
  std::atomic<bool> intact_{true};
  std::atomic<int> error_number_{0};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
  std::thread thread_;
};

// Each of the two receives so many bytes more, soon.
[[nodiscard]] bool both_receive(const Talker& a, const Talker& b, std::uint64_t more);
// Both have finished: nothing is missing, nothing is in the wrong place, and no error came.
void expect_all_arrived(const Talker& client, const Talker& server);

}  // namespace sidetrack::lab
