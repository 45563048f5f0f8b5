// SPDX-License-Identifier: Apache-2.0
// st_soak [SECONDS [SEED]]: runs the soak; 0 = nothing was found. The seed is printed and can be
// given again: the same decisions, at about the same moments.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/soak/soak.h"

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;  // as ctest is told
  constexpr std::size_t kShown = 20;
  if (::geteuid() != 0) {
    fmt::print("st_soak: needs root\n");
    return kSkipped;
  }
  sidetrack::soak::SoakOptions options;
  options.seconds = argc > 1 ? std::atoll(argv[1]) : 60;
  options.seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  fmt::print("soak: {} s, seed {}\n", options.seconds, options.seed);
  std::fflush(stdout);
  sidetrack::soak::Soak soak(options);
  const auto ran = soak.run();
  fmt::print("{}", soak.summary());
  const auto& findings = soak.findings();
  for (std::size_t i = 0; i < findings.size() && i < kShown; ++i) {
    fmt::print("FINDING {}\n", findings[i]);
  }
  if (!ran) {
    fmt::print("st_soak: {}\n", ran.error().message);
  }
  if (!ran || !findings.empty()) {
    fmt::print("{}\n{}\n", soak.trace(), soak.logs());
    return 1;
  }
  return 0;
}
