// SPDX-License-Identifier: Apache-2.0
// How an endpoint takes bytes, and how it checks them.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "tests/soak/endpoint.h"

namespace sidetrack::soak {

namespace {

constexpr std::uint64_t kReadPauseMs = 25;

std::string hex_of(std::span<const char> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes.first(std::min<std::size_t>(bytes.size(), 16))) {
    text += kDigits[(static_cast<unsigned char>(byte) >> 4U) & 15U];
    text += kDigits[static_cast<unsigned char>(byte) & 15U];
  }
  return text;
}

// One thread per process: where received and expected bytes are compared.
std::vector<char>& scratch(std::size_t which) {
  static std::array<std::vector<char>, 2> buffers{std::vector<char>(kMostBytes),
                                                  std::vector<char>(kMostBytes)};
  return buffers[which];
}

}  // namespace

bool Endpoint::read_some(Now now) {
  std::vector<char>& buffer = scratch(0);
  // Never more than the hello before it is known where the stream begins.
  const std::size_t asked = hello_ ? read_size_ : sizeof(Hello) - hello_bytes_.size();
  ssize_t count = 0;
  std::size_t size = asked;
  if (peeks_) {
    count = ::recv(fd_.get(), buffer.data(), asked, MSG_PEEK);
    size = count > 0 ? static_cast<std::size_t>(count) : asked;
  }
  if (!peeks_ || count > 0) {
    count = take(buffer, size, now);
  }
  if (count > 0) {
    check(std::span(buffer.data(), static_cast<std::size_t>(count)), now);
    after_read(static_cast<std::size_t>(count), asked, now);
    return true;
  }
  if (count == 0) {
    eof_ = true;
    moved(now);
    on_eof(now);
    return false;
  }
  readable_ = false;
  if (errno != EAGAIN) {
    end(name_of_errno(errno), now);
  }
  return false;
}

ssize_t Endpoint::take(std::span<char> buffer, std::size_t size, Now now) {
  const bool begun = hello_ && now.ms >= manner_.from_ms;
  if (begun && manner_.habit == Habit::kAsks) {
    return take_after_asking(buffer, size, now);
  }
  if (begun && manner_.habit == Habit::kSplices) {
    return take_by_splice(buffer, size);
  }
  return ::recv(fd_.get(), buffer.data(), size, 0);
}

// `size` bytes were peeked at just now: so many wait. What was asked for first may be too few
// (docs/deviations.md, 22); too many it is never.
ssize_t Endpoint::take_after_asking(std::span<char> buffer, std::size_t size, Now now) {
  static const std::int64_t first_ms = now.ms;
  int said = 0;
  if (::ioctl(fd_.get(), FIONREAD, &said) != 0) {
    return -1;
  }
  const auto waits = static_cast<std::size_t>(said);
  if (waits < size) {
    tell("small", {{"said", said}, {"peeked", size}, {"since_first", now.ms - first_ms}});
  }
  const std::size_t wanted = waits == 0 ? size : std::min(waits, read_size_);
  const ssize_t count = ::recv(fd_.get(), buffer.data(), wanted, 0);
  if (waits != 0 && count >= 0 && static_cast<std::size_t>(count) < wanted) {
    tell("large", {{"said", said}, {"wanted", wanted}, {"got", count}});
  }
  return count;
}

ssize_t Endpoint::take_by_splice(std::span<char> buffer, std::size_t size) {
  // One thread per process; empty between two calls.
  static const std::array<int, 2> pipe = [] {
    std::array<int, 2> ends{-1, -1};
    return ::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC) == 0 ? ends : std::array{-1, -1};
  }();
  const ssize_t count =
      ::splice(fd_.get(), nullptr, pipe[1], nullptr, size, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  return count <= 0 ? count : ::read(pipe[0], buffer.data(), static_cast<std::size_t>(count));
}

// Also decides when epoll is asked again: see Reader.
void Endpoint::after_read(std::size_t got, std::size_t asked, Now now) {
  moved(now);
  if (reader_ == Reader::kLevel || (reader_ == Reader::kShortRead && got < asked && !hang_up_)) {
    readable_ = false;
  }
  if (random_() % 32 == 0) {
    read_after_ms_ = now.ms + static_cast<std::int64_t>(random_() % kReadPauseMs);
  }
}

bool Endpoint::take_hello(std::span<const char> bytes) {
  hello_bytes_.insert(hello_bytes_.end(), bytes.begin(), bytes.end());
  if (hello_bytes_.size() < sizeof(Hello)) {
    return true;
  }
  Hello hello;
  std::memcpy(&hello, hello_bytes_.data(), sizeof(hello));
  if (hello.magic != kMagic || hello.kind > Kind::kRude || hello.ender > kServer) {
    return false;
  }
  start(hello);
  return true;
}

void Endpoint::check(std::span<const char> bytes, Now now) {
  if (!hello_) {
    if (!take_hello(bytes)) {
      nlohmann::json told = describe(now);
      told["got"] = hex_of(hello_bytes_);
      tell("corrupt", told);
      end("CORRUPT", now);
    }
    return;
  }
  const std::span<char> wanted(scratch(1).data(), bytes.size());
  expects_.fill(wanted);
  const auto differs = std::mismatch(bytes.begin(), bytes.end(), wanted.begin()).first;
  if (differs != bytes.end()) {
    const auto offset = static_cast<std::size_t>(differs - bytes.begin());
    nlohmann::json told = describe(now);
    told["at"] = received_ + offset;
    told["got"] = hex_of(bytes.subspan(offset));
    told["wanted"] = hex_of(wanted.subspan(offset));
    tell("corrupt", told);
    end("CORRUPT", now);
    return;
  }
  received_ += bytes.size();
}

}  // namespace sidetrack::soak
