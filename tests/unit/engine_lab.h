// SPDX-License-Identifier: Apache-2.0
// A pod for engine tests: the test's own thread sits in a fresh netns with loopback up, the engine
// stays outside and serves it. Sockets that the test makes are therefore the pod's. Needs
// CAP_SYS_ADMIN.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

// Every connection wants to go where the test says.
class FixedDestination final : public OriginalDestination {
 public:
  void set(std::optional<SocketAddress> destination);
  [[nodiscard]] std::optional<SocketAddress> of(int fd,
                                                const SocketAddress& listener) const override;

 private:
  mutable std::mutex mutex_;
  std::optional<SocketAddress> destination_;
};

[[nodiscard]] SocketAddress v4(const char* text, std::uint16_t port);
[[nodiscard]] SocketAddress v6(const char* text, std::uint16_t port);

// A blocking listener at `address` (port 0: any); its real address is written back.
[[nodiscard]] UniqueFd listen_at(SocketAddress& address, int backlog = 4096);
// A blocking connected socket; invalid (errno set) if it fails.
[[nodiscard]] UniqueFd connect_to(const SocketAddress& address);
[[nodiscard]] UniqueFd accept_from(const UniqueFd& listener);
void send_text(const UniqueFd& socket, const std::string& text);
// Reads until FIN, an error (errno_at_end set) or `limit` bytes.
struct ReadResult {
  std::string text;
  int error_number = 0;
  bool eof = false;
};
[[nodiscard]] ReadResult read_all(const UniqueFd& socket, std::size_t limit = SIZE_MAX);
// Closes so that the peer gets RST.
void abort_socket(UniqueFd& socket);
// Waits up to 5 s.
[[nodiscard]] bool eventually(const std::function<bool()>& condition);

class EngineLab : public ::testing::Test {
 protected:
  void SetUp() override;

  // A client of the engine whose original destination is `destination`.
  [[nodiscard]] UniqueFd client_of(const SocketAddress& destination);
  // An address in the pod at which nobody listens.
  [[nodiscard]] SocketAddress closed_port();

  static constexpr std::uint64_t kCookie = 4711;
  FixedDestination destination_;
  std::unique_ptr<Engine> engine_;
  SocketAddress listener_;
};

}  // namespace sidetrack::engine
