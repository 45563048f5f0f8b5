// SPDX-License-Identifier: Apache-2.0
// NaiveNode: pods whose connections skip TCP by a program that has no guards (naive/naive.bpf.c).
// No Sidetrack runs. Thread rule: one owner.
#pragma once

#include "tests/dataplane/fast_node.h"

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

  // The scenario on plain TCP and with the naive program must not say the same.
  void expect_different(const Scenario& scenario);

 private:
  naive_bpf* naive_ = nullptr;
};

}  // namespace sidetrack::lab
