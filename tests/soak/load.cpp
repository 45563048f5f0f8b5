// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/load.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <numeric>
#include <sstream>
#include <thread>
#include <utility>

namespace sidetrack::soak {

namespace {

// Of all CPUs, since boot, in ticks: idle and in all.
std::pair<std::int64_t, std::int64_t> cpu_ticks() {
  // user nice system idle iowait irq softirq steal; what guests got is in the first two
  std::array<std::int64_t, 8> ticks{};
  std::ifstream file("/proc/stat");
  std::string name;
  file >> name;
  for (std::int64_t& tick : ticks) {
    file >> tick;
  }
  return {ticks[3] + ticks[4], std::accumulate(ticks.begin(), ticks.end(), std::int64_t{0})};
}

}  // namespace

Result<Load> Load::begin() {
  Load load;
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i) {
    auto spins = lab::Process::start({.arguments = {"sh", "-c", "while :; do :; done"}});
    ST_TRY(spins);
    load.programs_.push_back(std::move(*spins));
  }
  std::tie(load.idle_before_, load.all_before_) = cpu_ticks();
  return load;
}

double Load::idle_percent() const {
  const auto [idle, all] = cpu_ticks();
  return all == all_before_ ? 100.0
                            : 100.0 * static_cast<double>(idle - idle_before_) /
                                  static_cast<double>(all - all_before_);
}

std::string Load::ended() {
  std::string said;
  for (const auto& program : programs_) {
    if (!program->running()) {
      said += "ended: " + program->output() + "\n";
    }
  }
  return said;
}

std::uint64_t steered_to_other_cpus() {
  constexpr int kReceivedRps = 9;  // column of /proc/net/softnet_stat
  std::uint64_t sum = 0;
  std::ifstream file("/proc/net/softnet_stat");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    for (int i = 0; i <= kReceivedRps; ++i) {
      words >> word;
    }
    sum += std::stoull(word, nullptr, 16);
  }
  return sum;
}

}  // namespace sidetrack::soak
