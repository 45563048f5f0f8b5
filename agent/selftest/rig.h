// SPDX-License-Identifier: Apache-2.0
// What the self-test stands on: a cgroup, a network namespace, programs and maps of its own, and
// connections in it. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.h"
#include "agent/selftest/self_test.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::selftest {

// Both ends, non-blocking.
struct Ends {
  UniqueFd client, server;
};

class Rig {
 public:
  static Result<std::unique_ptr<Rig>> make(const Places& places);
  // Why this kernel does not take the programs; empty = it does. Nothing else works without.
  [[nodiscard]] const std::string& fast_path_problem() const;
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  // Makes so many adopted connections, which then arm side by side.
  Result<void> prepare(unsigned connections);
  // One of them, of which both ends skip TCP: used until they do.
  Result<Ends> open_fast();
  // Whether a byte from one to the other skips TCP now.
  Result<bool> is_fast(const UniqueFd& from, const UniqueFd& to) const;
  // The node's switch.
  Result<void> set_enabled(bool on);
  // What was found out of this kernel: see Report.
  Result<void> set_charges_reader(bool charges);
  // What a look of the adopting program says of this socket.
  Result<st_fast_reason> look(const UniqueFd& fd) const;
  // The one that watches from now on, and whether this kernel has that of functions.
  Result<void> set_sentinel(dataplane::Sentinel sentinel);
  bool has_fentry() const;
  // Whether this task may have a ring.
  bool has_io_uring() const { return has_io_uring_; }
  // As an agent does before the namespace goes.
  Result<void> let_fins_go() const;
  // Why the sentinel has demoted the namespace; then it has no longer.
  Result<st_fast_reason> take_demotion();

 private:
  Rig() = default;
  Result<void> enter_cgroup(const std::string& parent);
  Result<void> enter_netns(const std::string& path);
  Result<Ends> open_adopted();
  Result<void> adopt(const Ends& ends) const;
  Result<void> enrol();

  std::string cgroup_, home_cgroup_, pin_dir_;
  std::unique_ptr<dataplane::Dataplane> dataplane_;
  std::vector<Ends> adopted_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::uint64_t netns_cookie_ = 0;
  bool charges_reader_ = true;
  bool has_io_uring_ = false;
};

constexpr std::uint32_t kWindow = 256 << 10;

// A ring of this task, gone at once; false: it may have none.
bool try_io_uring();
// Sends or reads all of it; kIo after two seconds without progress.
Result<void> send_all(const UniqueFd& fd, const std::string& bytes);
Result<std::string> receive(const UniqueFd& fd, std::size_t length);
// By TCP's own count, with what it has not sent yet: what skips TCP is not in it.
std::uint64_t sent_by_tcp(const UniqueFd& fd);
// poll(): whether `events` come within two seconds.
bool becomes(const UniqueFd& fd, short events);

}  // namespace sidetrack::selftest
