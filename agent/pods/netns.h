// SPDX-License-Identifier: Apache-2.0
// What the agent has to know of a pod's network namespace. Never keeps a descriptor: that would
// keep a deleted pod's namespace alive. Threads: the calls that have to enter the namespace do so
// on a thread of their own, which ends there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::pods {

struct NetnsFacts {
  std::uint64_t cookie = 0;    // the kernel's own, never reused while the machine runs
  std::uint32_t port_low = 0;  // net.ipv4.ip_local_port_range
  std::uint32_t port_high = 0;
  std::string reserved_ports;          // net.ipv4.ip_local_reserved_ports: "8080,9100-9199"
  bool reuses_time_wait = true;        // net.ipv4.tcp_tw_reuse: 1 or 2, both cover loopback
  bool loopback_up = true;             // the interface lo: what goes to 127.0.0.1 or ::1 arrives
  std::vector<std::string> sources;    // default_sources()
  std::vector<std::string> addresses;  // of all interfaces but lo, without link-local ones
  bool operator==(const NetnsFacts&) const = default;
};

// A descriptor of the namespace file at `path`, checked to be one (nsfs).
[[nodiscard]] Result<UniqueFd> open_netns(const std::string& path);

// Tells the cookie of the calling thread's namespace (dataplane::NetnsCookies).
using CookieReader = std::function<Result<std::uint64_t>()>;

// `known`: what an earlier look found. Its addresses are taken over while the sources are the same:
// to list them holds up whoever makes or ends network namespaces. nullptr: they are listed.
[[nodiscard]] Result<NetnsFacts> inspect_netns(const std::string& path,
                                               const CookieReader& read_cookie,
                                               const NetnsFacts* known = nullptr);

struct NewNetns {
  UniqueFd fd;  // keeps it alive
  std::uint64_t cookie = 0;
};
// A namespace of its own, with nobody in it.
[[nodiscard]] Result<NewNetns> make_netns(const CookieReader& read_cookie);

// The namespace that this process is in.
[[nodiscard]] Result<NetnsFacts> inspect_own_netns(const CookieReader& read_cookie,
                                                   const NetnsFacts* known = nullptr);

}  // namespace sidetrack::pods
