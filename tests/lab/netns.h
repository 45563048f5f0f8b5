// SPDX-License-Identifier: Apache-2.0
// Netns: a network namespace of a test's own, named under /run/netns as `ip netns add` does, with
// lo up and IPv6 on. Its destructor takes the name away; the kernel frees the namespace with its
// last process and socket. Thread rule: code runs inside on a thread made for it, never on the
// caller's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::lab {

// Runs `body` on a thread of its own inside the namespace that `netns_fd` stands for.
// Errors: what setns says (the body has then not run), else the body's own.
Result<void> run_in_netns(int netns_fd, const std::function<Result<void>()>& body);

class Netns {
 public:
  static Result<Netns> create(std::string_view name);
  Netns(Netns&& other) noexcept = default;
  Netns& operator=(Netns&&) = delete;
  Netns(const Netns&) = delete;
  Netns& operator=(const Netns&) = delete;
  ~Netns();

  [[nodiscard]] const std::string& name() const { return mount_.name; }
  [[nodiscard]] std::string path() const { return "/run/netns/" + mount_.name; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  // As the kernel has it, on kernels before 5.14 told by a program of ours.
  [[nodiscard]] Result<std::uint64_t> cookie() const;

  Result<void> run(const std::function<Result<void>()>& body) const {
    return run_in_netns(fd_.get(), body);
  }

  // run() for a body that returns Result<T>.
  template <typename Body>
  auto call(Body body) const -> decltype(body()) {
    std::optional<decltype(body())> answer;
    auto ran = run([&]() -> Result<void> {
      answer.emplace(body());
      return {};
    });
    if (!ran) {
      return ran.error();
    }
    return std::move(*answer);
  }

  // Writes /proc/sys/net/KEY ("ipv4/ip_forward") inside.
  Result<void> write_sysctl(std::string_view key, std::string_view value) const;
  // The CPUs that work on what arrives at the device (RPS), as a mask: "2" is the second, "0" each
  // on what arrives on it.
  Result<void> set_rps(std::string_view device, std::string_view cpus) const;
  // `ip -n THIS -batch -`: one command a line ("link set lo up"). The error carries what ip said.
  Result<void> ip(std::string_view commands) const;

 private:
  // Owner of the bind mount; also of a half-made one.
  struct Mount {
    std::string name;
    explicit Mount(std::string n) : name(std::move(n)) {}
    Mount(Mount&& other) noexcept : name(std::exchange(other.name, {})) {}
    Mount& operator=(Mount&&) = delete;
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;
    ~Mount();
  };

  Netns(Mount mount, UniqueFd fd) : mount_(std::move(mount)), fd_(std::move(fd)) {}

  Mount mount_;
  UniqueFd fd_;
};

}  // namespace sidetrack::lab
