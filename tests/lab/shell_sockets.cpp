// SPDX-License-Identifier: Apache-2.0
// Making, connecting and asking sockets. What moves data is in shell_data.cpp, what there are many
// of in shell_held.cpp.
#include "tests/lab/shell_sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace sidetrack::lab {
namespace {

constexpr int kSoOriginalDestination =
    80;  // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST: netfilter's headers clash with glibc's

nlohmann::json describe(const SocketAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    return {{"address", text.data()}, {"port", ntohs(v4->sin_port)}};
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
  return {{"address", text.data()}, {"port", ntohs(v6->sin6_port)}};
}

nlohmann::json ask_name(int (*call)(int, sockaddr*, socklen_t*), int fd) {
  SocketAddress address;
  address.size = sizeof(address.storage);
  nlohmann::json answer = errno_answer(call(fd, address.get(), &address.size) == 0 ? 0 : errno);
  if (answer["errno"] == 0) {
    answer.update(describe(address));
  }
  return answer;
}

// "bind=ADDRESS", "bind=ADDRESS/PORT": the slash keeps IPv6 addresses plain.
int bind_as_told(int fd, const Words& words) {
  const std::string where = words.value("bind");
  if (where.empty()) {
    return 0;
  }
  const std::size_t slash = where.find('/');
  const std::string port = slash == std::string::npos ? "0" : where.substr(slash + 1);
  const SocketAddress address = parse_address(where.substr(0, slash), port_of(port));
  return ::bind(fd, address.get(), address.size) == 0 ? 0 : errno;
}

int apply_options(int fd, const Words& words) {
  const int on = 1;
  set_timeout(fd, words.number("timeout_ms", kDefaultTimeoutMs));
  const std::string device = words.value("device");
  if (!device.empty() && ::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                                      static_cast<socklen_t>(device.size())) != 0) {
    return errno;
  }
  if (words.has("reuse") && ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) {
    return errno;
  }
  if (const auto mark = static_cast<int>(words.number("mark", 0));
      mark != 0 && ::setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) {
    return errno;
  }
  if (words.has("transparent")) {
    const bool v6 = words.at(1) == "v6";
    if (::setsockopt(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on,
                     sizeof(on)) != 0) {
      return errno;
    }
  }
  if (words.value("tfo") == "connect" &&
      ::setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)) != 0) {
    return errno;
  }
  if (words.has("nodelay") && ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
    return errno;
  }
  return bind_as_told(fd, words);
}

// Waits for a non-blocking connect to end; its errno.
int finish_connect(int fd, std::uint64_t timeout_ms) {
  pollfd wanted{fd, POLLOUT, 0};
  if (::poll(&wanted, 1, static_cast<int>(timeout_ms)) == 0) {
    return ETIMEDOUT;
  }
  int failure = 0;
  socklen_t size = sizeof(failure);
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size);
  return failure;
}

nlohmann::json connect_fd(int fd, const Words& words, const SocketAddress& address) {
  int first = 0;
  if (words.value("tfo") == "sendto") {
    const std::string data = words.value("data");
    const ssize_t sent = ::sendto(fd, data.data(), data.size(), MSG_FASTOPEN | MSG_NOSIGNAL,
                                  address.get(), address.size);
    first = sent < 0 ? errno : 0;
  } else if (words.has("uring")) {
    first = connect_by_uring(fd, address);
  } else {
    first = ::connect(fd, address.get(), address.size) == 0 ? 0 : errno;
  }
  int last = first;
  if (words.has("nonblock")) {
    if (first == EINPROGRESS) {
      last = finish_connect(fd, words.number("timeout_ms", kDefaultTimeoutMs));
    }
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  }
  nlohmann::json answer = errno_answer(last);
  answer["first_errno"] = first;
  return answer;
}

}  // namespace

int ShellSockets::keep(UniqueFd fd) {
  sockets_.emplace(next_id_, std::move(fd));
  return next_id_++;
}

int ShellSockets::fd_of(const Words& words) const {
  const auto known = sockets_.find(std::atoi(words.at(1).c_str()));
  return known == sockets_.end() ? -1 : known->second.get();
}

nlohmann::json ShellSockets::make_socket(const Words& words) {
  const int family = words.at(1) == "v6" ? AF_INET6 : AF_INET;
  const int type = (words.has("udp") ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC |
                   (words.has("nonblock") ? SOCK_NONBLOCK : 0);
  UniqueFd fd(::socket(family, type, words.has("mptcp") ? IPPROTO_MPTCP : 0));
  if (!fd.valid()) {
    return errno_answer(errno);
  }
  const int failure = apply_options(fd.get(), words);
  nlohmann::json answer = errno_answer(failure);
  answer["id"] = failure == 0 ? keep(std::move(fd)) : 0;
  return answer;
}

// A socket whose connect failed is kept too: tests ask it afterwards.
nlohmann::json ShellSockets::connect(const Words& words) {
  const SocketAddress address = address_at(words, 2);
  if (address.size == 0) {
    return {{"error", "connect v4|v6 ADDRESS PORT"}};
  }
  nlohmann::json answer = make_socket(words);
  if (answer["errno"] != 0) {
    return answer;
  }
  const int id = answer["id"];
  answer = connect_fd(sockets_.at(id).get(), words, address);
  answer["id"] = id;
  return answer;
}

nlohmann::json ShellSockets::connect_again(const Words& words) {
  const SocketAddress address = address_at(words, 2);
  return connect_fd(fd_of(words), words, address);
}

nlohmann::json ShellSockets::disconnect(const Words& words) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  return errno_answer(::connect(fd_of(words), &nowhere, sizeof(nowhere)) == 0 ? 0 : errno);
}

nlohmann::json ShellSockets::listen(const Words& words) {
  const SocketAddress address = address_at(words, 2);
  nlohmann::json answer = make_socket(words);
  if (answer["errno"] != 0) {
    return answer;
  }
  const int id = answer["id"];
  const int fd = sockets_.at(id).get();
  const int on = 1;
  const int sharing = words.has("reuseport") ? SO_REUSEPORT : SO_REUSEADDR;
  ::setsockopt(fd, SOL_SOCKET, sharing, &on, sizeof(on));
  if (::bind(fd, address.get(), address.size) != 0 ||
      (!words.has("udp") && ::listen(fd, static_cast<int>(words.number("backlog", 128))) != 0)) {
    answer = errno_answer(errno);
    sockets_.erase(id);
    return answer;
  }
  answer = ask_name(::getsockname, fd);
  answer["id"] = id;
  return answer;
}

nlohmann::json ShellSockets::accept(const Words& words) {
  set_timeout(fd_of(words), words.number("timeout_ms", kDefaultTimeoutMs));
  SocketAddress peer;
  peer.size = sizeof(peer.storage);
  UniqueFd fd(::accept4(fd_of(words), peer.get(), &peer.size, SOCK_CLOEXEC));
  if (!fd.valid()) {
    return errno_answer(errno);
  }
  set_timeout(fd.get(), kDefaultTimeoutMs);
  nlohmann::json answer = describe(peer);
  answer.update(errno_answer(0));
  answer["id"] = keep(std::move(fd));
  return answer;
}

nlohmann::json ShellSockets::close(const Words& words) {
  if (words.has("linger0")) {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_of(words), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  }
  const std::size_t erased = sockets_.erase(std::atoi(words.at(1).c_str()));
  return errno_answer(erased == 1 ? 0 : EBADF);
}

nlohmann::json ShellSockets::original_destination(const Words& words) {
  const bool v6 = words.has("v6");
  SocketAddress address;
  address.size = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  const int failure = ::getsockopt(fd_of(words), v6 ? SOL_IPV6 : SOL_IP, kSoOriginalDestination,
                                   &address.storage, &address.size);
  nlohmann::json answer = errno_answer(failure == 0 ? 0 : errno);
  if (failure == 0) {
    answer.update(describe(address));
  }
  return answer;
}

nlohmann::json ShellSockets::cookies(const Words& words) {
  std::uint64_t cookie = 0;
  std::uint64_t netns_cookie = 0;
  socklen_t size = sizeof(cookie);
  nlohmann::json answer = errno_answer(
      ::getsockopt(fd_of(words), SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? 0 : errno);
  ::getsockopt(fd_of(words), SOL_SOCKET, SO_NETNS_COOKIE, &netns_cookie, &size);
  answer["cookie"] = cookie;
  answer["netns_cookie"] = netns_cookie;
  return answer;
}

// Fills the socket's option memory (SK_STORAGE comes out of the same budget) with keys that need no
// capability.
nlohmann::json ShellSockets::add_md5_keys(const Words& words) {
  const std::uint64_t count = words.number("count", 2000);
  std::uint64_t added = 0;
  int failure = 0;
  while (added < count && failure == 0) {
    tcp_md5sig key{};
    auto* address = reinterpret_cast<sockaddr_in*>(&key.tcpm_addr);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(0xC0000000U + static_cast<std::uint32_t>(added));
    key.tcpm_keylen = 1;
    key.tcpm_key[0] = 'k';
    failure =
        ::setsockopt(fd_of(words), IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)) == 0 ? 0 : errno;
    added += failure == 0 ? 1U : 0U;
  }
  nlohmann::json answer = errno_answer(failure);
  answer["added"] = added;
  return answer;
}

nlohmann::json ShellSockets::run(const Words& words) {
  using Handler = nlohmann::json (ShellSockets::*)(const Words&);
  static const std::map<std::string, Handler> kHandlers = {
      {"socket", &ShellSockets::make_socket},
      {"connect", &ShellSockets::connect},
      {"connect_again", &ShellSockets::connect_again},
      {"listen", &ShellSockets::listen},
      {"accept", &ShellSockets::accept},
      {"send", &ShellSockets::send},
      {"recv", &ShellSockets::receive},
      {"recv_eof", &ShellSockets::receive_to_end},
      {"exchange", &ShellSockets::exchange},
      {"close", &ShellSockets::close},
      {"disconnect", &ShellSockets::disconnect},
      {"original_dst", &ShellSockets::original_destination},
      {"cookie", &ShellSockets::cookies},
      {"md5_keys", &ShellSockets::add_md5_keys},
      {"udp_exchange", &ShellSockets::udp_exchange},
      {"hold", &ShellSockets::hold},
      {"check_held", &ShellSockets::check_held},
      {"release", &ShellSockets::release},
      {"fill_held", &ShellSockets::fill_held}};
  const std::string& command = words.at(0);
  if (const auto known = kHandlers.find(command); known != kHandlers.end()) {
    return (this->*known->second)(words);
  }
  if (command == "getpeername" || command == "getsockname") {
    return ask_name(command == "getpeername" ? ::getpeername : ::getsockname, fd_of(words));
  }
  if (command == "fd") {
    return {{"fd", fd_of(words)}};
  }
  if (command == "ring") {
    return errno_answer(keep_uring());
  }
  if (command == "getsockopt_error") {
    int failure = 0;
    socklen_t size = sizeof(failure);
    const int status = ::getsockopt(fd_of(words), SOL_SOCKET, SO_ERROR, &failure, &size);
    return errno_answer(status == 0 ? failure : errno);
  }
  if (command == "shutdown") {
    return errno_answer(::shutdown(fd_of(words), SHUT_WR) == 0 ? 0 : errno);
  }
  return {{"error", "unknown command " + command}};
}

}  // namespace sidetrack::lab
