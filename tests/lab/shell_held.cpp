// SPDX-License-Identifier: Apache-2.0
// The commands of ShellSockets about many connections that are only held open.
#include <fcntl.h>
#include <poll.h>

#include <cerrno>
#include <cstdlib>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/lab/pattern.h"
#include "tests/lab/shell_sockets.h"

namespace sidetrack::lab {
namespace {

// Fills `bytes` from a socket that may be non-blocking; what came before that: "EOF", an errno's
// name, "" for nothing.
std::string receive_whole(int fd, std::span<char> bytes) {
  while (!bytes.empty()) {
    pollfd wanted{fd, POLLIN, 0};
    if (::poll(&wanted, 1, static_cast<int>(kDefaultTimeoutMs)) <= 0) {
      return errno_name(ETIMEDOUT);
    }
    const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (count <= 0) {
      return count == 0 ? "EOF" : errno_name(errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return "";
}

}  // namespace

nlohmann::json ShellSockets::hold(const Words& words) {
  const SocketAddress address = address_at(words, 1);
  const std::uint64_t count = std::strtoull(words.at(3).c_str(), nullptr, 10);
  std::uint64_t opened = 0;
  nlohmann::json errors = nlohmann::json::object();
  for (std::uint64_t i = 0; i < count; ++i) {
    UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    set_timeout(fd.get(), words.number("timeout_ms", kDefaultTimeoutMs));
    if (fd.valid() && ::connect(fd.get(), address.get(), address.size) == 0) {
      if (words.has("nonblock")) {
        ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
      }
      held_.push_back(std::move(fd));
      ++opened;
    } else {
      const std::string name = errno_name(errno);
      errors[name] = errors.value(name, 0) + 1;
    }
  }
  return {{"opened", opened}, {"errors", errors}};
}

// One request of its own on every held connection, all under way at once; none is like one before.
nlohmann::json ShellSockets::check_held(const Words& words) {
  const std::size_t length = words.number("len", 32);
  std::vector<char> request(length);
  std::vector<char> reply(length);
  std::uint64_t same = 0;
  nlohmann::json errors = nlohmann::json::object();
  const auto note = [&](const std::string& error) {
    if (!error.empty()) {
      errors[error] = errors.value(error, 0) + 1;
    }
  };
  const std::uint64_t first = check_rounds_++ * held_.size() + 1;
  for (std::size_t i = 0; i < held_.size(); ++i) {
    Pattern(first + i).fill(request);
    const ssize_t sent = ::send(held_[i].get(), request.data(), length, MSG_NOSIGNAL);
    note(sent < 0 ? errno_name(errno) : sent < static_cast<ssize_t>(length) ? "sent in part" : "");
  }
  for (std::size_t i = 0; i < held_.size(); ++i) {
    Pattern(first + i).fill(request);
    note(receive_whole(held_[i].get(), reply));
    same += reply == request ? 1 : 0;
  }
  return {{"same", same}, {"errors", errors}};
}

nlohmann::json ShellSockets::release(const Words& /*words*/) {
  return {{"released", std::exchange(held_, {}).size()}};
}

}  // namespace sidetrack::lab
