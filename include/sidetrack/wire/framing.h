// SPDX-License-Identifier: Apache-2.0
// Frames on a non-blocking SOCK_STREAM unix socket: 4 bytes of length (big endian), then the body;
// file descriptors travel as SCM_RIGHTS on the frame's first byte. The socket stays the caller's:
// these only read or write when asked to, so that they fit Asio and plain epoll alike. Thread rule:
// one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::wire {

inline constexpr std::size_t kMaxFrameBytes = std::size_t{1} << 20;  // of the body
inline constexpr std::size_t kMaxFrameFds = 8;
inline constexpr std::size_t kFrameHeaderBytes = 4;

struct Frame {
  std::string body;
  std::vector<UniqueFd> fds;
};

struct Received {
  std::vector<Frame> frames;  // complete ones, in order
  bool closed = false;        // the peer will send no more
};

class FrameReader {
 public:
  // Takes what the socket has, at most about 64 frames (then it is still readable; level-triggered
  // polling comes back). Nothing there yet is an empty result. kInvalid: a frame too long or with
  // too many descriptors; the reader then stays failed. kIo and others: recvmsg. Frames that were
  // complete before an error are returned first, the error by the next call.
  [[nodiscard]] Result<Received> read(int socket);

 private:
  enum class Step : std::uint8_t { kProgress, kWouldBlock, kClosed };
  [[nodiscard]] Result<Step> receive(int socket);
  [[nodiscard]] Result<void> adopt_fds(void* message_header);
  [[nodiscard]] Result<void> finish_header();
  [[nodiscard]] bool complete() const;

  std::array<unsigned char, kFrameHeaderBytes> header_{};
  std::size_t header_used_ = 0;
  std::size_t body_used_ = 0;
  Frame current_;
  std::optional<Error> failed_;
};

class FrameWriter {
 public:
  explicit FrameWriter(std::size_t limit_bytes = std::size_t{8} << 20)
      : limit_bytes_(limit_bytes) {}

  // Queues one frame; the descriptors are closed once they are sent. kFull: it would pass the
  // limit, nothing was queued; kInvalid: body or descriptors over the limits of a frame.
  [[nodiscard]] Result<void> push(std::string body, std::vector<UniqueFd> fds = {});

  // Writes as much as the socket takes; what is left (see empty()) waits for it to become writable.
  // An error is final.
  [[nodiscard]] Result<void> flush(int socket);

  [[nodiscard]] bool empty() const { return queue_.empty(); }
  [[nodiscard]] std::size_t queued_bytes() const { return queued_bytes_; }

 private:
  std::size_t limit_bytes_;
  std::size_t queued_bytes_ = 0;
  std::size_t front_sent_ = 0;  // bytes of queue_.front() that are gone
  std::deque<Frame> queue_;     // bodies with their header in front
};

}  // namespace sidetrack::wire
