// SPDX-License-Identifier: Apache-2.0
// NaiveNode: pods whose connections skip TCP by a program that has no guards (naive/naive.bpf.c).
// No Sidetrack runs. Thread rule: one owner.
#pragma once

#include <map>
#include <utility>

#include "tests/dataplane/fast_node.h"

struct bpf_program;
struct naive_bpf;

namespace sidetrack::lab {

class NaiveNode : public FastNode {
 protected:
  void SetUp() override;
  void TearDown() override;

  // A connection whose ends are put in when they are established.
  Ends open_naive(Route route = Route::kV4, Blocking blocking = Blocking::kNo);
  // Connections that are made while `make` runs are put in.
  void watch(const std::function<void()>& make);
  // One end, or both, now; and out again.
  void put_in(const UniqueFd& fd);
  void put_in(const Ends& ends);
  void take_out(const UniqueFd& fd);

  // Cookies of clients, by the next byte that each sends and expects.
  using Pairs = std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t>;
  // What the program that notes pairs has of those that were established while `make` ran.
  [[nodiscard]] Pairs noted(const std::function<void()>& make);

  // The scenario on plain TCP and with the naive program must not say the same.
  void expect_different(const Scenario& scenario);

 private:
  void run_with(bpf_program* program, const std::function<void()>& make);

  naive_bpf* naive_ = nullptr;
};

}  // namespace sidetrack::lab
