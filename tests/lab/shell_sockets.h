// SPDX-License-Identifier: Apache-2.0
// The socket commands of st_pod_shell: each takes the words of one line and gives the JSON answer.
// Not a library for tests: they talk to the program through pod_shell.h. Thread rule: one thread.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

// The words of a command line: positional ones, flags ("mptcp") and values ("bind=10.0.0.1:80").
class Words {
 public:
  explicit Words(std::string_view line);
  [[nodiscard]] const std::string& at(std::size_t index) const;  // empty if there are fewer
  [[nodiscard]] bool has(std::string_view flag) const;
  [[nodiscard]] std::string value(std::string_view key) const;  // empty if not given
  [[nodiscard]] std::uint64_t number(std::string_view key, std::uint64_t fallback) const;

 private:
  std::vector<std::string> words_;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

// size 0: `text` is no address.
[[nodiscard]] SocketAddress parse_address(const std::string& text, std::uint16_t port);
[[nodiscard]] std::uint16_t port_of(const std::string& text);
// Of the words "ADDRESS PORT" from `index` on.
[[nodiscard]] SocketAddress address_at(const Words& words, std::size_t index);

// {"errno": N, "errno_name": "ECONNREFUSED"}; 0 and "" for success.
[[nodiscard]] nlohmann::json errno_answer(int error_number);
[[nodiscard]] std::string errno_name(int error_number);

// Connects by io_uring; the errno or 0 (ENOSYS: built without liburing).
[[nodiscard]] int connect_by_uring(int fd, const SocketAddress& address);
// Makes an io_uring that stays; the errno or 0, likewise.
[[nodiscard]] int keep_uring();

inline const std::uint64_t kDefaultTimeoutMs = static_cast<std::uint64_t>(kPatience.count());

// SO_RCVTIMEO and SO_SNDTIMEO; the latter also bounds a blocking connect.
void set_timeout(int fd, std::uint64_t timeout_ms);

class ShellSockets {
 public:
  // Answers `words`, whose first is the command. An unknown command gives {"error": ...}.
  nlohmann::json run(const Words& words);

 private:
  nlohmann::json make_socket(const Words& words);
  nlohmann::json connect(const Words& words);
  nlohmann::json connect_again(const Words& words);
  nlohmann::json listen(const Words& words);
  nlohmann::json accept(const Words& words);
  nlohmann::json send(const Words& words);
  nlohmann::json receive(const Words& words);
  nlohmann::json receive_to_end(const Words& words);
  nlohmann::json exchange(const Words& words);
  nlohmann::json close(const Words& words);
  nlohmann::json disconnect(const Words& words);
  nlohmann::json original_destination(const Words& words);
  nlohmann::json cookies(const Words& words);
  nlohmann::json add_md5_keys(const Words& words);
  nlohmann::json udp_exchange(const Words& words);
  nlohmann::json hold(const Words& words);
  nlohmann::json check_held(const Words& words);
  nlohmann::json fill_held(const Words& words);
  nlohmann::json release(const Words& words);

  int keep(UniqueFd fd);
  [[nodiscard]] int fd_of(const Words& words) const;  // of the id in word 1; -1 if unknown

  std::map<int, UniqueFd> sockets_;
  std::vector<UniqueFd> held_;
  std::uint64_t check_rounds_ = 0;
  int next_id_ = 1;
};

}  // namespace sidetrack::lab
