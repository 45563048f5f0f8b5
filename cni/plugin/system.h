// SPDX-License-Identifier: Apache-2.0
// What the plugin does with the outside world, each bounded in size and by a deadline of the
// monotonic clock. Blocking; one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack/wire/cni.h"

namespace sidetrack::cni::plugin {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

// All of a descriptor to its end. kInvalid: more than `limit` bytes; kBusy: not by the deadline.
[[nodiscard]] Result<std::string> read_all(int fd, std::size_t limit, Deadline deadline);

// kIo: the reader is gone.
[[nodiscard]] Result<void> write_all(int fd, std::string_view text);

// kInvalid: it is no network namespace.
[[nodiscard]] Result<UniqueFd> open_netns(const std::string& path);

// One request, one answer. `netns` goes with it if it is valid. The error says which step failed;
// kBusy: no answer by the deadline.
[[nodiscard]] Result<wire::cni::Message> ask(const std::string& socket,
                                             const wire::cni::Message& request, UniqueFd netns,
                                             Deadline deadline);

// Does this list, a name a line, have the name? Not if it cannot be read.
[[nodiscard]] bool lists(const std::string& file, std::string_view name);

// How long ago a file of this time was touched, as far as this boot knows: the time while the
// machine was off does not count, and a time to come is now.
[[nodiscard]] std::chrono::seconds age_in_this_boot(std::chrono::seconds touched,
                                                    std::chrono::seconds now,
                                                    std::chrono::seconds since_boot);
// The same of this file; zero if it cannot be looked at.
[[nodiscard]] std::chrono::seconds untouched_for(const std::string& file);

// Appends a line with the time to a regular file; nothing once that has 10 MiB.
[[nodiscard]] Result<void> append_line(const std::string& file, std::string_view line);

}  // namespace sidetrack::cni::plugin
