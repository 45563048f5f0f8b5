// SPDX-License-Identifier: Apache-2.0
// The self-test of the fast path: real sockets in a network namespace of its own skip TCP, and
// whatever an application relies on is tried. Decides by what happens, not by the kernel's version.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::selftest {

struct Check {
  std::string name;
  bool passed = false;
  std::string detail;  // what was seen
  double milliseconds = 0;
};

struct Report {
  std::vector<Check> checks;
  bool charges_reader = false;  // redirected bytes count in the reader's sk_rmem_alloc

  [[nodiscard]] bool passed() const;
  // "order: ...", of the first check that failed; empty if none did.
  [[nodiscard]] std::string problem() const;
};

struct Places {
  std::string cgroup_dir;         // a child of it is made for the test
  std::string pin_dir;            // a sibling of it
  std::string netns;              // the network namespace to use; empty: one of its own
  std::function<bool()> is_over;  // asked between checks: whether to end; empty: never
};

// Takes some seconds, and the whole process: it enters a network namespace of its own and, for a
// while, a cgroup of its own. What it made is gone afterwards; what an earlier run that was killed
// left, before. kUnsupported: this kernel cannot even redirect (the message says what is missing);
// that it does not take the fast path's programs is a check that failed. kBusy: it was to end.
[[nodiscard]] Result<Report> run(const Places& places);

// Takes away what runs that were killed have left, and returns its paths; run() does it first.
std::vector<std::string> clean_up(const Places& places);

[[nodiscard]] std::string to_table(const Report& report);
[[nodiscard]] std::string to_json(const Report& report);
[[nodiscard]] Result<Report> from_json(const std::string& text);

}  // namespace sidetrack::selftest
