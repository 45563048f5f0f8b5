// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/time.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/lab/shell_sockets.h"

namespace sidetrack::lab {

Words::Words(std::string_view line) {
  std::istringstream text{std::string(line)};
  for (std::string word; text >> word;) {
    words_.push_back(word);
  }
}

const std::string& Words::at(std::size_t index) const {
  static const std::string kNone;
  return index < words_.size() ? words_[index] : kNone;
}

bool Words::has(std::string_view flag) const {
  for (const std::string& word : words_) {
    if (word == flag) {
      return true;
    }
  }
  return false;
}

std::string Words::value(std::string_view key) const {
  for (const std::string& word : words_) {
    if (word.size() > key.size() && word.starts_with(key) && word[key.size()] == '=') {
      return word.substr(key.size() + 1);
    }
  }
  return {};
}

std::uint64_t Words::number(std::string_view key, std::uint64_t fallback) const {
  const std::string text = value(key);
  return text.empty() ? fallback : std::strtoull(text.c_str(), nullptr, 10);
}

SocketAddress parse_address(const std::string& text, std::uint16_t port) {
  SocketAddress result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    result.size = sizeof(*v4);
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    result.size = sizeof(*v6);
  }
  return result;
}

std::uint16_t port_of(const std::string& text) {
  return static_cast<std::uint16_t>(std::strtoul(text.c_str(), nullptr, 10));
}

SocketAddress address_at(const Words& words, std::size_t index) {
  return parse_address(words.at(index), port_of(words.at(index + 1)));
}

std::string errno_name(int error_number) {
  const char* name = error_number == 0 ? "" : ::strerrorname_np(error_number);
  return name == nullptr ? "?" : name;
}

nlohmann::json errno_answer(int error_number) {
  return {{"errno", error_number}, {"errno_name", errno_name(error_number)}};
}

void set_timeout(int fd, std::uint64_t timeout_ms) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(timeout_ms / 1000);
  limit.tv_usec = static_cast<suseconds_t>(timeout_ms % 1000 * 1000);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

}  // namespace sidetrack::lab
