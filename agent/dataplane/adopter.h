// SPDX-License-Identifier: Apache-2.0
// The program that adopts one socket (bpf/adopt.bpf.c), to be run in the socket's namespace. Valid
// as long as its Dataplane is. Any thread, in any network namespace.
#pragma once

#include <cstdint>

#include "sidetrack/abi/fast.h"
#include "sidetrack/result.h"

namespace sidetrack::dataplane {

class Adopter {
 public:
  Adopter(int program_fd, int nudge_link_fd, __u64* nudged_cookie)
      : program_fd_(program_fd), nudge_link_fd_(nudge_link_fd), nudged_cookie_(nudged_cookie) {}
  // Runs in the calling thread's network namespace: that of `request.self`.
  [[nodiscard]] Result<st_fast_reason> run(const st_adopt_request& request) const;
  // Walks all TCP sockets of the calling thread's namespace, for rare cases: gives adopted ones the
  // buffer that they need, tells whoever watches the socket of this cookie (0 = none) that it is
  // readable, if it is, and has TCP try again to send each FIN that waits; with ST_NUDGE_LET_GO
  // none waits any longer. One thread at a time.
  [[nodiscard]] Result<void> nudge(std::uint64_t cookie) const;

 private:
  int program_fd_;
  int nudge_link_fd_;
  __u64* nudged_cookie_;
};

}  // namespace sidetrack::dataplane
