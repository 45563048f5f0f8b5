// SPDX-License-Identifier: Apache-2.0
// The commands of ShellSockets that move data.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/lab/pattern.h"
#include "tests/lab/shell_sockets.h"

namespace sidetrack::lab {
namespace {

constexpr std::size_t kChunkBytes = 65536;

std::string from_hex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::strtoul(text.substr(i, 2).c_str(), nullptr, 16)));
  }
  return bytes;
}

std::string to_hex(std::span<const char> bytes) {
  std::string text;
  for (const char byte : bytes) {
    fmt::format_to(std::back_inserter(text), "{:02x}", static_cast<unsigned char>(byte));
  }
  return text;
}

struct Sent {
  std::uint64_t bytes = 0;
  int error_number = 0;
};

Sent send_all(int fd, std::span<const char> bytes) {
  Sent sent;
  while (sent.bytes < bytes.size() && sent.error_number == 0) {
    const ssize_t count =
        ::send(fd, bytes.data() + sent.bytes, bytes.size() - sent.bytes, MSG_NOSIGNAL);
    if (count >= 0) {
      sent.bytes += static_cast<std::uint64_t>(count);
    } else if (errno != EINTR) {
      sent.error_number = errno;
    }
  }
  return sent;
}

Sent send_pattern(int fd, std::uint64_t seed, std::uint64_t length, std::size_t chunk_bytes) {
  Pattern pattern(seed);
  std::vector<char> buffer(chunk_bytes);
  Sent total;
  while (total.bytes < length && total.error_number == 0) {
    const std::span<char> part(buffer.data(),
                               std::min<std::uint64_t>(length - total.bytes, buffer.size()));
    pattern.fill(part);
    const Sent sent = send_all(fd, part);
    total.bytes += sent.bytes;
    total.error_number = sent.error_number;
  }
  return total;
}

// Receives until `length` bytes or the end of the stream; the errno that ended it early, or 0.
template <typename Take>
int receive_up_to(int fd, std::uint64_t length, Take take) {
  std::vector<char> buffer(kChunkBytes);
  for (std::uint64_t got = 0; got < length;) {
    const ssize_t count =
        ::recv(fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), length - got), 0);
    if (count == 0) {
      return 0;
    }
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    got += static_cast<std::uint64_t>(count);
    take(std::span<const char>(buffer.data(), static_cast<std::size_t>(count)));
  }
  return 0;
}

constexpr std::uint64_t kToTheEnd = ~std::uint64_t{0};

}  // namespace

nlohmann::json ShellSockets::send(const Words& words) {
  Sent sent;
  if (const std::uint64_t length = words.number("len", 0); length > 0) {
    sent = send_pattern(fd_of(words), words.number("seed", 1), length,
                        words.number("chunk", kChunkBytes));
  } else {
    sent = send_all(fd_of(words), from_hex(words.at(2)));
  }
  nlohmann::json answer = errno_answer(sent.error_number);
  answer["sent"] = sent.bytes;
  return answer;
}

nlohmann::json ShellSockets::receive(const Words& words) {
  std::string bytes;
  if (const std::uint64_t timeout_ms = words.number("timeout_ms", 0); timeout_ms > 0) {
    set_timeout(fd_of(words), timeout_ms);
  }
  const std::uint64_t length = std::strtoull(words.at(2).c_str(), nullptr, 10);
  nlohmann::json answer =
      errno_answer(receive_up_to(fd_of(words), length, [&](std::span<const char> part) {
        bytes.append(part.data(), part.size());
      }));
  answer["length"] = bytes.size();
  answer["hex"] = to_hex(bytes);
  return answer;
}

nlohmann::json ShellSockets::receive_to_end(const Words& words) {
  Digest digest;
  nlohmann::json answer = errno_answer(receive_up_to(
      fd_of(words), kToTheEnd, [&](std::span<const char> part) { digest.add(part); }));
  answer["length"] = digest.length();
  answer["digest"] = digest.hex();
  return answer;
}

// Sends and receives at the same time; without "open" it half-closes after sending and reads to the
// end.
nlohmann::json ShellSockets::exchange(const Words& words) {
  const int fd = fd_of(words);
  const std::uint64_t length = words.number("len", 1024);
  const std::uint64_t seed = words.number("seed", 1);
  const bool stays_open = words.has("open");
  Sent sent;
  std::jthread sender([&] {
    sent = send_pattern(fd, seed, length, words.number("chunk", kChunkBytes));
    if (!stays_open && sent.error_number == 0) {
      ::shutdown(fd, SHUT_WR);
    }
  });
  Digest digest;
  const int failure = receive_up_to(fd, stays_open ? length : kToTheEnd,
                                    [&](std::span<const char> part) { digest.add(part); });
  if (failure != 0) {
    ::shutdown(fd, SHUT_RDWR);  // frees a sender that nobody reads from
  }
  sender.join();
  nlohmann::json answer = errno_answer(failure);
  answer["sent"] = sent.bytes;
  answer["send_errno"] = sent.error_number;
  answer["length"] = digest.length();
  answer["digest"] = digest.hex();
  answer["expected_digest"] = pattern_digest(seed, length);
  return answer;
}

// Sends on all held connections, which must not block, until none of them has taken anything for
// `quiet_ms` (or has taken `len`). What each gets first has a size of its own, so that not all of
// them are full in the same way.
nlohmann::json ShellSockets::fill_held(const Words& words) {
  const std::uint64_t length = words.number("len", kToTheEnd);
  const std::vector<char> chunk(kChunkBytes, 'f');
  std::vector<pollfd> open;
  for (const UniqueFd& fd : held_) {
    open.push_back({fd.get(), POLLOUT, 0});
  }
  std::vector<std::uint64_t> sent(held_.size());
  nlohmann::json errors = nlohmann::json::object();
  for (std::size_t i = 0; i < open.size(); ++i) {
    sent[i] = send_all(open[i].fd, std::span(chunk).first(1 + i * 4099 % (kChunkBytes - 1))).bytes;
  }
  while (::poll(open.data(), open.size(), static_cast<int>(words.number("quiet_ms", 300))) > 0) {
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (open[i].revents == 0) {
        continue;
      }
      const Sent some = send_all(open[i].fd, chunk);
      sent[i] += some.bytes;
      if (some.error_number != 0 && some.error_number != EAGAIN) {
        const std::string name = errno_name(some.error_number);
        errors[name] = errors.value(name, 0) + 1;
        open[i].fd = -1;
      } else if (sent[i] >= length) {
        open[i].fd = -1;
      }
    }
  }
  const auto [least, most] = std::minmax_element(sent.begin(), sent.end());
  return {
      {"least", sent.empty() ? 0 : *least}, {"most", sent.empty() ? 0 : *most}, {"errors", errors}};
}

// udp_exchange ADDRESS PORT [len=] [bind=]: one datagram there and back on a connected socket, and
// the peer it names.
nlohmann::json ShellSockets::udp_exchange(const Words& words) {
  const SocketAddress address = address_at(words, 1);
  const UniqueFd fd(::socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  set_timeout(fd.get(), words.number("timeout_ms", 5000));
  std::vector<char> message(words.number("len", 32));
  Pattern(words.number("seed", 1)).fill(message);
  std::vector<char> reply(message.size() + 1);
  if (::connect(fd.get(), address.get(), address.size) != 0 ||
      ::send(fd.get(), message.data(), message.size(), 0) < 0) {
    return errno_answer(errno);
  }
  const ssize_t count = ::recv(fd.get(), reply.data(), reply.size(), 0);
  nlohmann::json answer = errno_answer(count < 0 ? errno : 0);
  reply.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  answer["same"] = reply == message;
  return answer;
}

}  // namespace sidetrack::lab
