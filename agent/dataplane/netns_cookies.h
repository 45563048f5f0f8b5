// SPDX-License-Identifier: Apache-2.0
// The cookie of a network namespace: SO_NETNS_COOKIE (since 5.14), or else a small program on this
// process's own cgroup that tells it of each socket made there (bpf/netns.bpf.c). That program goes
// with this object. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::dataplane {

class NetnsCookies {
 public:
  // `cgroup_dir`: any folder of the cgroup2 mount; in a container, the host's.
  explicit NetnsCookies(std::string cgroup_dir);
  ~NetnsCookies();
  NetnsCookies(const NetnsCookies&) = delete;
  NetnsCookies& operator=(const NetnsCookies&) = delete;

  // Of the calling thread's namespace: never reused while the machine runs. kUnsupported,
  // kPermission: the kernel takes no such program, either.
  [[nodiscard]] Result<std::uint64_t> here();
  // The same by the program, whether the kernel has the option or not.
  [[nodiscard]] Result<std::uint64_t> told_here();

 private:
  struct Teller;
  [[nodiscard]] Result<std::optional<std::uint64_t>> ask() const;

  std::string cgroup_dir_;
  std::unique_ptr<Teller> teller_;
};

}  // namespace sidetrack::dataplane
